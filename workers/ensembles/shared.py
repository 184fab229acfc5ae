"""The samples of many training runs held once: a table of all that any of them takes, and which rows are whose."""

from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253  (imported by `workers.ensembles.runs` alone)
from torch import Tensor  # noqa: TID253

from workers.samples import Samples

if TYPE_CHECKING:
    from workers.subsets import Indices


class SharedSamples:
    """Stands for `samples` where many runs take theirs: each gets `Taken`, whose table is read when all have asked."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples
        self.asked: list[Indices] = []
        self._table: tuple[Tensor, Tensor] | None = None
        self._test: dict[bytes, tuple[Tensor, Tensor]] = {}
        self._device, self._dtype = "cpu", torch.float32
        self._union: Indices | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.samples, name)

    def train(self, index_N: "Indices", device: str, dtype: torch.dtype) -> "tuple[Taken, Taken]":
        """Stand-ins for inputs and targets of the chosen training samples."""
        self._device, self._dtype = device, dtype
        self.asked.append(index_N)
        return Taken(self, len(self.asked) - 1, 0), Taken(self, len(self.asked) - 1, 1)

    def test(self, index_N: "Indices", device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """As of `Samples`, once for all who ask for the same."""
        name = index_N.tobytes()
        if name not in self._test:
            self._test[name] = self.samples.test(index_N, device, dtype)
        return self._test[name]

    def table(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets of every sample that anybody asked for."""
        if self._table is None:
            self._table = self.samples.train(self._all(), self._device, self._dtype)
        return self._table

    def rows(self, number: int) -> Tensor:
        """Those of the table (N,) that the `number`-th who asked has taken, on the device."""
        import numpy as np

        return torch.from_numpy(np.searchsorted(self._all(), self.asked[number])).to(self._device)

    def _all(self) -> "Indices":
        import numpy as np

        if self._union is None:
            self._union = np.unique(np.concatenate(self.asked))
        return self._union


class Taken:
    """Inputs or targets of a run, as a tensor of them would be sliced and counted."""

    def __init__(self, shared: SharedSamples, number: int, part: int) -> None:
        self.shared, self.number, self.part = shared, number, part
        self._rows: Tensor | None = None

    @property
    def rows(self) -> Tensor:
        """Of the table (N,)."""
        if self._rows is None:
            self._rows = self.shared.rows(self.number)
        return self._rows

    def __len__(self) -> int:
        return len(self.shared.asked[self.number])

    def __getitem__(self, index: Any) -> Tensor:
        return self.shared.table()[self.part][self.rows[index]]
