"""The one way in which SLURM is asked: a command without a shell, with a time limit, whose answer is text or an error that says so."""

import os
import signal
import subprocess
from collections import Counter
from collections.abc import Sequence

from orchestrator.launchers.launcher import SchedulerSilent
from workers.errors import ConfigError

# by program, since this process began: tests and benchmarks count what a tick costs the scheduler
calls: Counter[str] = Counter()

# what a user sets there for reading by eye would hide jobs from us
_FILTERS = ("SQUEUE_", "SACCT_", "SINFO_", "SACCTMGR_", "SCONTROL_")


class NoScheduler(ConfigError, SchedulerSilent):
    """SLURM's commands are not on this machine."""


def call(argv: Sequence[str], timeout_seconds: float = 60.0) -> str:
    """What the command prints.

    Raises SchedulerSilent where it fails, has no time left, or prints nothing but an error; NoScheduler where there is no such command.
    """
    calls[argv[0]] += 1
    code, out, err = _run(argv, timeout_seconds)
    # squeue ends with 0 for a user it does not know: an empty answer, and no knowledge
    if code or (not out.strip() and "error:" in err):
        raise SchedulerSilent(f"{argv[0]} gave no answer ({_told(code, err or out)})")
    return out


def _run(argv: Sequence[str], timeout_seconds: float) -> tuple[int, str, str]:
    try:
        # a session of its own: site wrappers leave children that would hold the pipes
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
    except FileNotFoundError:
        raise NoScheduler(
            f"there is no {argv[0]} on PATH on {os.uname().nodename}; run this where SLURM's commands are, such as a login node"
        ) from None
    except OSError as error:
        raise SchedulerSilent(f"{argv[0]} cannot be started: {error}") from None
    with process:
        try:
            out, err = process.communicate(timeout=timeout_seconds)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise SchedulerSilent(f"{argv[0]} gave no answer in {timeout_seconds:g} s") from None
            raise
    return process.returncode, out, err


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FILTERS)}
    # bit strings: the elements of an array in full, however many
    return kept | {"LC_ALL": "C", "SLURM_TIME_FORMAT": "standard", "SLURM_BITSTR_LEN": "0"}


def _told(code: int, text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "; ".join(dict.fromkeys(lines))[:500] or f"exit code {code}"
