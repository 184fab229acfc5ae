"""What is kept of the Jacobian between passes and tiles, in the form whose products are the cheapest."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from workers.entk.terms import Matrix, write_rows

# N samples held; Q kernel rows of a sample; K cotangents contracted in each of them; T positions; I, O sizes of a weight matrix; P weights
# b, d samples of a tile's rows and columns

# longer sums are cut, and the cuts added in float64: one product in float32 over 777,000 terms was wrong by 8e-6, so by less than 1e-7
LONGEST_SUM = 16384
STRIP = 128
# products with fewer outputs of a weight are slow
FEWEST_OUTPUTS = 16


@dataclass(frozen=True, slots=True, eq=False)
class Block(ABC):
    """A part of the Jacobian of N samples; abstract.

    `grain`: its products are added to "fine" tiles, with small ones on the diagonal, to "coarse" ones of one size, or all at once,
    "whole"; "made" ones are made into rows before.
    """

    grain: ClassVar[str] = "fine"

    @abstractmethod
    def of(self, samples: slice) -> "Block":
        """The part of some samples (a view)."""

    @abstractmethod
    def of_output(self, index: int) -> "Block":
        """The part of one kernel row of each sample (a view)."""

    @abstractmethod
    def add(self, other: "Block", tile: Tensor, scratch: "Scratch") -> None:
        """Add the products with another block of the same kind to a tile (b Q, d Q)."""


class Scratch:
    """Buffers that are used again for every tile."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, torch.dtype], Tensor] = {}

    def take(self, name: str, like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """An uninitialised tensor of a shape, with the device of another, and its dtype unless told."""
        size, key = math.prod(shape), (name, dtype or like.dtype)
        if key not in self._buffers or self._buffers[key].numel() < size:
            self._buffers.pop(key, None)
            self._buffers[key] = like.new_empty(size, dtype=dtype).detach()
        return self._buffers[key][:size].view(shape)


@dataclass(frozen=True, slots=True, eq=False)
class Rows(Block):
    """The rows themselves: `values` (N, Q, K P)."""

    grain: ClassVar[str] = "coarse"

    values: Tensor

    def of(self, samples: slice) -> "Rows":
        return Rows(self.values[samples])

    def of_output(self, index: int) -> "Rows":
        return Rows(self.values[:, index : index + 1])

    def add(self, other: Block, tile: Tensor, scratch: Scratch) -> None:
        assert isinstance(other, Rows)
        _add_product(tile, self.values.flatten(0, 1), other.values.flatten(0, 1), scratch)


@dataclass(frozen=True, slots=True, eq=False)
class Panel(Block):
    """Rows that are made when they are multiplied, of what the passes have left: terms, each with its cotangents and samples.

    So one array holds the rows of one weight after the other, and stays in the caches between making and multiplying.
    """

    grain: ClassVar[str] = "made"

    chunks: list[tuple[Matrix, list[Tensor], int]]
    num_samples: int
    num_rows: int
    num_contracted: int
    num_weights: int
    scale: float
    side: str

    def of(self, samples: slice) -> "Panel":
        raise AssertionError("a panel is made as a whole")

    def of_output(self, index: int) -> "Panel":
        raise AssertionError("a panel is made as a whole")

    def add(self, other: Block, tile: Tensor, scratch: Scratch) -> None:
        raise AssertionError("a panel is multiplied as rows")

    def slices(self, num_bytes: int) -> list[slice]:
        """Outputs of the weight whose rows take about `num_bytes`."""
        num_outputs, size = self.chunks[0][0].num_outputs, self.num_rows * self.num_contracted
        fan_in = self.num_weights // num_outputs
        step = max(FEWEST_OUTPUTS, num_bytes // (self.num_samples * size * fan_in * self.chunks[0][1][0].element_size()))
        step = math.ceil(num_outputs / math.ceil(num_outputs / step))
        return [slice(start, min(start + step, num_outputs)) for start in range(0, num_outputs, step)]

    def made(self, outputs: slice, scratch: Scratch) -> Block:
        """The rows of some outputs of the weight, in memory that the next ones of this side take over."""
        return Rows(self._values(outputs, scratch).unflatten(1, (self.num_rows, self.num_contracted)).flatten(2))

    def _values(self, outputs: slice, scratch: Scratch) -> Tensor:
        fan_in = self.num_weights // self.chunks[0][0].num_outputs
        shape = (self.num_samples, self.num_rows * self.num_contracted, (outputs.stop - outputs.start) * fan_in)
        values = scratch.take(f"{self.side} panel", self.chunks[0][1][0], *shape)
        self._fill(values, outputs)
        return values

    def _fill(self, values: Tensor, outputs: slice) -> None:
        start = 0
        for term, cotangents, size in self.chunks:
            part = values[start : start + size]
            twice = size < term.num_samples  # one sample, that was taken twice
            rows = values.new_empty(term.num_samples, *values.shape[1:]) if twice else part
            write_rows(term, cotangents, rows, outputs)
            if twice:
                part.copy_(rows[:size])
            start += size
        if self.scale != 1.0:
            values *= self.scale**0.5


@dataclass(frozen=True, slots=True, eq=False)
class ChannelPanel(Panel):
    """A convolution each of whose channels o reaches a linear last layer alone: the row of output c is `weights` (O, C) times one row.

    `contracted`: over all outputs, so that one row a sample is left.
    """

    weights: Tensor
    contracted: bool

    def made(self, outputs: slice, scratch: Scratch) -> Block:
        values = self._values(outputs, scratch).view(self.num_samples, outputs.stop - outputs.start, -1)
        if not self.contracted:
            return Channels(values, self.weights[outputs])
        values *= self.weights[outputs].square().sum(1).sqrt()[:, None]
        return Rows(values.flatten(1)[:, None])


@dataclass(frozen=True, slots=True, eq=False)
class Channels(Block):
    """The rows of some channels: `values` (N, O, I), which output c takes times `weights` (O, C)."""

    grain: ClassVar[str] = "coarse"

    values: Tensor
    weights: Tensor

    def of(self, samples: slice) -> "Channels":
        return Channels(self.values[samples], self.weights)

    def of_output(self, index: int) -> "Channels":
        return Channels(self.values, self.weights[:, index : index + 1])

    def add(self, other: Block, tile: Tensor, scratch: Scratch) -> None:
        assert isinstance(other, Channels)
        left, right, num_outputs = len(self.values), len(other.values), self.weights.shape[1]
        products = scratch.take("channels", tile, len(self.weights), left, right)
        torch.bmm(self.values.transpose(0, 1), other.values.permute(1, 2, 0), out=products)
        pairs = (self.weights[:, :, None] * self.weights[:, None, :]).flatten(1)  # O, C C
        sums = scratch.take("pairs", tile, left * right, num_outputs**2)
        torch.mm(products.flatten(1).T, pairs, out=sums)
        tiles = tile.unflatten(0, (left, num_outputs)).unflatten(2, (right, num_outputs))
        tiles += sums.view(left, right, num_outputs, num_outputs).transpose(1, 2)


@dataclass(frozen=True, slots=True, eq=False)
class Outer(Block):
    """One position a sample: the products of `inputs` (N, I), plus 1 with a bias, times those of `cotangents` (N, Q, K O)."""

    inputs: Tensor
    cotangents: Tensor
    bias: bool

    def of(self, samples: slice) -> "Outer":
        return Outer(self.inputs[samples], self.cotangents[samples], self.bias)

    def of_output(self, index: int) -> "Outer":
        return Outer(self.inputs, self.cotangents[:, index : index + 1], self.bias)

    def add(self, other: Block, tile: Tensor, scratch: Scratch) -> None:
        assert isinstance(other, Outer)
        left, right = self.cotangents, other.cotangents
        products = scratch.take("products", left, len(left), left.shape[1], len(right) * right.shape[1])
        torch.mm(left.flatten(0, 1), right.flatten(0, 1).T, out=products.flatten(0, 1))
        # each column once for every kernel row of its sample, so that the innermost axis of what follows is contiguous
        scales = _products(self.inputs, other.inputs, bias=self.bias).repeat_interleave(right.shape[1], 1)
        tile.unflatten(0, (len(left), -1)).addcmul_(products, scales[:, None, :])


@dataclass(frozen=True, slots=True, eq=False)
class Separable(Block):
    """The layer before a linear readout, contracted over outputs: its cotangent of output c is `derivatives` (N, O) times weights c.

    So the products of cotangents, summed over outputs, are those of derivatives with `weights` (O,), the squared weights' sums.
    """

    inputs: Tensor
    derivatives: Tensor
    weights: Tensor
    bias: bool

    def of(self, samples: slice) -> "Separable":
        return Separable(self.inputs[samples], self.derivatives[samples], self.weights, self.bias)

    def of_output(self, index: int) -> "Separable":
        raise AssertionError("outputs are contracted")

    def add(self, other: Block, tile: Tensor, scratch: Scratch) -> None:
        assert isinstance(other, Separable)
        tile.addcmul_((self.derivatives * self.weights) @ other.derivatives.T, _products(self.inputs, other.inputs, bias=self.bias))


@dataclass(frozen=True, slots=True, eq=False)
class Readout(Block):
    """The last layer under one-hot cotangents: `inputs` (N, I); each output meets itself alone, K of them in a row."""

    inputs: Tensor
    num_rows: int
    factor: float  # K, times the scale of the weight
    bias: bool

    def of(self, samples: slice) -> "Readout":
        return Readout(self.inputs[samples], self.num_rows, self.factor, self.bias)

    def of_output(self, index: int) -> "Readout":
        return Readout(self.inputs, 1, self.factor, self.bias)

    def add(self, other: Block, tile: Tensor, scratch: Scratch) -> None:
        assert isinstance(other, Readout)
        products = _products(self.inputs, other.inputs, bias=self.bias)
        tiles = tile.unflatten(0, (-1, self.num_rows)).unflatten(2, (-1, self.num_rows))
        tiles.diagonal(dim1=1, dim2=3).add_(products[..., None], alpha=self.factor)


@dataclass(frozen=True, slots=True, eq=False)
class Ghost(Block):
    """Few positions a sample: `inputs` (N, T, I) and `cotangents` (N, Q, K, T, O), multiplied position by position."""

    inputs: Tensor
    cotangents: Tensor

    def of(self, samples: slice) -> "Ghost":
        return Ghost(self.inputs[samples], self.cotangents[samples])

    def of_output(self, index: int) -> "Ghost":
        return Ghost(self.inputs, self.cotangents[:, index : index + 1])

    def add(self, other: Block, tile: Tensor, scratch: Scratch) -> None:
        assert isinstance(other, Ghost)
        num_positions = self.inputs.shape[1]
        scales = self.inputs.flatten(0, 1) @ other.inputs.flatten(0, 1).T  # b T, d T
        scales = scales.unflatten(0, (-1, num_positions)).unflatten(2, (-1, num_positions))
        tiles = tile.unflatten(0, (-1, self.cotangents.shape[1])).unflatten(2, (-1, self.cotangents.shape[1]))
        for one, left in enumerate(self.cotangents):  # row by row of samples: T^2 products for each pair stay few
            for index in range(self.cotangents.shape[2]):
                products = torch.einsum("qto,eruo->qeurt", left[:, index], other.cotangents[:, :, index])
                tiles[one] += torch.einsum("qeurt,teu->qer", products, scales[one])


@dataclass(frozen=True, slots=True, eq=False)
class Tokens(Block):
    """An embedding: `indices` (N, T) of the table's rows, and `cotangents` (N, Q, K, T, width) of the looked-up vectors.

    Two samples meet in the rows that both look up: the samples of each row are multiplied with each other alone.
    """

    grain: ClassVar[str] = "whole"

    indices: Tensor
    cotangents: Tensor

    def of(self, samples: slice) -> "Tokens":
        return Tokens(self.indices[samples], self.cotangents[samples])

    def of_output(self, index: int) -> "Tokens":
        return Tokens(self.indices, self.cotangents[:, index : index + 1])

    def add(self, other: Block, tile: Tensor, scratch: Scratch) -> None:
        assert isinstance(other, Tokens)
        size = self.cotangents.shape[1]
        tiles = tile.unflatten(0, (-1, size)).unflatten(2, (-1, size))
        columns = dict(zip(*other._by_row()))
        for row, (samples, values) in zip(*self._by_row()):
            if row in columns:
                others, other_values = columns[row]
                products = values.flatten(0, 1) @ other_values.flatten(0, 1).T
                products = products.unflatten(0, (-1, size)).unflatten(2, (-1, size))
                # a sample appears once for a row, so no element is added to twice
                tiles[samples[:, None], :, others[None, :]] += products.movedim(2, 1)

    def _by_row(self) -> tuple[list[int], list[tuple[Tensor, Tensor]]]:
        """Each row of the table with the samples that look it up (m,) and their summed cotangents (m, Q, K width)."""
        num_samples = len(self.indices)
        sample = torch.arange(num_samples, device=self.indices.device)[:, None]
        pairs, where = torch.unique((self.indices * num_samples + sample).flatten(), return_inverse=True)
        flat = self.cotangents.movedim(3, 1).flatten(0, 1)  # N T, Q, K, width
        sums = flat.new_zeros(len(pairs), *flat.shape[1:]).index_add_(0, where, flat).flatten(2)
        rows, counts = torch.unique_consecutive(pairs // num_samples, return_counts=True)
        sizes = counts.tolist()
        return rows.tolist(), list(zip((pairs % num_samples).split(sizes), sums.split(sizes)))


def _products(left: Tensor, right: Tensor, *, bias: bool) -> Tensor:
    """Inner products (b, d), plus 1 with a bias."""
    return torch.addmm(left.new_ones(()), left, right.T) if bias else left @ right.T


def _add_product(tile: Tensor, left: Tensor, right: Tensor, scratch: Scratch) -> None:
    """tile += left right^T; of a matrix with itself only what is above the diagonal, strip by strip."""
    symmetric = left.data_ptr() == right.data_ptr() and left.shape == right.shape
    strip = STRIP if symmetric else len(left)
    total = scratch.take("total", tile, *tile.shape, dtype=torch.float64).zero_()
    product = scratch.take("product", tile, strip * tile.shape[1])
    for start in range(0, left.shape[1], LONGEST_SUM):  # all strips of a cut while it is in the caches
        cut = slice(start, start + LONGEST_SUM)
        for first in range(0, len(left), strip):
            rows, others = left[first : first + strip, cut], right[first if symmetric else 0 :, cut]
            out = product[: len(rows) * len(others)].view(len(rows), len(others))
            total[first : first + strip, first if symmetric else 0 :] += torch.mm(rows, others.T, out=out)
    tile += total
