"""Runs a workload and its inputs in this process, in a folder that serves as a store, and gives back the commits."""

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workers import taskdir
from workers.execute import Ended, execute
from workers.taskdir import Commit, Task
from workers.workload import Workload


def task_of(workload: Workload) -> Task:
    """The task of a workload under a key of its settings (not the one that a plan would give)."""
    return Task(
        key=hashlib.sha256(repr(workload).encode()).hexdigest()[:26],
        workload=workload.plugin_name(),
        version=workload.version,
        settings=workload.to_plain(),
        inputs={name: task_of(input).key for name, input in needed(workload).items()},
    )


def needed(workload: Workload) -> dict[str, Workload]:
    """The tasks that one reads: its inputs, and what it goes on from."""
    earlier = workload.earlier()
    return workload.inputs() | ({} if earlier is None else {"earlier": earlier})


def attempt(
    root: Path,
    workload: Workload,
    name: str = "first",
    *,
    stop: threading.Event | None = None,
    report: Callable[[dict[str, Any]], None] = lambda message: None,
    reraise: bool = False,
) -> Ended:
    """One attempt at a task, without its inputs."""
    return execute(root, task_of(workload), attempt=name, code="test", stop=stop, report=report, reraise=reraise)


def committed(root: Path, workload: Workload) -> Commit:
    """The commit of a task, computed with all its inputs where it is not there yet."""
    task = task_of(workload)
    if not taskdir.is_committed(root, task.commit_name):
        for input in needed(workload).values():
            committed(root, input)
        attempt(root, workload, reraise=True)
    return taskdir.read_commit(root, task.commit_name)


def rows(root: Path, commit: Commit) -> dict[str, dict[str, list[Any]]]:
    """All rows of a commit, by table and column."""
    return {
        table: {name: list(values) for name, values in taskdir.read_rows(root, commit, table).items()} for table in taskdir.tables(commit)
    }


def scalars(commit: Commit) -> dict[tuple[str, int], float]:
    """(name, step) -> value of the commit's scalars."""
    columns = commit.rows["scalars"]
    return dict(zip(zip(columns["name"], columns["step"]), columns["value"]))


def last(commit: Commit) -> dict[str, float]:
    """The last value of each scalar."""
    return {name: value for (name, _), value in scalars(commit).items()}


class StopAfter(threading.Event):
    """Is set when it is asked for the n-th time: the workload asks once a step."""

    def __init__(self, num_steps: int) -> None:
        super().__init__()
        self.left = num_steps

    def is_set(self) -> bool:
        self.left -= 1
        return self.left <= 0


def contents(root: Path, commit: Commit) -> dict[str, bytes]:
    return {payload.name: taskdir.payload_path(root, commit, payload.name).read_bytes() for payload in commit.files}
