"""Sums over MPI ranks that are all on one node, by shared memory, and asleep while they wait: MPI's own waits keep a core busy.

Only where no message of MPI is under way: a rank that sleeps sends none.
"""

import mmap
import os
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import numpy as np

_NUM_HERE, _NUMBER = "OMPI_COMM_WORLD_LOCAL_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"


@dataclass(slots=True, eq=False)
class Node:
    """The ranks of a node: connections between the first, which counts, and the others, and memory that all share."""

    number: int
    size: int
    ends: list[socket.socket]
    _memory: "np.ndarray | None" = field(default=None)

    def wait(self) -> None:
        """Return when all ranks of this node are here; ConnectionError where one has ended."""
        if self.number == 0:
            for end in self.ends:
                _heard(end)
        for end in self.ends:
            end.send(b".")
        if self.number:
            _heard(self.ends[0])

    def add_up(self, array: "np.ndarray") -> None:
        """Sum over the ranks of the node, in their order, in place, of contiguous arrays of one size, precision and order in memory."""
        import numpy as np

        if not array.flags.forc:
            raise ValueError(f"sums are of contiguous arrays, this one of shape {array.shape} has strides {array.strides}")
        mine = array.reshape(-1, order="A")
        slots = self._slots(mine.nbytes).view(mine.dtype)
        parts = np.array_split(slots[:, : mine.size], self.size, axis=1)
        slots[self.number, : mine.size] = mine
        self.wait()
        found = parts[self.number]
        for other in range(1, self.size):
            found[0] += found[other]
        self.wait()
        mine[:] = slots[0, : mine.size]
        self.wait()  # before one of them writes again

    def _slots(self, num_bytes: int) -> "np.ndarray":
        """(ranks, bytes) of memory that all share, as large as the first sum needs; all ask for it in the same order."""
        import numpy as np

        if self._memory is None or self._memory.shape[1] < num_bytes:
            each = -(-num_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
            shared = mmap.mmap(self._descriptor(self.size * each), self.size * each)
            self._memory = np.frombuffer(shared, np.uint8).reshape(self.size, each)
        return self._memory

    def _descriptor(self, num_bytes: int) -> int:
        """Of memory without a name, which the first rank makes and hands to the others."""
        if self.number:
            _, descriptors, _, _ = socket.recv_fds(self.ends[0], 1, 1)
            if not descriptors:
                raise ConnectionError("the first MPI rank of this node has ended")
            return descriptors[0]
        descriptor = os.memfd_create("eigensweep-sums")
        os.ftruncate(descriptor, num_bytes)
        for end in self.ends:
            socket.send_fds(end, [b"m"], [descriptor])
        return descriptor


@dataclass(frozen=True, slots=True, eq=False)
class Meeting:
    """What stands before the ranks have met: where the first one listens, under a name that ends with it."""

    number: int
    size: int
    end: socket.socket

    @classmethod
    def begin(cls) -> Self:
        """To be called by each rank, before it knows that the others are there."""
        meeting = cls(int(os.environ.get(_NUMBER, "0")), int(os.environ.get(_NUM_HERE, "1")), socket.socket(socket.AF_UNIX))
        if meeting.number == 0 and meeting.size > 1:
            meeting.end.bind(_name())
            meeting.end.listen(meeting.size)
        return meeting

    def met(self) -> Node:
        """To be called by each rank, once all have begun."""
        if self.number and self.size > 1:
            self.end.connect(_name())
            return Node(self.number, self.size, [self.end])
        ends = [self.end.accept()[0] for _ in range(self.size - 1)]
        self.end.close()
        return Node(0, self.size, ends)


def _name() -> str:
    """The ranks of a node are children of one daemon of MPI's; processes of other containers may have the same number."""
    return f"\0eigensweep-ranks-{os.environ.get('PMIX_NAMESPACE', '')}-{os.getppid()}"


def _heard(end: socket.socket) -> None:
    if not end.recv(1):
        raise ConnectionError("another MPI rank of this node has ended")
