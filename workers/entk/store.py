"""The blocks of some weights for some samples, filled by forward and backward passes."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from workers.entk.blocks import Block, ChannelPanel, Ghost, Outer, Panel, Readout, Rows, Scratch, Separable, Tokens
from workers.entk.network import Network, Pass, Samples
from workers.entk.planning import WITHOUT_COTANGENTS, Basis, Group, Piece, chunk_size
from workers.entk.terms import Lookup, Matrix, write_rows

# N samples; R cotangents of each sample

# by operation: its cotangents (R', b, *output), which are R in all
Grads = dict[int, list[Tensor]]

PASS_BYTES = 192 * 2**20  # more at a time is no faster
WITNESSED = 128  # one pass in so many samples has witnesses, three more samples


class Store:
    """The blocks of one group for some samples, filled chunk by chunk."""

    def __init__(self, network: Network, basis: Basis, group: Group, num_samples: int, scratch: Scratch, side: str) -> None:
        self.network, self.basis, self.group, self.num_samples = network, basis, group, num_samples
        self.scratch, self.side = scratch, side
        self.tensors: dict[Piece, list[Tensor]] = {}
        self.weights: dict[Piece, Tensor] = {}  # (O, C), of the last layer
        self.panels: dict[Piece, list[tuple[Matrix, list[Tensor], int]]] = {}
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
        size, together = self._chunk_size(operations, min(budget_bytes, PASS_BYTES))
        for start in range(0, self.num_samples, size):
            which = slice(start, min(start + size, self.num_samples))
            chunk = tuple(tensor[which] for tensor in samples)
            if used:
                witnessed = start // WITNESSED != (start - size) // WITNESSED
                self._pass(chunk, which, operations, together, witnessed=witnessed)
            if others:
                self._others(chunk, which, others)

    def _chunk_size(self, operations: Sequence[int], budget_bytes: int) -> tuple[int, int]:
        probe = self.network.probe
        item = probe.outputs.element_size()
        taken = [probe.term(place) for piece in self.group.pieces for place in _places(piece)]
        kept_bytes = self.network.kept_bytes + sum(term.kept_bytes for term in taken) // len(probe.outputs)
        cotangent_bytes = sum(_numel(probe.readings[index].output_shape) for index in operations) * item // len(probe.outputs) + 1
        return chunk_size(kept_bytes, cotangent_bytes, self.basis.size, self.num_samples, budget_bytes)

    def _pass(self, chunk: Samples, which: slice, operations: Sequence[int], together: int, *, witnessed: bool) -> None:
        recorded = self.network.record(chunk, witnessed=witnessed)
        found: Grads = {index: [] for index in operations}
        for first in range(0, self.basis.size if operations else 0, together):
            cotangents = self.basis.cotangents(recorded.outputs.detach(), range(first, min(first + together, self.basis.size)))
            for index, grad in zip(operations, recorded.cotangents(operations, cotangents)):
                found[index].append(grad)
        separable = [place[0] for piece in self.group.pieces if piece.form in ("separable", "channels") for place in _places(piece)]
        alone = {index: [grad[None]] for index, grad in zip(separable, recorded.derivatives(separable) if separable else ())}
        with torch.no_grad():
            for piece in self.group.pieces:
                if piece.form in ("separable", "channels"):
                    self.weights[piece] = recorded.readout_weights
                if piece.form in ("readout", "separable"):
                    self._keep(piece, recorded, alone, which)
                elif piece.form in ("panel", "channels"):
                    self._keep_factors(piece, recorded, alone if piece.form == "channels" else found, which)
                elif piece.form == "rows":
                    self._write_rows(piece, recorded, found, which)
                elif piece.part is not None:
                    self._write_factors(piece, recorded, found, which)

    def _write_factors(self, piece: Piece, recorded: Pass, grads: Grads, which: slice) -> None:
        assert piece.part is not None
        (place,) = piece.part.places
        term, root, count = recorded.term(place), piece.scale**0.5, which.stop - which.start
        assert isinstance(term, Matrix | Lookup)
        kept = term.inputs if isinstance(term, Matrix) else term.indices
        first = 0
        for grad in grads[place[0]]:
            factors = term.factors(grad)
            if piece not in self.tensors:
                shapes = kept.shape[1:], (self.basis.size, *factors.shape[2:])
                self.tensors[piece] = [self._held(piece, i, one, *shape) for i, (one, shape) in enumerate(zip((kept, factors), shapes))]
            cots = slice(first, first + len(grad))
            self.tensors[piece][1][which, cots] = (factors * root if root != 1.0 else factors)[:count]
            first = cots.stop
        self.tensors[piece][0][which] = kept[:count]

    def _keep_factors(self, piece: Piece, recorded: Pass, grads: Grads, which: slice) -> None:
        """Inputs and cotangents as they are: rows are made of them when they are multiplied."""
        assert piece.part is not None
        (place,) = piece.part.places
        term = recorded.term(place)
        assert isinstance(term, Matrix)
        alone = dataclasses.replace(term, inputs=term.inputs.detach())  # the graph of the pass goes
        self.panels.setdefault(piece, []).append((alone, grads[place[0]], which.stop - which.start))

    def _write_rows(self, piece: Piece, recorded: Pass, grads: Grads, which: slice) -> None:
        assert piece.part is not None
        found = self._row_buffer(piece, recorded.outputs)[which, :, self.places[piece]]
        if len(found) < len(recorded.outputs):  # one sample that was taken twice
            found = found.new_empty(len(recorded.outputs), *found.shape[1:])
        for index, place in enumerate(piece.part.places):
            write_rows(recorded.term(place), grads[place[0]], found, first=index == 0)
        if piece.scale != 1.0:
            found *= piece.scale**0.5
        if len(recorded.outputs) > which.stop - which.start:
            self._row_buffer(piece, found)[which, :, self.places[piece]] = found[:1]

    def _keep(self, piece: Piece, recorded: Pass, grads: Grads, which: slice) -> None:
        """What a form without cotangents of the outputs keeps: inputs, and derivatives."""
        assert piece.part is not None
        (place,) = piece.part.places
        term = recorded.term(place)
        assert isinstance(term, Matrix)
        kept = [term.inputs[:, 0]]
        if piece.form == "separable":
            kept.append(grads[place[0]][0][0].flatten(1))
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
                found[piece.label].append(
                    Separable(tensors[0], tensors[1], self.weights[piece].square().sum(1) * piece.scale, piece.bias is not None)
                )
                continue
            kept, factors = tensors
            split = factors.unflatten(1, shape)
            if piece.form == "outer":
                found[piece.label].append(Outer(kept.flatten(1), split.flatten(2), piece.bias is not None))
            elif piece.form == "ghost":
                found[piece.label].append(Ghost(kept, split))
            else:
                found[piece.label].append(Tokens(kept, split))
        for piece, chunks in self.panels.items():
            if piece in self.weights:
                found[piece.label].append(
                    ChannelPanel(
                        chunks, self.num_samples, 1, 1, piece.num_weights, piece.scale, self.side, self.weights[piece], shape[0] == 1
                    )
                )
                continue
            found[piece.label].append(Panel(chunks, self.num_samples, *shape, piece.num_weights, piece.scale, self.side))
        for label, rows in self.rows.items():
            found[label].append(Rows(rows.unflatten(1, shape).flatten(2)))
        return found


def _places(piece: Piece) -> tuple[tuple[int, int], ...]:
    return piece.part.places if piece.part is not None else ()


def _numel(shape: Sequence[int]) -> int:
    return int(torch.Size(shape).numel())
