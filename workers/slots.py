"""Places for children: slots of this machine, held by locks so that several local jobs never oversubscribe it, or of a SLURM allocation."""

import contextlib
import fcntl
import os
from dataclasses import dataclass, field

from workers.allocation import gpu_tokens
from workers.processes import host_dir


@dataclass(slots=True)
class Lane:
    """One lock held: a CPU's, or a GPU's. Without a descriptor nothing is locked: the scheduler keeps others away."""

    name: int | str
    descriptor: int | None = None

    def release(self) -> None:
        """Leave it to others."""
        if self.descriptor is not None:
            os.close(self.descriptor)


@dataclass(slots=True)
class Slot:
    """A place for one child: its number names its log, `cpus` are its own; none: it runs on any that the job may use."""

    number: int
    lanes: list[Lane]
    cpus: list[int]

    def release(self) -> None:
        """Leave its CPUs to other jobs."""
        for lane in self.lanes:
            lane.release()


@dataclass(slots=True)
class Slots:
    """The slots of one job: at most `most` of `cpus_per_slot` CPUs each, as many as are free on this machine.

    With more slots than CPUs several share a CPU, as the user asked. With `own_cpus` the job has these to itself: nothing is locked,
    and slots that do not fit them are not pinned.
    """

    most: int
    cpus_per_slot: int = 1
    held: list[Slot] = field(default_factory=list)
    own_cpus: list[int] | None = None

    @classmethod
    def of_machine(cls, slots: int | None, cpus_per_slot: int) -> "Slots":
        """As many as asked for, else one for every `cpus_per_slot` CPUs that this process may use."""
        return cls(slots or max(1, len(os.sched_getaffinity(0)) // cpus_per_slot), cpus_per_slot)

    @classmethod
    def of_allocation(cls, slots: int, cpus_per_slot: int, num_cpus: int | None) -> "Slots":
        """Those of a job that its scheduler gave `num_cpus` CPUs; only where it may run on just so many are they known to be its own."""
        mask = sorted(os.sched_getaffinity(0))
        return cls(slots, cpus_per_slot, own_cpus=mask if len(mask) == num_cpus else [])

    def take(self, wanted: int) -> list[Slot]:
        """Take free slots until `wanted` are held (or all there are); returns the new ones."""
        new: list[Slot] = []
        while len(self.held) < min(wanted, self.most):
            slot = self._take_one()
            if slot is None:
                break
            self.held.append(slot)
            new.append(slot)
        return new

    def release(self, slot: Slot) -> None:
        """Give one back."""
        self.held.remove(slot)
        slot.release()

    def _take_one(self) -> Slot | None:
        if self.own_cpus is not None:
            number, width = self._free_number(), self.cpus_per_slot
            pinned = self.own_cpus[number * width : (number + 1) * width] if self.most * width <= len(self.own_cpus) else []
            return Slot(number, [], pinned)
        machine = sorted(os.sched_getaffinity(0))
        lanes: list[Lane] = []
        for number in range(max(len(machine), self.most * self.cpus_per_slot)):
            lane = lock("cpu", number)
            if lane is not None:
                lanes.append(lane)
            if len(lanes) == self.cpus_per_slot:
                return Slot(self._free_number(), lanes, sorted({machine[int(lane.name) % len(machine)] for lane in lanes}))
        for lane in lanes:
            lane.release()
        return None

    def _free_number(self) -> int:
        taken = {slot.number for slot in self.held}
        return next(n for n in range(len(taken) + 1) if n not in taken)


def lock(kind: str, name: int | str) -> Lane | None:
    """The machine-wide lock of a CPU or GPU; None where another job holds it."""
    descriptor = os.open(host_dir() / f"{kind}-{name}", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return Lane(name, descriptor)


def visible_gpus() -> list[str]:
    """Names of the GPUs that this process may use (numbers, `GPU-...`, `MIG-...`), without loading a GPU library."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return list(gpu_tokens(visible))
    numbers = []
    with contextlib.suppress(OSError):
        numbers = [int(name.removeprefix("nvidia")) for name in os.listdir("/dev") if name.removeprefix("nvidia").isdigit()]
    return [str(number) for number in sorted(numbers)]


@dataclass(slots=True)
class Gpus:
    """The GPUs of one job: each is lent to `tasks_per_gpu` tasks at once and, where it is `shared` with other jobs, locked meanwhile."""

    names: list[str]
    tasks_per_gpu: int = 1
    shared: bool = True
    _used: dict[str, tuple[Lane, int]] = field(default_factory=dict)

    @property
    def most(self) -> int:
        """How many a task can ask for."""
        return len(self.names)

    def take(self, count: int) -> list[str] | None:
        """Names of `count` GPUs, the least used first; None where they are not free now."""
        taken: list[str] = []
        for name in sorted(self.names, key=lambda n: self._used[n][1] if n in self._used else 0):
            if len(taken) == count:
                break
            if self._take_one(name):
                taken.append(name)
        if len(taken) == count:
            return taken
        self.release(taken)
        return None

    def release(self, names: list[str]) -> None:
        """Give back what `take` lent."""
        for name in names:
            lane, users = self._used.pop(name)
            if users > 1:
                self._used[name] = (lane, users - 1)
            else:
                lane.release()

    def _take_one(self, name: str) -> bool:
        if name in self._used:
            lane, users = self._used[name]
            if users >= self.tasks_per_gpu:
                return False
            self._used[name] = (lane, users + 1)
            return True
        lane_or_none = lock("gpu", name) if self.shared else Lane(name)
        if lane_or_none is None:
            return False
        self._used[name] = (lane_or_none, 1)
        return True
