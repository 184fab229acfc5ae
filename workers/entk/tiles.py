"""A kernel in the making, tile by tile: which panels are held, which tiles are computed, and the triangle that is only mirrored."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from workers.entk.blocks import Block, Panel, Scratch
from workers.entk.network import Network, Samples
from workers.entk.planning import Basis, Group
from workers.entk.store import Store

# samples are counted, not kernel rows, unless it says so

ROWS_OF_A_TILE = {"cpu": 640, "cuda": 4096}
# tiles on the diagonal are this much smaller: half of each is computed for nothing
DIAGONAL = 2


@dataclass(eq=False)
class Work:
    """One kernel in the making: what is computed from what, and where it is added."""

    network: Network
    basis: Basis
    rows: Samples
    columns: Samples | None
    kernels: dict[str, Tensor]
    per_class: bool
    pass_bytes: int
    panel_bytes: int
    scratch: Scratch = field(default_factory=Scratch)

    def add(self, group: Group) -> Iterator[int]:
        """Add a group's products to the kernels; yields the samples that have gone through, for progress."""
        num_rows = len(self.rows[0])
        for start in range(0, num_rows, group.num_rows):
            held = slice(start, min(start + group.num_rows, num_rows))
            left = self.blocks(group, self.rows, held, "left")
            yield held.stop - held.start
            if self.columns is None:
                self.add_products(left, left, held, held)
                others, samples = range(held.stop, num_rows, group.num_columns), self.rows
            else:
                others, samples = range(0, len(self.columns[0]), group.num_columns), self.columns
            for first in others:
                across = slice(first, min(first + group.num_columns, len(samples[0])))
                self.add_products(left, self.blocks(group, samples, across, "right"), held, across)
                yield across.stop - across.start

    def blocks(self, group: Group, samples: Samples, which: slice, side: str) -> "dict[str, list[Block]]":
        store = Store(self.network, self.basis, group, which.stop - which.start, self.scratch, side)
        store.fill(tuple(tensor[which] for tensor in samples), self.pass_bytes)
        return store.blocks()

    def add_products(self, left: "dict[str, list[Block]]", right: "dict[str, list[Block]]", rows: slice, columns: slice) -> None:
        """All tiles of two panels; of a panel with itself only those on and above the diagonal: the kernel is symmetric."""
        size = 1 if self.per_class else self.basis.num_rows
        step = max(1, ROWS_OF_A_TILE.get(self.rows[0].device.type, 640) // size)
        symmetric = self.columns is None and rows == columns
        pairs = [(label, *both) for label in left for both in zip(left[label], right[label])]
        places = {"whole": [(rows, columns)], "coarse": list(_rectangle(rows, columns, step))}
        if symmetric:
            places["coarse"] = [(a, b) for a, b in places["coarse"] if a.start <= b.start]
        places["fine"] = list(_triangle(rows, step)) if symmetric else places["coarse"]
        for grain, some in places.items():
            self._add_all([pair for pair in pairs if pair[1].grain == grain], some, rows, columns)
        for label, one, other in pairs:
            if isinstance(one, Panel) and isinstance(other, Panel):
                for outputs in max(one, other, key=lambda panel: panel.num_samples).slices(self.panel_bytes):
                    made = one.made(outputs, self.scratch)
                    both = (made, made if other is one else other.made(outputs, self.scratch))
                    self._add_all([(label, *both)], places["coarse"], rows, columns)

    def _add_all(self, pairs: "list[tuple[str, Block, Block]]", places: Sequence[tuple[slice, slice]], rows: slice, columns: slice) -> None:
        """Add the products of pairs of blocks at some places of two panels."""
        size = 1 if self.per_class else self.basis.num_rows
        for a, b in places:
            for label, one, other in pairs:
                tile = self.kernels[label][..., a.start * size : a.stop * size, b.start * size : b.stop * size]
                self._add_tile(one.of(_shift(a, rows)), other.of(_shift(b, columns)), tile)

    def _add_tile(self, one: Block, other: Block, tile: Tensor) -> None:
        if self.per_class:
            for index in range(self.basis.num_rows):
                one.of_output(index).add(other.of_output(index), tile[index], self.scratch)
        else:
            one.add(other, tile, self.scratch)


def _rectangle(rows: slice, columns: slice, step: int) -> Iterator[tuple[slice, slice]]:
    """Equal tiles, but for rounding, of at most `step` samples a side."""
    tall, wide = (math.ceil(size / math.ceil(size / step)) for size in (rows.stop - rows.start, columns.stop - columns.start))
    for i in range(rows.start, rows.stop, tall):
        for j in range(columns.start, columns.stop, wide):
            yield slice(i, min(i + tall, rows.stop)), slice(j, min(j + wide, columns.stop))


def _triangle(rows: slice, step: int) -> Iterator[tuple[slice, slice]]:
    """Tiles that cover the diagonal and what is above it: halves of halves, so that little below it is computed."""
    size = rows.stop - rows.start
    if size <= max(1, step // DIAGONAL):
        yield rows, rows
        return
    middle = rows.start + size // 2
    first, second = slice(rows.start, middle), slice(middle, rows.stop)
    yield from _triangle(first, step)
    yield from _rectangle(first, second, step)
    yield from _triangle(second, step)


def _shift(part: slice, whole: slice) -> slice:
    return slice(part.start - whole.start, part.stop - whole.start)


def finish(kernel: Tensor, basis: Basis, *, symmetric: bool) -> None:
    """Divide by what was contracted, and mirror the upper triangle, so that the kernel is exactly symmetric."""
    if basis.num_contracted > 1:
        kernel /= basis.num_contracted
    if symmetric:
        _mirror(kernel)


def _mirror(square: Tensor, step: int = 512) -> None:
    """Copy the upper triangle to the lower one, in pieces that fit the caches."""
    size = square.shape[-1]
    for i in range(0, size, step):
        diagonal = square[..., i : i + step, i : i + step]
        if step > 64:
            _mirror(diagonal, 64)
        else:
            diagonal.copy_(diagonal.triu() + diagonal.triu(1).mT)
        for j in range(i + step, size, step):
            square[..., j : j + step, i : i + step] = square[..., i : i + step, j : j + step].mT


def num_passes(made: Sequence[Group], num_rows: int, num_columns: int, *, symmetric: bool) -> int:
    """Samples that go through passes in all."""
    total = 0
    for group in made:
        for start in range(0, num_rows, group.num_rows):
            stop = min(start + group.num_rows, num_rows)
            total += stop - start + (num_rows - stop if symmetric else num_columns)
    return total
