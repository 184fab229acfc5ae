"""What a fit minimises: the Huber loss of residuals, in logarithms or in units of y, with weights."""

# B resamples, N points, V variables, P internal parameters

import math
from dataclasses import dataclass, replace

from orchestrator.laws.law import Array, Law

__all__ = ["Problem"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Problem:
    """A law at points `u_NV`, `v_N` (centred logarithms), each with a weight; the loss is quadratic up to `delta`, then linear.

    `linear`: residuals are in units of y / y0 rather than of ln y. `free_P`: which internal parameters are fitted.
    """

    law: Law
    u_NV: Array
    v_N: Array
    weight_N: Array
    free_P: Array
    delta: float = math.inf
    linear: bool = False

    def at(self, delta: float) -> "Problem":
        """With another delta."""
        return replace(self, delta=delta)

    def of(self, rows: Array) -> "Problem":
        """Of some of the points, by index or mask."""
        return replace(self, u_NV=self.u_NV[rows], v_N=self.v_N[rows], weight_N=self.weight_N[rows])

    def residuals(self, theta_BP: Array) -> tuple[Array, Array]:
        """Model less data as (B, N), and its derivative as (B, N, P)."""
        import numpy as np

        value_BN, jacobian_BNP = self.law.log_value(theta_BP, self.u_NV)
        if not self.linear:
            return value_BN - self.v_N, jacobian_BNP
        model_BN = np.exp(value_BN)
        return model_BN - np.exp(self.v_N), jacobian_BNP * model_BN[:, :, None]

    def losses(self, residual_BN: Array, weight_BN: Array) -> Array:
        """(B,) sums of the weighted losses: r^2 / 2 up to delta, beyond it delta (|r| - delta / 2)."""
        import numpy as np

        size_BN = np.abs(residual_BN)
        loss_BN = 0.5 * size_BN**2
        if not math.isinf(self.delta):
            loss_BN = np.where(size_BN <= self.delta, loss_BN, self.delta * (size_BN - 0.5 * self.delta))
        loss_B: Array = (weight_BN * loss_BN).sum(axis=1)
        return loss_B

    def loss(self, theta_P: Array) -> float:
        """What is minimised, at one set of parameters."""
        return float(self.losses(self.residuals(theta_P[None])[0], self.weight_N[None])[0])

    def normal(self, theta_BP: Array, weight_BN: Array) -> tuple[Array, Array, Array]:
        """The loss (B,), its gradient (B, P) and its Gauss-Newton curvature (B, P, P)."""
        import numpy as np

        residual_BN, jacobian_BNP = self.residuals(theta_BP)
        down_BN = weight_BN
        if not math.isinf(self.delta):
            size_BN = np.abs(residual_BN)
            down_BN = weight_BN * np.where(size_BN <= self.delta, 1.0, self.delta / np.maximum(size_BN, 1e-300))
        weighted_BNP = down_BN[:, :, None] * jacobian_BNP
        gradient_BP = np.matmul(residual_BN[:, None, :], weighted_BNP)[:, 0]
        hessian_BPP = np.matmul(jacobian_BNP.transpose(0, 2, 1), weighted_BNP)
        return self.losses(residual_BN, weight_BN), gradient_BP, hessian_BPP
