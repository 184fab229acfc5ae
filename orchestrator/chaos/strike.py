"""Sends a signal to the child that runs a task: `python -P -m orchestrator.chaos.strike JOB_PID JOB_START LOG SIGNAL` on its node.

The job is known by its process id and its start time, the child by its parent and by the log that it writes: nobody else is hit.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from workers.processes import start_ticks


def strike(job_pid: int, job_start: int, log: str, number: int) -> bool:
    """Whether the child of that job which writes to `log` was found, and takes this signal as it is meant."""
    if not job_start or start_ticks(job_pid) != job_start:
        return False
    for pid in _children(job_pid):
        if _log_of(pid) == log and (number == 9 or _catches(pid, number)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
                return True
    return False


def _children(pid: int) -> Iterator[int]:
    """The youngest first: a child that leaves a slot may still be there beside the one that has it."""
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            yield from sorted(map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split()), key=start_ticks, reverse=True)


def _log_of(pid: int) -> str:
    """Name of the file that a child's output goes to."""
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/fd/1"))
    except OSError:
        return ""


def _catches(pid: int, number: int) -> bool:
    """Whether the process has a handler for the signal; without one it would just die."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


if __name__ == "__main__":
    job_pid, job_start, log, number = sys.argv[1:]
    sys.exit(not strike(int(job_pid), int(job_start), log, int(number)))
