"""A warm child: takes tasks from its job one after another, runs and commits them, and says so; `python -P -m workers.child`.

It is given one end of a socket pair that keeps message borders. The job writes a setup record, then tasks; the child writes
lists of events. A closed socket means that the job is gone.
"""

import contextlib
import faulthandler
import os
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workers import gpu_check, limits, messages
from workers.execute import Ended, execute, execute_many, flushed_output
from workers.processes import die_with
from workers.taskdir import Task

PROGRESS_SECONDS = 1.0
MAX_MESSAGE = 4 * 2**20
STACK_DUMP = signal.SIGUSR1
WARNING = signal.SIGUSR2
STOP = signal.SIGTERM

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def main(descriptor: int, job: int) -> int:
    """Serve the job with process id `job` until it closes the socket."""
    os.set_inheritable(descriptor, False)
    die_with(job)
    child = Child(socket.socket(fileno=descriptor))
    child.listen_to_signals()
    setup = child.receive()
    if setup is None:
        return 0
    unmet = child.set_up(setup)
    child.send({"event": "failed" if unmet else "ready", "message": unmet})
    if unmet:
        return 1
    while (order := child.receive()) is not None:
        if unmet := child.check_torch():
            child.send({"event": "failed", "message": unmet})
            return 1
        child.run(order)
        if child.stopping:
            break
    child.flush()
    return 0


@dataclass(slots=True)
class Child:
    """The child's side of the socket, and what the job told it to begin with."""

    channel: socket.socket
    root: Path = Path()
    code: str = ""
    device: str = "cpu"
    gpus: list[str] = field(default_factory=list)
    nodes: tuple[str, ...] = ()
    stop: threading.Event = field(default_factory=threading.Event)
    stopping: bool = False
    torch_checked: bool = False
    _unsent: list[dict[str, Any]] = field(default_factory=list)
    _sending: threading.RLock = field(default_factory=threading.RLock)

    # -- setup ----------------------------------------------------------------------------------------------------

    def listen_to_signals(self) -> None:
        """WARNING: this task shall checkpoint and end. STOP: and no other begins. STACK_DUMP: where is it?"""
        faulthandler.register(STACK_DUMP, file=sys.stderr, all_threads=True)
        signal.signal(WARNING, lambda number, frame: self._warned())
        signal.signal(STOP, lambda number, frame: self._stopped())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _warned(self) -> None:
        # In a thread of its own: the event's lock may be held by the very code that the signal has interrupted.
        threading.Thread(target=self.stop.set, daemon=True).start()

    def _stopped(self) -> None:
        self.stopping = True
        self._warned()

    def set_up(self, setup: dict[str, Any]) -> str:
        """Take on the slot's limits and ask the kernel whether they hold; returns which does not."""
        self.root, self.code = Path(setup["root"]), setup["code"]
        self.device, self.gpus = ("cuda" if setup["gpus"] else "cpu"), setup["gpus"]
        self.nodes = tuple(setup["nodes"]) or self.nodes
        os.environ.update(dict.fromkeys(_THREADS, str(setup["threads"])))
        if setup["cpus"]:
            with contextlib.suppress(OSError):
                os.sched_setaffinity(0, setup["cpus"])
        return limits.unmet(setup["cpus"], setup["limit_bytes"]) or gpu_check.unmet(setup["gpus"])

    def check_torch(self) -> str:
        """Ask torch as soon as a task has loaded it, once: a child that computes on other GPUs than its own spoils its neighbours' work."""
        if self.torch_checked or not self.gpus or "torch" not in sys.modules:
            return ""
        self.torch_checked = True
        return gpu_check.torch_unmet(self.gpus)

    # -- the socket -----------------------------------------------------------------------------------------------

    def receive(self) -> dict[str, Any] | None:
        """The next record of the job; None when the job is gone or has no more."""
        try:
            data = self.channel.recv(MAX_MESSAGE, socket.MSG_DONTWAIT)
        except BlockingIOError:
            self.flush()
            data = self.channel.recv(MAX_MESSAGE)
        except OSError:
            return None
        record: dict[str, Any] | None = messages.decode(data) if data else None
        return record

    def send(self, event: dict[str, Any], *, now: bool = True) -> None:
        """Tell the job; what can wait goes with the next event."""
        with self._sending:
            self._unsent.append(event)
            if now:
                self.flush()

    def flush(self) -> None:
        """Send what waits. Where the job is gone, so is this process, at once."""
        with self._sending:
            if self._unsent:
                try:
                    self.channel.send(messages.encode(self._unsent))
                except (BrokenPipeError, ConnectionResetError):
                    os._exit(1)
                self._unsent.clear()

    # -- one task -------------------------------------------------------------------------------------------------

    def run(self, order: dict[str, Any]) -> None:
        """Run one task and report how it ended, together with the start of the next one where that already waits."""
        if order["mates"]:
            self.run_many(order)
            return
        task, attempt = Task(**order["task"]), order["attempt"]
        self._begin()
        begun = time.monotonic()
        self._say_start(attempt)
        with flushed_output():
            ended = execute(
                self.root,
                task,
                attempt=attempt,
                code=self.code,
                device=self.device,
                deadline=begun + order["seconds"],
                stop=self.stop,
                report=_Reporter(self, attempt),
                nodes=self.nodes,
            )
        self._say_end(attempt, ended, now=self.stopping)

    def run_many(self, order: dict[str, Any]) -> None:
        """Run tasks as one ensemble, and report how each ended as soon as it has."""
        members = [order, *order["mates"]]
        attempts = [one["attempt"] for one in members]
        self._begin()
        begun = time.monotonic()
        for attempt in attempts:
            self._say_start(attempt)
        reporters = {attempt: _Reporter(self, attempt) for attempt in attempts}
        with flushed_output():
            execute_many(
                self.root,
                [Task(**one["task"]) for one in members],
                attempts=attempts,
                code=self.code,
                device=self.device,
                deadline=begun + order["seconds"],
                stop=self.stop,
                report=lambda attempt, message: reporters[attempt](message),
                told=lambda attempt, ended: self._say_end(attempt, ended, now=True),
                nodes=self.nodes,
            )

    def _begin(self) -> None:
        """What the task before was told does not concern the next, unless all are to end."""
        if not self.stopping:
            self.stop.clear()
        if self.stopping:
            self.stop.set()

    def _say_start(self, attempt: str) -> None:
        self.send({"event": "start", "attempt": attempt, "offset": _log_size(), "time": time.time()})

    def _say_end(self, attempt: str, ended: Ended, *, now: bool) -> None:
        self.send({"event": "end", "attempt": attempt, "log_end": _log_size(), **ended.record()}, now=now)


@dataclass(slots=True)
class _Reporter:
    """Passes a task's messages on: checkpoints all, progress once a second, one without a total, which names what has begun, at once."""

    child: Child
    attempt: str
    last: float = 0.0

    def __call__(self, message: dict[str, Any]) -> None:
        if "checkpoint" in message:
            self.child.send({"event": "checkpoint", "attempt": self.attempt, **message})
        elif "progress" in message and (not message["progress"][1] or time.monotonic() - self.last >= PROGRESS_SECONDS):
            self.last = time.monotonic()
            done, total = message["progress"]
            self.child.send({"event": "progress", "attempt": self.attempt, "done": done, "total": total, "words": message.get("words", "")})


def _log_size() -> int:
    return os.fstat(1).st_size


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
