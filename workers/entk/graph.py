"""The autograd graph of one forward pass: which operations read which weights.

A network is taken at the level of its operations, not of its modules: whatever way a weight reaches the output (a module applied
twice, a tied embedding, a packed projection cut in three, a plain `x @ w`), it does so through nodes of this graph, so none is missed.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

# nodes that only look at a weight in another way: each of its elements appears at most once
TRANSPOSES = {"TBackward0", "TransposeBackward0", "PermuteBackward0"}
LOOKS = {"ViewBackward0", "ReshapeAliasBackward0", "UnsafeViewBackward0", "UnsqueezeBackward0", "SqueezeBackward0", "SqueezeBackward1",
         "AliasBackward0", "CloneBackward0", "ToCopyBackward0", "SliceBackward0", "SelectBackward0"} | TRANSPOSES  # fmt: skip
# functions of single elements
ELEMENTWISE = {"Relu", "Tanh", "Sigmoid", "Gelu", "Silu", "Softplus", "Elu", "LeakyRelu", "Hardtanh", "Hardsigmoid", "Hardswish", "Mish",
               "Erf", "Sin", "Cos", "Exp", "LogSigmoid", "Softsign"}  # fmt: skip
ARITHMETIC = {"Add", "Sub", "Mul", "Div", "Neg"}
# by the number of axes of a batch
POOLS = {
    "AvgPool2D": 4,
    "AvgPool3D": 5,
    "AdaptiveAvgPool2D": 4,
    "AdaptiveAvgPool3D": 5,
    "MaxPool2DWithIndices": 4,
    "MaxPool3DWithIndices": 5,
}
CUTS = {"SplitBackward0", "SplitWithSizesBackward0"}


@dataclass(frozen=True, slots=True)
class Source:
    """A weight as an operation sees it: its name and the looks that lie between, the one next to the weight first."""

    name: str
    looks: tuple[tuple[Any, ...], ...] = ()

    @property
    def rows(self) -> tuple[int, int] | None:
        """The part (start, stop) of its first axis, where that is all that is cut; None: the whole."""
        cuts = [look for look in self.looks if look[0] == "rows"]
        return (cuts[0][1], cuts[0][2]) if len(cuts) == 1 else None

    @property
    def is_plain(self) -> bool:
        """Whether it is the weight itself or some of its rows, maybe in another precision."""
        return all(look[0] in ("rows", "ToCopyBackward0") for look in self.looks) and len(self._cuts()) <= 1

    @property
    def is_transposed(self) -> bool:
        """Whether it is the transposed matrix of (some rows of) the weight."""
        turns = [look for look in self.looks if look[0] == "transposed"]
        rest = [look for look in self.looks if look[0] not in ("transposed", "rows", "ToCopyBackward0")]
        return len(turns) == 1 and not rest and len(self._cuts()) <= 1

    def _cuts(self) -> list[tuple[Any, ...]]:
        return [look for look in self.looks if look[0] == "rows"]


@dataclass(frozen=True, slots=True)
class Reading:
    """One operation that reads weights: its node, and the weight at each of its inputs that is one."""

    node: Node
    sources: Mapping[int, Source]

    @property
    def kind(self) -> str:
        """Name of the node without its number."""
        return kind(self.node)

    @property
    def edge(self) -> GradientEdge:
        """Whose gradient is the cotangent of the operation's first output."""
        return GradientEdge(self.node, 0)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the operation's first output."""
        return tuple(self.node._input_metadata[0].shape)

    def weight_shape(self, slot: int) -> tuple[int, ...]:
        """Shape of the weight at an input, as the operation sees it."""
        child, index = self.node.next_functions[slot]
        return tuple(child._input_metadata[index].shape)  # type: ignore[union-attr]

    def saved(self, name: str) -> Any:
        """What the operation kept of its forward pass; None where it kept nothing under that name."""
        return getattr(self.node, f"_saved_{name}", None)


def kind(node: Node) -> str:
    """Name of a node without its number."""
    return node.name().rstrip("0123456789").removesuffix("Backward").rsplit("::", 1)[-1]


def readout_edge(outputs: Tensor) -> GradientEdge | None:
    """The inputs (b, F) of the linear layer that makes the outputs; None: something else makes them."""
    root = outputs.grad_fn
    if root is None or kind(root) not in ("Addmm", "Mm") or getattr(root, "_saved_alpha", 1) != 1:
        return None
    features, index = root.next_functions[1 if kind(root) == "Addmm" else 0]
    return None if features is None or index else GradientEdge(features, 0)


def channelwise(outputs: Tensor) -> set[Node]:
    """The operations whose output's channel f, of (b, F, ...), reaches the linear last layer in its input f alone, on every path."""
    edge = readout_edge(outputs)
    if edge is None or [child for child, _ in outputs.grad_fn.next_functions].count(edge.node) > 1:  # type: ignore[union-attr]
        return set()
    shape = edge.node._input_metadata[edge.output_nr].shape
    reached, mixed = {edge.node}, set()
    for node in _nodes(outputs):  # all that lead to a node come before it
        inside = node in reached and node not in mixed and _keeps_channels(node)
        for child, index in node.next_functions:
            if inside and child is not None and index == 0 and child._input_metadata[0].shape[:2] == shape:
                reached.add(child)
            elif node is not outputs.grad_fn:
                mixed.add(child)
    return reached - mixed


def _keeps_channels(node: Node) -> bool:
    """Whether channel f of the output (b, F, ...) depends on channel f of the inputs of equal (b, F) alone."""
    name, sizes = kind(node), [child._input_metadata[index].shape for child, index in node.next_functions if child is not None]
    shape = node._input_metadata[0].shape
    if name in ELEMENTWISE | ARITHMETIC:
        return all(len(size) == len(shape) or size[:2] != shape[:2] for size in sizes)
    if name in ("Mean", "Sum"):
        axes = [int(axis) % 2**64 for axis in node._saved_dim]  # type: ignore[attr-defined]
        return not {axis if axis < 2**63 else axis - 2**64 + len(sizes[0]) for axis in axes} & {0, 1}
    if name == "NativeBatchNorm":
        return not node._saved_training  # type: ignore[attr-defined]
    if name in POOLS:
        return len(shape) == POOLS[name]
    if name == "AsStrided":  # of a mean over all positions, in channels-last order: the same numbers in the same places
        below, _ = node.next_functions[0]
        return below is not None and kind(below) == "Mean" and sizes == [shape] and list(node._saved_stride[:2]) == [shape[1], 1]  # type: ignore[attr-defined]
    return name in ("View", "ReshapeAlias", "UnsafeView", "Squeeze", "Unsqueeze")


def readings(outputs: Tensor, names: Mapping[int, str]) -> list[Reading]:
    """Every operation below `outputs` that reads one of the weights `names` (by id), in a fixed order, outputs first."""
    sources: dict[tuple[Node, int], Source] = {}
    found = []
    for node in reversed(_nodes(outputs)):  # weights before what reads them
        if (name := _leaf(node, names)) is not None:
            sources[node, 0] = Source(name)
            continue
        read = {slot: sources[child] for slot, child in enumerate(node.next_functions) if child in sources}
        if not read:
            continue
        looks = _looks(node, read)
        if looks is None:
            found.append(Reading(node, read))
        else:
            sources.update(looks)
    return found[::-1]


def described(outputs: Tensor) -> tuple[list[Node], list[Any]]:
    """Every node, outputs first, and the graph: of each its name, the weight that it is, and the numbers of those that it leads to."""
    nodes: list[Any] = [outputs.grad_fn]
    numbers, graph = {None: -1, outputs.grad_fn: 0}, []
    for node in nodes:
        graph.append(name := node.name())
        if name.endswith("AccumulateGrad"):
            graph.append(id(node.variable))
        for child, index in node.next_functions:
            if child not in numbers:
                numbers[child] = len(nodes)
                nodes.append(child)
            graph += (numbers[child], index)
    return nodes, graph


def hides_weights(outputs: Tensor) -> bool:
    """Whether an operation computes gradients of weights that the graph does not show."""
    return any("CheckpointFunction" in node.name() for node in _nodes(outputs))


def _nodes(outputs: Tensor) -> list[Node]:
    """Every node before those that it leads to (reverse of post-order)."""
    done: dict[Node, None] = {}
    seen: set[Node] = set()
    stack = [(outputs.grad_fn, False)]
    while stack:
        node, finished = stack.pop()
        if node is None:
            continue
        if finished:
            done[node] = None
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((child, False) for child, _ in reversed(node.next_functions))
    return list(done)[::-1]


def _leaf(node: Node, names: Mapping[int, str]) -> str | None:
    return names.get(id(node.variable)) if node.name().endswith("AccumulateGrad") else None  # type: ignore[attr-defined]


def _looks(node: Node, read: Mapping[int, Source]) -> "dict[tuple[Node, int], Source] | None":
    """The sources that a look makes of a weight, for each of its outputs; None where the node does more than look."""
    name = node.name()
    if list(read) != [0]:
        return None
    source = read[0]
    if name in CUTS and _axis(node) == 0 and not source.looks:
        return {(node, index): _with(source, ("rows", start, stop)) for index, (start, stop) in enumerate(_pieces(node))}
    if name == "SliceBackward0" and _axis(node) == 0 and not source.looks and _number(node, "step") == 1:
        size = node._saved_self_sym_sizes[0]  # type: ignore[attr-defined]
        start, stop = _number(node, "start") or 0, min(_number(node, "end"), size)
        return {(node, 0): _with(source, ("rows", start, stop))}
    if name in TRANSPOSES and _is_matrix_transpose(node):
        return {(node, 0): _with(source, ("transposed", *_saved(node)))}
    if name in LOOKS:
        # a view does not keep its own shape
        return {(node, 0): _with(source, (name, tuple(node._input_metadata[0].shape), *_saved(node)))}
    return None


def _with(source: Source, look: tuple[Any, ...]) -> Source:
    return Source(source.name, (*source.looks, look))


def _saved(node: Node) -> tuple[Any, ...]:
    """What a look keeps of itself: its axes and sizes."""
    return tuple(str(getattr(node, name)) for name in _saved_names(type(node)))


@functools.cache
def _saved_names(kind: type) -> list[str]:
    return [name for name in dir(kind) if name.startswith("_saved_")]


def _axis(node: Node) -> int:
    return _number(node, "dim")


def _number(node: Node, name: str) -> int:
    value = getattr(node, f"_saved_{name}")
    # autograd shows negative numbers as unsigned ones
    return int(value) - 2**64 if value is not None and value >= 2**63 else int(value or 0)


def _pieces(node: Node) -> list[tuple[int, int]]:
    """Rows (start, stop) of each piece of a cut along the first axis."""
    size = node._saved_self_sym_sizes[0]  # type: ignore[attr-defined]
    if node.name() == "SplitBackward0":
        step = node._saved_split_size  # type: ignore[attr-defined]
        return [(start, min(start + step, size)) for start in range(0, size, step)]
    stops, pieces = 0, []
    for length in node._saved_split_sizes:  # type: ignore[attr-defined]
        pieces.append((stops, stops + length))
        stops += length
    return pieces


def _is_matrix_transpose(node: Node) -> bool:
    if node.name() == "TBackward0":
        return True
    if node.name() == "TransposeBackward0":
        axes = {_number(node, "dim0"), _number(node, "dim1")}
        return axes in ({0, 1}, {-1, -2}, {0, -1}, {1, -2})
    return [int(axis) - 2**64 if axis >= 2**63 else int(axis) for axis in node._saved_dims] in ([1, 0], [-1, 0], [-1, -2], [1, -2])  # type: ignore[attr-defined]
