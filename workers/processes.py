"""Processes of this machine, told apart for good: process ids are used again, a start time within one boot is not."""

import contextlib
import ctypes
import functools
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36

# of mallopt, in malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def die_with(parent: int) -> None:
    """As `die_with_parent`; ends this process where that parent has ended already."""
    die_with_parent()
    if os.getppid() != parent:
        sys.exit(1)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, however that ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def adopt_orphans() -> None:
    """What loses its parent below this process becomes its child, and is found."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


@functools.cache
def boot_id() -> str:
    """Names this boot of this machine: process ids and counters compare within it only."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


def host_dir() -> Path:
    """A folder of this user on this host alone, never on a shared file system; gone at the latest when the host starts anew."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(runtime) / "eigensweep" if runtime and os.access(runtime, os.W_OK) else Path(f"/tmp/eigensweep-{os.getuid()}")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def start_ticks(pid: int) -> int:
    """When a process began, in clock ticks since boot; 0: there is none, or it is dead and not yet buried."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    state, *rest = text.rpartition(")")[2].split()
    return 0 if state in "ZX" else int(rest[18])


@dataclass(frozen=True, slots=True)
class Process:
    """A process of a host."""

    host: str
    boot: str
    pid: int
    start: int

    @classmethod
    def parse(cls, text: str) -> "Process":
        """From its text `host:boot:pid:start`."""
        host, boot, pid, start = text.rsplit(":", 3)
        return cls(host, boot, int(pid), int(start))

    @classmethod
    def of_pid(cls, pid: int) -> "Process":
        """A process that runs here now."""
        return cls(os.uname().nodename, boot_id(), pid, start_ticks(pid))

    def __str__(self) -> str:
        return f"{self.host}:{self.boot}:{self.pid}:{self.start}"

    @property
    def is_here(self) -> bool:
        """Whether it belongs to this machine, in this boot or an earlier one."""
        return self.host == os.uname().nodename

    @property
    def alive(self) -> bool:
        """Whether it still runs; to be asked of processes of this machine only."""
        return self.boot == boot_id() and self.start > 0 and start_ticks(self.pid) == self.start

    @property
    def began(self) -> float:
        """When it began, by this machine's clock; for a process of this boot. A script that became this process counts as it."""
        alive_seconds = time.clock_gettime(time.CLOCK_BOOTTIME) - self.start / os.sysconf("SC_CLK_TCK")
        return time.time() - max(0.0, alive_seconds)

    def signal(self, number: signal.Signals, *, group: bool = False) -> None:
        """Send it (or its process group) a signal if it lives."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if group else os.kill)(self.pid, number)


def keep_freed_memory() -> None:
    """Have this process keep what it frees for its next use (glibc; elsewhere nothing changes).

    Loops that make and free tensors of megabytes otherwise get them from the kernel each time, page by page.
    """
    import ctypes

    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter in (_MMAP_THRESHOLD, _TRIM_THRESHOLD):
            mallopt(parameter, 2**30)
