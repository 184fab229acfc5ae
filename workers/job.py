"""One batch on this machine: slots with warm children, tasks as they become ready, limits, signals, and a record of each attempt."""

import contextlib
import gc
import secrets
import selectors
import signal
import socket
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workers import files, limits, taskdir
from workers.agenda import Agenda
from workers.errors import DiskFull, Garbled
from workers.execute import newer
from workers.journal import Journal, read_batch
from workers.seat import Order, Seat
from workers.seating import Seating, Terms
from workers.taskdir import Task

HEARTBEAT_SECONDS = 10.0
LOOK_SECONDS = 1.0
SLOT_SECONDS = 0.25
MAX_FAILED_STARTS = 3
MAX_UNBEGUN = 5
MAX_UNTOLD_STOPS = 3

_KILL_CLASS = {"stop": "interrupted", "cancel": "cancelled", "cancel_all": "cancelled"}


def main(root: Path, token: str) -> int:
    """Run the batch `token`; 0 where it ended by itself, also where another job has it."""
    journal = Journal(taskdir.batch_dir(root, token))
    if not journal.link_receipt(token):
        print(f"batch {token} has another job; nothing to do", flush=True)
        return 0
    job = Job.prepare(root, token, journal)
    gc.freeze()  # the tasks live as long as the job: a collection need not look at them
    with job.signals():
        return job.run()


@dataclass(slots=True, kw_only=True)
class Job:
    """The loop and what it keeps in mind; children and files do the rest."""

    root: Path
    token: str
    tasks: list[Task]
    journal: Journal
    agenda: Agenda
    seating: Seating
    selector: selectors.BaseSelector
    over: str = ""
    told: list[signal.Signals] = field(default_factory=list)
    num_told: int = 0
    attempts: Counter[int] = field(default_factory=Counter)
    unbegun: Counter[int] = field(default_factory=Counter)
    failed_starts: int = 0
    num_ended: int = 0

    @classmethod
    def prepare(cls, root: Path, token: str, journal: Journal) -> "Job":
        """Read the batch and what its launcher allows."""
        body, tasks = read_batch(root, token)
        selector = selectors.DefaultSelector()
        seating = Seating.of_machine(root, body["code"], journal.folder, Terms.of_launcher(body["launcher"]), selector)
        return cls(root=root, token=token, tasks=tasks, journal=journal, agenda=Agenda(tasks), seating=seating, selector=selector)

    # -- the loop -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def signals(self) -> Any:
        """Turn signals into something the loop selects on; SIGHUP is ignored: the job survives its terminal."""
        reading, writing = socket.socketpair()
        reading.setblocking(False)
        writing.setblocking(False)
        self.selector.register(reading, selectors.EVENT_READ, None)
        before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
            signal.signal(number, lambda number, frame: self.told.append(signal.Signals(number)))
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            reading.close()
            writing.close()

    def run(self) -> int:
        """Until nothing is left to start and nothing runs."""
        self._say(f"{len(self.tasks)} tasks, at most {self.seating.places.most} slots")
        limits.clear_abandoned()
        try:
            self._loop()
        finally:
            self.seating.close()
        self.over = self.over or ("never_started" if self.failed_starts >= MAX_FAILED_STARTS else "finished")
        self.journal.record({"event": "over", "reason": self.over, "time": time.time()})
        written = self.journal.write()
        self.journal.close()
        self._beat("over")
        self._say(f"over: {self.over}, {self.num_ended} attempts ended")
        return 0 if written else 1

    def _loop(self) -> None:
        self._look()
        self._schedule()
        _make_commit_folders(self.root, self.tasks)  # while the first children start
        beat, look = 0.0, time.monotonic() + LOOK_SECONDS
        while True:
            now = time.monotonic()
            if now >= look:
                look = now + LOOK_SECONDS
                self._look()
            self._obey()
            self._schedule()
            self.journal.write()
            if not self.seating.busy and (self.over or self.failed_starts >= MAX_FAILED_STARTS or self.agenda.peek() is None):
                return
            if now >= beat:
                beat = now + HEARTBEAT_SECONDS
                self._beat("running" if self.seating.places.held else "queued")
            self._wait(min(beat, look))

    def _wait(self, until: float) -> None:
        """Sleep until a child speaks, a signal comes, or the next time limit; then deal with it."""
        if not self.seating.places.held and not self.over:
            self._fit_slots()
            until = min(until, time.monotonic() + SLOT_SECONDS)
        watched = self.seating.watched
        if watched:
            until = min(until, time.monotonic() + limits.WATCH_SECONDS)
        until = min([until, *(seat.next_time() for seat in self.seating.seats)])
        signalled = False
        for key, _ in self.selector.select(max(0.0, until - time.monotonic())):
            if key.data is None:
                signalled = True
                with contextlib.suppress(BlockingIOError):
                    key.fileobj.recv(4096)  # type: ignore[union-attr]
            else:
                self._hear(key.data)
        if signalled:
            self._bury_the_dead()
        now = time.monotonic()
        for seat in self.seating.seats:
            if now >= seat.next_time():
                seat.keep_time(now)
        for seat in watched:
            if seat.orders:
                seat.watch_memory()

    # -- what comes from outside ----------------------------------------------------------------------------------

    def _look(self) -> None:
        """Orders to cancel; slots that others have left."""
        for keys in self.journal.cancellations():
            if keys is None:
                self._stop("cancelled")
            else:
                self._cancel(keys)
        self._fit_slots()

    def _cancel(self, keys: set[str]) -> None:
        self.agenda.drop(keys)
        for seat in self.seating.seats:
            self._recall(seat)
            if seat.orders and seat.orders[0].task.key in keys:
                seat.warn("cancel")

    def _obey(self) -> None:
        """Signals that came: stop with the grace, at the second kill."""
        while self.told:
            self._say(f"{self.told.pop(0).name} received")
            self.num_told += 1
            if self.num_told == 1:
                self._look()
                self._stop("warned")
            else:
                for seat in self.seating.seats:
                    seat.kill(seat.orders[0].warned if seat.orders else "stop")

    def _stop(self, reason: str) -> None:
        """Start nothing more; have what runs checkpoint and end, except on a full disk, where it may go on."""
        if self.over in ("warned", "cancelled"):
            return
        self.over = reason
        for seat in self.seating.seats:
            self._recall(seat)
            if reason != "disk_full":
                seat.warn("cancel_all" if reason == "cancelled" else "stop")

    # -- what children say ----------------------------------------------------------------------------------------

    def _hear(self, seat: Seat) -> None:
        for event in seat.events():
            kind = event.pop("event")
            if kind == "ready":
                seat.ready, self.failed_starts = True, 0
            elif kind == "failed":
                seat.unmet = event["message"]
            elif seat.orders and event["attempt"] == seat.orders[0].attempt:
                getattr(self, f"_on_{kind}")(seat, seat.orders[0], event)

    def _on_start(self, seat: Seat, order: Order, event: dict[str, Any]) -> None:
        order.started, order.log_offset = time.monotonic(), event["offset"]
        log = [seat.log, event["offset"]]
        slot = seat.number
        self.journal.record(
            {"event": "start", "key": order.task.key, "attempt": order.attempt, "slot": slot, "log": log, "time": event["time"]}
        )

    def _on_progress(self, seat: Seat, order: Order, event: dict[str, Any]) -> None:
        self.journal.record({"event": "progress", "key": order.task.key, "done": event["done"], "total": event["total"]})

    def _on_checkpoint(self, seat: Seat, order: Order, event: dict[str, Any]) -> None:
        order.checkpoint, order.resumed_at = event["checkpoint"], event["resumed_at"]

    def _on_end(self, seat: Seat, order: Order, event: dict[str, Any]) -> None:
        seat.ended(event["seconds"])
        outcome = event["class"]
        if outcome == "interrupted":
            event["class"] = outcome = _why_interrupted(order, event)
        elif outcome == "user_error" and seat.out_of_memory():
            event["class"] = outcome = "host_oom"  # a process that the task had started was killed
        self._record_end(order, event)
        if outcome == "interrupted" and not order.warned and not self.over and self.attempts[order.index] <= MAX_UNTOLD_STOPS:
            self.agenda.put_back(order.index)  # a warning meant for the task before it
            return
        fingerprint = (event.get("error") or {}).get("fingerprint", "")
        if self.agenda.ended(order.index, outcome, fingerprint):
            self._say(f"workload {order.task.workload}: {event['message']!r} again and again; no more of its tasks are started")
        if outcome == "disk_full":
            self._stop("disk_full")

    def _record_end(self, order: Order, event: dict[str, Any]) -> None:
        self.num_ended += 1
        ids = {"event": "end", "key": order.task.key, "attempt": order.attempt}
        self.journal.record({**ids, **event, "attempt": order.attempt, "memory_limit_gib": order.limit_gib, "time": time.time()})

    # -- children that died ---------------------------------------------------------------------------------------

    def _bury_the_dead(self) -> None:
        self.seating.bury_left()
        for seat in [seat for seat in self.seating.seats if seat.reap()]:
            self._hear(seat)
            self._lose(seat)

    def _lose(self, seat: Seat) -> None:
        """A dead child costs the task that it ran; what waited behind goes back."""
        first = seat.orders[0] if seat.orders else None
        charged = seat.orders.popleft() if first is not None and self._is_charged(seat, first) else None
        for order in seat.orders:
            self._take_back(order)
        seat.orders.clear()
        if charged is not None:
            event = self._death(seat, charged)
            self._record_end(charged, event)
            self.agenda.ended(charged.index, event["class"])
            self._say(f"task {charged.task.key}: {event['class']}, {event['message']}")
        self.seating.remove(seat)
        seat.bury()

    def _is_charged(self, seat: Seat, order: Order) -> bool:
        """A task that had begun, that a child failed to get ready for, or that no child ever gets to begin."""
        if order.started is not None or seat.out_of_memory():
            return True
        if order.warned:
            return False
        self.unbegun[order.index] += 1
        return (seat.exit_status or 0) > 0 or self.unbegun[order.index] >= MAX_UNBEGUN

    def _death(self, seat: Seat, order: Order) -> dict[str, Any]:
        """The end record of a task whose child is dead."""
        status = seat.exit_status or 0
        how = f"the child was killed by {signal.Signals(-status).name}" if status < 0 else f"the child exited with {status}"
        if committed := _own_commit(self.root, order):
            outcome, how = committed, f"committed; {how} right after"
        elif seat.out_of_memory():
            outcome, how = "host_oom", f"killed above its memory limit of {order.limit_gib:.3g} GiB"
        elif seat.killed_for == "walltime":
            outcome = "timeout_progress" if newer(order.checkpoint, order.resumed_at) else "timeout"
            how = f"killed at its time limit of {order.seconds:.6g} s"
        elif seat.killed_for in _KILL_CLASS:
            outcome, how = _KILL_CLASS[seat.killed_for], f"killed, it had not ended {seat.grace_seconds:.6g} s after the warning"
        elif order.started is None:
            self.failed_starts += not seat.ready
            outcome, how = "never_started", seat.unmet or f"{how} before the task began; see {seat.log}"
        else:
            outcome = "killed"
        seconds = 0.0 if order.started is None else time.monotonic() - order.started
        return {
            "class": outcome,
            "seconds": seconds,
            "peak_memory_mib": round(seat.observed_mib(), 1),
            "message": how,
            "error": None,
            "checkpoint": order.checkpoint,
            "resumed_at": order.resumed_at,
            "difference": "",
            "log_end": _size(self.journal.folder / seat.log),
        }

    # -- what starts next -----------------------------------------------------------------------------------------

    def _fit_slots(self) -> None:
        """Hold as many slots as the tasks left can use, no more."""
        self.seating.fit(0 if self.over else self._usable())

    def _usable(self) -> int:
        """How many slots the unfinished tasks occupy if all run at once; counted only as far as it matters."""
        most = self.seating.places.most
        return most if self.agenda.unfinished >= most else min(most, sum(map(self.seating.num_slots, self.tasks)))

    def _schedule(self) -> None:
        """Give ready tasks to free slots in their order; then one ahead to children that end tasks quickly."""
        while not self.over and self.failed_starts < MAX_FAILED_STARTS and self.seating.places.held:
            index = self.agenda.peek()
            if index is None:
                self._recall_waiting()
                if self.agenda.peek() is None:
                    return
                continue
            task = self.tasks[index]
            if taskdir.is_committed(self.root, task.commit_name):
                self.agenda.skipped(self.agenda.pop())
                diverged = taskdir.is_diverged(self.root, task.commit_name)
                taskdir.write_hints(self.root, task.commit_name, task.sweeps, diverged=diverged)
            elif task.resources.get("gpus", 0) > self.seating.gpus.most:
                self._refuse(self.agenda.pop(), f"asks for {task.resources['gpus']} GPUs, this machine has {self.seating.gpus.most}")
            else:
                seat = self.seating.seat_for(task)
                if seat is None:
                    return
                self._give(seat, self.agenda.pop())

    def _give(self, seat: Seat, index: int) -> None:
        task = self.tasks[index]
        attempt = f"{self.token}-{index}-{self.attempts[index]}-{secrets.token_hex(3)}"
        self.attempts[index] += 1
        seconds = 60.0 * task.resources.get("walltime_minutes", 60.0)
        limit = seat.shape.limit_bytes / 2**30
        try:
            seat.give(Order(index=index, task=task, attempt=attempt, seconds=seconds, limit_gib=limit))
        except OSError as error:
            seat.orders.pop()
            self._refuse(index, f"its settings are too large to hand over ({error})")

    def _refuse(self, index: int, why: str) -> None:
        """A task that cannot begin here."""
        task = self.tasks[index]
        attempt = f"{self.token}-{index}-{self.attempts[index]}-{secrets.token_hex(3)}"
        order = Order(index=index, task=task, attempt=attempt, seconds=0.0, limit_gib=0.0)
        self._record_end(order, {"class": "never_started", "seconds": 0.0, "message": why, "error": None})
        self.agenda.ended(index, "never_started")

    def _take_back(self, order: Order) -> None:
        self.attempts[order.index] -= 1
        self.agenda.put_back(order.index)

    def _recall(self, seat: Seat) -> None:
        for order in seat.recall():
            self._take_back(order)

    def _recall_waiting(self) -> None:
        """Where a slot is free and nothing is ready, take what waits behind a running task."""
        if self.seating.has_idle_slots:
            for seat in self.seating.seats:
                self._recall(seat)

    def _beat(self, state: str) -> None:
        running = sum(1 for seat in self.seating.seats if seat.orders)
        self.journal.beat(state, running=running, ended=self.num_ended, left=self.agenda.unfinished, slots=len(self.seating.places.held))

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError):
            print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", file=sys.stdout, flush=True)


def _why_interrupted(order: Order, event: dict[str, Any]) -> str:
    """A task that stopped after a warning: told to by the job, cancelled, or at its time limit."""
    if order.warned == "walltime":
        return "timeout_progress" if newer(event["checkpoint"], event["resumed_at"]) else "timeout"
    return _KILL_CLASS.get(order.warned, "interrupted")


def _own_commit(root: Path, order: Order) -> str:
    """The class of an attempt whose child died between its commit and its last word; empty: it has not committed."""
    try:
        commit = taskdir.read_commit(root, order.task.commit_name)
    except (FileNotFoundError, Garbled):
        return ""
    if commit.attempt != order.attempt:
        return ""
    return "completed" if commit.status == "ok" else "diverged"


def _make_commit_folders(root: Path, tasks: list[Task]) -> None:
    """All folders that the commits go to, synced once instead of one by one."""
    folder = root / "commits"
    missing = {task.key[:2] for task in tasks} - set(files.names(folder))
    if missing:
        with contextlib.suppress(DiskFull):
            files.make_dirs(folder)
        for name in sorted(missing):
            with contextlib.suppress(OSError):
                files.ops.mkdir(folder / name)
        with contextlib.suppress(OSError):
            files.ops.sync_dir(folder)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
