"""Many networks of one architecture trained as one: stacked weights, batches of their own or shared, one optimiser over all."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253  (imported by `workers.ensembles.runs` alone)
from torch import Tensor, nn  # noqa: TID253

from workers.ensembles import fused as fused_steps
from workers.ensembles.products import batched_product
from workers.losses import loss_per_unit, residual

if TYPE_CHECKING:
    from torch.optim import Optimizer

# E networks, N samples of a batch

# torch's optimisers round the last elements of a tensor, which fill no vector, in another way: so none of a member is ever last
_ROW = 64


@dataclass(frozen=True, slots=True)
class Member:
    """A network, the optimiser that would train it alone, and the temperature that its outputs are divided by.

    `rate_class`: members in whom it is equal have equal learning rates at each step.
    """

    module: nn.Module
    optimizer: "Optimizer"
    rate_class: Any = None
    logit_temperature: float = 1.0

    @property
    def stepping(self) -> tuple[Any, float]:
        """Members in whom this is equal are stepped together."""
        return self.rate_class, float(self.optimizer.param_groups[0].get("weight_decay", 0.0))

    def names(self) -> list[list[str]]:
        """Of the parameters of each group of the optimiser."""
        known = {id(values): name for name, values in self.module.named_parameters()}
        return [[known[id(values)] for values in group["params"]] for group in self.optimizer.param_groups]


class Ensemble:
    """E networks whose weights are stacked; each module's own parameters become views of the stack, so that they are always up to date.

    Their optimisers, which `build` makes of parameter groups, treat each weight by itself and are alike but for rates and weight decay:
    one optimiser steps the stacks, in a slice for each run of neighbours that have both in common. Multi-layer perceptrons go through
    `workers.ensembles.fused` unless told otherwise, other networks through vmap. Buffers are constants; ValueError for networks with
    running means.
    """

    def __init__(
        self, members: Sequence[Member], build: "Callable[[list[dict[str, Any]]], Optimizer]", loss: str, *, fused: bool = True
    ) -> None:
        self.members, self.loss = list(members), loss
        self.template = members[0].module
        if any(isinstance(layer, nn.modules.batchnorm._NormBase) for layer in self.template.modules()):
            raise ValueError("an ensemble holds networks without running means, got one that normalises batches; train it alone")
        self.stages = fused_steps.stages(self.template) if fused else None
        self.flat: dict[str, Tensor] = {}
        self.parameters = {name: self._stacked(name) for name, _ in self.template.named_parameters()}
        self.room = {name: torch.zeros_like(values) for name, values in self.flat.items()}
        whole = {name: values for name, values in self.parameters.items() if values[0].numel() == self.flat[name].shape[1]}
        self.into = {name: self.room[name].view(values.shape) for name, values in whole.items()}
        self.constants = self._constants()
        self.temperatures_E = self._temperatures()
        self.traced: dict[Any, Callable[..., dict[str, Tensor]]] = {}
        self.optimizer = build(self._groups())
        self._take_states()

    def __len__(self) -> int:
        return len(self.members)

    # -- weights ------------------------------------------------------------------------------------------------------

    def _stacked(self, name: str) -> Tensor:
        """The members' parameters of a name (E, ...), which become views of it; the optimiser sees its rows padded, as `flat`."""
        own = [member.module.get_parameter(name) for member in self.members]
        self.flat[name] = _flat([values.detach() for values in own])
        stack = self.flat[name][:, : own[0].numel()].view(len(own), *own[0].shape)
        for values, view in zip(own, stack.unbind(), strict=True):
            values.data = view
        return stack

    def _constants(self) -> dict[str, Tensor]:
        """Buffers (E, ...) that are not the same in all members, such as random features."""
        stacks = {name: torch.stack([one.module.get_buffer(name) for one in self.members]) for name, _ in self.template.named_buffers()}
        return {name: values for name, values in stacks.items() if not bool((values == values[:1]).all())}

    def _temperatures(self) -> Tensor | None:
        """(E,); None: all are 1."""
        values = [member.logit_temperature for member in self.members]
        weights = next(iter(self.parameters.values()))
        return None if set(values) == {1.0} else torch.tensor(values, dtype=weights.dtype, device=weights.device)

    # -- the optimiser --------------------------------------------------------------------------------------------------

    def _groups(self) -> list[dict[str, Any]]:
        """For each slice of neighbours that step alike, the groups of its first member's optimiser, with stacked parameters."""
        found = []
        for start, stop in _runs([member.stepping for member in self.members]):
            first = self.members[start]
            for names, group in zip(first.names(), first.optimizer.param_groups, strict=True):
                facts = {"rate_factor": group.get("rate_factor", 1.0), "weight_decay": first.stepping[1], "start": start, "names": names}
                found.append({"params": [self.flat[name][start:stop] for name in names], **facts})
        return found

    def _take_states(self) -> None:
        """Go on with the states of the members' optimisers, where they have some."""
        for index, params, members in self._by_slice():
            own = [member.optimizer.state.get(_parameters(member)[index], {}) for member in members]
            if own[0]:
                self.optimizer.state[params] = {
                    name: _joined([state[name] for state in own]) for name in own[0] if own[0][name] is not None
                }

    def lend_states(self) -> None:
        """Put each member's part of the optimiser's state into its own optimiser, for a checkpoint; to be done again after a step."""
        for index, params, members in self._by_slice():
            state = self.optimizer.state.get(params, {})
            for number, member in enumerate(members):
                weights = _parameters(member)[index]
                member.optimizer.state[weights] = {name: _part(values, number, params, weights) for name, values in state.items()}

    def _by_slice(self) -> Iterator[tuple[int, Tensor, list[Member]]]:
        """(number of a parameter in its member's optimiser, its slice of the stack, the members in that)."""
        starts = [start for start, _ in _runs([member.stepping for member in self.members])]
        for start in starts:
            groups = [group for group in self.optimizer.param_groups if group["start"] == start]
            for index, params in enumerate(params for group in groups for params in group["params"]):
                yield index, params, self.members[start : start + len(params)]

    # -- steps --------------------------------------------------------------------------------------------------------

    def update(self, rates_E: Sequence[float], inputs: Tensor, targets: Tensor, *, shared: bool, num_at_once: int | None = None) -> None:
        """One step of each member along the gradient of its mean loss; nothing is read back from the device.

        Inputs and targets: (N, ...) where all share them, else (E, N, ...). `num_at_once`: samples of a member computed together.
        """
        num_samples = inputs.shape[0 if shared else 1]
        at_once = num_at_once or num_samples
        total: dict[str, Tensor] = {}
        for start in range(0, num_samples, at_once):
            piece = slice(start, start + at_once) if shared else (slice(None), slice(start, start + at_once))
            found = self._gradients(inputs[piece], targets[piece], shared=shared, num_samples=num_samples, is_first=not total)
            total = {name: total[name].add_(values) for name, values in found.items()} if total else found
        for group in self.optimizer.param_groups:
            group["lr"] = rates_E[group["start"]] * group["rate_factor"]
            for name, params in zip(group["names"], group["params"], strict=True):
                params.grad = self._padded(name, total[name])[group["start"] : group["start"] + len(params)]
        self.optimizer.step()

    def _padded(self, name: str, values: Tensor) -> Tensor:
        """(E, ...) as rows of the length of those of `flat`."""
        rows = values.reshape(len(values), -1)
        if rows.shape == self.flat[name].shape:
            return rows
        self.room[name][:, : rows.shape[1]] = rows
        return self.room[name]

    def _gradients(self, inputs: Tensor, targets: Tensor, *, shared: bool, num_samples: int, is_first: bool) -> dict[str, Tensor]:
        """Of the sum of each member's losses of these samples, divided by `num_samples`."""
        given = (self.parameters, inputs, targets, self.temperatures_E, self.constants)
        if self.stages is not None:
            into = self.into if is_first else None
            return fused_steps.gradients(self.stages, self.loss, *given[:4], shared=shared, num_samples=num_samples, into=into)
        key = (tuple(inputs.shape), shared, num_samples, is_first)
        if key not in self.traced:
            self.traced[key] = _trace(self._vmapped(shared=shared, num_samples=num_samples), *given)
        return self.traced[key](*given)

    def _vmapped(self, *, shared: bool, num_samples: int) -> "Callable[..., dict[str, Tensor]]":
        """Gradients of all members from (parameters, inputs, targets, temperatures, constants)."""
        from torch.func import vjp, vmap

        def gradient(
            parameters: dict[str, Tensor], inputs: Tensor, targets: Tensor, temperature: Tensor | None, constants: dict[str, Tensor]
        ) -> dict[str, Tensor]:
            outputs, backward, *_ = vjp(lambda given: self._outputs({**given, **constants}, inputs, temperature), parameters)
            units = 1 if targets.is_floating_point() else targets[0].numel()
            found: dict[str, Tensor] = backward(residual(self.loss, outputs, targets) / (num_samples * units))[0]
            return found

        data = None if shared else 0
        return vmap(gradient, in_dims=(0, data, data, None if self.temperatures_E is None else 0, 0))

    def _outputs(self, tensors: Mapping[str, Tensor], inputs: Tensor, temperature: Tensor | None) -> Tensor:
        from torch.func import functional_call

        outputs: Tensor = functional_call(self.template, dict(tensors), (inputs,))
        return outputs if temperature is None else outputs / temperature

    # -- looking --------------------------------------------------------------------------------------------------------

    def losses(self, inputs: Tensor, targets: Tensor, *, shared: bool) -> Tensor:
        """Sums (E, 2) in float64 over the units of the samples given: of the losses, and of the largest outputs that are the label.

        NaN for the second where targets are values.
        """
        with torch.no_grad():
            outputs = self._all_outputs(inputs, shared=shared)
            labels = targets.expand(len(self), *targets.shape) if shared else targets
            loss = torch.stack([loss_per_unit(self.loss, *one).sum(dtype=torch.float64) for one in zip(outputs, labels, strict=True)])
            if targets.is_floating_point():
                return torch.stack([loss, torch.full_like(loss, torch.nan)], 1)
            hits = (outputs.argmax(-1) == labels).flatten(1).sum(1)
            return torch.stack([loss, hits.to(torch.float64)], 1)

    def _all_outputs(self, inputs: Tensor, *, shared: bool) -> Tensor:
        from torch.func import vmap

        if self.stages is None:
            temperature = None if self.temperatures_E is None else 0
            given = {**self.parameters, **self.constants}
            return vmap(self._outputs, in_dims=(0, None if shared else 0, temperature))(given, inputs, self.temperatures_E)
        found = fused_steps.outputs(self.stages, self.parameters, inputs, shared=shared)
        return found if self.temperatures_E is None else found / self.temperatures_E.view(-1, 1, 1)


class _Product(nn.Module):
    """A batched product that gives its result in the same memory each time."""

    out: Tensor | None = None

    def forward(self, first_ENK: Tensor, second_EKM: Tensor) -> Tensor:
        self.out = batched_product(first_ENK, second_EKM, self.out)
        return self.out


def _trace(function: "Callable[..., dict[str, Tensor]]", *given: Any) -> "Callable[..., dict[str, Tensor]]":
    """The operations of a function, recorded once for tensors of these shapes: without the time that vmap and autograd take each time."""
    from torch.fx.experimental.proxy_tensor import make_fx

    traced = make_fx(function)(*given)
    for number, node in enumerate(traced.graph.find_nodes(op="call_function", target=torch.ops.aten.bmm.default)):
        traced.add_submodule(f"product_{number}", _Product())
        with traced.graph.inserting_before(node):
            node.replace_all_uses_with(traced.graph.call_module(f"product_{number}", node.args))
        traced.graph.erase_node(node)
    traced.recompile()
    return torch.no_grad()(traced)


def _runs(values: Sequence[Any]) -> Iterator[tuple[int, int]]:
    """[start, stop) of each run of equal neighbours."""
    start = 0
    for index in range(1, len(values) + 1):
        if index == len(values) or values[index] != values[start]:
            yield start, index
            start = index


def _parameters(member: Member) -> list[Tensor]:
    """In the order of its optimiser."""
    return [values for group in member.optimizer.param_groups for values in group["params"]]


def _joined(values: list[Any]) -> Any:
    """A state of several members, but for what counts steps, which is everybody's."""
    return values[0].clone() if values[0].dim() == 0 else _flat(values)


def _part(values: Any, number: int, params: Tensor, weights: Tensor) -> Any:
    """One member's part of a state, in the shape of its weights."""
    if not isinstance(values, Tensor) or values.shape != params.shape:
        return values
    return values[number, : weights.numel()].view(weights.shape)


def _flat(values: list[Tensor]) -> Tensor:
    """Tensors of one shape as rows, each followed by zeros up to a multiple of `_ROW`."""
    rows = torch.stack([one.flatten() for one in values])
    return torch.nn.functional.pad(rows, (0, -rows.shape[1] % _ROW))
