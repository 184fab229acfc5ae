"""Which task of a batch comes next: inputs first, lone ones late, suspects last, and no more of a workload that only fails."""

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from workers import taskdir
from workers.ensembles.groups import group_of
from workers.taskdir import Task

ALIKE_ERRORS = 3
COMMITTED = frozenset(("completed", "diverged", "superseded"))


@dataclass(slots=True)
class Agenda:
    """The tasks of a batch by their index: waiting for inputs of the same batch, ready, handed out, or set aside.

    `suspects`: keys that come after all others, because they may take the whole job with them; `loners` among them come at the very
    end, one after another.
    """

    tasks: Sequence[Task]
    suspects: Set[str] = frozenset()
    loners: Set[str] = frozenset()
    unfinished: int = 0
    stopped: set[str] = field(default_factory=set)
    aside: set[int] = field(default_factory=set)
    _ready: list[tuple[bool, bool, bool, int]] = field(default_factory=list)
    _groups: dict[int, str] = field(default_factory=dict)
    _missing: dict[int, int] = field(default_factory=dict)
    _dependents: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    _dropped: set[str] = field(default_factory=set)
    _ended: Counter[str] = field(default_factory=Counter)
    _errors: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def __post_init__(self) -> None:
        here = {task.commit_name for task in self.tasks}
        self.unfinished = len(self.tasks)
        for index, task in enumerate(self.tasks):
            inputs = {name for name in task.inputs.values() if name in here}
            self._missing[index] = len(inputs)
            for name in inputs:
                self._dependents[name].append(index)
            if not inputs:
                self.put_back(index)

    def peek(self) -> int | None:
        """Index of the next task that is ready; None: none is now."""
        while self._ready:
            index = self._ready[0][-1]
            task = self.tasks[index]
            if task.key not in self._dropped and task.workload not in self.stopped:
                return index
            heapq.heappop(self._ready)
            self.unfinished -= 1
        return None

    def pop(self) -> int:
        """Hand out the task that `peek` named."""
        return heapq.heappop(self._ready)[-1]

    def pop_mates(self, index: int, root: Path, running: Sequence[int], num_at_once: int, most: int) -> list[int]:
        """Hand out tasks that are ready to train with the task `index`: `most` at most with it, but so that `num_at_once` places get some.

        None that must be alone or is committed; suspects go with suspects. `running`: tasks that others train now.
        """
        group, suspect = self._group(index), self.tasks[index].key in self.suspects
        if not group or most == 1 or self.tasks[index].key in self.loners:
            return []
        alike = sorted(entry for entry in self._ready if self._group(entry[-1]) == group and entry[:-1] == (False, suspect, False))
        size = math.ceil((1 + len(alike) + sum(self._group(one) == group for one in running)) / num_at_once)
        waiting = [entry[-1] for entry in alike if self.tasks[entry[-1]].key not in self._dropped][: min(most, size) - 1]
        done = taskdir.committed(root, (self.tasks[one].commit_name for one in waiting))
        mates = {one for one in waiting if self.tasks[one].commit_name not in done}
        self._ready = [entry for entry in self._ready if entry[-1] not in mates]
        heapq.heapify(self._ready)
        return sorted(mates)

    def part(self, index: int) -> None:
        """The task trains with no others any more."""
        self._groups[index] = ""

    def _group(self, index: int) -> str:
        if index not in self._groups:
            self._groups[index] = group_of(self.tasks[index])
        return self._groups[index]

    def put_back(self, index: int) -> None:
        """A task that was handed out and did not run, or is to run again."""
        task = self.tasks[index]
        heapq.heappush(self._ready, (task.key in self.loners, task.key in self.suspects, needs_job_alone(task), index))

    def set_aside(self, index: int) -> None:
        """Keep a task that was handed out and cannot start now."""
        self.aside.add(index)

    def bring_back(self) -> None:
        """Have another look at those set aside."""
        for index in self.aside:
            self.put_back(index)
        self.aside.clear()

    def ended(self, index: int, outcome: str, fingerprint: str = "") -> bool:
        """Take note of an end: a commit makes dependents ready; True where it stops the task's workload.

        A workload is stopped by three alike errors that make up half of what ended in it.
        """
        task = self.tasks[index]
        self.unfinished -= 1
        if outcome in COMMITTED:
            for dependent in self._dependents[task.commit_name]:
                self._missing[dependent] -= 1
                if not self._missing[dependent]:
                    self.put_back(dependent)
        self._ended[task.workload] += 1
        if outcome != "user_error":
            return False
        alike = self._errors[task.workload]
        alike[fingerprint] += 1
        most = max(alike.values())
        stops = most >= ALIKE_ERRORS and 2 * most >= self._ended[task.workload] and task.workload not in self.stopped
        if stops:
            self.stopped.add(task.workload)
        return stops

    def skipped(self, index: int) -> None:
        """A task that somebody had committed already: its dependents may run."""
        self.ended(index, "superseded")
        self._ended[self.tasks[index].workload] -= 1

    def drop(self, keys: set[str]) -> None:
        """Start none of these any more."""
        self._dropped |= keys


def needs_job_alone(task: Task) -> bool:
    """Whether nothing may run beside a task: it was told so, or it runs on all nodes of its job."""
    return task.alone or task.resources.get("nodes", 1) > 1


def num_slots(task: Task, *, cpus_per_slot: int, memory_gib_per_slot: float, most: int) -> int:
    """How many slots a task occupies, by its CPUs and its memory; at most all there are."""
    cpus: int = math.ceil(task.resources.get("cpus", 1) / cpus_per_slot)
    memory: int = math.ceil(task.resources.get("memory_gib", 1.0) / memory_gib_per_slot)
    return max(1, min(most, max(cpus, memory)))
