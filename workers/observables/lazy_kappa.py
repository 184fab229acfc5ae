"""Laziness of a model with squared loss: how much its derivative changes while the loss falls (Chizat, Oyallon and Bach 2019)."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from workers.spectrum_data import ratio

if TYPE_CHECKING:
    from torch import Tensor

    Weights = Mapping[str, Tensor]
    Outputs = Callable[[Tensor], Tensor]

# P weights; R outputs of all units


def lazy_kappa(
    outputs_of: "Callable[[Weights], Tensor]", weights: "Weights", targets: "Tensor", *, num_iterations: int = 200, num_starts: int = 3
) -> float:
    """kappa = ||h(theta) - y|| ||D^2 h(theta)|| / ||D h(theta)||^2 with operator norms; lazy where it is far below 1.

    `outputs_of(weights)` gives the outputs, shaped as `targets`, on fixed inputs. ||D h||^2, the largest eigenvalue of the kernel, comes
    from power iterations; ||D^2 h|| from alternating ones (De Lathauwer, De Moor and Vandewalle 2000) from several fixed random starts,
    which may end below it: it is a lower bound. In the weights' dtype: take float64.
    """
    import torch

    outputs, flat_P = _flat(outputs_of, weights)
    residual = float((outputs(flat_P) - targets.reshape(-1)).norm())
    generator = torch.Generator().manual_seed(0)
    starts = [torch.randn(2, len(flat_P), generator=generator, dtype=torch.float64).to(flat_P) for _ in range(num_starts)]
    first = max(_first_norm(outputs, flat_P, one[0], num_iterations) for one in starts)
    second = max(_second_norm(outputs, flat_P, one, num_iterations) for one in starts)
    return ratio(residual * second, first**2)


def _flat(outputs_of: "Callable[[Weights], Tensor]", weights: "Weights") -> "tuple[Outputs, Tensor]":
    """The same function of one vector of weights (P,), with its outputs as a vector (R,)."""
    import torch

    sizes = [value.numel() for value in weights.values()]

    def outputs(flat_P: "Tensor") -> "Tensor":
        parts = torch.split(flat_P, sizes)
        return outputs_of({name: part.view_as(weights[name]) for name, part in zip(weights, parts)}).reshape(-1)

    return outputs, torch.cat([value.detach().reshape(-1) for value in weights.values()])


def _first_norm(outputs: "Outputs", flat_P: "Tensor", start_P: "Tensor", num_iterations: int) -> float:
    """||D h||, by power iterations of J^T J."""
    from torch.func import jvp, vjp

    pull = vjp(outputs, flat_P)[1]
    vector_P, norm = _unit(start_P), 0.0
    for _ in range(num_iterations):
        moved_R = jvp(outputs, (flat_P,), (vector_P,))[1]
        norm = float(moved_R.norm())
        vector_P = _unit(pull(moved_R)[0])
    return norm


def _second_norm(outputs: "Outputs", flat_P: "Tensor", starts: "Tensor", num_iterations: int) -> float:
    """max ||D^2 h [v, w]|| over unit vectors, from two starts (2, P): each update is the best one with the other two vectors fixed."""
    from torch.func import jvp, vjp

    one_P, other_P, norm = _unit(starts[0]), _unit(starts[1]), 0.0

    def along(vector_P: "Tensor") -> "Outputs":
        return lambda at_P: jvp(outputs, (at_P,), (vector_P,))[1]

    for _ in range(num_iterations):
        pull = vjp(along(one_P), flat_P)[1]
        bent_R = jvp(along(one_P), (flat_P,), (other_P,))[1]
        norm = float(bent_R.norm())
        other_P = _unit(pull(_unit(bent_R))[0])
        one_P, other_P = other_P, one_P
    return norm


def _unit(vector: "Tensor") -> "Tensor":
    norm = vector.norm()
    return vector / norm if float(norm) > 0.0 else vector
