"""Which form each weight takes, what is held at a time, and how many operations that costs: chosen before anything is computed."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from workers.entk.network import Network, Part, Pass
from workers.entk.terms import Lookup, Matrix
from workers.errors import ConfigError

# N samples; Q kernel rows of a sample; K cotangents contracted in each; T positions; I, O sizes of a weight matrix; P weights; V table rows

# a pass of fewer samples takes several cotangents at a time
FEW_SAMPLES = 8

WITHOUT_COTANGENTS = ("readout", "separable", "channels")
ONE_POSITION = ("readout", "separable", "outer")

Label = Callable[[str], str]


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


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A weight in its form: "readout", "separable", "channels", "outer", "ghost", "tokens", "rows", "panel" or "others".

    With `bias`, that of the same operation is in it.
    """

    form: str
    label: str
    part: Part | None  # None: a weight without a fast form
    bias: Part | None
    floats: int  # held for each sample
    multiplications: int  # for each pair of samples, of the cheapest exact form
    num_weights: int
    scale: float = 1.0
    other: str = ""  # name of a weight without a fast form

    @property
    def name(self) -> str:
        """Of its weight, and of the bias that is in it."""
        return self.part.name + (f", {self.bias.name}" if self.bias else "") if self.part else self.other

    @property
    def depth(self) -> int:
        return self.part.depth if self.part is not None else 0


@dataclass(frozen=True, slots=True)
class Group:
    """Pieces whose blocks are held at the same time, for `num_rows` samples of one side and `num_columns` of the other."""

    pieces: tuple[Piece, ...]
    floats: int  # held for each sample
    num_rows: int
    num_columns: int


def pieces(network: Network, basis: Basis, label: Label, scales: dict[str, float]) -> list[Piece]:
    """The cheapest exact form of each weight of a network, outputs first."""
    biases = {part.places[0][0]: part for part in network.parts if _is_bias(part, network.probe)}
    found: list[Piece] = []
    folded: set[Part] = set()
    seen: set[int] = set()
    for part in network.parts:
        bias, scale = biases.get(part.places[0][0]), scales.get(part.name, 1.0)
        piece = _piece(part, network.probe, basis, label(part.name), scale)
        if piece.form in ONE_POSITION and bias is not None and label(bias.name) == piece.label and scales.get(bias.name, 1.0) == scale:
            folded.add(bias)
            piece = dataclasses.replace(piece, bias=bias, num_weights=piece.num_weights + bias.num_weights)
        if piece.form == "panel":
            piece = dataclasses.replace(piece, floats=piece.floats - _shared(part, network.probe, seen))
        found.append(piece)
    found = [piece for piece in found if piece.part not in folded]
    for name in network.others:
        size = network.weights[name].numel()
        floats = basis.size * size
        found.append(Piece("others", label(name), None, None, floats, basis.num_rows * floats, size, scales.get(name, 1.0), name))
    return found


def _shared(part: Part, recorded: Pass, seen: set[int]) -> int:
    """Numbers of a sample's inputs that are kept for another weight already: queries, keys and values have them in common."""
    term = recorded.term(part.places[0])
    assert isinstance(term, Matrix)
    place = term.inputs.data_ptr()
    if place in seen:
        return int(term.inputs[0].numel())
    seen.add(place)
    return 0


def _is_bias(part: Part, recorded: Pass) -> bool:
    reading, slot = part.places[0]
    return len(part.places) == 1 and recorded.readings[reading].kind == "Addmm" and slot == 0


def _piece(part: Part, recorded: Pass, basis: Basis, label: str, scale: float) -> Piece:
    """A weight in the form with the fewest multiplications."""
    num_rows, cotangents = basis.num_rows, basis.size

    def piece(form: str, floats: int, multiplications: int) -> Piece:
        return Piece(form, label, part, None, floats, multiplications, part.num_weights, scale)

    rows = piece("rows", cotangents * part.num_weights, num_rows * cotangents * part.num_weights)
    term = recorded.term(part.places[0])
    if len(part.places) > 1:
        return rows
    if isinstance(term, Matrix):
        positions, fan_in = term.inputs.shape[1:]
        if positions == 1 and basis.width == 1 and recorded.is_root(part.places[0]):
            return piece("readout", fan_in, fan_in + num_rows)
        if basis.width == 1 < cotangents and part.places[0][0] in recorded.separable:
            if positions == 1 == num_rows:
                return piece("separable", fan_in + term.num_outputs, fan_in + term.num_outputs)
            if positions > 1:
                products = part.num_weights + (num_rows**2 * term.num_outputs if num_rows > 1 else 0)
                return piece("channels", positions * (fan_in + term.num_outputs), products)
        form = "outer" if positions == 1 else "ghost"
        products = num_rows * (num_rows if positions == 1 else cotangents) + fan_in + num_rows * cotangents * term.num_outputs
        other = piece(form, positions * (fan_in + cotangents * term.num_outputs), positions**2 * products)
    elif isinstance(term, Lookup):
        positions = term.indices.shape[1]
        met = max(1, positions**2 // term.num_rows)  # pairs of equal tokens, if all are equally frequent
        other = piece("tokens", positions * (cotangents * term.width + 1), num_rows * cotangents * term.width * met)
    else:
        return rows
    if isinstance(term, Matrix) and other.floats <= rows.floats and rows.multiplications <= other.multiplications:
        return dataclasses.replace(rows, form="panel", floats=other.floats)
    return min(rows, other, key=lambda found: found.multiplications)


def groups(
    found: Sequence[Piece], num_rows: int, num_columns: int, memory_gib: float, floats_per_gib: int, *, symmetric: bool
) -> list[Group]:
    """Neighbouring pieces together, as many as the memory holds for all samples; a piece that does not fit is taken in panels.

    `num_rows`, `num_columns`: samples of both sides (the same ones where `symmetric`).
    """
    total = num_rows if symmetric else num_rows + num_columns
    budget_floats = int(memory_gib * floats_per_gib)
    _check_tile(found, min(2, total), memory_gib, floats_per_gib)
    made: list[tuple[Piece, ...]] = []
    for piece in sorted(found, key=lambda piece: piece.depth):
        if made and total * sum(other.floats for other in (*made[-1], piece)) <= budget_floats:
            made[-1] = (*made[-1], piece)
        else:
            made.append((piece,))
    return [_panels(one, num_rows, num_columns, budget_floats, symmetric=symmetric) for one in made]


def _check_tile(found: Sequence[Piece], num_samples: int, memory_gib: float, floats_per_gib: int) -> None:
    """A tile of one sample by one sample, of `num_samples` different ones, must fit."""
    largest = max(found, key=lambda piece: piece.floats)
    least_gib = (num_samples * largest.floats + 1) / floats_per_gib
    if least_gib <= memory_gib:
        return
    digits = 2 - math.floor(math.log10(least_gib))
    told = math.ceil(least_gib * 10**digits) / 10**digits  # up, so that it does
    raise MemoryCap(
        f"memory_gib={memory_gib:.3g} is less than a tile of one sample by one sample of {largest.name} takes; give memory_gib={told:.3g} "
        "or more"
    )


def _panels(one: tuple[Piece, ...], num_rows: int, num_columns: int, budget_floats: int, *, symmetric: bool) -> Group:
    floats = sum(piece.floats for piece in one)
    if (num_rows if symmetric else num_rows + num_columns) * floats <= budget_floats:
        return Group(one, floats, num_rows, num_columns)
    # the side that is held is the larger: the other one is computed again for each of its panels
    held = max(1, min(num_rows, 2 * budget_floats // (3 * floats)))
    return Group(one, floats, held, max(1, min(num_columns, budget_floats // floats - held)))


class MemoryCap(ConfigError):
    """The memory that the caller allows is smaller than the smallest tile."""


def counted_flops(found: Sequence[Piece], num_rows: int, num_columns: int, *, symmetric: bool) -> int:
    """Floating point operations of the products in the cheapest exact form; a multiplication and an addition are two.

    A symmetric kernel counts n (n + 1) / 2 pairs. Forward and backward passes are not in it.
    """
    pairs = num_rows * (num_rows + 1) // 2 if symmetric else num_rows * num_columns
    return 2 * pairs * sum(piece.multiplications for piece in found)


def chunk_size(kept_bytes: int, cotangent_bytes: int, num_cotangents: int, num_samples: int, budget_bytes: int) -> tuple[int, int]:
    """Samples of a pass whose cotangents the budget holds, all of them; and cotangents of one backward pass.

    Several cotangents in one backward pass run no faster than one after the other, unless there are few samples.
    """
    size = max(1, min(num_samples, budget_bytes // (kept_bytes + num_cotangents * cotangent_bytes)))
    size = math.ceil(num_samples / math.ceil(num_samples / size))
    return size, 1 if size > FEW_SAMPLES else num_cotangents
