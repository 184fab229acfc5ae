"""What a job's time allows: a task starts only where it will probably end before the job must."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from workers import taskdir
from workers.taskdir import Task

END_SECONDS = 15.0  # what a job needs beside its tasks' grace, to say how they ended and to have itself requeued
WARNING_SECONDS = 120.0
MOST_RESERVED = 0.25
EARLY = 0.05


@dataclass(slots=True, kw_only=True)
class Timetable:
    """Times on the monotonic clock; `ends` is when the scheduler ends the job, infinity where it has no end.

    `slowest`: `taskdir.shape_name` -> seconds of the slowest task that was ever committed, kept up to date by `learn`, with the time of
    a whole ensemble for one in it.
    """

    ends: float = float("inf")
    grace_seconds: float = 0.0
    slowest: dict[str, float] = field(default_factory=dict)
    begun: float = field(default_factory=time.monotonic)

    @classmethod
    def of_job(cls, seconds: float, grace_seconds: float, slowest: Mapping[str, float]) -> "Timetable":
        """Of a job that has so many seconds left."""
        return cls(ends=time.monotonic() + seconds, grace_seconds=grace_seconds, slowest=dict(slowest))

    @property
    def last_call(self) -> float:
        """When running tasks must be told to checkpoint and end."""
        return self.ends - self._reserved

    @property
    def last_moment(self) -> float:
        """When what has not ended must be killed, so that the job can still say so."""
        return self.ends - min(END_SECONDS, self._reserved / 3)

    @property
    def _reserved(self) -> float:
        """For the end; a short job keeps most of its time for work."""
        return min(self.grace_seconds + END_SECONDS, MOST_RESERVED * (self.ends - self.begun))

    @property
    def is_out_of_time(self) -> bool:
        """Whether a warning that comes now is that of the time limit, which schedulers send up to a minute early."""
        return time.monotonic() >= self.last_call - min(WARNING_SECONDS, (self.ends - self.begun) / 2)

    @property
    def is_early(self) -> bool:
        """Whether a task that starts now has nearly all the time that a job of this kind gives."""
        return time.monotonic() - self.begun <= EARLY * (self.ends - self.begun)

    def fits(self, task: Task) -> bool:
        """Whether the task will probably end in time."""
        return time.monotonic() + self.estimate(task) <= self.last_call

    def estimate(self, task: Task) -> float:
        """The slowest of its kind, else the time that it asks for."""
        known = self.slowest.get(taskdir.shape_name(task.workload, task.resources))
        return 60.0 * float(task.resources.get("walltime_minutes", 60.0)) if known is None else known

    def learn(self, task: Task, seconds: float) -> bool:
        """Take note of a committed task; True where its kind had no estimate before. Without an end of time nobody asks."""
        if math.isinf(self.ends):
            return False
        name = taskdir.shape_name(task.workload, task.resources)
        known = self.slowest.get(name)
        self.slowest[name] = max(seconds, known or 0.0)
        return known is None
