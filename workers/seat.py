"""A slot's child as its job sees it: how it is started, given tasks, warned, killed and buried."""

import contextlib
import fcntl
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workers import limits, messages
from workers.child import MAX_MESSAGE, STACK_DUMP, STOP, WARNING
from workers.execute import newer
from workers.files import FILE_MODE
from workers.limits import Group
from workers.slots import Slot
from workers.taskdir import Task

DUMP_SECONDS = 0.3
QUICK_SECONDS = 0.1
_CHILD_SOCKET = 3


@dataclass(slots=True, kw_only=True)
class Order:
    """A task handed to a child, and what is known of its attempt. `first`: it had all the time that its job could give it.

    `mates`: tasks that the child runs with it, as one ensemble; they wait, are warned and die with it, but each ends by itself.
    """

    index: int
    task: Task
    attempt: str
    seconds: float
    limit_gib: float
    started: float | None = None
    log_offset: int = 0
    checkpoint: int | None = None
    resumed_at: int | None = None
    warned: str = ""
    first: bool = False
    ended: bool = False
    mates: tuple["Order", ...] = ()

    @property
    def unit(self) -> tuple["Order", ...]:
        """All that the child runs at once."""
        return (self, *self.mates)

    @property
    def left(self) -> list["Order"]:
        """Those of them that have not ended."""
        return [order for order in self.unit if not order.ended]

    def warn(self, reason: str) -> None:
        """Note why all of them were told to end, where they were not yet."""
        for order in self.unit:
            order.warned = order.warned or reason

    @property
    def progressed(self) -> bool:
        """Whether it has left a checkpoint further on than where it began."""
        return newer(self.checkpoint, self.resumed_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a child is given for life; a task that needs another shape gets another child."""

    num_nodes: int
    num_slots: int
    threads: int
    num_gpus: int
    limit_bytes: int


@dataclass(slots=True, kw_only=True, eq=False)
class Seat:
    """One child on its slots. `orders[0]` is what it runs, or will once it is ready; a second one may wait behind it.

    `killed_by_kernel`: because the memory of the whole job was full; `evicted`: so, too, but through a neighbour's fault.
    """

    slots: list[Slot]
    gpus: list[str]
    shape: Shape
    group: Group | None
    grace_seconds: float
    pid: int = 0
    channel: socket.socket = field(init=False)
    orders: deque[Order] = field(default_factory=deque)
    ready: bool = False
    alone: bool = False
    unmet: str = ""
    quick: bool = False
    killed_for: str = ""
    killed_by_kernel: bool = False
    evicted: bool = False
    kill_at: float = float("inf")
    peak_mib: float = 0.0
    exit_status: int | None = None
    _childs_end: socket.socket = field(init=False)

    @property
    def number(self) -> int:
        """Number of its first slot, which names its log."""
        return self.slots[0].number

    @property
    def log(self) -> str:
        """Name of the file that holds what its tasks print."""
        return f"log-{self.number}"

    @property
    def cpus(self) -> list[int]:
        """All CPUs of its slots; none: it is not pinned."""
        return sorted({cpu for slot in self.slots for cpu in slot.cpus})

    # -- life -----------------------------------------------------------------------------------------------------

    def start(self, root: Path, code: str, folder: Path, nodes: Sequence[str] = ()) -> None:
        """Start the child in a session of its own, in its cgroup, and tell it its limits; `nodes`: those of its job."""
        self.channel, self._childs_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        log = os.open(folder / self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, FILE_MODE)
        high = fcntl.fcntl(self._childs_end.fileno(), fcntl.F_DUPFD_CLOEXEC, 10)
        try:
            self.pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-P", "-m", "workers.child", str(_CHILD_SOCKET), str(os.getpid())],
                os.environ | {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, log, 1),
                    (os.POSIX_SPAWN_DUP2, log, 2),
                    (os.POSIX_SPAWN_DUP2, high, _CHILD_SOCKET),
                ],
                setsid=True,
            )
        finally:
            os.close(log)
            os.close(high)
        if self.group is not None:
            with contextlib.suppress(OSError):  # the child finds itself outside and says so
                self.group.add(self.pid)
        limit = self.shape.limit_bytes if self.group is not None else None
        given = {"cpus": self.cpus, "threads": self.shape.threads, "gpus": self.gpus, "limit_bytes": limit, "nodes": list(nodes)}
        self._send({"root": str(root), "code": code, **given})

    def reap(self) -> bool:
        """Whether the child has ended; its exit status is kept, and what it had started in its session is killed."""
        if self.exit_status is None and os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            self._signal_group(signal.SIGKILL)  # before its id is given up, so that no stranger can have it
            self.exit_status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.exit_status is not None

    def leave(self) -> None:
        """Ask an idle child to end: it sees its socket close."""
        self.channel.close()
        self._childs_end.close()

    def bury(self) -> None:
        """Take away what a dead child leaves: its cgroup with what it had started, its socket."""
        if self.group is not None:
            self.group.remove()
        self.leave()

    # -- tasks ----------------------------------------------------------------------------------------------------

    def give(self, order: Order) -> None:
        """Hand over a task; it begins when those before it have ended. OSError where it is too large for one message."""
        mates = [{"task": mate.task.to_plain(), "attempt": mate.attempt} for mate in order.mates]
        self._send({"task": order.task.to_plain(), "attempt": order.attempt, "seconds": order.seconds, "mates": mates})
        self.orders.append(order)

    def ended(self, seconds: float) -> Order:
        """The running task is done; nothing that was meant for it concerns the next."""
        self.quick = seconds < QUICK_SECONDS
        self.kill_at, self.killed_for = float("inf"), ""
        return self.orders.popleft()

    def recall(self) -> list[Order]:
        """Take back what the child has not begun to read; it may read on meanwhile, so each record says which it was."""
        taken: set[str] = set()
        with contextlib.suppress(BlockingIOError):
            while len(self.orders) > len(taken) + 1:
                taken.add(messages.decode(self._childs_end.recv(MAX_MESSAGE, socket.MSG_DONTWAIT))["attempt"])
        back = [order for order in self.orders if order.attempt in taken]
        self.orders = deque(order for order in self.orders if order.attempt not in taken)
        return back

    def events(self) -> list[dict[str, Any]]:
        """What the child has said since the last call."""
        found: list[dict[str, Any]] = []
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            while data := self.channel.recv(MAX_MESSAGE, socket.MSG_DONTWAIT):
                found += messages.decode(data)
        return found

    def _send(self, record: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a dead child is found by its exit
            self.channel.send(messages.encode(record))

    # -- ends -----------------------------------------------------------------------------------------------------

    def warn(self, reason: str, latest: float = float("inf")) -> None:
        """Have the running task checkpoint and end within the grace, and before `latest`; `reason` decides its class."""
        order = self.orders[0] if self.orders else None
        if order is not None and not order.warned:
            order.warn(reason)
            self.kill_at = min(self.kill_at, latest, time.monotonic() + self.grace_seconds)
            self._signal(STOP if reason in ("stop", "cancel_all") else WARNING)

    def kill(self, reason: str) -> None:
        """Kill the child and what it started."""
        self.killed_for = self.killed_for or reason
        self.kill_at = float("inf")
        self._signal_group(signal.SIGKILL)

    def next_time(self) -> float:
        """When `keep_time` has something to do, on the monotonic clock."""
        order = self.orders[0] if self.orders else None
        if order is None or order.started is None or self.killed_for:
            return self.kill_at
        return min(self.kill_at, order.started + order.seconds - (0 if order.warned else self._walltime_grace(order)))

    def keep_time(self, now: float) -> None:
        """Warn ahead of the time limit; at the limit dump the stack into the log, then kill."""
        order = self.orders[0] if self.orders else None
        if now >= self.kill_at:
            return self.kill(order.warned if order is not None and order.warned else "stop")
        if order is None or order.started is None:
            return None
        limit = order.started + order.seconds
        if now >= limit and not self.killed_for:
            order.warn("walltime")
            self.killed_for = order.warned
            self._signal(STACK_DUMP)
            self.kill_at = now + DUMP_SECONDS
        elif now >= limit - self._walltime_grace(order) and not order.warned:
            order.warn("walltime")
            self._signal(WARNING)
        return None

    def watch_memory(self) -> bool:
        """The limit where there is no cgroup: kill what is above it; True where that was so."""
        self.peak_mib = max(self.peak_mib, limits.tree_mib(self.pid))
        if self.peak_mib > self.shape.limit_bytes / 2**20:
            self.kill("memory")
        return self.killed_for == "memory"

    def out_of_memory(self) -> bool:
        """Whether the kernel or the watchdog killed something of it for memory."""
        return self.killed_for == "memory" or self.killed_by_kernel or (self.group is not None and self.group.oom_kills() > 0)

    def observed_mib(self) -> float:
        """Highest memory seen from outside."""
        return max(self.peak_mib, self.group.peak_mib() if self.group is not None else 0.0)

    def _walltime_grace(self, order: Order) -> float:
        return min(self.grace_seconds, order.seconds / 2)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)
