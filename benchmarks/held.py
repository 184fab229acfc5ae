"""A launcher of one's own, `launcher=benchmarks.held`: it takes batches and starts nothing, so that a benchmark times what comes before."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.launchers.launcher import JobState, Launcher, Submission
from workers.settings import setting


@dataclass(frozen=True, kw_only=True)
class Held(Launcher):
    """One job for all tasks, which whoever wants to starts by hand: `python -P -m workers ROOT TOKEN`."""

    slots: int = setting(2, low=1)

    def submit(self, root: Path, token: str, submission: Submission, code_path: Path) -> str:
        """Start nothing."""
        return "held"

    def states(self, root: Path, tokens: Sequence[str]) -> dict[str, JobState]:
        """Nothing is known of jobs that nobody has started."""
        return {}

    def cancel(self, root: Path, tokens: Sequence[str]) -> None:
        """There is nothing to end."""
