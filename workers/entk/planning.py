"""Which form each weight takes, what is held at a time, and how many operations that costs: chosen before anything is computed."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from workers.entk.network import Network, Part, Pass
from workers.entk.terms import Lookup, Matrix
from workers.errors import ConfigError

# N samples; Q kernel rows of a sample; K cotangents contracted in each; T positions; I, O sizes of a weight matrix; P weights; V table rows

# a pass of fewer samples takes several cotangents at a time
FEW_SAMPLES = 8

Label = Callable[[str], str]


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A weight in its form: "readout", "separable", "outer", "ghost", "tokens", "rows" or "others".

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
    def depth(self) -> int:
        return self.part.depth if self.part is not None else 0


@dataclass(frozen=True, slots=True)
class Group:
    """Pieces whose blocks are held at the same time, for `num_rows` samples of one side and `num_columns` of the other."""

    pieces: tuple[Piece, ...]
    num_rows: int
    num_columns: int

    @property
    def floats(self) -> int:
        """Held for each sample."""
        return sum(piece.floats for piece in self.pieces)


def pieces(
    network: Network, recorded: Pass, num_rows: int, num_contracted: int, label: Label, scales: dict[str, float], *, one_hot: bool
) -> list[Piece]:
    """The cheapest exact form of each weight of a network, outputs first; `one_hot`: the cotangents are those of single outputs."""
    biases = {part.places[0][0]: part for part in network.parts if _is_bias(part, recorded)}
    found: list[Piece] = []
    folded: set[Part] = set()
    for part in network.parts:
        bias = biases.get(part.places[0][0])
        piece = _piece(part, recorded, num_rows, num_contracted, label, scales.get(part.name, 1.0), one_hot)
        if (
            piece.form in ("readout", "separable", "outer")
            and bias is not None
            and label(bias.name) == piece.label
            and scales.get(bias.name, 1.0) == piece.scale
        ):
            folded.add(bias)
            piece = Piece(
                piece.form, piece.label, part, bias, piece.floats, piece.multiplications, piece.num_weights + bias.num_weights, piece.scale
            )
        found.append(piece)
    found = [piece for piece in found if piece.part not in folded]
    for name in network.others:
        size, scale = network.weights[name].numel(), scales.get(name, 1.0)
        floats = num_rows * num_contracted * size
        found.append(Piece("others", label(name), None, None, floats, num_rows * floats, size, scale, name))
    return found


def _is_bias(part: Part, recorded: Pass) -> bool:
    reading, slot = part.places[0]
    return len(part.places) == 1 and recorded.readings[reading].kind == "Addmm" and slot == 0


def _piece(part: Part, recorded: Pass, num_rows: int, num_contracted: int, label: Label, scale: float, one_hot: bool) -> Piece:
    cotangents = num_rows * num_contracted
    term = recorded.term(part.places[0])
    rows = Piece(
        "rows",
        label(part.name),
        part,
        None,
        cotangents * part.num_weights,
        num_rows * cotangents * part.num_weights,
        part.num_weights,
        scale,
    )
    if len(part.places) > 1:
        return rows
    other = rows
    if isinstance(term, Matrix):
        positions, fan_in = term.inputs.shape[1:]
        if positions == 1 and one_hot and recorded.is_root(part.places[0]):
            return Piece("readout", rows.label, part, None, fan_in, fan_in + num_rows, part.num_weights, scale)
        if positions == 1 and one_hot and num_rows == 1 < num_contracted and recorded.activation(part.places[0]):
            floats = fan_in + term.num_outputs
            return Piece("separable", rows.label, part, None, floats, floats, part.num_weights, scale)
        form = "outer" if positions == 1 else "ghost"
        floats = positions * (fan_in + cotangents * term.num_outputs)
        products = positions**2 * (
            fan_in + num_rows * cotangents * term.num_outputs + (num_rows**2 if positions == 1 else num_rows * cotangents)
        )
        other = Piece(form, rows.label, part, None, floats, products, part.num_weights, scale)
    elif isinstance(term, Lookup):
        positions = term.indices.shape[1]
        products = num_rows * cotangents * term.width * max(1, positions**2 // term.num_rows)
        other = Piece("tokens", rows.label, part, None, positions * (cotangents * term.width + 1), products, part.num_weights, scale)
    return min(rows, other, key=lambda piece: piece.multiplications)


def groups(found: Sequence[Piece], num_rows: int, num_columns: int, budget_floats: int, *, symmetric: bool) -> list[Group]:
    """Neighbouring pieces together, as many as the budget holds for all samples; a piece that does not fit is taken in panels.

    `num_rows`, `num_columns`: samples of both sides (the same ones where `symmetric`).
    """
    total = num_rows if symmetric else num_rows + num_columns
    made: list[list[Piece]] = []
    for piece in sorted(found, key=lambda piece: piece.depth):
        if made and total * (sum(other.floats for other in made[-1]) + piece.floats) <= budget_floats:
            made[-1].append(piece)
        else:
            made.append([piece])
    return [_panels(tuple(one), num_rows, num_columns, budget_floats, symmetric=symmetric) for one in made]


def _panels(one: tuple[Piece, ...], num_rows: int, num_columns: int, budget_floats: int, *, symmetric: bool) -> Group:
    floats = sum(piece.floats for piece in one)
    if (num_rows if symmetric else num_rows + num_columns) * floats <= budget_floats:
        return Group(one, num_rows, num_columns)
    if 2 * floats > budget_floats:
        names = ", ".join(piece.part.name if piece.part else "weights without a fast form" for piece in one)
        needed = 2 * floats
        raise MemoryCap(
            f"one tile of one sample by one sample of {names} takes {needed:,} numbers, more than the {budget_floats:,} of memory_gib",
            needed,
        )
    # the side that is held is the larger: the other one is computed again for each of its panels
    held = max(1, min(num_rows, 2 * budget_floats // (3 * floats)))
    return Group(one, held, max(1, min(num_columns, budget_floats // floats - held)))


class MemoryCap(ConfigError):
    """The memory that the caller allows is smaller than the smallest tile; `floats` would do for its blocks."""

    def __init__(self, message: str, floats: int) -> None:
        super().__init__(message)
        self.floats = floats


def counted_flops(found: Sequence[Piece], num_rows: int, num_columns: int, *, symmetric: bool) -> int:
    """Floating point operations of the products in the cheapest exact form; a multiplication and an addition are two.

    A symmetric kernel counts n (n + 1) / 2 pairs. Forward and backward passes are not in it.
    """
    pairs = num_rows * (num_rows + 1) // 2 if symmetric else num_rows * num_columns
    return 2 * pairs * sum(piece.multiplications for piece in found)


def chunk_size(kept_bytes: int, bytes_a_cotangent: int, num_cotangents: int, num_samples: int, budget_bytes: int) -> tuple[int, int]:
    """Samples of a pass and cotangents of a backward pass that the budget holds: many samples first, then more cotangents.

    A batch of cotangents runs no faster than one after the other, unless there are few samples.
    """
    one = kept_bytes + bytes_a_cotangent
    size = max(1, min(num_samples, budget_bytes // one))
    size = math.ceil(num_samples / math.ceil(num_samples / size))
    if size > FEW_SAMPLES:
        return size, 1
    return size, max(1, min(num_cotangents, (budget_bytes // size - kept_bytes) // bytes_a_cotangent))
