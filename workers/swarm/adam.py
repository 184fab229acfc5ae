"""Adam of many networks at once, each as if it were alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# P networks

FIRST, SECOND, EPSILON = 0.9, 0.999, 1e-8


@dataclass(slots=True)
class Adam:
    """Adam (Kingma and Ba 2015, algorithm 1) with weights that decay by themselves (Loshchilov and Hutter 2019, algorithm 2).

    torch's counts the steps of a whole batch, and where it is fused it rounds by a weight's place in memory. Here every operation is
    rounded once, and `state` has of each tensor (P, ...) the means of gradients and of their squares, and for each network by itself
    the powers (P, 1, 1) of the two decays to the number of its steps.
    """

    state: "dict[Tensor, dict[str, Tensor]]" = field(default_factory=dict)

    def step(
        self,
        tensors: "Sequence[Tensor]",
        gradients: "Sequence[Tensor]",
        learning_rate: float,
        *,
        weight_decay: float = 0.0,
        active_P: "Tensor | None" = None,
    ) -> None:
        """Change `tensors` (P, ...) of three axes; of networks that are not `active_P` neither weights nor means change."""
        import torch

        with torch.no_grad():
            for tensor, gradient in zip(tensors, gradients, strict=True):
                if tensor not in self.state:
                    self.state[tensor] = _begun(tensor)
                state = self.state[tensor]
                changing = [tensor, *state.values()]
                before = [] if active_P is None else [one.clone() for one in changing]
                _advance(tensor, gradient, state, learning_rate, weight_decay)
                for one, old in zip(changing, before, strict=False):
                    one.copy_(torch.where(active_P[:, None, None], one, old))  # type: ignore[index]


def _begun(tensor: "Tensor") -> "dict[str, Tensor]":
    """Before the first step."""
    import torch

    powers = torch.ones(len(tensor), 1, 1, dtype=torch.float64, device=tensor.device)
    return {
        "mean": torch.zeros_like(tensor, requires_grad=False),
        "square": torch.zeros_like(tensor, requires_grad=False),
        "first_power": powers,
        "second_power": powers.clone(),
    }


def _advance(tensor: "Tensor", gradient: "Tensor", state: "dict[str, Tensor]", learning_rate: float, weight_decay: float) -> None:
    """One step in place."""
    mean, square = state["mean"], state["square"]
    mean.mul_(FIRST).add_(gradient * (1.0 - FIRST))
    square.mul_(SECOND).add_(gradient.square().mul_(1.0 - SECOND))
    first = 1.0 - state["first_power"].mul_(FIRST)
    second = (1.0 - state["second_power"].mul_(SECOND)).sqrt()
    scale = square.sqrt().div_(second.to(square.dtype)).add_(EPSILON).mul_((first / learning_rate).to(square.dtype))
    if weight_decay:
        tensor.mul_(1.0 - learning_rate * weight_decay)
    tensor.sub_(mean / scale)
