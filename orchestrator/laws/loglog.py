"""A straight line in logarithms, rising or falling: y = amplitude * (x / x0)^slope."""

# B resamples, N points, P internal parameters (ln amplitude, slope)

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.laws.law import Array, Law, Term


@dataclass(frozen=True, kw_only=True)
class Loglog(Law):
    """For observables and for optima, which may grow: trace, entropy, effective rank, N*(C). Its least squares have a closed form."""

    def terms(self) -> tuple[Term, ...]:
        """y at x0, and the exponent of x."""
        return (Term.amplitude("amplitude"), Term.exponent("slope", -50.0, 50.0))

    def starts(self, u_NV: Array, v_N: Array) -> Array:
        """Least squares."""
        import numpy as np

        columns = np.column_stack([np.ones(len(v_N)), u_NV[:, 0]])
        solved_P: Array = np.linalg.lstsq(columns, v_N, rcond=None)[0]
        return solved_P[None]

    def log_value(self, theta_BP: Array, u_NV: Array) -> tuple[Array, Array]:
        """ln amplitude + slope u."""
        import numpy as np

        u_N = u_NV[:, 0]
        design_NP = np.stack([np.ones_like(u_N), u_N], axis=-1)
        return theta_BP @ design_NP.T, np.broadcast_to(design_NP, (len(theta_BP), *design_NP.shape))

    def equation(self, values: Mapping[str, str], columns: Mapping[str, str], y: str, x0: Mapping[str, str]) -> str:
        """`y = A (x / x0)^b`."""
        return f"{y} = {values['amplitude']} ({columns['x']} / {x0['x']})^{values['slope']}"
