"""What a submission would do: done, to run, stale, what leaves, and the cost. Writes nothing."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator import code as code_of
from orchestrator import where
from orchestrator.compose import Composed, compose
from orchestrator.cures import Means
from orchestrator.states import SweepStates, sweep_states
from orchestrator.store import Store
from orchestrator.sweep import Sweep, expand
from orchestrator.watch import Watch
from workers import taskdir
from workers.errors import ConfigError


@dataclass(slots=True)
class Plan:
    """The difference between a sweep and the store. `stale`: done by other code. `leaving`: keys the name would lose.

    `cost_hours`: slot-hours of what is left, (low, high); `unknown_cost`: tasks whose time nobody knows yet.
    """

    name: str
    target: str
    total: int
    axes: list[tuple[str, str, list[Any]]]
    counts: dict[str, int]
    by_workload: dict[str, dict[str, int]]
    stale: int
    leaving: list[str]
    cost_hours: tuple[float, float]
    unknown_cost: int
    walltime_seconds: tuple[float, float]
    num_jobs: int
    slots: int
    code: str
    warnings: list[str] = field(default_factory=list)
    next: str = ""


@dataclass(slots=True)
class Planned:
    """A sweep as asked for, with the store as it is."""

    composed: Composed
    sweep: Sweep
    watch: Watch
    states: SweepStates
    leaving: list[str]


def prepare(overrides: Sequence[str], store: Store, config_dirs: Sequence[Path] = (), grown: bool = False) -> Planned:
    """Compose, expand and compare; ConfigError before anything is written. `grown`: earlier tasks of the name stay in."""
    composed = compose(overrides, config_dirs)
    sweep = expand(composed)
    if not sweep.name:
        raise ConfigError(
            "the sweep has no name: add name=..., by which status, resume and load find it (or sweep=..., whose name it takes)"
        )
    watch = Watch.of(store)
    leaving: list[str] = []
    if sweep.name in watch.ledger.sweeps:
        earlier = watch.sweep(sweep.name)
        if grown:
            sweep = earlier.union(sweep)
            _refuse_alike(sweep)
        else:
            kept = set(sweep.keys)
            leaving = [key for key in earlier.keys if key not in kept]
    names = {watch.ledger.name_of(key) for key in sweep.keys}
    done = store.done(sweep.name)
    done |= taskdir.committed(store.root, names - done)
    return Planned(
        composed, sweep, watch, sweep_states(sweep, watch.ledger, done, watch.batches, Means.of(watch.launcher(sweep.launcher))), leaving
    )


def _refuse_alike(sweep: Sweep) -> None:
    """Raise ConfigError where two points of a grown sweep have the same value on every axis: nobody could tell them apart."""
    seen: dict[tuple[str, str], str] = {}
    for index, key in enumerate(sweep.keys):
        if sweep.is_target(index):
            point = (sweep.workload(index), str(sweep.axis_values(index)))
            if point in seen:
                axes = ", ".join(axis.name for axis in sweep.axes)
                raise ConfigError(
                    f"{sweep.name!r} would hold two tasks that no axis tells apart: {where.describe(sweep, index)}, {seen[point][:10]} and "
                    f"{key[:10]}. `add` takes new values of the sweep's axes ({axes}); to vary another setting, submit all its "
                    "values, such as num_steps=100,200, under another name=... (what is done is not run again)"
                )
            seen[point] = key


def plan(overrides: Sequence[str], store: Store, config_dirs: Sequence[Path] = (), grown: bool = False) -> Plan:
    """The plan of a submission with these settings."""
    return summarise(prepare(overrides, store, config_dirs, grown))


def summarise(planned: Planned) -> Plan:
    """Counts and cost of what was prepared."""
    sweep, states, watch = planned.sweep, planned.states, planned.watch
    code = code_of.identify(watch.store, sweep.modules()).code
    done = [index for index, state in enumerate(states.states) if state == "completed"]
    commits = {index: taskdir.read_commit(watch.store.root, watch.ledger.name_of(sweep.keys[index])) for index in done}
    to_run = [index for index, state in enumerate(states.states) if state == "pending"]
    low, high, unknown = _cost_seconds(sweep, to_run, commits)
    launcher = watch.launcher(sweep.launcher)
    slots = launcher.num_slots()
    num_jobs = len(launcher.batches([sweep.task(index) for index in to_run])) if to_run else 0
    counts = dict(Counter(states.states))
    return Plan(
        name=sweep.name,
        target=sweep.target,
        total=len(sweep.keys),
        axes=[(axis.name, axis.path, list(axis.values)) for axis in sweep.axes],
        counts=counts,
        by_workload=_by_workload(sweep, states),
        stale=sum(1 for commit in commits.values() if commit.code != code),
        leaving=planned.leaving,
        cost_hours=(low / 3600, high / 3600),
        unknown_cost=unknown,
        walltime_seconds=(low / slots, high / slots),
        num_jobs=num_jobs,
        slots=slots,
        code=code,
        next=_next(sweep.name, counts, planned.leaving),
    )


def _by_workload(sweep: Sweep, states: SweepStates) -> dict[str, dict[str, int]]:
    found: dict[str, Counter[str]] = {}
    for index, state in enumerate(states.states):
        found.setdefault(sweep.workload(index), Counter())[state] += 1
    return {workload: dict(counter) for workload, counter in found.items()}


def _cost_seconds(sweep: Sweep, indices: list[int], commits: dict[int, taskdir.Commit]) -> tuple[float, float, int]:
    """Quartiles of what committed tasks of the same workload took, else half and double the workload's own estimate."""
    taken: dict[str, list[float]] = {}
    for commit in commits.values():
        taken.setdefault(commit.workload, []).append(commit.seconds)
    low = high = 0.0
    unknown = 0
    for index in indices:
        seconds = taken.get(sweep.workload(index))
        estimate = sweep.estimated_seconds(index)
        if seconds:
            quartiles = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else seconds * 3
            low, high = low + quartiles[0], high + quartiles[2]
        elif estimate is not None:
            low, high = low + estimate / 2, high + 2 * estimate
        else:
            unknown += 1
    return low, high, unknown


def _next(name: str, counts: dict[str, int], leaving: list[str]) -> str:
    if leaving:
        return f"{len(leaving)} tasks would leave {name!r}: `eigensweep add` keeps them, `submit --replace` lets them go"
    if not counts.get("pending"):
        return f"eigensweep status {name}"
    return "the same with `submit` in place of `plan`"
