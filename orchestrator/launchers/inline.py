"""Runs a batch in this very process, one task after another: for debuggers and tests."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.launchers import _processes
from orchestrator.launchers.launcher import JobState, Launcher, Submission
from workers.processes import Process
from workers.settings import setting


@dataclass(frozen=True, kw_only=True)
class Inline(Launcher):
    """Blocks until all tasks have ended. No limits hold, and what kills a task kills this process."""

    device: str = setting("cpu")
    raise_errors: bool = setting(False, help="let a task's exception through, to a debugger")

    def submit(self, root: Path, token: str, submission: Submission, code_path: Path) -> str:
        """Run the batch here; the code is what this process has loaded, `code_path` is not used."""
        from workers import inline

        inline.run(root, token, device=self.device, raise_errors=self.raise_errors)
        return str(Process.of_pid(os.getpid()))

    def states(self, root: Path, tokens: Sequence[str]) -> dict[str, JobState]:
        """Ended, where they ran."""
        found = {token: _processes.state(root, token) for token in tokens}
        return {token: state for token, state in found.items() if state is not None}

    def cancel(self, root: Path, tokens: Sequence[str]) -> None:
        """Nothing to do: `submit` returns when all have ended."""
