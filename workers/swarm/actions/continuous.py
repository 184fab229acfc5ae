"""A force and a torque of any size within their bounds."""

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.errors import ConfigError
from workers.swarm import noise
from workers.swarm.parts import Controls, SwarmAction
from workers.workload import setting

if TYPE_CHECKING:
    from torch import Tensor

# nodes of the quadrature of the entropy
NUM_NODES = 16


@dataclass(frozen=True, kw_only=True)
class Continuous(SwarmAction):
    """Shares tanh(u) of the torque, in [-1, 1], and of the force, in [-1, 1] or, unless `backward`, (1 + tanh(u)) / 2 in [0, 1].

    Both u are normal (Haarnoja et al. 2018, appendix C). Outputs of an actor: the means of force and torque, then the logarithms of their
    deviations, which are held within bounds. An action is u (..., 2), which keeps the digits that tanh loses; probabilities are those of
    the shares.
    """

    backward: bool = setting(False, help="agents can also be driven against their director")
    least_log_deviation: float = setting(-5.0)
    most_log_deviation: float = setting(2.0)

    def check(self) -> None:
        """Bounds in their order."""
        if self.least_log_deviation >= self.most_log_deviation:
            given = f"{self.least_log_deviation} and {self.most_log_deviation}"
            raise ConfigError(f"least_log_deviation must be below most_log_deviation, got {given}")

    @property
    def num_outputs(self) -> int:
        """Two means and two logarithms of deviations."""
        return 4

    def sample(self, outputs: "Tensor", keys: "Tensor", step: int) -> "Tensor":
        """u (..., 2): the means, and normal numbers times the deviations."""
        import torch

        means, logs = self._normal(outputs)
        return means + logs.exp() * torch.stack(list(noise.normals(keys, step, 2, outputs.dtype)), -1)

    def explore(self, actions: "Tensor", keys: "Tensor", step: int, probability: float) -> "Tensor":
        """Force and torque are uniform within their bounds.

        SwarmRL adds an Ornstein-Uhlenbeck process here, whose state would have to be kept: what is drawn for a slice follows from its
        number alone.
        """
        import torch

        if probability == 0.0:
            return actions
        explored, *shares = noise.uniforms(keys, step, 3, actions.dtype)
        # of tanh(u) = 2 v - 1
        drawn = torch.stack([0.5 * (v.log() - (1.0 - v).log()) for v in shares], -1)
        return torch.where((explored < probability)[..., None], drawn, actions)

    def log_probability(self, outputs: "Tensor", actions: "Tensor") -> "tuple[Tensor, Tensor]":
        """Densities of the shares; the entropy by Gauss and Hermite's quadrature of log(d share / du) over the normal distribution."""
        means, logs = self._normal(outputs)
        constant = 0.5 * math.log(2.0 * math.pi)
        standard = (actions - means) * (-logs).exp()
        found = -0.5 * standard.square() - logs - constant - _log_slope(actions)
        entropy = logs + (constant + 0.5)
        deviations = logs.exp()
        for node, weight in _quadrature():
            entropy = entropy + weight * _log_slope(means + node * deviations)
        # the force's share is half as wide unless it can be negative
        narrow = 0.0 if self.backward else math.log(2.0)
        return found[..., 0] + found[..., 1] + narrow, entropy[..., 0] + entropy[..., 1] - narrow

    def controls(self, actions: "Tensor") -> Controls:
        """Of u (P, E, N, 2)."""
        shares = actions.tanh()
        force = shares[..., 0]
        return Controls(force=force if self.backward else 0.5 * (1.0 + force), torque=shares[..., 1])

    def _normal(self, outputs: "Tensor") -> "tuple[Tensor, Tensor]":
        """Means and logarithms of deviations (..., 2)."""
        return outputs[..., :2], outputs[..., 2:].clamp(self.least_log_deviation, self.most_log_deviation)


def _log_slope(u: "Tensor") -> "Tensor":
    """log(1 - tanh(u)^2), also where tanh(u) is 1 to all its digits.

    By log1p and exp: the last digits of softplus depend on the place in memory.
    """
    size = u.abs()
    found: Tensor = 2.0 * (math.log(2.0) - size - (-2.0 * size).exp().log1p())
    return found


@functools.cache
def _quadrature() -> list[tuple[float, float]]:
    """Nodes and weights of means over a standard normal number."""
    import numpy as np

    nodes, weights = np.polynomial.hermite_e.hermegauss(NUM_NODES)
    return list(zip(nodes.tolist(), (weights / weights.sum()).tolist(), strict=True))
