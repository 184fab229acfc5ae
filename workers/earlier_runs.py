"""What earlier runs of a job have left behind: tasks whose end stands, and tasks that died with a run."""

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workers import files, taskdir
from workers.agenda import COMMITTED
from workers.taskdir import Task, run_dir

# an attempt that ended so is followed by another in the same job
GOES_ON = frozenset(("interrupted", "timeout_progress"))
# so often a task may die with its job without having got further: beside others, then with none beside it, then no more
MAX_LOST_BESIDE_OTHERS, MAX_LOST = 2, 3


@dataclass(frozen=True, slots=True)
class Earlier:
    """`over`: keys that this job starts no more; the driver decides. `lost`: keys that died with an earlier run, to be started last.

    `alone`: those of them that have nothing beside them, since one of them may be what kills nodes, and the others only its victims.
    """

    over: frozenset[str] = frozenset()
    lost: frozenset[str] = frozenset()
    alone: frozenset[str] = frozenset()


@dataclass(slots=True)
class _History:
    """Folds the records of all runs, oldest first."""

    root: Path
    tasks: Mapping[str, Task]
    last: dict[str, str] = field(default_factory=dict)
    lost: Counter[str] = field(default_factory=Counter)
    steps: dict[str, int] = field(default_factory=dict)

    def add(self, run: list[dict[str, Any]]) -> None:
        started: dict[str, str] = {}
        for event in run:
            if event["event"] == "start":
                started[event["key"]] = event["attempt"]
            elif event["event"] == "end":
                started.pop(event["key"], None)
                self.last[event["key"]] = event["class"]
        for key, attempt in started.items():
            if key in self.tasks:
                self.last[key] = "lost"
                self.lost[key] += not self._got_further(key, attempt)

    def _got_further(self, key: str, attempt: str) -> bool:
        folder = taskdir.attempt_dir(self.root, self.tasks[key].commit_name, attempt)
        step = max(map(taskdir.checkpoint_step, files.names(folder)), default=-1)
        before = self.steps.get(key, -1)
        self.steps[key] = max(step, before)
        return step > before


def read(root: Path, folder: Path, run: int, tasks: list[Task]) -> Earlier:
    """Fold the runs before `run` of the batch at `folder`.

    A task that died with three runs and got no further in any is not started by a fourth: it is what kills them.
    """
    history = _History(root, {task.key: task for task in tasks})
    for number in range(run):
        history.add(list(_events(run_dir(folder, number) / "attempts.jsonl")))
    ended = {key for key, last in history.last.items() if last not in COMMITTED | GOES_ON | {"lost"}}
    often = {key: number for key, number in history.lost.items() if number >= MAX_LOST_BESIDE_OTHERS}
    open_ = {key: number for key, number in often.items() if not taskdir.is_committed(root, history.tasks[key].commit_name)}
    hopeless = {key for key, number in open_.items() if number >= MAX_LOST}
    lost = {key for key, last in history.last.items() if last == "lost"}
    return Earlier(frozenset(ended | hopeless), frozenset(lost - hopeless), frozenset(open_.keys() & lost - hopeless))


def _events(path: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        with contextlib.suppress(ValueError):  # a run that was killed within a write leaves half a record
            event = json.loads(line)
            if isinstance(event, dict) and "event" in event:
                yield event
