"""How each operation's weights enter the Jacobian: one term per weight that an operation reads.

A term turns cotangents of the operation's output into rows of the Jacobian, or into factors whose products are cheaper.
"""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.entk.graph import Reading, Source
from workers.entk.layout import Layout

# R cotangents of each sample; b samples of a chunk; T positions; I fan-in, O outputs of a weight matrix; P weights; V rows of a table


# inputs of a sample that do not stay in the nearest caches while other samples are read
LARGE_BYTES = 2**16
ALL = slice(None)


@dataclass(frozen=True, slots=True, eq=False)
class Term(ABC):
    """What one operation adds to the Jacobian with respect to one weight; abstract."""

    source: Source
    layout: Layout

    @property
    @abstractmethod
    def num_weights(self) -> int:
        """P, the weights of this term."""

    @property
    def order(self) -> tuple[object, ...]:
        """Terms of one weight whose orders are equal have their weights in the same order; (): as the weight has them."""
        return () if self.source.is_plain else self.source.looks

    @property
    def kept_bytes(self) -> int:
        """What it keeps beside the forward pass: the patches of a convolution, the normalised inputs of a scale."""
        kept = [getattr(self, name, None) for name in ("inputs", "base")]
        return sum(tensor.nbytes for tensor in kept if tensor is not None)

    @abstractmethod
    def rows(self, cotangents: Tensor) -> Tensor:
        """Rows (b, R, P) of the Jacobian for cotangents (R, *output of the operation)."""

    def squared_norms(self, cotangents: Tensor) -> Tensor:
        """Squared norms (R, b) of the rows."""
        return self.rows(cotangents).square().sum(-1).T


@dataclass(frozen=True, slots=True, eq=False)
class Matrix(Term):
    """A product with a weight matrix at T positions of a sample: its gradient is the sum over positions of g a^T.

    `inputs` (b, T, I). Cotangents come as (R, b, ..., O), or (R, b, O, ...) with `channels_first`, after `layout`.
    """

    inputs: Tensor
    num_outputs: int
    channels_first: bool = False
    transposed: bool = False  # the weight is (I, O) rather than (O, I)

    @property
    def order(self) -> tuple[object, ...]:
        return ("channels last",) if self.channels_first else ()

    @property
    def num_weights(self) -> int:
        return int(self.inputs.shape[2]) * self.num_outputs

    @property
    def num_samples(self) -> int:
        """b, of the pass."""
        return len(self.inputs)

    def factors(self, cotangents: Tensor) -> Tensor:
        """Cotangents (b, R, T, O)."""
        split = self.layout.samples_first(cotangents, lead=1)  # R, b, outer, inner, ...
        last = split.movedim(4, -1) if self.channels_first else split
        return last.flatten(2, -2).transpose(0, 1)

    def rows(self, cotangents: Tensor) -> Tensor:
        found = self.inputs.new_empty(len(self.inputs), len(cotangents), self.num_weights)
        self.add_rows(cotangents, found)
        return found

    def add_rows(self, cotangents: Tensor, found: Tensor, outputs: slice = ALL, *, first: bool = True) -> None:
        """Write the rows of some outputs to `found` (b, R, P), or without `first` add them: no other array of their size is made."""
        for index, left in enumerate(self.factors(cotangents)[..., outputs].unbind(1)):
            pair = (self.inputs.mT, left) if self.transposed else (left.mT, self.inputs)
            out = found[:, index].unflatten(1, (pair[0].shape[1], pair[1].shape[2]))
            torch.baddbmm(out, *pair, beta=0 if first else 1, out=out)

    def write_by_sample(self, factors: Sequence[Tensor], found: Tensor) -> None:
        """Write the rows of R cotangents (b, T, O) to `found` (b, R, P), sample by sample: large inputs are read once, not R times."""
        split = found.unflatten(2, (factors[0].shape[2], -1))
        each = [one.mT.unbind(0) for one in factors]
        for index, (inputs, rows) in enumerate(zip(self.inputs.unbind(0), split.unbind(0))):
            for lefts, row in zip(each, rows.unbind(0)):
                torch.mm(lefts[index], inputs, out=row)

    def squared_norms(self, cotangents: Tensor) -> Tensor:
        num_positions, fan_in = self.inputs.shape[1:]
        if num_positions == 1:
            return self.inputs.square().sum((1, 2)) * self.factors(cotangents).square().sum((2, 3)).T
        if num_positions * (fan_in + self.num_outputs) >= fan_in * self.num_outputs:
            return torch.stack([self.rows(one[None]).square().sum(-1)[:, 0] for one in cotangents])
        factors = self.factors(cotangents)
        return torch.einsum("brtu,btu->rb", factors @ factors.mT, self.inputs @ self.inputs.mT)


@dataclass(frozen=True, slots=True, eq=False)
class Grouped(Term):
    """A convolution in `inputs.shape[1]` groups: `inputs` (b, groups, T, I) of one sample each; the weight is (O, I)."""

    inputs: Tensor
    num_outputs: int

    @property
    def order(self) -> tuple[object, ...]:
        return ("channels last",)

    @property
    def num_weights(self) -> int:
        return int(self.inputs.shape[3]) * self.num_outputs

    def rows(self, cotangents: Tensor) -> Tensor:
        num_groups = self.inputs.shape[1]
        split = cotangents.flatten(3).unflatten(2, (num_groups, -1)).permute(1, 2, 0, 3, 4)  # b, group, R, O / groups, T
        products = split.flatten(2, 3) @ self.inputs
        rows: Tensor = products.unflatten(2, (len(cotangents), -1)).transpose(1, 2).flatten(2)
        return rows


@dataclass(frozen=True, slots=True, eq=False)
class Vector(Term):
    """A weight that is added to, or multiplies, each element: out = base * weight, broadcast; `base` None: a sum.

    `kept` are the axes of the output along which the weight runs; over the others its gradient is summed.
    """

    base: Tensor | None
    kept: tuple[int, ...]
    shape: tuple[int, ...]
    factor: float = 1.0

    @property
    def num_weights(self) -> int:
        return math.prod(self.shape)

    def rows(self, cotangents: Tensor) -> Tensor:
        products = cotangents if self.base is None else cotangents * self.base
        split = self.layout.samples_first(products, lead=1)
        kept = [axis + 2 + (axis > self.layout.axis) for axis in self.kept]
        others = [axis for axis in range(2, split.dim()) if axis not in kept]
        summed = split.sum(others) if any(split.shape[axis] > 1 for axis in others) else split.squeeze(others)
        rows = summed.reshape(*split.shape[:2], -1).transpose(0, 1)
        return rows if self.factor == 1.0 else rows * self.factor


@dataclass(frozen=True, slots=True, eq=False)
class Lookup(Term):
    """An embedding: `indices` (b, T) into a table of `num_rows` rows of `width`; positions of the padding row count nothing."""

    indices: Tensor
    num_rows: int
    width: int
    padding: int

    @property
    def num_weights(self) -> int:
        return self.num_rows * self.width

    def factors(self, cotangents: Tensor) -> Tensor:
        """Cotangents (b, R, T, width), zero where the index is the padding."""
        split = self.layout.samples_first(cotangents, lead=1)
        axis = self.layout.axis
        factors = split.movedim((2 + axis, 3 + axis), (2, 3)).flatten(2, -2).transpose(0, 1)
        return factors if self.padding < 0 else factors * (self.indices != self.padding)[:, None, :, None]

    def rows(self, cotangents: Tensor) -> Tensor:
        factors = self.factors(cotangents)
        rows = factors.new_zeros(*factors.shape[:2], self.num_rows, self.width)
        where = self.indices[:, None, :, None].expand(factors.shape)
        return rows.scatter_add_(2, where, factors).flatten(2)

    def squared_norms(self, cotangents: Tensor) -> Tensor:
        factors = self.factors(cotangents)
        same = (self.indices[:, :, None] == self.indices[:, None, :]).to(factors.dtype)
        return torch.einsum("brtd,btu,brud->rb", factors, same, factors)


def write_rows(term: Term, cotangents: Sequence[Tensor], found: Tensor, outputs: slice = ALL, *, first: bool = True) -> None:
    """Write the rows of all R cotangents, in pieces (R', b, ...), to `found` (b, R, P); without `first` add them to it.

    `outputs`: of a weight matrix only these.
    """
    if isinstance(term, Matrix) and first and found.shape[1] > 1 and term.inputs[0].nbytes >= LARGE_BYTES:
        term.write_by_sample([one[..., outputs] for piece in cotangents for one in term.factors(piece).unbind(1)], found)
        return
    start = 0
    for piece in cotangents:
        part = found[:, start : start + len(piece)]
        if isinstance(term, Matrix):
            term.add_rows(piece, part, outputs, first=first)
        elif first:
            part.copy_(term.rows(piece))
        else:
            part += term.rows(piece)
        start += len(piece)


def kept_inputs(reading: Reading) -> Tensor | None:
    """What an operation with fast forms has kept of its inputs, samples along the axis of those of its output; None: nothing."""
    name = _KEPT.get(reading.kind)
    found = reading.saved(name) if name else None
    return found if isinstance(found, Tensor) and not found.is_complex() else None


def term_of(reading: Reading, layout: Layout, slot: int) -> Term | None:
    """The term of one input of an operation that is a weight; None where there is no fast form."""
    make = _MAKERS.get(reading.kind)
    alone = Reading(reading.node, {slot: reading.sources[slot]})
    return make(alone, layout).get(slot) if make and len(reading.sources) <= _MOST_WEIGHTS[reading.kind] else None


def _linear(reading: Reading, layout: Layout, *, inputs: str, weight: int, bias: int | None) -> dict[int, Term]:
    """Of addmm(bias, inputs, weight) or mm(inputs, weight), rows in front."""
    if layout.axis != 0 or reading.saved("alpha") not in (None, 1) or reading.saved("beta") not in (None, 1):
        return {}
    found: dict[int, Term] = {}
    source = reading.sources.get(weight)
    if source is not None and (source.is_plain or source.is_transposed):
        values = layout.samples_first(reading.saved(inputs)).flatten(1, 2)
        found[weight] = Matrix(source, layout, values, reading.output_shape[1], transposed=source.is_plain)
    if bias is not None and bias in reading.sources:
        found[bias] = _vector(reading, layout, bias, None)
    return found


def _convolution(reading: Reading, layout: Layout) -> dict[int, Term]:
    if reading.saved("transposed") or layout.axis != 0:
        return {}
    found: dict[int, Term] = {}
    source, num_groups = reading.sources.get(1), reading.saved("groups")
    if source is not None and source.is_plain and len(reading.output_shape) > 2:
        patches = _patches(reading)
        if num_groups == 1:
            inputs = layout.samples_first(patches[:, 0]).flatten(1, 3)
            found[1] = Matrix(source, layout, inputs, reading.output_shape[1], channels_first=True)
        elif layout.outer == layout.inner == 1:
            found[1] = Grouped(source, layout, patches, reading.output_shape[1])
    if 2 in reading.sources:
        shape = reading.weight_shape(2) + (1,) * (len(reading.output_shape) - 2)
        found |= _one(reading, layout, 2, None, shape)
    return found


def _patches(reading: Reading) -> Tensor:
    """The inputs (images, groups, T, I) that each output position of a convolution sees; I = kernel x channels of a group.

    Channels are the innermost: so they lie side by side where images are in channels-last order, and sums over T run along rows.
    """
    image, weight = reading.saved("input"), reading.saved("weight")
    kernel, stride, dilation = weight.shape[2:], _ints(reading.saved("stride")), _ints(reading.saved("dilation"))
    padding = _ints(reading.saved("padding"))
    if any(padding):
        image = torch.nn.functional.pad(image, [side for size in reversed(padding) for side in (size, size)])
    sizes, num_groups = reading.output_shape[2:], int(reading.saved("groups"))
    image = image.unflatten(1, (num_groups, -1))
    steps = image.stride()
    windows = image.as_strided(
        (*image.shape[:2], *sizes, *kernel, image.shape[2]),
        (*steps[:2], *(d * s for d, s in zip(stride, steps[3:])), *(d * s for d, s in zip(dilation, steps[3:])), steps[2]),
        image.storage_offset(),
    )
    found: Tensor = windows.reshape(len(image), num_groups, math.prod(sizes), -1)
    return found


def _ints(values: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


def _embedding(reading: Reading, layout: Layout) -> dict[int, Term]:
    source, indices = reading.sources[0], reading.saved("indices")
    if not source.is_plain or layout.axis >= indices.dim() or reading.saved("scale_grad_by_freq"):
        return {}
    padding = int(reading.saved("padding_idx"))
    axis = layout.axis
    split = layout.samples_first(indices).movedim((1 + axis, 2 + axis), (1, 2)).flatten(1)
    num_rows, width = reading.weight_shape(0)
    return {0: Lookup(source, layout, split, num_rows, width, -1 if padding >= 2**63 else padding)}


def _normalised(reading: Reading, layout: Layout) -> dict[int, Term]:
    """Scale and shift of a normalisation; its statistics are those that the operation has kept."""
    base, shape = _NORMALISED[reading.kind](reading)
    found: dict[int, Term] = {}
    if 1 in reading.sources and base is not None:
        found |= _one(reading, layout, 1, base, shape)
    if 2 in reading.sources and base is not None:
        found |= _one(reading, layout, 2, None, shape)
    return found


def _layer_norm(reading: Reading) -> tuple[Tensor, tuple[int, ...]]:
    base = (reading.saved("input") - reading.saved("result1")) * reading.saved("result2")
    return base, _ints(reading.saved("normalized_shape"))


def _group_norm(reading: Reading) -> tuple[Tensor, tuple[int, ...]]:
    inputs, num_groups = reading.saved("input"), int(reading.saved("group"))
    grouped = inputs.reshape(len(inputs), num_groups, -1)
    base = (grouped - reading.saved("result1")[..., None]) * reading.saved("result2")[..., None]
    return base.reshape(inputs.shape), (inputs.shape[1], *(1 for _ in inputs.shape[2:]))


def _batch_norm(reading: Reading) -> tuple[Tensor | None, tuple[int, ...]]:
    """With frozen statistics; those of the batch are no function of one sample."""
    inputs = reading.saved("input")
    shape = (inputs.shape[1], *(1 for _ in inputs.shape[2:]))
    if reading.saved("training") or reading.saved("running_var") is None:
        return None, shape
    scale = torch.rsqrt(reading.saved("running_var") + reading.saved("eps"))
    return (inputs - reading.saved("running_mean").reshape(shape)) * scale.reshape(shape), shape


def _product(reading: Reading, layout: Layout) -> dict[int, Term]:
    """out = self * other, where one is a weight and the other a tensor of the batch."""
    (slot,) = reading.sources
    other = reading.saved(("other", "self")[slot])
    if not isinstance(other, Tensor):
        return {}
    return _one(reading, layout, slot, other.expand(reading.output_shape), reading.weight_shape(slot))


def _sum(reading: Reading, layout: Layout) -> dict[int, Term]:
    (slot,) = reading.sources
    alpha = reading.saved("alpha")
    factor = 1.0 if slot == 0 or alpha is None else float(alpha)
    return _one(reading, layout, slot, None, reading.weight_shape(slot), factor)


def _expand(reading: Reading, layout: Layout) -> dict[int, Term]:
    return _one(reading, layout, 0, None, reading.weight_shape(0))


def _one(reading: Reading, layout: Layout, slot: int, base: Tensor | None, shape: tuple[int, ...], factor: float = 1.0) -> dict[int, Term]:
    """A vector term, where the weight does not run along the axis of the samples."""
    missing = len(reading.output_shape) - len(shape)
    kept = tuple(missing + axis for axis, size in enumerate(shape) if size > 1)
    if layout.axis in kept or missing < 0:
        return {}
    return {slot: Vector(reading.sources[slot], layout, base, kept, shape, factor)}


def _vector(reading: Reading, layout: Layout, slot: int, base: Tensor | None) -> Term:
    return _one(reading, layout, slot, base, reading.weight_shape(slot))[slot]


_NORMALISED = {
    "NativeLayerNorm": _layer_norm,
    "NativeGroupNorm": _group_norm,
    "NativeBatchNorm": _batch_norm,
    "CudnnBatchNorm": _batch_norm,
}
_KEPT = {"Addmm": "mat1", "Mm": "self", "Convolution": "input", "Embedding": "indices", **dict.fromkeys(_NORMALISED, "input")}
# out = weight * weight is no product with a tensor of the batch
_MOST_WEIGHTS = {"Addmm": 2, "Mm": 1, "Convolution": 2, "Embedding": 1, "Mul": 1, "Add": 1, "Expand": 1, **dict.fromkeys(_NORMALISED, 2)}
_MAKERS: dict[str, Callable[[Reading, Layout], dict[int, Term]]] = {
    "Addmm": functools.partial(_linear, inputs="mat1", weight=2, bias=0),
    "Mm": functools.partial(_linear, inputs="self", weight=1, bias=None),
    "Convolution": _convolution,
    "Embedding": _embedding,
    "Mul": _product,
    "Add": _sum,
    "Expand": _expand,
    **dict.fromkeys(_NORMALISED, _normalised),
}
