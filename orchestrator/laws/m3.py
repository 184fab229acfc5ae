"""A power law that levels off for small x: y = irreducible + amplitude (x0 / x + gamma)^exponent (M3 of Alabdulmohsin et al. 2022)."""

# B resamples, N points, P internal parameters (ln amplitude, exponent, ln gamma, irreducible), G grid points of the start

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.fitting.projection import best_of, non_negative
from orchestrator.laws.law import Array, Law, Term


@dataclass(frozen=True, kw_only=True)
class M3(Law):
    """Large x ends in amplitude gamma^exponent above the irreducible term: two floors, of which data seldom tell more than the sum."""

    def terms(self) -> tuple[Term, ...]:
        """`gamma` is in units of 1 / x0."""
        gamma = Term(name="gamma", log=True, low=-16.0, high=8.0)
        return (Term.amplitude("amplitude"), Term.exponent("exponent", 1e-3, 8.0), gamma, Term.level("irreducible"))

    def starts(self, u_NV: Array, v_N: Array) -> Array:
        """The best pairs of exponent and gamma of a grid."""
        import numpy as np

        exponent_G, gamma_G = (axis.ravel() for axis in np.meshgrid(np.linspace(0.05, 4.0, 40), np.linspace(-10.0, 2.0, 25), indexing="ij"))
        base_GN = np.logaddexp(-u_NV[:, 0], gamma_G[:, None])
        decay_GN = np.exp(np.clip(exponent_G[:, None] * base_GN - v_N, -300.0, 300.0))
        linear_GL, error_G = non_negative(np.stack([decay_GN, np.broadcast_to(np.exp(-v_N), decay_GN.shape)], axis=-1))
        theta_GP = np.column_stack([np.log(np.maximum(linear_GL[:, 0], 1e-12)), exponent_G, gamma_G, linear_GL[:, 1]])
        return best_of(theta_GP, np.where(linear_GL[:, 0] > 0, error_G, np.inf), (40, 25))

    def log_value(self, theta_BP: Array, u_NV: Array) -> tuple[Array, Array]:
        """The logarithm of the sum and its analytic derivatives."""
        import numpy as np

        base_BN = np.logaddexp(-u_NV[:, 0], theta_BP[:, 2:3])
        decay_BN = np.exp(np.clip(theta_BP[:, :1] + theta_BP[:, 1:2] * base_BN, -300.0, 300.0))
        total_BN = decay_BN + theta_BP[:, 3:4]
        share_BN = decay_BN / total_BN
        by_gamma_BN = theta_BP[:, 1:2] * np.exp(theta_BP[:, 2:3] - base_BN)
        return np.log(total_BN), np.stack([share_BN, share_BN * base_BN, share_BN * by_gamma_BN, 1 / total_BN], axis=-1)

    def equation(self, values: Mapping[str, str], columns: Mapping[str, str], y: str, x0: Mapping[str, str]) -> str:
        """`y = E + A (x0 / x + gamma)^c`."""
        inner = f"({x0['x']} / {columns['x']} + {values['gamma']})"
        return f"{y} = {values['irreducible']} + {values['amplitude']} {inner}^{values['exponent']}"
