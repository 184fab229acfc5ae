"""The blocks of some weights for some samples, filled by forward and backward passes."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from workers.entk.blocks import Block, Ghost, Outer, Readout, Rows, Scratch, Separable, Tokens
from workers.entk.network import Network, Pass, Samples
from workers.entk.planning import WITHOUT_COTANGENTS, Basis, Group, Piece, chunk_size
from workers.entk.terms import Lookup, Matrix

# N samples; R cotangents of each sample

PASS_BYTES = 192 * 2**20  # more at a time is no faster


class Store:
    """The blocks of one group for some samples, filled chunk by chunk."""

    def __init__(self, network: Network, basis: Basis, group: Group, num_samples: int, scratch: Scratch, side: str) -> None:
        self.network, self.basis, self.group, self.num_samples = network, basis, group, num_samples
        self.scratch, self.side = scratch, side
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
            self.tensors[piece] = [self._held(piece, index, one, *shape) for index, (one, shape) in enumerate(zip((kept, factors), shapes))]
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
            self.tensors[piece] = [self._held(piece, index, one, one.shape[1]) for index, one in enumerate(kept)]
        for held, one in zip(self.tensors[piece], kept):
            held[which] = one[: which.stop - which.start].detach()

    def _held(self, piece: Piece, index: int, like: Tensor, *shape: int) -> Tensor:
        """Memory for all samples (N, *shape), which the next group takes over."""
        return self.scratch.take(f"{self.side} {self.group.pieces.index(piece)} {index}", like, self.num_samples, *shape)

    def _row_buffer(self, piece: Piece, like: Any) -> Tensor:
        if piece.label not in self.rows:
            shape = (self.num_samples, self.basis.size, self.totals[piece.label])
            self.rows[piece.label] = self.scratch.take(f"{self.side} rows {piece.label}", like, *shape)
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
