"""Makes stores with many commits without running their tasks: real keys, commits, manifests and datasets, by the project's own functions.

What is left out is the fsync of each commit and the job: no batch, receipt or log stands beside them.
"""

import json
import os
import random
import shutil
import time
from pathlib import Path

from measure import REPOSITORY, say

from workers import taskdir
from workers.taskdir import Commit, Task

PER_SWEEP = 10_000


def filled(root: Path, num_commits: int) -> Path:
    """A store of `num_commits` commits in finished, compacted sweeps of 10,000 tasks; made once, gone on with where it was interrupted."""
    from orchestrator.store import Store

    root.parent.mkdir(parents=True, exist_ok=True)
    Store.init(root)
    have = {name for name in Store.open(root).sweep_names() if name.startswith("filler-")}
    for number in range(num_commits // PER_SWEEP):
        name = f"filler-{number:03d}"
        if name in have and _is_settled(root, name):
            continue
        began = time.perf_counter()
        _add_sweep(root, name, number)
        say(f"  {(number + 1) * PER_SWEEP:,} of {num_commits:,} commits; the last 10,000 took {time.perf_counter() - began:.1f} s")
    return root


def _is_settled(root: Path, name: str) -> bool:
    from orchestrator import ledger

    return name in ledger.read(root).settled


def _add_sweep(root: Path, name: str, number: int) -> None:
    """Commits first, then the submission, which finds all done: it settles the sweep and compacts."""
    from orchestrator import submit
    from orchestrator.compose import compose
    from orchestrator.store import Store
    from orchestrator.sweep import expand

    first = 1_000_000_000 + number * PER_SWEEP  # apart from what a benchmark itself runs
    words = ["workload=noop", f"index=range({first},{first + PER_SWEEP})", "launcher=benchmarks.held", f"name={name}"]
    store = Store.open(root)
    sweep = expand(compose(words))
    (store.sweep_dir(name) / "done").mkdir(parents=True, exist_ok=True)
    for index in range(len(sweep)):
        write_commit(root, sweep.task(index), name)
    submit.submit(words, store)


def write_commit(root: Path, task: Task, sweep: str) -> None:
    """The commit of a no-op task as a job would have written it, and its hint; not synced."""
    index = task.settings["index"]
    columns = {"name": ["index", "square", "total"], "value": [float(index), float(index**2), float(index)], "step": [0, 1, 2]}
    commit = Commit(
        key=task.key,
        generation=0,
        attempt=f"{sweep}-{random.randbytes(6).hex()}-{index}-0-{random.randbytes(3).hex()}",
        workload=task.workload,
        version=task.version,
        settings=task.settings,
        inputs={},
        content={},
        status="ok",
        rows={"scalars": columns},
        files=[],
        code="0" * 16,
        host=os.uname().nodename,
        device="cpu",
        started=time.time(),
        seconds=random.uniform(1e-4, 1e-3),
        peak_memory_mib=random.uniform(20, 30),
    )
    path = taskdir.commit_path(root, task.key)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(commit.encode())
    taskdir.write_hints(root, task.key, [sweep])


def copied(source: Path, target: Path) -> Path:
    """A copy of a store, in which something may be timed that can be done once."""
    shutil.copytree(source, target, symlinks=True)
    return target


def run_by_hand(root: Path, token: str, python: str) -> None:
    """Run a held batch's job to its end, as a launcher would start it, but without the tick after it."""
    from measure import run

    from orchestrator.store import Store

    tasks = json.loads((root / "batches" / token / "tasks.json").read_text())["body"]
    code_path = Store.open(root).code_path(tasks["snapshot"])
    run([python, "-P", "-m", "workers", root, token], cwd=root, PYTHONPATH=str(code_path))


def import_from_repository() -> None:
    """Let `benchmarks.held` be found whatever the working folder."""
    import sys

    if str(REPOSITORY) not in sys.path:
        sys.path.append(str(REPOSITORY))
