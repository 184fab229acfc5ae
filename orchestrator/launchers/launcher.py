"""What a launcher does: hand submissions to something that runs their jobs, say what became of them, and end them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from workers.errors import EigensweepError
from workers.settings import Plugin
from workers.taskdir import Task

QUEUED, RUNNING, ENDED = "queued", "running", "ended"


class SchedulerSilent(EigensweepError):
    """The scheduler gave no answer; nothing may be concluded from that."""


class SubmissionUnknown(EigensweepError):
    """The scheduler's answer was lost: the jobs may be queued; they are found by their name, or fenced."""


class SubmissionRefused(EigensweepError):
    """The scheduler said no, and nothing is queued. `temporary`: a limit of the moment, so try again later."""

    def __init__(self, message: str, *, temporary: bool = False) -> None:
        super().__init__(message)
        self.temporary = temporary


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """What is known of a job. `state` is "queued", "running" or "ended"; `reason` is the scheduler's own word.

    `explanation`: what is wrong, in plain words, with the command that mends it. `cause`: the class (DESIGN section 6) of what an
    ended job left unended, `earlier` those of its runs before it was requeued, oldest first. `doubtful`: it ended, but the
    scheduler may yet requeue it. `position`: place in the queue, and its length.
    """

    state: str
    job_id: str
    reason: str = ""
    explanation: str = ""
    exit_code: int | None = None
    peak_memory_mib: float | None = None
    cause: str = ""
    earlier: tuple[str, ...] = ()
    doubtful: bool = False
    nodes: tuple[str, ...] = ()
    seconds: float | None = None
    limit_seconds: float | None = None
    start_estimate: str = ""
    position: tuple[int, int] | None = None
    energy_joules: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """The jobs of one call of the scheduler, all of one shape: the tasks of each, and what each asks for (`request`, plain values)."""

    jobs: list[list[Task]]
    request: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Launcher(Plugin):
    """Runs batches: `python -P -m workers ROOT TOKEN` for each, then a tick.

    `ticks`: each submission ends with a tick of its own. `restarts`: a job may run again under its token. `detaches`: nobody
    waits for the jobs unless told to.
    """

    package: ClassVar[str] = "orchestrator"
    group: ClassVar[str] = "launchers"
    ticks: ClassVar[bool] = False
    restarts: ClassVar[bool] = False
    detaches: ClassVar[bool] = False
    gangs: ClassVar[bool] = False  # a task that asks for several nodes has them; else it runs on one
    alone_has_all: ClassVar[bool] = True  # a task that is alone may have all the memory there is, at no cost to others

    @property
    def poll_seconds(self) -> float:
        """At least so long between two questions to the scheduler, where nobody has asked for an answer now."""
        return 0.0

    @property
    def doubt_seconds(self) -> float:
        """A job that seems lost is looked at again after this long, before it is given up."""
        return 0.0

    def cut(self, tasks: Sequence[Task], expected: Mapping[str, float], exclude: Sequence[str] = ()) -> list[Submission]:
        """Cut tasks, given inputs first, into jobs; here one job carries them all.

        `expected`: seconds of a task by `taskdir.shape_name`, as far as they are known. `exclude`: hosts to stay away from. Raises
        SchedulerSilent where the scheduler must be asked for that, and gives no answer.
        """
        return [Submission(jobs=[list(tasks)])] if tasks else []

    def submit(self, root: Path, token: str, submission: Submission, code_path: Path) -> str:
        """Start the jobs of a submission, with the source at `code_path`; returns the scheduler's id.

        Raises SubmissionRefused where nothing was started, SubmissionUnknown where that cannot be told.
        """
        raise NotImplementedError

    def adopt(self, root: Path, base: str, job_id: str, code_path: Path) -> None:
        """Do what `submit` does after the scheduler has taken the jobs, where nobody did."""
        return

    def states(self, root: Path, tokens: Sequence[str]) -> dict[str, JobState]:
        """What became of the jobs; a token that is absent has no record. Raises SchedulerSilent."""
        raise NotImplementedError

    def untended(self, root: Path, base: str) -> str:
        """Why nobody goes on after a submission's jobs; empty: they end with a tick, or whoever submitted waits for them."""
        return ""

    def positions(self, waiting: Mapping[str, JobState]) -> dict[str, JobState]:
        """The same with their places in the queue, as far as these are to be had; for people, at most once in `poll_seconds`."""
        return dict(waiting)

    def cancel(self, root: Path, tokens: Sequence[str]) -> None:
        """Have the jobs checkpoint and end; called again after the grace, kill them."""
        raise NotImplementedError

    def cut_all(self, tasks: Sequence[Task], expected: Mapping[str, float], exclude: Sequence[str] = ()) -> list[Submission]:
        """As `cut`, also what the scheduler would not take at once."""
        return self.cut(tasks, expected, exclude)

    def check_jobs(self, root: Path, tasks: Sequence[Task], *, submitting: bool) -> str:
        """Raise ConfigError where jobs of these tasks, one of each shape, could never run; in words what could not be checked.

        `submitting`: the scheduler must be there.
        """
        return ""

    def scripts(self, root: Path, token: str, submission: Submission, code_path: Path) -> dict[str, str]:
        """The exact texts that `submit` would hand to the scheduler, by file name."""
        return {}

    def larger_gpus(self) -> Sequence[str]:
        """Types of GPUs with more memory than those that tasks are given, smallest first."""
        return ()

    def most_memory_gib(self) -> float:
        """Memory that one task can have at most where the jobs run; what needs more has failed for good."""
        return float("inf")

    def num_slots(self) -> int:
        """Tasks that run at once where nothing else is at work, for the cost shown by `plan`."""
        return 1

    def batches(self, tasks: Sequence[Task]) -> list[list[Task]]:
        """The tasks of each job."""
        return [job for submission in self.cut(tasks, {}) for job in submission.jobs]
