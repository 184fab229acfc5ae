"""One batch on this machine: slots with warm children, tasks as they become ready, limits, signals, and a record of each attempt."""

import contextlib
import gc
import os
import secrets
import selectors
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from workers import earlier_runs, limits, staging, taskdir, verdicts
from workers.agenda import Agenda
from workers.allocation import Allocation
from workers.energy import Meter
from workers.journal import Journal, read_batch
from workers.seat import Order, Seat
from workers.seating import Seating, Terms
from workers.taskdir import Task
from workers.timetable import Timetable
from workers.wakeups import wakeups

HEARTBEAT_SECONDS = 10.0
LOOK_SECONDS = 1.0
SLOT_SECONDS = 0.25
MAX_FAILED_STARTS = 3
MAX_UNBEGUN = 5
MAX_UNTOLD_STOPS = 3
ATTEMPTS_OF_A_RUN = 100
UMASK = 0o027

_WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)


def main(root: Path, token: str) -> int:
    """Run the batch `token`; 0 where it ended by itself, also where another job has it."""
    os.umask(UMASK)
    for number in _WARNINGS:
        signal.signal(number, signal.SIG_IGN)  # a warning that comes before the loop must not kill
    allocation = Allocation.of_process(token)
    journal = Journal(taskdir.batch_dir(root, token))
    if not journal.link_receipt(token, None if allocation is None else allocation.to_plain()):
        print(f"batch {token} has another job; nothing to do", flush=True)
        return 0
    job = Job.prepare(root, token, journal, allocation)
    gc.freeze()  # the tasks live as long as the job: a collection need not look at them
    with wakeups(job.selector, job.told, (signal.SIGTERM, signal.SIGINT, *_WARNINGS)):
        return job.run()


@dataclass(slots=True, kw_only=True)
class Job:
    """The loop and what it keeps in mind; children and files do the rest.

    `host`: this machine, by the name that its scheduler knows. `may_requeue`: it was warned in time that its scheduler will end it.
    `has_progressed`: this run has committed something, or left a newer checkpoint. `timed_out`: indices of tasks that got further in
    a time limit of their own, but not to their end.
    """

    root: Path
    token: str
    tasks: list[Task]
    journal: Journal
    agenda: Agenda
    seating: Seating
    selector: selectors.BaseSelector
    host: str = field(default_factory=lambda: os.uname().nodename)
    allocation: Allocation | None = None
    timetable: Timetable = field(default_factory=Timetable)
    meter: Meter = field(default_factory=lambda: Meter(()))
    over: str = ""
    may_requeue: bool = False
    has_progressed: bool = False
    timed_out: set[int] = field(default_factory=set)
    told: list[signal.Signals] = field(default_factory=list)
    num_kills: int = 0
    attempts: Counter[int] = field(default_factory=Counter)
    unbegun: Counter[int] = field(default_factory=Counter)
    failed_starts: int = 0
    num_ended: int = 0
    beat_at: float = 0.0

    @classmethod
    def prepare(cls, root: Path, token: str, journal: Journal, allocation: Allocation | None = None) -> "Job":
        """Read the batch, what its launcher allows and what earlier runs have left."""
        body, tasks = read_batch(root, token)
        terms, selector = Terms.of_batch(body), selectors.DefaultSelector()
        earlier = earlier_runs.read(root, journal.folder, journal.run, tasks)
        agenda = Agenda(tasks, suspects=earlier.lost, loners=earlier.alone)
        agenda.drop(set(earlier.over))
        where = (root, body["code"], journal.run_folder, terms, selector)
        if allocation is not None and not body["request"]["gpus"]:
            allocation = replace(allocation, gpus=())  # the variable came from the shell that submitted
        common: dict[str, Any] = dict(root=root, token=token, tasks=tasks, journal=journal, agenda=agenda, selector=selector)
        if allocation is None:
            return cls(**common, seating=Seating.of_machine(*where))
        return cls(
            **common,
            seating=Seating.of_allocation(*where, allocation),
            host=allocation.node,
            allocation=allocation,
            timetable=Timetable.of_job(
                allocation.seconds_left(body["request"]["minutes"]), terms.grace_seconds, body.get("estimates") or {}
            ),
            meter=Meter(allocation.gpus),
        )

    # -- the loop -------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Until nothing is left to start and nothing runs."""
        again = f", run {self.journal.run} on {self.host}" if self.journal.run else ""
        self._say(f"{len(self.tasks)} tasks, at most {self.seating.places.most} slots{again}")
        if self.seating.makes_groups:
            limits.clear_abandoned()
        self._stage()
        try:
            self._loop()
        finally:
            self.seating.close()
        return 0 if self._end() else 1

    def _stage(self) -> None:
        terms = self.seating.terms
        if terms.stage and terms.scratch:
            mapping = self.journal.run_folder / "staged.json"
            if not staging.run(self.root, self.token, terms.scratch, mapping, self._waits_for_staging):
                self._say("the tasks read their data where it is")

    def _waits_for_staging(self) -> bool:
        self._beat("staging")
        return not self.told

    def _loop(self) -> None:
        self._look()
        self._schedule()
        taskdir.make_commit_folders(self.root, [task.key for task in self.tasks])  # while the first children start
        look = time.monotonic() + LOOK_SECONDS
        while True:
            now = time.monotonic()
            if now >= look:
                look = now + LOOK_SECONDS
                self._look()
            self._obey()
            self._schedule()
            self.journal.write()
            if self.journal.is_short_of_room and not self.over:
                self._stop("disk_full")  # further tasks would take what is left for the last word
            if not self.seating.busy and (self.over or self.failed_starts >= MAX_FAILED_STARTS or self.agenda.peek() is None):
                return
            self._beat("running" if self.seating.places.held else "queued")
            self._wait(min(self.beat_at, look))

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

    # -- the end --------------------------------------------------------------------------------------------------

    def _end(self) -> bool:
        """Say why the job is over, and have it requeued where that is called for; False where there was no room to say so."""
        reason = self.over or ("never_started" if self.failed_starts >= MAX_FAILED_STARTS else "finished")
        requeues = reason in ("warned", "finished") and self._shall_requeue()
        # said before it is done: SLURM may kill this process at once, and who reads this asks SLURM what became of the job
        written = self._say_over("requeued" if requeues else reason)
        if requeues and self.allocation is not None and (why := self.allocation.requeue()):
            self._say(f"not requeued: {why}")
            written = self._say_over(reason)
        return written

    def _shall_requeue(self) -> bool:
        """Whether something is left for a further run, and this run shows that a further one gets somewhere.

        Without a warning only tasks that ran into their time limit with progress are worth it: the driver sends all others again.
        """
        if self.allocation is None or not self.has_progressed:
            return False
        if self.over == "warned":
            return self.may_requeue and (self.agenda.peek() is not None or bool(self.agenda.aside))
        return bool(self.agenda.aside) and self.agenda.aside <= self.timed_out

    def _say_over(self, reason: str) -> bool:
        self.journal.record({"event": "over", "reason": reason, "energy_joules": self.meter.joules(), "time": time.time()})
        written = self.journal.write()
        self.journal.close()
        self._beat("over", now=True)
        self._say(f"over: {reason}, {self.num_ended} attempts ended")
        return written

    # -- what comes from outside ----------------------------------------------------------------------------------

    def _look(self) -> None:
        """Orders to cancel; a later run of this job; slots that others have left."""
        for keys in self.journal.cancellations():
            if keys is None:
                self.may_requeue = False
                self._stop("cancelled")
            else:
                self._cancel(keys)
        if self.journal.is_superseded and not self.over:
            self._say("another run of this job has begun, or none may any more")
            self._stop("warned")
        self.seating.oom.look()
        self._fit_slots()

    def _cancel(self, keys: set[str]) -> None:
        self.agenda.drop(keys)
        for seat in self.seating.seats:
            self._recall(seat)
            meant = [order for order in (seat.orders[0].left if seat.orders else ()) if order.task.key in keys and not order.warned]
            if meant:
                seat.warn("cancel")
                for order in [order for order in seat.orders[0].left if order.task.key not in keys]:
                    order.warned = "stop"  # they go on without those

    def _obey(self) -> None:
        """Signals that came, or the end of the job's time: stop with the grace, at a second SIGTERM or SIGINT kill."""
        while self.told:
            number = self.told.pop(0)
            self._say(f"{number.name} received")
            self._look()
            # SLURM sends a warning and SIGTERM together where it preempts a job; only who says it twice does not want to wait
            self.num_kills += number not in _WARNINGS
            if self.num_kills > 1:
                for seat in self.seating.seats:
                    seat.kill(seat.orders[0].warned if seat.orders else "stop")
            # SIGTERM comes from scancel, too, and what was cancelled must not come back
            self._warned(may_requeue=number in _WARNINGS)
        if not self.over and time.monotonic() >= self.timetable.last_call:
            self._say("the time of this job is nearly over")
            self._warned(may_requeue=True)

    def _warned(self, *, may_requeue: bool) -> None:
        self.may_requeue = may_requeue and (self.may_requeue or not self.over)
        self._stop("warned")

    def _stop(self, reason: str) -> None:
        """Start nothing more; have what runs checkpoint and end, except on a full disk, where it may go on."""
        if self.over in ("warned", "cancelled"):
            self.over = "cancelled" if reason == "cancelled" else self.over
            return
        self.over = reason
        for seat in self.seating.seats:
            self._recall(seat)
            if reason != "disk_full":
                seat.warn("cancel_all" if reason == "cancelled" else "stop", self.timetable.last_moment)

    # -- what children say ----------------------------------------------------------------------------------------

    def _hear(self, seat: Seat) -> None:
        for event in seat.events():
            kind = event.pop("event")
            if kind == "ready":
                seat.ready, self.failed_starts = True, 0
            elif kind == "failed":
                seat.unmet = event["message"]
            else:
                for order in [order for order in (seat.orders[0].left if seat.orders else ()) if order.attempt == event["attempt"]]:
                    getattr(self, f"_on_{kind}")(seat, order, event)

    def _on_start(self, seat: Seat, order: Order, event: dict[str, Any]) -> None:
        order.started, order.log_offset = time.monotonic(), event["offset"]
        log = [self.journal.log_name(seat.log), event["offset"]]
        ids = {"event": "start", "key": order.task.key, "attempt": order.attempt}
        self.journal.record({**ids, "slot": seat.number, "host": self.host, "log": log, "time": event["time"]})

    def _on_progress(self, seat: Seat, order: Order, event: dict[str, Any]) -> None:
        self.journal.record({"event": "progress", "key": order.task.key} | {name: event[name] for name in ("done", "total", "words")})

    def _on_checkpoint(self, seat: Seat, order: Order, event: dict[str, Any]) -> None:
        order.checkpoint, order.resumed_at = event["checkpoint"], event["resumed_at"]

    def _on_end(self, seat: Seat, order: Order, event: dict[str, Any]) -> None:
        unit, order.ended = seat.orders[0], True
        if not unit.left:
            seat.ended(event["seconds"])
        order.checkpoint, order.resumed_at = event["checkpoint"], event["resumed_at"]
        if event["class"] == "interrupted":
            event["class"] = verdicts.of_stopped(order, out_of_time=self._out_of_time)
        elif event["class"] in ("user_error", "killed") and self.seating.lost_a_process(seat):
            event["class"] = "host_oom"  # a process that the task had started was killed
        self._close(seat, unit, order, event)

    def _close(self, seat: Seat, unit: Order, order: Order, event: dict[str, Any]) -> None:
        """Record an end of one of a `unit`, and decide what it means for the tasks that are left."""
        if unit.mates and event["class"] in ("host_oom", "cuda_oom", "user_error"):
            why = f"failed ({event['message']})" if event["class"] == "user_error" else "was too large for its memory"
            event |= {"class": "interrupted", "message": f"an ensemble of {len(unit.unit)} {why}; it goes on alone"}
            self.agenda.part(order.index)
        outcome = event["class"]
        share = {name: value / len(unit.unit) for name, value in self.seating.share(seat).items()}
        self._record_end(order, event | ({"members": len(unit.unit)} if unit.mates else {}), share)
        self.has_progressed |= order.progressed or outcome in ("completed", "diverged")
        if outcome in ("completed", "diverged") and self.timetable.learn(order.task, event["seconds"]):
            self.agenda.bring_back()
        if self._runs_again(order, outcome):
            return
        fingerprint = (event.get("error") or {}).get("fingerprint", "")
        if self.agenda.ended(order.index, outcome, fingerprint):
            self._say(f"workload {order.task.workload}: {event['message']!r} again and again; no more of its tasks are started")
        if outcome == "disk_full":
            self._stop("disk_full")

    def _runs_again(self, order: Order, outcome: str) -> bool:
        """Whether the task goes back to those that are left, for this run or a further one."""
        if outcome == "interrupted" and (order.warned or self.over or self.attempts[order.index] <= MAX_UNTOLD_STOPS):
            self.agenda.put_back(order.index)  # without a warning of its own: one was meant for the task before it
            return True
        if outcome == "timeout_progress" and self.allocation is not None:
            self.timed_out.add(order.index)
            # what a killed task had started on other nodes is there until the run ends
            (self.agenda.set_aside if order.task.resources.get("nodes", 1) > 1 else self.agenda.put_back)(order.index)
            return True
        return False

    def _record_end(self, order: Order, event: dict[str, Any], share: dict[str, float]) -> None:
        self.num_ended += 1
        ids = {"event": "end", "key": order.task.key, "attempt": order.attempt}
        self.journal.record({**ids, **event, **share, "attempt": order.attempt, "memory_limit_gib": order.limit_gib, "time": time.time()})

    # -- children that died ---------------------------------------------------------------------------------------

    def _bury_the_dead(self) -> None:
        self.seating.bury_left()
        dead = [seat for seat in self.seating.seats if seat.reap()]
        self.seating.find_who_filled_the_memory(dead)
        for seat in dead:
            self._hear(seat)
            self._lose(seat)

    def _lose(self, seat: Seat) -> None:
        """A dead child costs the task that it ran; what waited behind goes back."""
        first = seat.orders[0] if seat.orders else None
        charged = seat.orders.popleft() if first is not None and self._is_charged(seat, first) else None
        for order in seat.orders:
            self._take_back(order)
        seat.orders.clear()
        for order in charged.left if charged is not None else ():
            if order is not charged and order.started is None:
                self._take_back(order)
                continue
            event = verdicts.of_dead(self.root, self.journal.run_folder, seat, order, out_of_time=self._out_of_time)
            self.failed_starts += event["class"] == "never_started" and not seat.ready
            self._close(seat, charged or order, order, event)
            self._say(f"task {order.task.key}: {event['class']}, {event['message']}")
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

    @property
    def _out_of_time(self) -> bool:
        return self.over == "warned" and self.timetable.is_out_of_time

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
            elif not self._begins(task):
                self.agenda.set_aside(self.agenda.pop())
            else:
                seat = None if self._must_wait(task) else self.seating.seat_for(task)
                if seat is None:
                    return
                self._give(seat, self.agenda.pop(), self.seating.most_together(task))

    def _begins(self, task: Task) -> bool:
        """Whether there is time for it; the first tasks of a run begin in any case, or it would come to nothing."""
        return self._is_first or self.timetable.fits(task)

    @property
    def _is_first(self) -> bool:
        return not self.num_ended or self.timetable.is_early

    def _must_wait(self, task: Task) -> bool:
        """A task that died with an earlier run has none but its like beside it, and after two runs nothing at all: should it kill the
        node again, that costs no other."""
        running = {seat.orders[0].task.key for seat in self.seating.seats if seat.orders}
        if task.key in self.agenda.loners or running & self.agenda.loners:
            return bool(running)
        return task.key in self.agenda.suspects and not running <= self.agenda.suspects

    def _give(self, seat: Seat, index: int, most: int) -> None:
        """Hand over a task with those that train with it, `most` in all."""
        mates = self._mates(index, most)
        seconds = 60.0 * sum(self.tasks[one].resources.get("walltime_minutes", 60.0) for one in (index, *mates))
        order, *others = (self._order(seat, one, seconds) for one in (index, *mates))
        order.mates = tuple(others)
        try:
            seat.give(order)
        except OSError as error:
            if not mates:
                return self._refuse(index, f"its settings are too large to hand over ({error})")
            self._take_back(order)
            self._give(seat, self.agenda.pop(), len(order.unit) // 2)

    def _order(self, seat: Seat, index: int, seconds: float) -> Order:
        attempt, limit = self._new_attempt(index), seat.shape.limit_bytes / 2**30
        self.attempts[index] += 1
        return Order(index=index, task=self.tasks[index], attempt=attempt, seconds=seconds, limit_gib=limit, first=self._is_first)

    def _mates(self, index: int, most: int) -> list[int]:
        """Tasks that train with this one as one ensemble."""
        running = [order.index for seat in self.seating.seats for unit in seat.orders for order in unit.left]
        return self.agenda.pop_mates(index, self.root, running, self.seating.num_at_once(self.tasks[index]), most)

    def _refuse(self, index: int, why: str) -> None:
        """A task that cannot begin here."""
        order = Order(index=index, task=self.tasks[index], attempt=self._new_attempt(index), seconds=0.0, limit_gib=0.0)
        event = {"class": "never_started", "seconds": 0.0, "message": why, "error": None}
        self._record_end(order, event, dict.fromkeys(("cpus", "gpus", "slots"), 0.0))
        self.agenda.ended(index, "never_started")

    def _new_attempt(self, index: int) -> str:
        number = ATTEMPTS_OF_A_RUN * self.journal.run + self.attempts[index]
        return f"{self.token.replace('/', '.')}-{index}-{number}-{secrets.token_hex(3)}"

    def _take_back(self, unit: Order) -> None:
        for order in unit.unit:
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

    # -- words ----------------------------------------------------------------------------------------------------

    def _beat(self, state: str, *, now: bool = False) -> None:
        if now or time.monotonic() >= self.beat_at:
            self.beat_at = time.monotonic() + HEARTBEAT_SECONDS
            running, slots = sum(1 for seat in self.seating.seats if seat.orders), len(self.seating.places.held)
            self.journal.beat(state, running=running, ended=self.num_ended, left=self.agenda.unfinished, slots=slots)

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError):
            print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", file=sys.stdout, flush=True)
