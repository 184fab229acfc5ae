"""A model seen as a function of its trainable weights, sample by sample: forward passes, and how each weight enters them."""

import contextlib
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from workers.entk import checks
from workers.entk.graph import LOOKS, Reading, channelwise, described, hides_weights, readings, readout_edge
from workers.entk.layout import Layout, find_layout
from workers.entk.terms import Matrix, Term, kept_inputs, term_of
from workers.errors import ConfigError

# N samples; b samples of a chunk; R cotangents of each sample; P weights

Samples = tuple[Tensor, ...]
Forward = Callable[[Samples], Tensor]

NUM_PROBED = 3
# a batch of one sample may take another path: its axes can be transposed without being copied
FEWEST = 2
# what a product with a weight matrix saves of its inputs
LINEAR = {"Addmm": "mat1", "Mm": "self"}


@dataclass(frozen=True, slots=True)
class Part:
    """A weight (or rows of it) that enters by terms with a fast form: all of them, as (operation, input) pairs."""

    name: str
    places: tuple[tuple[int, int], ...]
    num_weights: int
    depth: int  # number of its first operation, outputs first


@dataclass(frozen=True, eq=False)
class Pass:
    """One forward pass of a chunk: `outputs` (b, D) flattened, and its operations that read weights."""

    outputs: Tensor
    readings: list[Reading]
    layouts: Sequence[Layout | None]
    found: dict[tuple[int, int], Term] = field(default_factory=dict, repr=False)

    def term(self, place: tuple[int, int]) -> Term:
        """The term of one input of one operation; made once."""
        if place not in self.found:
            reading, slot = place
            layout = self.layouts[reading]
            made = term_of(self.readings[reading], layout, slot) if layout is not None else None
            assert made is not None
            self.found[place] = made
        return self.found[place]

    def is_root(self, place: tuple[int, int]) -> bool:
        """Whether an operation is the last one, so that its cotangents are those of the outputs."""
        return self.readings[place[0]].node is self.root

    @property
    def root(self) -> Node | None:
        """The last operation."""
        return self.outputs.grad_fn

    @functools.cached_property
    def separable(self) -> frozenset[int]:
        """Operations (b, O, ...) whose cotangent of output c is w_oc d, with derivatives d and weights (O, C) of a linear last layer."""
        found = channelwise(self.outputs)
        return frozenset(index for index, reading in enumerate(self.readings) if reading.node in found and reading.node is not self.root)

    def derivatives(self, operations: Sequence[int]) -> list[Tensor]:
        """Those of separable operations, one backward pass from the inputs of the last layer for all outputs."""
        edge = readout_edge(self.outputs)
        assert edge is not None
        ones = self.outputs.new_ones(edge.node._input_metadata[edge.output_nr].shape)
        edges = [self.readings[index].edge for index in operations]
        return list(torch.autograd.grad([edge], edges, [ones], retain_graph=True))

    @property
    def readout_weights(self) -> Tensor:
        """(O, C), of a linear last layer."""
        return self.root._saved_mat2.detach()  # type: ignore[union-attr, no-any-return]

    def cotangents(self, operations: Sequence[int], cotangents: Tensor) -> list[Tensor]:
        """Cotangents (R, *output) of operations, for cotangents (R, b, D) of the outputs; the graph is kept."""
        if not operations:
            return []
        edges = [self.readings[index].edge for index in operations]
        if len(cotangents) == 1:
            found = torch.autograd.grad(self.outputs, edges, cotangents[0], retain_graph=True, allow_unused=True)
            return [self._filled(index, one).unsqueeze(0) for index, one in zip(operations, found)]
        try:
            found = torch.autograd.grad(self.outputs, edges, cotangents, retain_graph=True, allow_unused=True, is_grads_batched=True)
            return [self._filled(index, one, len(cotangents)) for index, one in zip(operations, found)]
        except RuntimeError:  # an operation without a rule for batches of cotangents
            each = [self.cotangents(operations, one[None]) for one in cotangents]
            return [torch.cat(ones) for ones in zip(*each)]

    def _filled(self, index: int, found: Tensor | None, *lead: int) -> Tensor:
        """Zeros where the outputs do not depend on an operation."""
        return found if found is not None else self.outputs.new_zeros(*lead, *self.readings[index].output_shape)


@dataclass(frozen=True, eq=False)
class Network:
    """A model, how it is applied to samples, and what a first look at a few of them has told.

    `parts` have fast forms; `others` are weights without one, whose rows come from a backward pass for each sample by itself.
    """

    model: nn.Module
    forward: Forward
    weights: Mapping[str, Tensor]
    layouts: tuple[Layout | None, ...]
    parts: tuple[Part, ...]
    others: tuple[str, ...]
    shape: torch.Size  # of the outputs of one sample
    probe: Pass = field(repr=False)  # of three samples
    kept_bytes: int  # of the forward pass, a sample
    channels_last: bool

    @functools.cached_property
    def products(self) -> Mapping[Part, str]:
        """Parts of a linear layer with one position of a sample, where ||row|| = ||a|| ||g||, or ||g|| for a bias.

        With the name under which the layer saves its inputs a, "" for a bias.
        """
        found = {}
        for part in self.parts:
            (operation, slot), *more = part.places
            reading, term = self.probe.readings[operation], self.probe.term((operation, slot))
            if reading.kind in LINEAR and not more and len(self.probe.outputs) == reading.output_shape[0]:
                if isinstance(term, Matrix):
                    found[part] = LINEAR[reading.kind]
                elif term.num_weights == reading.output_shape[1]:
                    found[part] = ""
        return found

    def record(self, samples: Samples, *, witnessed: bool = False) -> Pass:
        """A forward pass whose graph is kept; of one sample, that sample twice.

        `witnessed`: some of the samples go through another pass in another order, in which each must look the same.
        """
        if len(samples[0]) < FEWEST:
            samples = tuple(tensor[[0] * FEWEST] for tensor in samples)
        recorded = self._pass(samples)
        if witnessed:
            chosen = checks.spread(len(samples[0]))[::-1]
            own = self._pass(checks.chosen(samples, chosen))
            _refuse_company(recorded.outputs[chosen], own.outputs, self.weights.values())
            _refuse_strangers(recorded, own, chosen)
        return recorded

    def _pass(self, samples: Samples) -> Pass:
        with torch.enable_grad():
            return self.passed(self.forward(_ordered(samples) if self.channels_last else samples), samples)

    def passed(self, raw: Tensor, samples: Samples) -> Pass:
        """The pass that has given these outputs of the samples."""
        with torch.enable_grad():
            outputs = _flat_outputs(raw, samples)
        (graph, numbers), (nodes, here) = self._graph, described(outputs)
        if here == graph:
            found = [Reading(nodes[number], reading.sources) for number, reading in zip(numbers, self.probe.readings)]
        else:
            _, found = _read(raw, samples, self.weights, self.probe.readings)
        for reading, layout in zip(found, self.layouts):
            if layout is not None and reading.output_shape[layout.axis] != layout.outer * len(outputs) * layout.inner:
                raise ConfigError(
                    f"the network is known for samples of another shape; find it out again for these: {_told([reading])} gives "
                    f"{reading.output_shape} for {len(outputs)} samples"
                )
        return Pass(outputs, found, self.layouts)

    @functools.cached_property
    def _graph(self) -> tuple[list[Any], list[int]]:
        """The graph of the probe and the numbers of its readings, which an equal graph has too: no search for weights is needed there."""
        nodes, graph = described(self.probe.outputs)
        return graph, [nodes.index(reading.node) for reading in self.probe.readings]

    def other_rows(self, names: Sequence[str], samples: Samples, cotangents: Tensor) -> Tensor:
        """Rows (b, R, P) of the Jacobian for weights without a fast form, each sample by itself; cotangents (R, b, D)."""
        weights = [self.weights[name] for name in names]
        rows = []
        for index in range(len(samples[0])):
            one = tuple(tensor[index : index + 1] for tensor in samples)
            with torch.enable_grad():
                outputs = _flat_outputs(self.forward(one), one)
            rows.append(_gradients(outputs, weights, cotangents[:, index : index + 1]))
        return torch.stack(rows)


def look(model: nn.Module, forward: Forward, samples: Samples) -> Network:
    """A network, from three samples: where they stand in each operation, and that they do not meet.

    Raises ConfigError for outputs that are random, that depend on other samples, or that no trainable weight reaches.
    """
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    few = checks.chosen(samples, checks.spread(len(samples[0])))
    raw, channels_last = _first_pass(model, forward, checks.chosen(few, [0] * NUM_PROBED))
    outputs = _flat_outputs(raw, few)
    if not weights or outputs.grad_fn is None:
        raise ConfigError(
            "no trainable weight reaches the outputs: the kernel would be empty. The model has "
            f"{len(weights)} tensors with requires_grad=True; set it on those that are trained, and run the model with gradients"
        )
    checks.finite(outputs, weights)
    if hides_weights(outputs):
        raise ConfigError(
            "the model recomputes activations by reentrant checkpoints, whose weights are not in the graph; "
            "call torch.utils.checkpoint.checkpoint(..., use_reentrant=False), or leave checkpoints out here"
        )
    found = readings(outputs, _ids(weights))
    layouts = _layouts(outputs, found)

    def passed(*chosen: int) -> Pass:
        some = checks.chosen(few, chosen)
        with torch.enable_grad():
            return Pass(*_read(forward(_ordered(some) if channels_last else some), some, weights, found), layouts)

    several, pair = passed(0, 1, 2), passed(1, 0)
    checks.finite(several.outputs, {})
    checks.alike(several.outputs, pair.outputs, lambda: passed(0, 1, 2).outputs, weights.values())
    layouts = tuple(layout if _is_at_home(index, several, pair, [1, 0]) else None for index, layout in enumerate(layouts))
    recorded = Pass(outputs, found, layouts)
    parts, others = _parts(recorded, weights)
    return Network(
        model=model,
        forward=forward,
        weights=weights,
        layouts=layouts,
        parts=parts,
        others=others,
        shape=raw[:1].shape,
        probe=recorded,
        kept_bytes=_kept_bytes(outputs),
        channels_last=channels_last,
    )


def _first_pass(model: nn.Module, forward: Forward, few: Samples) -> tuple[Tensor, bool]:
    """Outputs, and whether images went through with their channels innermost: convolutions are faster so."""
    with torch.enable_grad():
        if any(isinstance(module, nn.Conv2d) for module in model.modules()) and any(tensor.dim() == 4 for tensor in few):
            with contextlib.suppress(RuntimeError):  # a view that needs channels first
                return forward(_ordered(few)), True
        return forward(few), False


def _ordered(samples: Samples) -> Samples:
    return tuple(tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor for tensor in samples)


def _read(raw: Tensor, samples: Samples, weights: Mapping[str, Tensor], before: Sequence[Reading]) -> tuple[Tensor, list[Reading]]:
    """Outputs of samples, and the operations that read weights, which must be those of the pass before."""
    with torch.enable_grad():
        outputs = _flat_outputs(raw, samples)
    found = readings(outputs, _ids(weights))
    if _told(found) != _told(before):
        raise ConfigError(
            "the model ran other operations than in the pass before: its path depends on the samples or on chance. "
            f"Before: {_told(before)}; now: {_told(found)}. Make its path fixed, or take one sample at a time"
        )
    return outputs, found


def _flat_outputs(outputs: Tensor, samples: Samples) -> Tensor:
    if outputs.shape[:1] != samples[0].shape[:1]:
        raise ConfigError(
            "the outputs must have one entry a sample along their first axis, "
            f"got shape {tuple(outputs.shape)} for {len(samples[0])} samples"
        )
    return outputs.flatten(1) if outputs.dim() > 1 else outputs.unsqueeze(1)


def _ids(weights: Mapping[str, Tensor]) -> dict[int, str]:
    return {id(weight): name for name, weight in weights.items()}


def _told(found: Sequence[Reading]) -> str:
    """Each operation and the weights that it reads."""
    return ", ".join(f"{reading.kind} of {' and '.join(source.name for source in reading.sources.values())}" for reading in found)


def _gradients(outputs: Tensor, weights: Sequence[Tensor], cotangents: Tensor) -> Tensor:
    """Gradients (R, P) for cotangents (R, 1, D) of one sample's outputs."""
    found: Sequence[Tensor | None]
    try:
        found = torch.autograd.grad(outputs, weights, cotangents, retain_graph=True, allow_unused=True, is_grads_batched=True)
    except RuntimeError:  # an operation without a rule for batches of cotangents
        each = [torch.autograd.grad(outputs, weights, one, retain_graph=True, allow_unused=True) for one in cotangents]
        found = tuple(None if ones[0] is None else torch.stack(ones) for ones in zip(*each))
    filled = [weight.new_zeros(len(cotangents), *weight.shape) if one is None else one for one, weight in zip(found, weights)]
    return torch.cat([one.reshape(len(cotangents), -1) for one in filled], dim=1)


def _refuse_company(found: Tensor, own: Tensor, weights: Iterable[Tensor]) -> None:
    """Outputs of some samples in a pass, and in one of their own, which rounds otherwise."""
    if checks.differ(found, own) > checks.precision(own, weights) ** 0.5 * float(own.detach().abs().max()):
        raise checks.company(checks.differ(found, own))


def _refuse_strangers(recorded: Pass, own: Pass, chosen: Sequence[int]) -> None:
    for index, reading in enumerate(recorded.readings):
        if recorded.layouts[index] is not None and not _is_at_home(index, recorded, own, chosen):
            names = ", ".join(source.name for source in reading.sources.values())
            raise ConfigError(
                f"samples change their places in the batch with the samples beside them, at the operation {reading.kind} of {names} "
                "(packed or sorted sequences, routing). Pad them, or take KernelOperator(model, x), which needs no places"
            )


def _is_at_home(index: int, recorded: Pass, own: Pass, chosen: Sequence[int]) -> bool:
    """Whether an operation has got the same inputs of the samples `chosen` of a pass as in a pass of their own."""
    layout, one, other = recorded.layouts[index], recorded.readings[index], own.readings[index]
    if layout is None:
        return False
    for each, reading in ((recorded, one), (own, other)):
        if reading.output_shape[layout.axis] != layout.outer * len(each.outputs) * layout.inner:
            return False
    inputs, expected = kept_inputs(one), kept_inputs(other)
    if inputs is None or expected is None:
        return True
    found, expected = layout.samples_first(inputs)[list(chosen)].detach().double(), layout.samples_first(expected).detach().double()
    # a stranger is another one altogether; rounding is not
    return found.shape == expected.shape and bool((found - expected).norm() <= 0.05 * expected.norm())


def _layouts(outputs: Tensor, found: Sequence[Reading]) -> tuple[Layout | None, ...]:
    """Where samples stand in the output of each operation, from the cotangents that each of them sends."""
    generator = torch.Generator(device=outputs.device).manual_seed(0)
    touched = []
    for index in range(NUM_PROBED):
        cotangent = torch.zeros_like(outputs)
        cotangent[index] = torch.randn(outputs.shape[1], generator=generator, device=outputs.device, dtype=outputs.dtype)
        edges = [reading.edge for reading in found]
        grads = torch.autograd.grad(outputs, edges, cotangent, retain_graph=True, allow_unused=True)
        touched.append([None if grad is None else grad != 0 for grad in grads])
    masks = zip(*touched)
    return tuple(None if any(mask is None or mask.dim() == 0 for mask in three) else find_layout(three) for three in masks)


def _parts(recorded: Pass, weights: Mapping[str, Tensor]) -> tuple[tuple[Part, ...], tuple[str, ...]]:
    """Weights all of whose readings have a fast form that can be added up, and the names of the others that are read."""
    places: dict[str, list[tuple[tuple[int, int], Term | None]]] = {}
    for index, (reading, layout) in enumerate(zip(recorded.readings, recorded.layouts)):
        for slot, source in reading.sources.items():
            fast = term_of(reading, layout, slot) if layout is not None else None
            places.setdefault(source.name, []).append(((index, slot), fast))
    parts, others = [], []
    for name in weights:
        if name in places:
            found = _parts_of(name, places[name], weights[name])
            parts += found or []
            others += [] if found else [name]
    return tuple(sorted(parts, key=lambda part: part.depth)), tuple(others)


def _parts_of(name: str, places: Sequence[tuple[tuple[int, int], Term | None]], weight: Tensor) -> list[Part] | None:
    """The parts of one weight: one for the whole, or one for each of its pieces; None: some reading has no fast form."""
    groups: dict[tuple[int, int] | None, list[tuple[tuple[int, int], Term]]] = {}
    for place, term in places:
        if term is None:
            return None
        groups.setdefault(term.source.rows, []).append((place, term))
    pieces = sorted(rows for rows in groups if rows is not None)
    overlap = any(one[1] > other[0] for one, other in zip(pieces, pieces[1:]))
    if overlap or (None in groups and pieces) or not all(_add_up([term for _, term in group]) for group in groups.values()):
        return None
    if None in groups and len(groups[None]) > 1 and groups[None][0][1].num_weights != weight.numel():
        return None
    return [
        Part(name, tuple(place for place, _ in group), group[0][1].num_weights, min(place[0] for place, _ in group))
        for group in groups.values()
    ]


def _add_up(group: Sequence[Term]) -> bool:
    """Whether the rows of several terms are in the same order of weights."""
    return len({(term.num_weights, term.order) for term in group}) == 1


def _kept_bytes(outputs: Tensor) -> int:
    """What the operations of a pass put out, for one sample: more than is kept."""
    seen, stack, total = set(), [outputs.grad_fn], 0
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable") or (node.name() in LOOKS and hasattr(node.next_functions[0][0], "variable")):
            continue  # a weight, or its transposed
        for metadata in node._input_metadata:
            total += math.prod(metadata.shape) * metadata.dtype.itemsize
        stack.extend(child for child, _ in node.next_functions)
    return total // NUM_PROBED
