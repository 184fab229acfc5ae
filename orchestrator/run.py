"""Runs one task, and what it needs, in this process: for a debugger and for a first try."""

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from orchestrator import code, where
from orchestrator.chosen import choices
from orchestrator.compose import compose
from orchestrator.ledger import read as read_ledger
from orchestrator.store import Store
from orchestrator.sweep import Sweep, expand
from orchestrator.watch import Watch
from workers import taskdir
from workers.errors import ConfigError
from workers.taskdir import Commit

Report = Callable[[dict[str, Any]], None]


def run(overrides: Sequence[str], store: Store, config_dirs: Sequence[Path] = (), report: Report = lambda message: None) -> Commit:
    """Compose one task, run it and the inputs that are not committed here, and give its commit. Exceptions come through as they are."""
    sweep = expand(compose(overrides, config_dirs, choices=choices(store)))
    targets = [index for index in range(len(sweep.keys)) if sweep.is_target(index)]
    if len(targets) != 1:
        raise ConfigError(
            f"`run` takes one task, these settings give {len(targets)}: fix every axis to one value, or use `eigensweep submit`"
        )
    return _run_with_inputs(sweep, targets[0], store, report)


def run_key(name: str, prefix: str, store: Store, report: Report = lambda message: None) -> Commit:
    """Run one task of a sweep by the beginning of its key."""
    sweep = Watch.of(store).sweep(name)
    return _run_with_inputs(sweep, where.find_key(sweep, prefix), store, report)


def _run_with_inputs(sweep: Sweep, index: int, store: Store, report: Report) -> Commit:
    ledger = read_ledger(store.root)
    for position in sweep.inputs(index):
        if not taskdir.is_committed(store.root, ledger.name_of(sweep.keys[position])):
            _run_with_inputs(sweep, position, store, report)
    key = sweep.keys[index]
    name = ledger.name_of(key)
    if not taskdir.is_committed(store.root, name):
        _execute(sweep, index, store, report)
    return taskdir.read_commit(store.root, name)


def _execute(sweep: Sweep, index: int, store: Store, report: Report) -> None:
    from dataclasses import replace

    from workers.execute import execute

    ledger = read_ledger(store.root)
    key = sweep.keys[index]
    task = sweep.task(index)
    task = replace(
        task,
        inputs={field: ledger.name_of(input_key) for field, input_key in task.inputs.items()},
        generation=ledger.generations.get(key, 0),
        sweeps=[sweep.name] if sweep.name in ledger.sweeps else [],
    )
    report({"task": where.describe(sweep, index), "key": key})
    attempt = f"inline-{secrets.token_hex(3)}-0-0-{secrets.token_hex(3)}"
    execute(store.root, task, attempt=attempt, code=code.identify(store, sweep.modules()).code, report=report, reraise=True)
