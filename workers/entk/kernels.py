"""Kernel matrices without the Jacobian: layer by layer from its inputs and the cotangents of its outputs (Novak et al. 2022, D1)."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from workers.entk import checks
from workers.entk.blocks import Block, Ghost, Outer, Readout, Rows, Scratch, Separable, Tokens
from workers.entk.memory import empty
from workers.entk.network import Forward, Network, Pass, Samples, look
from workers.entk.planning import Group, Piece, chunk_size, groups, pieces
from workers.entk.terms import Lookup, Matrix
from workers.errors import ConfigError

# N, M samples; C outputs; S units of a sample; Q kernel rows of a sample; K cotangents contracted in each; R = Q K cotangents; P weights

OUTPUTS = ("full", "traced", "sum_logits", "per_class")
TILE_ROWS = {"cpu": 640, "cuda": 4096}
LEAF = 2
WITHOUT_COTANGENTS = ("readout", "separable")
PASS_SHARE = 0.25  # of the memory, for forward and backward passes; the rest holds blocks
PASS_BYTES = 256 * 2**20  # more at a time is no faster

UnitLoss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Basis:
    """The cotangents of a sample: `num_rows` kernel rows, each contracted over `num_contracted` of them, `width` outputs in one."""

    num_rows: int
    num_contracted: int
    width: int = 1

    @property
    def size(self) -> int:
        """R."""
        return self.num_rows * self.num_contracted

    def cotangents(self, outputs: Tensor, which: range) -> Tensor:
        """Cotangents (R', b, D) for outputs (b, D)."""
        found = outputs.new_zeros(len(which), *outputs.shape)
        for index, row in enumerate(which):
            found[index, :, row * self.width : (row + 1) * self.width] = 1.0
        return found


def gram(
    model: nn.Module,
    x: Any,
    z: Any = None,
    *,
    outputs: str = "full",
    memory_gib: float = 2.0,
    layers: str | Callable[[str], str] | None = None,
    scales: Mapping[str, float] | str | None = None,
    statistics: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Any:
    """The exact empirical neural tangent kernel Theta = J J^T of the trainable weights, or J(x) J(z)^T (D1).

    `x`, `z`: samples along the first axis (a tensor, or a tuple of tensors that the model takes as its arguments); the last axis of
    model(x) is C outputs, those between are units (tokens) of a sample. With N and M units in all, `outputs` gives

    - "full": (N C, M C), row n C + c;
    - "traced": (N, M), the mean over outputs, as neural-tangents;
    - "sum_logits": (N, M), of sum_c f_c;
    - "per_class": (C, N, M), the kernel of each output alone.

    `memory_gib` bounds what is held beside the result. `layers`: a dictionary of kernels that add up to the whole, for "weight" (each
    tensor of weights), "module" (each module) or by a function from a weight's name to that of its group. `scales`: factors of the
    kernel of each tensor of weights (1 where absent: J diag(s) J^T, D8), or "ntk": 1 / fan-in of each matrix, the kernel of the same
    function in NTK parameterisation. `statistics`: for active batch normalisation, "running" or "batch" (frozen ones of x).

    The result has the dtype and device of the outputs. Raises ConfigError for a model or probe set that has no such kernel, with the
    reason; Diverged for weights or outputs that are not finite.
    """
    checks.one_of("outputs", outputs, OUTPUTS)
    rows, columns = checks.samples("x", x), None if z is None else checks.samples("z", z)
    with checks.as_found(model, rows, statistics):
        forward = _model_outputs(model)
        network = _look(model, forward, rows, columns)
        basis = _basis(outputs, network.shape)
        kernels = _kernels(network, basis, rows, columns, memory_gib, layers, _scales(scales, network), outputs == "per_class", progress)
    return kernels if layers is not None else kernels[""]


def loss_gram(
    model: nn.Module,
    unit_loss: UnitLoss,
    batch: tuple[Any, Tensor],
    other: tuple[Any, Tensor] | None = None,
    *,
    per_unit: bool = False,
    memory_gib: float = 2.0,
    layers: str | Callable[[str], str] | None = None,
    statistics: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Any:
    """The loss kernel (N, M): inner products of the gradients of each sample's mean loss, or of each unit's with `per_unit`.

    `unit_loss(outputs, targets)` gives one loss for each unit, for example `CrossEntropyLoss(reduction="none")` on (B, S, V) outputs
    with the axes that it wants. For the mean loss L over N samples of one unit each, ||grad L||^2 is the mean of the kernel (D3).
    """
    rows = checks.samples("x", batch[0], batch[1])
    columns = None if other is None else checks.samples("other", other[0], other[1])
    with checks.as_found(model, rows, statistics):
        apply = _model_outputs(model)

        def losses(samples: Samples) -> Tensor:
            outputs, targets = apply(samples[:-1]), samples[-1]
            values = checks.unit_losses(unit_loss(outputs, targets), outputs)
            return values if per_unit else values.flatten(1).mean(1) if values.dim() > 1 else values

        network = _look(model, losses, rows, columns)
        basis = Basis(_numel(network.shape[1:]), 1)
        kernels = _kernels(network, basis, rows, columns, memory_gib, layers, {}, False, progress)
    return kernels if layers is not None else kernels[""]


def _model_outputs(model: nn.Module) -> Forward:
    def forward(samples: Samples) -> Tensor:
        return checks.outputs(model(*samples))

    return forward


def _look(model: nn.Module, forward: Forward, rows: Samples, columns: Samples | None) -> Network:
    checks.match(rows, columns)
    checks.place(model, rows)
    return look(model, forward, rows)


def _basis(outputs: str, shape: torch.Size) -> Basis:
    checks.last_axis(shape)
    num_outputs = shape[-1]
    num_units = torch.Size(shape[1:-1]).numel()
    if outputs == "full":
        return Basis(num_units * num_outputs, 1)
    if outputs == "traced":
        return Basis(num_units, num_outputs)
    if outputs == "sum_logits":
        return Basis(num_units, 1, num_outputs)
    if num_units > 1:
        raise ConfigError(f"outputs='per_class' needs one unit a sample, got outputs of shape {tuple(shape)}; take 'full' and its blocks")
    return Basis(num_outputs, 1)


def _scales(scales: Mapping[str, float] | str | None, network: Network) -> dict[str, float]:
    if scales == "ntk":
        return {name: 1.0 / weight[0].numel() for name, weight in network.weights.items() if weight.dim() > 1}
    if isinstance(scales, str):
        raise ConfigError(f"scales must be 'ntk' or a factor for each weight's name, got {scales!r}")
    unknown = sorted(set(scales or {}) - set(network.weights))
    if unknown:
        raise ConfigError(f"scales names {', '.join(unknown)}; the trainable weights are {', '.join(network.weights)}")
    return dict(scales or {})


def _label(layers: str | Callable[[str], str] | None) -> Callable[[str], str]:
    if layers is None:
        return lambda name: ""
    if callable(layers):
        return layers
    checks.one_of("layers", layers, ("weight", "module"))
    return (lambda name: name) if layers == "weight" else (lambda name: name.rpartition(".")[0])


@dataclass(eq=False)
class _Work:
    """One kernel in the making: what is computed from what, and where it is added."""

    network: Network
    basis: Basis
    rows: Samples
    columns: Samples | None
    kernels: dict[str, Tensor]
    per_class: bool
    budget_bytes: int
    scratch: Scratch = field(default_factory=Scratch)

    def add(self, group: Group) -> Iterator[int]:
        """Add a group's products to the kernels; yields the samples that have gone through, for progress."""
        num_rows = len(self.rows[0])
        for start in range(0, num_rows, group.num_rows):
            held = slice(start, min(start + group.num_rows, num_rows))
            left = self._blocks(group, self.rows, held)
            yield held.stop - held.start
            if self.columns is None:
                self._tiles(left, left, held, held)
                others, samples = range(held.stop, num_rows, group.num_columns), self.rows
            else:
                others, samples = range(0, len(self.columns[0]), group.num_columns), self.columns
            for first in others:
                across = slice(first, min(first + group.num_columns, len(samples[0])))
                self._tiles(left, self._blocks(group, samples, across), held, across)
                yield across.stop - across.start

    def _blocks(self, group: Group, samples: Samples, which: slice) -> "dict[str, list[Block]]":
        store = _Store(self.network, self.basis, group, which.stop - which.start)
        store.fill(tuple(tensor[which] for tensor in samples), self.budget_bytes)
        return store.blocks()

    def _tiles(self, left: "dict[str, list[Block]]", right: "dict[str, list[Block]]", rows: slice, columns: slice) -> None:
        """All tiles of two panels; of a panel with itself only those on and above the diagonal: the kernel is symmetric."""
        size = 1 if self.per_class else self.basis.num_rows
        step = max(1, TILE_ROWS.get(self.rows[0].device.type, 640) // size)
        symmetric = self.columns is None and rows == columns
        pairs = [(label, *both) for label in left for both in zip(left[label], right[label])]
        places = list(_triangle(rows, step) if symmetric else _rectangle(rows, columns, step))
        for tiled, some in ((True, places), (False, [(rows, columns)])):
            for a, b in some:
                for label, one, other in pairs:
                    if one.tiled == tiled:
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
    if size <= max(1, step // LEAF):
        yield rows, rows
        return
    middle = rows.start + size // 2
    first, second = slice(rows.start, middle), slice(middle, rows.stop)
    yield from _triangle(first, step)
    yield from _rectangle(first, second, step)
    yield from _triangle(second, step)


def _shift(part: slice, whole: slice) -> slice:
    return slice(part.start - whole.start, part.stop - whole.start)


def _kernels(
    network: Network,
    basis: Basis,
    rows: Samples,
    columns: Samples | None,
    memory_gib: float,
    layers: str | Callable[[str], str] | None,
    scales: dict[str, float],
    per_class: bool,
    progress: Callable[[int, int], None] | None,
) -> dict[str, Tensor]:
    label = _label(layers)
    recorded = network.probe
    checks.finite(recorded.outputs, network.weights)
    found = pieces(network, recorded, basis.num_rows, basis.num_contracted, label, scales, one_hot=basis.width == 1)
    item = recorded.outputs.element_size()
    budget_bytes = checks.memory(memory_gib)
    num_rows, num_columns = len(rows[0]), len((columns or rows)[0])
    made = groups(found, num_rows, num_columns, int(budget_bytes * (1 - PASS_SHARE)) // item, symmetric=columns is None)
    size = (num_rows * basis.num_rows, num_columns * basis.num_rows)
    if per_class:
        size = (basis.num_rows, num_rows, num_columns)  # type: ignore[assignment]
    kernels = {name: empty(size, recorded.outputs).zero_() for name in dict.fromkeys(piece.label for piece in found)}
    work = _Work(network, basis, rows, columns, kernels, per_class, int(budget_bytes * PASS_SHARE))
    total, done = _passes(made, num_rows, num_columns, symmetric=columns is None), 0
    for group in made:
        for count in work.add(group):
            done += count
            if progress is not None:
                progress(done, total)
    for kernel in kernels.values():
        _finish(kernel, basis, symmetric=columns is None)
    return kernels


def _passes(made: Sequence[Group], num_rows: int, num_columns: int, *, symmetric: bool) -> int:
    """Samples that go through passes in all."""
    total = 0
    for group in made:
        for start in range(0, num_rows, group.num_rows):
            stop = min(start + group.num_rows, num_rows)
            total += stop - start + (num_rows - stop if symmetric else num_columns)
    return total


def _finish(kernel: Tensor, basis: Basis, *, symmetric: bool) -> None:
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


class _Store:
    """The blocks of one group for some samples, filled chunk by chunk."""

    def __init__(self, network: Network, basis: Basis, group: Group, num_samples: int) -> None:
        self.network, self.basis, self.group, self.num_samples = network, basis, group, num_samples
        self.tensors: dict[Piece, list[Tensor]] = {}
        self.squares: dict[Piece, Tensor] = {}
        self.rows: dict[str, Tensor] = {}
        self.places: dict[Piece, slice] = {}
        totals: dict[str, int] = {}
        for piece in group.pieces:
            if piece.form in ("rows", "others"):
                start = totals.get(piece.label, 0)
                totals[piece.label] = start + piece.num_weights
                self.places[piece] = slice(start, start + piece.num_weights)
        self.totals = totals

    def fill(self, samples: Samples, budget_bytes: int) -> None:
        """Run the passes of a group over all samples."""
        used = [piece for piece in self.group.pieces if piece.part is not None]
        operations = sorted({place[0] for piece in used if piece.form not in WITHOUT_COTANGENTS for place in _places(piece)})
        others = [piece for piece in self.group.pieces if piece.form == "others"]
        probe = self.network.probe
        item = probe.outputs.element_size()
        taken = [probe.term(place) for piece in self.group.pieces for place in _places(piece)]
        kept_bytes = self.network.kept_bytes + sum(term.kept_bytes for term in taken) // len(probe.outputs)
        bytes_a_cotangent = sum(_numel(probe.readings[index].output_shape) for index in operations) * item // len(probe.outputs) + 1
        bytes_a_cotangent += max((piece.num_weights for piece in self.places), default=0) * item
        size, together = chunk_size(kept_bytes, bytes_a_cotangent, self.basis.size, self.num_samples, min(budget_bytes, PASS_BYTES))
        for start in range(0, self.num_samples, size):
            which = slice(start, min(start + size, self.num_samples))
            chunk = tuple(tensor[which] for tensor in samples)
            if used:
                self._pass(chunk, which, operations, together)
            if others:
                self._others(chunk, which, others)

    def _pass(self, chunk: Samples, which: slice, operations: Sequence[int], together: int) -> None:
        recorded = self.network.record(chunk)
        for piece in self.group.pieces:
            if piece.form in WITHOUT_COTANGENTS:
                self._keep(piece, recorded, which)
        for first in range(0, self.basis.size if operations else 0, together):
            cots = range(first, min(first + together, self.basis.size))
            found = recorded.cotangents(operations, self.basis.cotangents(recorded.outputs.detach(), cots))
            grads = dict(zip(operations, found))
            with torch.no_grad():
                for piece in self.group.pieces:
                    if piece.part is not None and piece.form not in WITHOUT_COTANGENTS:
                        self._write(piece, recorded, grads, which, slice(cots.start, cots.stop))

    def _write(self, piece: Piece, recorded: Pass, grads: Mapping[int, Tensor], which: slice, cots: slice) -> None:
        assert piece.part is not None
        root, count = piece.scale**0.5, which.stop - which.start
        if piece.form == "rows":
            self._write_rows(piece, recorded, grads, which, cots)
            return
        (place,) = piece.part.places
        term = recorded.term(place)
        assert isinstance(term, Matrix | Lookup)
        factors = term.factors(grads[place[0]])
        kept = term.inputs if isinstance(term, Matrix) else term.indices
        if piece not in self.tensors:
            shapes = kept.shape[1:], (self.basis.size, *factors.shape[2:])
            self.tensors[piece] = [empty((self.num_samples, *shape), one) for one, shape in zip((kept, factors), shapes)]
        first, second = self.tensors[piece]
        if cots.start == 0:
            first[which] = kept[:count]
        second[which, cots] = (factors * root if root != 1.0 else factors)[:count]

    def _write_rows(self, piece: Piece, recorded: Pass, grads: Mapping[int, Tensor], which: slice, cots: slice) -> None:
        assert piece.part is not None
        whole = which.stop - which.start == len(recorded.outputs)  # else one sample that was taken twice
        for index, place in enumerate(piece.part.places):
            term, grad = recorded.term(place), grads[place[0]]
            found = self._row_buffer(piece, grad)[which, cots, self.places[piece]]
            if isinstance(term, Matrix) and whole:
                term.add_rows(grad, found, first=index == 0)
            elif index == 0:
                found.copy_(term.rows(grad)[: len(found)])
            else:
                found += term.rows(grad)[: len(found)]
        if piece.scale != 1.0:
            found *= piece.scale**0.5

    def _keep(self, piece: Piece, recorded: Pass, which: slice) -> None:
        """What a form without cotangents keeps: inputs, and derivatives with the squared weights behind them."""
        assert piece.part is not None
        (place,) = piece.part.places
        term = recorded.term(place)
        assert isinstance(term, Matrix)
        kept = [term.inputs[:, 0]]
        if piece.form == "separable":
            derivatives, weights = recorded.separated(place)
            kept.append(derivatives)
            self.squares[piece] = weights.detach().square().sum(1) * piece.scale
        if piece not in self.tensors:
            self.tensors[piece] = [empty((self.num_samples, one.shape[1]), one) for one in kept]
        for held, one in zip(self.tensors[piece], kept):
            held[which] = one[: which.stop - which.start].detach()

    def _row_buffer(self, piece: Piece, like: Any) -> Tensor:
        if piece.label not in self.rows:
            self.rows[piece.label] = empty((self.num_samples, self.basis.size, self.totals[piece.label]), like)
        return self.rows[piece.label]

    def _others(self, chunk: Samples, which: slice, others: Sequence[Piece]) -> None:
        outputs = self.network.probe.outputs.detach().new_empty(len(chunk[0]), _numel(self.network.shape[1:]))
        names = [piece.other for piece in others]
        rows = self.network.other_rows(names, chunk, self.basis.cotangents(outputs, range(self.basis.size)))
        for piece, found in zip(others, rows.split([piece.num_weights for piece in others], dim=2)):
            self._row_buffer(piece, rows)[which, :, self.places[piece]] = found * piece.scale**0.5

    def blocks(self) -> "dict[str, list[Block]]":
        """The blocks of each label; cotangents of a kernel row side by side."""
        found: dict[str, list[Block]] = {piece.label: [] for piece in self.group.pieces}
        shape = (self.basis.num_rows, self.basis.num_contracted)
        for piece, tensors in self.tensors.items():
            if piece.form == "readout":
                found[piece.label].append(Readout(tensors[0], shape[0], shape[1] * piece.scale, piece.bias is not None))
                continue
            if piece.form == "separable":
                found[piece.label].append(Separable(tensors[0], tensors[1], self.squares[piece], piece.bias is not None))
                continue
            kept, factors = tensors
            split = factors.unflatten(1, shape)
            if piece.form == "outer":
                found[piece.label].append(Outer(kept.flatten(1), split.flatten(2), piece.bias is not None))
            elif piece.form == "ghost":
                found[piece.label].append(Ghost(kept, split))
            else:
                found[piece.label].append(Tokens(kept, split))
        for label, rows in self.rows.items():
            found[label].append(Rows(rows.unflatten(1, shape).flatten(2)))
        return found


def _places(piece: Piece) -> tuple[tuple[int, int], ...]:
    return piece.part.places if piece.part is not None else ()


def _numel(shape: Sequence[int]) -> int:
    return int(torch.Size(shape).numel())
