"""Slots of this machine, held by locks in a host-local folder, so that several local jobs together never oversubscribe it."""

import contextlib
import fcntl
import os
from dataclasses import dataclass, field
from pathlib import Path


def locks_dir() -> Path:
    """Where the locks stand: never on a shared file system; the kernel frees a lock when its process dies."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(runtime) / "eigensweep" if runtime and os.access(runtime, os.W_OK) else Path(f"/tmp/eigensweep-{os.getuid()}")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


@dataclass(slots=True)
class Lane:
    """One lock held: a CPU's, or a GPU's."""

    number: int
    descriptor: int

    def release(self) -> None:
        """Leave it to others."""
        os.close(self.descriptor)


@dataclass(slots=True)
class Slot:
    """A place for one child: its number names its log, `cpus` are its own."""

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

    With more slots than CPUs several share a CPU, as the user asked.
    """

    most: int
    cpus_per_slot: int = 1
    held: list[Slot] = field(default_factory=list)

    @classmethod
    def of_machine(cls, slots: int | None, cpus_per_slot: int) -> "Slots":
        """As many as asked for, else one for every `cpus_per_slot` CPUs that this process may use."""
        return cls(slots or max(1, len(os.sched_getaffinity(0)) // cpus_per_slot), cpus_per_slot)

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
        machine = sorted(os.sched_getaffinity(0))
        lanes: list[Lane] = []
        for number in range(max(len(machine), self.most * self.cpus_per_slot)):
            lane = lock("cpu", number)
            if lane is not None:
                lanes.append(lane)
            if len(lanes) == self.cpus_per_slot:
                taken = {slot.number for slot in self.held}
                free = next(n for n in range(len(taken) + 1) if n not in taken)
                return Slot(free, lanes, sorted({machine[lane.number % len(machine)] for lane in lanes}))
        for lane in lanes:
            lane.release()
        return None


def lock(kind: str, number: int) -> Lane | None:
    """The machine-wide lock of a CPU or GPU; None where another job holds it."""
    descriptor = os.open(locks_dir() / f"{kind}-{number}", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return Lane(number, descriptor)


def visible_gpus() -> list[int]:
    """Numbers of the GPUs that this process may use, without loading a GPU library."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [int(part) for part in visible.split(",") if part.strip().isdigit()]
    numbers = []
    with contextlib.suppress(OSError):
        numbers = [int(name.removeprefix("nvidia")) for name in os.listdir("/dev") if name.removeprefix("nvidia").isdigit()]
    return sorted(numbers)


@dataclass(slots=True)
class Gpus:
    """The GPUs of one job: each is lent to `tasks_per_gpu` tasks at once and locked against other jobs while it is used."""

    numbers: list[int]
    tasks_per_gpu: int = 1
    _used: dict[int, tuple[Lane, int]] = field(default_factory=dict)

    @property
    def most(self) -> int:
        """How many a task can ask for."""
        return len(self.numbers)

    def take(self, count: int) -> list[int] | None:
        """Numbers of `count` GPUs, the least used first; None where they are not free now."""
        taken: list[int] = []
        for number in sorted(self.numbers, key=lambda n: self._used[n][1] if n in self._used else 0):
            if len(taken) == count:
                break
            if self._take_one(number):
                taken.append(number)
        if len(taken) == count:
            return taken
        self.release(taken)
        return None

    def release(self, numbers: list[int]) -> None:
        """Give back what `take` lent."""
        for number in numbers:
            lane, users = self._used.pop(number)
            if users > 1:
                self._used[number] = (lane, users - 1)
            else:
                lane.release()

    def _take_one(self, number: int) -> bool:
        if number in self._used:
            lane, users = self._used[number]
            if users >= self.tasks_per_gpu:
                return False
            self._used[number] = (lane, users + 1)
            return True
        lane_or_none = lock("gpu", number)
        if lane_or_none is None:
            return False
        self._used[number] = (lane_or_none, 1)
        return True
