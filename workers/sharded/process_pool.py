"""A pool of processes of this machine: fresh interpreters that never outlive the process which started them."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workers.errors import ConfigError
from workers.sharded.pool import Event, Pool
from workers.sharded.pool_worker import import_path

END_SECONDS = 5.0
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(slots=True, eq=False)
class _Process:
    """A worker, the pipe that gives it calls and the one that it answers by; `unread`: the beginning of a line."""

    process: subprocess.Popen[bytes]
    orders: int
    answers: int
    unread: bytes = b""
    ready: bool = False


@dataclass(slots=True, eq=False)
class ProcessPool(Pool):
    """Workers with `threads` threads each. `memory_gib`: of each one, all but mapped files; above it an allocation fails (MemoryError).

    They stay in the process group of this process, ignore its signals, and end when it does, however that happens. `env`: more variables
    for them. `peak_mib`: the highest resident memory of any so far, mapped files included.
    """

    num_workers: int
    threads: int = field(default=1, kw_only=True)
    memory_gib: float | None = field(default=None, kw_only=True)
    env: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    start_seconds: float = field(default=120.0, kw_only=True)
    peak_mib: float = field(default=0.0, init=False)
    _processes: dict[int, _Process] = field(default_factory=dict, init=False)
    _started: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        for name in ("num_workers", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} of a pool must be at least 1, got {getattr(self, name)}")
        if self.memory_gib is not None and self.memory_gib <= 0:
            raise ConfigError(f"memory_gib of a pool must be positive, got {self.memory_gib}; None: no limit")

    def workers(self) -> dict[int, bool]:
        """By their number."""
        return {number: one.ready for number, one in self._processes.items()}

    def process_ids(self) -> dict[int, int]:
        """Process ids of those that live, by their number."""
        return {number: one.process.pid for number, one in self._processes.items()}

    def start(self) -> None:
        """One more interpreter."""
        (reading, orders), (answers, writing) = os.pipe(), os.pipe()
        # the kernel tells a child of the end of the thread that started it, so only the main thread's will do
        parent = os.getpid() if threading.current_thread() is threading.main_thread() else 0
        command = [sys.executable, "-P", "-m", "workers.sharded.pool_worker", str(reading), str(writing), str(parent)]
        environment = {**os.environ, **dict.fromkeys(THREADS, str(self.threads)), "PYTHONPATH": _import_path(), **self.env}
        try:
            process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, pass_fds=(reading, writing))
        except OSError:
            os.close(orders)
            os.close(answers)
            raise
        finally:
            os.close(reading)
            os.close(writing)
        os.set_blocking(answers, False)
        one = _Process(process, orders, answers)
        self._processes[self._started] = one
        self._started += 1
        data_bytes = None if self.memory_gib is None else int(self.memory_gib * 2**30)
        _write(one, json.dumps({"path": import_path(), "data_bytes": data_bytes}))

    def give(self, worker: int, index: int, function: str, arguments: str) -> None:
        """One line down its pipe."""
        _write(self._processes[worker], f'{{"index":{index},"function":{json.dumps(function)},"arguments":{arguments}}}')

    def drop(self, worker: int) -> None:
        """Its reading thread does so at once."""
        if worker in self._processes:
            _write(self._processes[worker], '{"drop":true}')

    def wait(self, seconds: float) -> list[Event]:
        """Answers of all, and the deaths of those that have no more to say."""
        with selectors.DefaultSelector() as selector:
            for one in self._processes.values():
                selector.register(one.answers, selectors.EVENT_READ)
            selector.select(seconds)
        return [event for number in list(self._processes) for event in self._heard(number)]

    def _heard(self, number: int) -> Iterator[Event]:
        one = self._processes[number]
        dead = one.process.poll() is not None  # before the pipe is read, so that its last words are not lost
        while data := _read(one.answers):
            one.unread += data
        *lines, one.unread = one.unread.split(b"\n")
        for line in lines:
            yield self._event(number, json.loads(line))
        if dead:
            self._close(self._processes.pop(number))
            yield Event(number, "died", body=cause(one.process.returncode))

    def _event(self, number: int, answer: Mapping[str, Any]) -> Event:
        self.peak_mib = max(self.peak_mib, answer.get("peak_mib", 0.0))
        if "ready" in answer:
            self._processes[number].ready = True
            return Event(number, "ready")
        if "dropped" in answer:
            return Event(number, "dropped", body=answer["dropped"])
        if "error" in answer:
            return Event(number, "failed", answer["index"], answer["error"])
        return Event(number, "done", answer["index"], answer["result"])

    def kill(self, worker: int) -> None:
        """SIGKILL."""
        one = self._processes.pop(worker, None)
        if one is not None:
            one.process.kill()
            self._close(one)
            one.process.wait()

    def close(self) -> None:
        """Their pipes are closed, at which they end; what does not is killed."""
        processes, self._processes = list(self._processes.values()), {}
        for one in processes:
            self._close(one)
        deadline = time.monotonic() + END_SECONDS
        for one in processes:
            try:
                one.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.process.wait()

    def _close(self, one: _Process) -> None:
        os.close(one.orders)
        os.close(one.answers)


def _import_path() -> str:
    """For a fresh interpreter to find this package by."""
    return os.pathsep.join(filter(None, (str(Path(__file__).parent.parent.parent), os.environ.get("PYTHONPATH"))))


def _write(one: _Process, line: str) -> None:
    view = memoryview(line.encode() + b"\n")
    with contextlib.suppress(BrokenPipeError):  # it is dead, which is found by its exit
        while view:
            view = view[os.write(one.orders, view) :]


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 2**20)
    except BlockingIOError:
        return b""


def cause(status: int) -> str:
    """How a process ended, in words."""
    if status >= 0:
        return f"ended with exit status {status}"
    name = signal.Signals(-status).name if -status in signal.valid_signals() else f"signal {-status}"
    return f"was killed by {name}"
