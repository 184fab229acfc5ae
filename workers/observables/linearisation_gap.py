"""Distance of a network from its linearisation, over the distance that its outputs have moved (Lee et al. 2019)."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from workers.spectrum_data import ratio

if TYPE_CHECKING:
    from torch import Tensor

    Weights = Mapping[str, Tensor]


def linearisation_gap(outputs_of: "Callable[[Weights], Tensor]", start: "Weights", end: "Weights") -> float:
    """||f_T - f_lin|| / ||f_T - f_0|| with f_lin = f(theta_0) + J(theta_0) (theta_T - theta_0), by one Jacobian-vector product.

    `outputs_of(weights)` gives the outputs on fixed inputs: `lambda weights: torch.func.functional_call(module, weights, (x,))`. This is
    the gap at equal weights; that of a network trained as linearised is taken of the outputs. NaN where the outputs have not moved.
    """
    from torch.func import jvp

    change = {name: end[name].detach() - start[name].detach() for name in start}
    begin = {name: value.detach() for name, value in start.items()}
    initial, moved = jvp(lambda weights: outputs_of(weights), (begin,), (change,))[:2]
    final = outputs_of({name: value.detach() for name, value in end.items()}).detach()
    gap, distance = ((final - initial - moved).double().norm(), (final - initial).double().norm())
    return ratio(float(gap), float(distance))
