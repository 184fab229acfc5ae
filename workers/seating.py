"""Which child sits on which slots: slots taken from the machine, children started with the limits of their tasks, and sent away."""

import os
import selectors
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workers import limits, slots
from workers.agenda import needs_job_alone, num_slots
from workers.allocation import Allocation
from workers.ensembles.groups import ensemble_size
from workers.limits import OomWatch
from workers.seat import Seat, Shape
from workers.slots import Gpus, Slot, Slots
from workers.taskdir import Task

MAX_ORDERS = 3
MEMORY_SLACK = 1.01  # a scheduler rounds what it is asked for
JOB_GIB = 0.125  # what the job's own process takes of an allocation
LEAVE_SECONDS = 2.0
_ASKED = ("slots", "cpus_per_slot", "tasks_per_gpu", "memory_gib")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the launcher allows the job on this machine; None: what there is."""

    slots: int | None = None
    cpus_per_slot: int = 1
    memory_gib: float | None = None
    grace_seconds: float = 10.0
    devices: list[int] | None = None
    tasks_per_gpu: int = 1
    limit_memory_by: str = "auto"
    scratch: str | None = None
    stage: bool = False
    ensemble_size: int | None = None

    @classmethod
    def of_batch(cls, body: Mapping[str, Any]) -> "Terms":
        """The terms among the launcher's settings; what was asked of a scheduler for this very job comes before them."""
        plain = {**body["launcher"], **{name: value for name, value in body.get("request", {}).items() if name in _ASKED}}
        return cls(**{name: plain[name] for name in cls.__slots__ if plain.get(name) is not None})


@dataclass(slots=True, kw_only=True)
class Seating:
    """The slots and GPUs that a job holds, and the children on them. `seats` serve, `leaving` have been sent away."""

    root: Path
    code: str
    folder: Path
    terms: Terms
    selector: selectors.BaseSelector
    places: Slots
    gpus: Gpus
    memory_gib: float
    nodes: tuple[str, ...]
    makes_groups: bool
    overhead_gib: float = 0.0
    seats: list[Seat] = field(default_factory=list)
    leaving: list[Seat] = field(default_factory=list)
    num_groups: int = 0
    oom: OomWatch = field(default_factory=OomWatch)

    @classmethod
    def of_machine(cls, root: Path, code: str, folder: Path, terms: Terms, selector: selectors.BaseSelector) -> "Seating":
        """What this machine has within the terms, shared with its other jobs."""
        devices = slots.visible_gpus() if terms.devices is None else list(map(str, terms.devices))
        return cls(
            root=root,
            code=code,
            folder=folder,
            terms=terms,
            selector=selector,
            places=Slots.of_machine(terms.slots, terms.cpus_per_slot),
            gpus=Gpus(devices, terms.tasks_per_gpu),
            memory_gib=terms.memory_gib or 0.9 * limits.total_memory_gib(),
            nodes=(os.uname().nodename,),
            makes_groups=terms.limit_memory_by in ("auto", "cgroup"),
        )

    @classmethod
    def of_allocation(
        cls, root: Path, code: str, folder: Path, terms: Terms, selector: selectors.BaseSelector, allocation: Allocation
    ) -> "Seating":
        """What SLURM has given to this job alone. Its cgroup is SLURM's, so that a watchdog keeps children within their share of it."""
        return cls(
            root=root,
            code=code,
            folder=folder,
            terms=terms,
            selector=selector,
            places=Slots.of_allocation(terms.slots or 1, terms.cpus_per_slot, allocation.cpus),
            gpus=Gpus(list(allocation.gpus), terms.tasks_per_gpu, shared=False),
            memory_gib=allocation.memory_gib or terms.memory_gib or 0.9 * limits.total_memory_gib(),
            nodes=allocation.nodes,
            makes_groups=terms.limit_memory_by == "cgroup",
            overhead_gib=JOB_GIB,
        )

    @property
    def busy(self) -> bool:
        """Whether any task runs or is about to."""
        return any(seat.orders for seat in self.seats)

    @property
    def has_idle_slots(self) -> bool:
        """Whether a slot is held on which nothing runs."""
        return sum(len(seat.slots) for seat in self.seats if seat.orders) < len(self.places.held)

    @property
    def watched(self) -> list[Seat]:
        """Running children whose memory no cgroup limits."""
        return [seat for seat in self.seats if seat.group is None and seat.orders and self.terms.limit_memory_by != "none"]

    def most_together(self, task: Task) -> int:
        """How many tasks may train as one with this one, itself among them."""
        return self.terms.ensemble_size or ensemble_size(task)

    def num_slots(self, task: Task) -> int:
        """How many slots a task occupies."""
        share = MEMORY_SLACK * self.memory_gib / self.places.most
        return num_slots(task, cpus_per_slot=self.terms.cpus_per_slot, memory_gib_per_slot=share, most=self.places.most)

    def fit(self, wanted: int) -> None:
        """Hold `wanted` slots as far as they are free, and none that is not needed, but one."""
        occupied = [slot for seat in self.seats for slot in seat.slots if seat.orders]
        for slot in [slot for slot in self.places.held if slot not in occupied][::-1]:
            if len(self.places.held) <= max(1, wanted):
                break
            for seat in [seat for seat in self.seats if slot in seat.slots]:
                self.retire(seat)
            self.places.release(slot)
        self.places.take(wanted)

    def seat_for(self, task: Task) -> Seat | None:
        """A child for `task` with the limits that it needs; None: its turn comes when slots are free."""
        alone = needs_job_alone(task)
        if any(seat.alone and seat.orders for seat in self.seats) or (alone and self.busy):
            return None
        shape = self._shape(task)
        for seat in self.seats:
            if seat.shape == shape and not seat.orders and not alone and not seat.alone:
                return seat
        free = self._free_slots(shape.num_slots)
        gpus = self._free_gpus(shape.num_gpus) if free is not None else None
        if free is not None and gpus is not None:
            return self._start(task, shape, free, gpus)
        return self._ahead(shape) if not alone else None

    def _shape(self, task: Task) -> Shape:
        count = min(self.num_slots(task), len(self.places.held))
        memory = min(self.memory_gib, task.resources.get("memory_gib", 1.0))
        if needs_job_alone(task):
            memory = max(memory, self.memory_gib - self.overhead_gib)
        threads = min(task.resources.get("cpus", 1), count * self.terms.cpus_per_slot)
        return Shape(
            num_nodes=min(task.resources.get("nodes", 1), len(self.nodes)),
            num_slots=count,
            threads=threads,
            num_gpus=task.resources.get("gpus", 0),
            limit_bytes=int(memory * 2**30),
        )

    def num_at_once(self, task: Task) -> int:
        """How many tasks like this one can run at once on what is held now."""
        at_once = len(self.places.held) // max(1, min(self.num_slots(task), len(self.places.held)))
        gpus = task.resources.get("gpus", 0)
        return max(1, min(at_once, self.gpus.most * self.gpus.tasks_per_gpu // gpus) if gpus else at_once)

    def share(self, seat: Seat) -> dict[str, float]:
        """CPUs, GPUs and slots that a task on the seat keeps from others, on all nodes together: what its time is to be paid for."""
        width, nodes = self.terms.cpus_per_slot, seat.shape.num_nodes
        if seat.alone:
            return {"cpus": self.places.most * width * nodes, "gpus": self.gpus.most * nodes, "slots": self.places.most}
        gpus = seat.shape.num_gpus / self.gpus.tasks_per_gpu
        return {"cpus": seat.shape.num_slots * width, "gpus": gpus, "slots": seat.shape.num_slots}

    def _free_slots(self, count: int) -> list[Slot] | None:
        """`count` slots: those without a child, then those of idle children, which are sent away."""
        taken = [slot for seat in self.seats for slot in seat.slots]
        free = [slot for slot in self.places.held if slot not in taken]
        idle = [seat for seat in self.seats if not seat.orders]
        if len(free) + sum(len(seat.slots) for seat in idle) < count:
            return None
        while len(free) < count:
            seat = idle.pop()
            free += seat.slots
            self.retire(seat)
        return free[:count]

    def _free_gpus(self, count: int) -> list[str] | None:
        """`count` GPUs; idle children that hold some are sent away for them."""
        idle = [seat for seat in self.seats if seat.gpus and not seat.orders]
        while (gpus := self.gpus.take(count)) is None and idle:
            self.retire(idle.pop())
        return gpus

    def _ahead(self, shape: Shape) -> Seat | None:
        """A child of this shape that ends tasks so quickly that the next one may wait at its door."""
        fitting = [seat for seat in self.seats if seat.shape == shape and seat.quick and len(seat.orders) < MAX_ORDERS]
        return min(fitting, key=lambda seat: len(seat.orders), default=None)

    def _start(self, task: Task, shape: Shape, free: list[Slot], gpus: list[str]) -> Seat:
        group = None
        if self.makes_groups:
            self.num_groups += 1
            group = limits.make_group(limits.group_name(os.getpid(), self.num_groups), shape.limit_bytes)
        seat = Seat(slots=free, gpus=gpus, shape=shape, group=group, grace_seconds=self.terms.grace_seconds)
        seat.alone = needs_job_alone(task)
        seat.start(self.root, self.code, self.folder, self.nodes[: shape.num_nodes])
        self.seats.append(seat)
        self.selector.register(seat.channel, selectors.EVENT_READ, seat)
        return seat

    # -- memory ---------------------------------------------------------------------------------------------------

    def find_who_filled_the_memory(self, dead: list[Seat]) -> None:
        """Where the kernel killed because the whole job's memory was full, it took the largest child, which need not be the guilty one."""
        suspects = [seat for seat in dead if seat.group is None and seat.exit_status == -signal.SIGKILL and not seat.killed_for]
        if not suspects or not self._kernel_killed():
            return
        above = [seat for seat in self.watched if seat not in dead and seat.watch_memory()]
        guilty = None if above else max(suspects, key=lambda seat: seat.peak_mib / seat.shape.limit_bytes)
        for seat in suspects:
            seat.killed_by_kernel, seat.evicted = seat is guilty, seat is not guilty

    def lost_a_process(self, seat: Seat) -> bool:
        """Whether something that the child had started was killed for memory."""
        return seat.out_of_memory() or (seat.group is None and self._kernel_killed())

    def _kernel_killed(self) -> bool:
        self.oom.look()
        return self.oom.take()

    # -- ends -----------------------------------------------------------------------------------------------------

    def retire(self, seat: Seat) -> None:
        """Send an idle child away; it is buried when it has ended."""
        self.remove(seat)
        seat.leave()
        self.leaving.append(seat)

    def remove(self, seat: Seat) -> None:
        """Its slots are free for another child."""
        self.seats.remove(seat)
        self.selector.unregister(seat.channel)
        self.gpus.release(seat.gpus)

    def bury_left(self) -> None:
        """Bury those that were sent away and have ended."""
        for seat in [seat for seat in self.leaving if seat.reap()]:
            self.leaving.remove(seat)
            seat.bury()

    def close(self) -> None:
        """Send all children away and clear their cgroups, whatever has happened; the selector wakes when one ends."""
        for seat in list(self.seats):
            self.retire(seat)
        deadline = time.monotonic() + LEAVE_SECONDS
        self.bury_left()
        while self.leaving and time.monotonic() < deadline:
            for key, _ in self.selector.select(deadline - time.monotonic()):
                key.fileobj.recv(4096)  # type: ignore[union-attr]
            self.bury_left()
        for seat in self.leaving:
            seat.kill("stop")
            seat.bury()
        for slot in list(self.places.held):
            self.places.release(slot)
