"""Memory limits of the children: a cgroup where one may be made, else a watchdog; and what a child sees of its own limits."""

import contextlib
import functools
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from workers.processes import start_ticks

WATCH_SECONDS = 0.1
OOM_SECONDS = 15.0
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A cgroup folder in which this process may make groups with a memory limit, and the names its version uses."""

    folder: Path
    limit: str
    swap_limit: str
    peak: str
    events: str


@dataclass(frozen=True, slots=True)
class Group:
    """One child's memory cgroup."""

    hierarchy: Hierarchy
    folder: Path

    def add(self, pid: int) -> None:
        """Move a process here; what it starts later is counted too."""
        (self.folder / "cgroup.procs").write_text(str(pid))

    def oom_kills(self) -> int:
        """How many processes of the group the kernel has killed for memory."""
        return _oom_kills(self.folder / self.hierarchy.events) or 0

    def peak_mib(self) -> float:
        """Highest memory of the group, its page cache included; 0 where the kernel does not keep it."""
        try:
            return int((self.folder / self.hierarchy.peak).read_text()) / _MIB
        except (OSError, ValueError):
            return 0.0

    def remove(self, deadline_seconds: float = 1.0) -> None:
        """Kill what is left in the group and remove it; the kernel may need a moment to let go of a dead process."""
        deadline = time.monotonic() + deadline_seconds
        while True:
            _kill_members(self.folder)
            try:
                self.folder.rmdir()
            except FileNotFoundError:
                return
            except OSError:
                if time.monotonic() > deadline:
                    return
                os.sched_yield()
            else:
                return


def _kill_members(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for pid in (folder / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


@functools.cache
def hierarchy() -> Hierarchy | None:
    """Where this process may make memory cgroups; None where it may not (then a watchdog serves)."""
    for line in _lines("/proc/self/cgroup"):
        number, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            found = _usable(_mount("cgroup", "memory"), path, version=1)
        elif number == "0":
            found = _usable(_mount("cgroup2", ""), path, version=2)
        else:
            continue
        if found is not None:
            return found
    return None


def _usable(mount: Path | None, path: str, *, version: int) -> Hierarchy | None:
    """The group at `path` if a trial group below it gets a memory limit."""
    if mount is None:
        return None
    names = {
        1: ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control"),
        2: ("memory.max", "memory.swap.max", "memory.peak", "memory.events"),
    }[version]
    for folder in (mount / path.lstrip("/"), mount):
        if (folder / "cgroup.procs").exists():
            found = Hierarchy(folder, *names)
            try:
                _make(found, f"eigensweep-trial-{os.getpid()}", 2**30).remove()
            except OSError:
                return None
            return found
    return None


def _mount(kind: str, controller: str) -> Path | None:
    for line in _lines("/proc/self/mounts"):
        _, target, type_, options, *_ = line.split()
        if type_ == kind and (not controller or controller in options.split(",")):
            return Path(target)
    return None


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def make_group(name: str, limit_bytes: int) -> Group | None:
    """A new group with a limit; None where this machine offers none."""
    found = hierarchy()
    if found is None:
        return None
    try:
        return _make(found, name, limit_bytes)
    except OSError:
        return None


def _make(found: Hierarchy, name: str, limit_bytes: int) -> Group:
    group = Group(found, found.folder / name)
    group.folder.mkdir()
    try:
        (group.folder / found.limit).write_text(str(limit_bytes))
        with contextlib.suppress(OSError):  # no swap accounting: nothing to limit
            (group.folder / found.swap_limit).write_text(str(limit_bytes if found.limit.endswith("in_bytes") else 0))
    except OSError:
        group.remove()
        raise
    return group


def group_name(pid: int, number: int) -> str:
    """Name of a job's `number`-th group; it holds the job's process, so that a later job can clear what a killed one left."""
    return f"eigensweep-{pid}-{start_ticks(pid)}-{number}"


def clear_abandoned() -> None:
    """Remove the groups of jobs that no longer live."""
    found = hierarchy()
    if found is None:
        return
    for folder in found.folder.glob("eigensweep-*-*-*"):
        _, pid, ticks, _ = folder.name.split("-")
        if pid.isdigit() and str(start_ticks(int(pid))) != ticks:
            Group(found, folder).remove(deadline_seconds=0.0)


# -- processes ------------------------------------------------------------------------------------------------------


def tree_mib(pid: int) -> float:
    """Resident memory of a process and all that it started."""
    pages = 0
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    children: set[int] = set()
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            children.update(map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split()))
    return pages * os.sysconf("SC_PAGE_SIZE") / _MIB + sum(map(tree_mib, children))


def total_memory_gib() -> float:
    """Memory that a job may use here: the machine's, or less where this process stands in a limited cgroup."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(total, own_limit_bytes() or total) / 2**30


def own_limit_bytes() -> int | None:
    """The memory limit of the cgroup that this process is in; None: none to be seen."""
    limits = []
    for line in _lines("/proc/self/cgroup"):
        number, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            mount, name = _mount("cgroup", "memory"), "memory.limit_in_bytes"
        elif number == "0":
            mount, name = _mount("cgroup2", ""), "memory.max"
        else:
            continue
        with contextlib.suppress(OSError, ValueError):
            limits.append(int(((mount or Path("/")) / path.lstrip("/") / name).read_text()))
    return min(limits, default=None)


@dataclass(slots=True)
class OomWatch:
    """Notices that the kernel has killed for memory in the cgroup that this job was put into, where it makes none of its own."""

    counts: dict[str, int] = field(default_factory=dict)
    seen_at: float = float("-inf")

    def look(self) -> None:
        """Read the counters."""
        now = own_oom_kills()
        if self.counts and any(count > self.counts.get(name, 0) for name, count in now.items()):
            self.seen_at = time.monotonic()
        self.counts = now

    def take(self) -> bool:
        """Whether the kernel has just done so, told once; the counter may be read a little before a child is found dead."""
        recent = time.monotonic() - self.seen_at < OOM_SECONDS
        self.seen_at = float("-inf")
        return recent


def own_oom_kills() -> dict[str, int]:
    """Counters of the cgroup that this process is in and of those around it that belong to the same SLURM job, by their folder."""
    found = {}
    for line in _lines("/proc/self/cgroup"):
        number, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            mount, name = _mount("cgroup", "memory"), "memory.oom_control"
        elif number == "0":
            mount, name = _mount("cgroup2", ""), "memory.events"
        else:
            continue
        for folder in _of_this_job((mount or Path("/")) / path.lstrip("/")):
            if (count := _oom_kills(folder / name)) is not None:
                found[str(folder)] = count
    return found


def _of_this_job(folder: Path) -> list[Path]:
    """The cgroup and those around it, up to that of the SLURM job; outside of SLURM it alone, for others have theirs beside it."""
    around = [folder, *folder.parents]
    jobs = [number for number, one in enumerate(around) if one.name.startswith("job_")]
    return around[: jobs[0] + 1 if jobs else 1]


def _oom_kills(path: Path) -> int | None:
    for line in _lines(str(path)):
        name, _, count = line.partition(" ")
        if name == "oom_kill":
            return int(count)
    return None


def unmet(cpus: list[int], limit_bytes: int | None) -> str:
    """Which limit this process finds itself without, asked of the kernel from inside; empty: all hold. No CPUs: it is not pinned."""
    if cpus and set(os.sched_getaffinity(0)) != set(cpus):
        return f"may run on cpus {sorted(os.sched_getaffinity(0))}, expected {sorted(cpus)}"
    page = os.sysconf("SC_PAGE_SIZE")
    if limit_bytes is not None and own_limit_bytes() != limit_bytes // page * page:
        return f"memory limit is {own_limit_bytes()} bytes, expected {limit_bytes}"
    return ""
