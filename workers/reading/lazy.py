"""Arrays whose entries are read or computed when they are taken, from one file or several, for data larger than memory."""

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

# N entries along the first axis


class Lazy(ABC):
    """What of an array is asked for: `shape` (N, ...), `dtype`, `len` and the entries at indices (M,) or of a slice, as an array."""

    shape: tuple[int, ...]
    dtype: "np.dtype[Any]"

    def __len__(self) -> int:
        return self.shape[0]

    @abstractmethod
    def __getitem__(self, index: "Array | slice") -> "Array":
        """The entries (M, ...) as an array of their own."""


_BLOCK = 2048


class Part(Lazy):
    """The entries of `source` from `start` to before `stop`."""

    def __init__(self, source: "Array | Lazy", start: int, stop: int) -> None:
        self._source, self._start = source, start
        self.shape, self.dtype = (stop - start, *source.shape[1:]), source.dtype

    def __getitem__(self, index: "Array | slice") -> "Array":
        import numpy as np

        return self._source[self._start + (np.arange(len(self))[index] if isinstance(index, slice) else index)]


class Computed(Lazy):
    """`compute` of the entries (M, ...) of `source`, block by block; its results have the shape (M, *shape_of_one) and the type `dtype`."""

    def __init__(
        self, source: "Array | Lazy", compute: "Callable[[Array], Array]", shape_of_one: tuple[int, ...], dtype: "np.dtype[Any]"
    ) -> None:
        self._source, self._compute = source, compute
        self.shape, self.dtype = (len(source), *shape_of_one), dtype

    def __getitem__(self, index: "Array | slice") -> "Array":
        import numpy as np

        if isinstance(index, slice):
            index = np.arange(len(self))[index]
        taken = np.empty((len(index), *self.shape[1:]), self.dtype)
        for start in range(0, len(index), _BLOCK):
            taken[start : start + _BLOCK] = self._compute(self._source[index[start : start + _BLOCK]])
        return taken


class Stored(Lazy):
    """Entries of a file, `stride` bytes from each other (None: without gaps), the first at the byte `offset`.

    They are read, not mapped into memory: pages of a mapped file count as memory of the process, and its limit may end it.
    """

    def __init__(self, path: Path, dtype: "np.dtype[Any]", shape: tuple[int, ...], *, offset: int = 0, stride: int | None = None) -> None:
        self.path, self.shape, self.dtype, self._offset = path, shape, dtype, offset
        self._size = math.prod(shape[1:]) * dtype.itemsize
        self._stride = self._size if stride is None else stride

    def __getitem__(self, index: "Array | slice") -> "Array":
        import numpy as np

        if isinstance(index, slice):
            index = np.arange(len(self))[index]
        taken = np.empty((len(index), *self.shape[1:]), self.dtype)
        bytes_M = taken.reshape(-1).view(np.uint8).reshape(len(index), self._size)
        if self._stride == self._size and len(index) and (np.diff(index) == 1).all():
            self._read(bytes_M.reshape(1, -1), index[:1])
        else:
            self._read(bytes_M, index)
        return taken

    def _read(self, bytes_M: "Array", index_M: "Array") -> None:
        """Fill each row of bytes with what stands from an entry on."""
        with self.path.open("rb", buffering=0) as file:
            for row, number in zip(bytes_M, index_M.tolist()):
                done, start = 0, self._offset + number * self._stride
                # one call reads at most 2 GiB
                while done < len(row):
                    num = os.preadv(file.fileno(), [row[done:].data], start + done)
                    if num == 0:
                        raise ConfigError(f"{self.path} is shorter than it was, or than it says; fetch it again")
                    done += num


class Joined(Lazy):
    """Arrays of equal type and equal shapes but for N, one after the other; nothing is copied until it is taken."""

    def __init__(self, parts: "Sequence[Array | Lazy]") -> None:
        import numpy as np

        self._parts = list(parts)
        self._ends = np.cumsum([len(part) for part in self._parts])
        self.shape, self.dtype = (int(self._ends[-1]), *self._parts[0].shape[1:]), self._parts[0].dtype

    def __getitem__(self, index: "Array | slice") -> "Array":
        import numpy as np

        index_M = np.arange(len(self))[index]
        taken = np.empty((len(index_M), *self.shape[1:]), self.dtype)
        part_M = np.searchsorted(self._ends, index_M, side="right")
        for number, part in enumerate(self._parts):
            here = part_M == number
            if here.any():
                taken[here] = part[index_M[here] - (self._ends[number] - len(part))]
        return taken
