"""A crew of warm workers that do many calls of one function: what is the same for processes of one machine and for Ray."""

import abc
import json
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from workers import errors
from workers.errors import ConfigError, EigensweepError, ProcessLost
from workers.execute import classify
from workers.sharded.call_queue import CallQueue

MAX_FAILED_STARTS = 3
WAIT_SECONDS = 0.2
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class WorkerLost(ProcessLost):
    """Workers die, and this run makes no further attempt."""


class CallFailed(EigensweepError):
    """An exception in a call that is none of our own errors; its traceback stands in the notes."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call: plain values by name, and its affinity: calls of equal affinity go to one worker, in their order, while it lives."""

    arguments: Mapping[str, Any]
    affinity: int | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """What a worker says, or what became of it.

    `kind` is "ready", "done" (call `index`, its result is `body`), "failed" (the error of call `index`), "dropped" (`body`: calls that
    it will not do) or "died" (`body`: of what).
    """

    worker: int
    kind: str
    index: int = -1
    body: Any = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is, its time in seconds since it began, the workers that are ready, and how many calls had to be done again."""

    done: int
    total: int
    seconds: float
    num_workers: int
    redone: int

    @property
    def per_second(self) -> float:
        """Calls ended in a second."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    def __str__(self) -> str:
        left = f", about {(self.total - self.done) / self.per_second:.0f} s left" if 0 < self.done < self.total else ""
        again = f", {self.redone} done again" if self.redone else ""
        return f"{self.done} of {self.total} calls, {self.per_second:.3g} a second, {self.num_workers} workers{again}{left}"


class Pool(abc.ABC):
    """Workers that keep their modules, and what these keep in mind, from call to call and from run to run; to be closed (`with`)."""

    num_workers: int
    memory_gib: float | None  # of each worker
    start_seconds: float  # so long may all workers take to get ready

    def run(
        self,
        function: str,
        calls: Sequence[Call],
        *,
        in_flight: int = 2,
        retries: int = 2,
        helps_from: int | None = None,
        stopping: Callable[[], bool] = lambda: False,
        report: Callable[[Progress], None] = lambda progress: None,
        lost: Callable[[str], None] = lambda message: None,
    ) -> Iterator[tuple[int, Any]]:
        """Call `function`, "module:name", with the arguments of each call; yields (index of the call, result) as they end.

        Results are plain values. A worker is given `in_flight` calls at a time, so that it never waits for the next. The call that a worker
        dies of is done again, at most `retries` times, then WorkerLost is raised; an exception in a call is raised here at once, our own
        errors, MemoryError and OSError as what they are, any other as CallFailed. When `stopping` turns true, calls that have begun are
        ended, their results are yielded, and no other begins. `helps_from`: see CallQueue. A call may be done twice where a worker is lost
        before its answer has come: what it leaves must bear that. `lost` is told of each death of a worker. One run at a time.
        """
        if in_flight < 1 or retries < 0:
            raise ConfigError(f"in_flight must be at least 1 and retries at least 0, got {in_flight} and {retries}")
        if not _FUNCTION.fullmatch(function):
            raise ConfigError(f"the function of a pool is given as 'module:name', got {function!r}")
        run = _Run(
            pool=self,
            function=function,
            lines=[_encoded(call.arguments) for call in calls],
            queue=CallQueue([call.affinity for call in calls], helps_from),
            in_flight=in_flight,
            retries=retries,
            stopping=stopping,
            report=report,
            lost=lost,
        )
        return run.results()

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    @abc.abstractmethod
    def close(self) -> None:
        """End all workers; a pool that is used again starts new ones."""

    @abc.abstractmethod
    def workers(self) -> dict[int, bool]:
        """Those that live, and whether each is ready for calls."""

    @abc.abstractmethod
    def start(self) -> None:
        """Start one more worker; it is said when it is ready."""

    @abc.abstractmethod
    def give(self, worker: int, index: int, function: str, arguments: str) -> None:
        """Hand over a call, with its arguments as JSON; it waits behind those that the worker has."""

    @abc.abstractmethod
    def drop(self, worker: int) -> None:
        """Have a worker give up the calls that it has not begun."""

    @abc.abstractmethod
    def kill(self, worker: int) -> None:
        """End a worker at once; nothing more is heard of it."""

    @abc.abstractmethod
    def wait(self, seconds: float) -> list[Event]:
        """What has happened, as soon as something has, at the latest after `seconds`."""


def _encoded(arguments: Mapping[str, Any]) -> str:
    try:
        return json.dumps(dict(arguments))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"arguments of a call must be plain values (numbers, texts, lists, mappings), got {arguments!r}: {error}"
        ) from None


@dataclass(slots=True, kw_only=True)
class _Run:
    """One run of a pool. `flying`: the calls that each worker has, the first one is what it does."""

    pool: Pool
    function: str
    lines: list[str]
    queue: CallQueue
    in_flight: int
    retries: int
    stopping: Callable[[], bool]
    report: Callable[[Progress], None]
    lost: Callable[[str], None]
    flying: dict[int, deque[int]] = field(default_factory=dict)
    deaths: Counter[int] = field(default_factory=Counter)
    failed_starts: int = 0
    ready_at: float = field(default_factory=time.monotonic)
    done: int = 0
    stopped: bool = False
    began: float = field(default_factory=time.monotonic)

    def results(self) -> Iterator[tuple[int, Any]]:
        try:
            while self.done < len(self.lines):
                self._heed_stop()
                if self.stopped and not any(self.flying.values()):
                    return
                self._staff()
                self._hand_out()
                for event in self.pool.wait(WAIT_SECONDS):
                    if event.kind == "done":
                        yield event.index, self._ended(event)
                    else:
                        self._take(event)
        finally:
            # the caller has had enough, or a call has failed: what still runs would be taken for a later run's
            for worker in [worker for worker, calls in self.flying.items() if calls]:
                self.pool.kill(worker)

    def _heed_stop(self) -> None:
        if not self.stopped and self.stopping():
            self.stopped = True
            for worker in self.flying:
                self.pool.drop(worker)

    def _staff(self) -> None:
        """As many workers as can be of use."""
        if not self.stopped:
            for _ in range(min(self.pool.num_workers, len(self.lines) - self.done) - len(self.pool.workers())):
                self.pool.start()

    def _hand_out(self) -> None:
        """To those with least to do first. The last calls go one by one to workers without any, so that none waits behind another."""
        ready = [worker for worker, is_ready in self.pool.workers().items() if is_ready]
        if ready or self.stopped:
            self.ready_at = time.monotonic()
        elif time.monotonic() - self.ready_at > self.pool.start_seconds:
            raise WorkerLost(
                f"no worker has got ready in {self.pool.start_seconds:.0f} s; is there room, and can the nodes import the code?"
            )
        for worker in ready:
            self.flying.setdefault(worker, deque())
        living = len(self.pool.workers())
        for depth in range(self.in_flight):
            for worker in ready:
                if self.stopped or len(self.flying[worker]) != depth or (depth and len(self.queue) < living):
                    continue
                index = self.queue.take(worker)
                if index is not None:
                    self.flying[worker].append(index)
                    self.pool.give(worker, index, self.function, self.lines[index])

    def _ended(self, event: Event) -> Any:
        self.flying[event.worker].remove(event.index)
        self.done += 1
        seconds = time.monotonic() - self.began
        ready = sum(self.pool.workers().values())
        self.report(Progress(self.done, len(self.lines), seconds, ready, sum(self.deaths.values())))
        return event.body

    def _take(self, event: Event) -> None:
        if event.kind == "ready":
            self.failed_starts = 0
        elif event.kind == "failed":
            raise _error(event.body, f"call {event.index} of {self.function}", self.pool.memory_gib)
        elif event.kind == "dropped":
            for index in event.body:
                self.flying[event.worker].remove(index)
                self.queue.put_back(index)
        elif event.kind == "died":
            self._bury(event.worker, event.body)

    def _bury(self, worker: int, reason: str) -> None:
        """The death of a worker is charged to the call that it was doing; what waited behind goes to others."""
        calls = self.flying.pop(worker, None)
        self.queue.release(worker)
        self.lost(f"a worker {reason}" + (f" in call {calls[0]}, which is done elsewhere" if calls else ""))
        if calls is None:
            self.failed_starts += 1
            if self.failed_starts >= MAX_FAILED_STARTS:
                raise WorkerLost(
                    f"no worker gets ready, {self.failed_starts} in a row: the last one {reason}; what they wrote stands in the log above"
                )
        for index in calls or ():
            self.queue.put_back(index)
        if calls:
            self._charge(calls[0], reason)

    def _charge(self, index: int, reason: str) -> None:
        self.deaths[index] += 1
        if self.deaths[index] > self.retries:
            raise WorkerLost(
                f"call {index} of {self.function} with {self.lines[index][:500]} has ended {self.deaths[index]} workers, "
                f"the last one {reason}; what is published is kept. A kill by SIGKILL is mostly the memory: give more of it, "
                "or smaller tiles, and run it again"
            )


def _error(record: Mapping[str, Any], what: str, memory_gib: float | None) -> Exception:
    """The exception of a call: of our own kinds, MemoryError and OSError itself, any other as CallFailed."""
    name, message = record["type"], record["message"]
    own = getattr(errors, name.removeprefix("workers.errors."), None) if name.startswith("workers.errors.") else None
    error: Exception
    if own is not None:
        error = own(message)
    elif name == "MemoryError" or classify(RuntimeError(message), progressed=False, told_to_stop=False) == "host_oom":
        share = f" above the {memory_gib:.2f} GiB of each worker" if memory_gib else ""
        error = MemoryError(f"{what} found no memory{share} ({message or name}); give more of it, or smaller tiles")
    elif record["errno"]:
        error = OSError(record["errno"], f"{what} failed: {message}")
    else:
        error = CallFailed(f"{what} failed: {name}: {message}")
    error.add_note(f"{what}, on {record['host']}:\n{record['traceback']}")
    return error
