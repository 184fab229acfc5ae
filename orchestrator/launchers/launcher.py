"""What a launcher does: hand batches to something that runs their jobs, say what became of them, and end them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from workers.errors import EigensweepError
from workers.settings import Plugin
from workers.taskdir import Task

QUEUED, RUNNING, ENDED = "queued", "running", "ended"


class SchedulerSilent(EigensweepError):
    """The scheduler gave no answer; nothing may be concluded from that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """What is known of a job. `state` is "queued", "running" or "ended"; `reason` is the scheduler's own word."""

    state: str
    job_id: str
    reason: str = ""
    exit_code: int | None = None
    peak_memory_mib: float | None = None


@dataclass(frozen=True, kw_only=True)
class Launcher(Plugin):
    """Runs batches: `python -P -m workers ROOT TOKEN` for each, then a tick."""

    package: ClassVar[str] = "orchestrator"
    group: ClassVar[str] = "launchers"
    ticks: ClassVar[bool] = False  # whether each job ends with a tick of its own

    def batches(self, tasks: Sequence[Task]) -> list[list[Task]]:
        """Cut tasks, given inputs first, into the tasks of one job each; here one job carries them all."""
        return [list(tasks)] if tasks else []

    def submit(self, root: Path, tokens: Sequence[str], code_path: Path) -> dict[str, str]:
        """Start a job for each batch, with the source at `code_path`; returns job ids by token."""
        raise NotImplementedError

    def states(self, root: Path, tokens: Sequence[str]) -> dict[str, JobState]:
        """What became of the jobs; a token that is absent has no record. Raises SchedulerSilent."""
        raise NotImplementedError

    def cancel(self, root: Path, tokens: Sequence[str]) -> None:
        """Have the jobs checkpoint and end; called again after the grace, kill them."""
        raise NotImplementedError

    def most_memory_gib(self) -> float:
        """Memory that one task can have at most where the jobs run; what needs more has failed for good."""
        return float("inf")

    def num_slots(self) -> int:
        """Tasks that run at once where nothing else is at work, for the cost shown by `plan`."""
        return 1
