"""Arrays whose entries are computed when they are taken, from memory-mapped files or from several parts, for data larger than memory."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

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
