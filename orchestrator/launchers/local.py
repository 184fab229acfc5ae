"""The embedded launcher: jobs are detached processes of this machine that share its slots."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from orchestrator.launchers import _processes
from orchestrator.launchers.launcher import JobState, Launcher, Submission
from workers import files, limits, taskdir
from workers.processes import Process
from workers.settings import setting

# The last command ticks, so that the store is up to date also where nobody watches.
_COMMANDS = """trap '' HUP
"$1" -P -m workers "$2" "$3"
"$1" -P -m orchestrator tick --root "$2"
"""


@dataclass(frozen=True, kw_only=True)
class Local(Launcher):
    """Warm child processes on this machine; several jobs together never use more than it has."""

    ticks: ClassVar[bool] = True

    slots: int | None = setting(None, low=1, help="tasks at once; none: as many as CPUs allow")
    cpus_per_slot: int = setting(1, low=1)
    memory_gib: float | None = setting(None, above=0, unit="GiB", help="for all slots together; none: 90 % of the machine")
    grace_seconds: float = setting(10.0, low=0, unit="s", help="between the warning of a task and its end")
    devices: tuple[int, ...] | None = setting(None, low=0, help="numbers of the GPUs; none: all that are visible")
    tasks_per_gpu: int = setting(1, low=1)
    ensemble_size: int | None = setting(
        None, low=1, help="most tasks with ensemble=true that train as one in a slot; 1: each by itself; null: as the workload says"
    )
    limit_memory_by: str = setting("auto", choices=("auto", "cgroup", "watchdog", "none"))

    def submit(self, root: Path, token: str, submission: Submission, code_path: Path) -> str:
        """Start a detached shell: the job, then a tick."""
        path = os.pathsep.join(filter(None, (str(code_path), os.environ.get("PYTHONPATH"))))
        with open(taskdir.batch_dir(root, token) / "log", "ab", opener=files.opener) as log:
            # Popen, not kept: the shell outlives this process on purpose.
            shell = subprocess.Popen(
                ["sh", "-c", _COMMANDS, _processes.JOB, sys.executable, str(root.absolute()), token],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=root,
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,
                umask=files.UMASK,  # Python may write byte code of the frozen source before it comes to set its own
            )
        process = Process.of_pid(shell.pid)
        shell.returncode = 0
        _processes.write_job(root, token, process)
        return str(process)

    def states(self, root: Path, tokens: Sequence[str]) -> dict[str, JobState]:
        """By receipt and process table."""
        found = {token: _processes.state(root, token) for token in tokens}
        return {token: state for token, state in found.items() if state is not None}

    def cancel(self, root: Path, tokens: Sequence[str]) -> None:
        """SIGTERM to the jobs, in a call after the grace SIGKILL."""
        for token in tokens:
            _processes.cancel(root, token, self.grace_seconds)

    def most_memory_gib(self) -> float:
        """What all slots have together."""
        return self.memory_gib or 0.9 * limits.total_memory_gib()

    def num_slots(self) -> int:
        """As given, else by the CPUs that this process may use."""
        return self.slots or max(1, len(os.sched_getaffinity(0)) // self.cpus_per_slot)
