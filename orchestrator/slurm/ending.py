"""Ends jobs: those that wait at once, those that run after an order to end and its grace."""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from orchestrator.launchers.launcher import QUEUED, RUNNING, JobState
from orchestrator.slurm.commands import call
from workers import files, taskdir
from workers.processes import boot_id

# what a job needs beside its tasks' grace, to see the order and to write its last words
JOB_GRACE_SECONDS = 30.0
_IDS_PER_CALL = 200


def cancel(root: Path, states: Mapping[str, JobState], grace_seconds: float) -> None:
    """End the jobs of these batches; raises SchedulerSilent where SLURM cannot be told.

    A job that runs finds an order among its files, upon which its tasks write their checkpoints; it is killed when a call comes after
    the grace. Not by scancel at once: it kills after KillWait, 30 s by default. Nor by a signal of scancel: to an element of an array
    SLURM 22.05 sends it again and again ("Job is in transitional state, retrying"), and the second kills. A job that waits has
    nothing to save. No filter by state either: with one, scancel of some waiting elements ends all that wait.
    """
    waiting = [state.job_id for state in states.values() if state.state == QUEUED]
    late = [
        state.job_id
        for token, state in states.items()
        if state.state == RUNNING and _order(root, token) > grace_seconds + JOB_GRACE_SECONDS
    ]
    found = list(_joined([*waiting, *late]))
    for start in range(0, len(found), _IDS_PER_CALL):
        # quiet: a job that has ended meanwhile is none to complain of
        call(["scancel", "--quiet", *found[start : start + _IDS_PER_CALL]])


def _order(root: Path, token: str) -> float:
    """Tell a job to end, once; how long ago this machine did so, in seconds. Another machine's clock says nothing here."""
    path = taskdir.batch_dir(root, token) / f"cancel-{boot_id()}.json"
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    files.make_dirs(path.parent)
    if not path.exists():
        files.publish(path, files.encode({"keys": None, "at": now}))
    return now - float(files.read(path)["at"])


def _joined(job_ids: Iterable[str]) -> Iterator[str]:
    """`12`, and the elements of one array together: `13_[0-4,7]`."""
    arrays: dict[str, list[int]] = defaultdict(list)
    for job_id in job_ids:
        array, _, element = job_id.partition("_")
        if element:
            arrays[array].append(int(element))
        else:
            yield array
    for array, elements in arrays.items():
        yield f"{array}_[{','.join(_runs(sorted(elements)))}]"


def _runs(numbers: Sequence[int]) -> Iterator[str]:
    start = 0
    for end in range(1, len(numbers) + 1):
        if end == len(numbers) or numbers[end] != numbers[end - 1] + 1:
            yield f"{numbers[start]}-{numbers[end - 1]}" if end - start > 1 else str(numbers[start])
            start = end
