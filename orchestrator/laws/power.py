"""The power law with an irreducible term: y = irreducible + amplitude * (x / x0)^(-exponent)."""

# B resamples, N points, P internal parameters (ln amplitude, exponent, irreducible), G exponents of the start's grid

import math
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.laws.law import Array, Law
from workers.errors import ConfigError
from workers.settings import setting


@dataclass(frozen=True, kw_only=True)
class Power(Law):
    """Centred at x0, the geometric mean of the x of the fit: there amplitude and exponent are least correlated."""

    irreducible: bool = setting(True, help="with a term that no x removes")
    min_exponent: float = setting(0.0, help="below 0 lets y grow with x")
    max_exponent: float = setting(5.0)

    def check(self) -> None:
        """The exponents must span a range."""
        if self.min_exponent >= self.max_exponent:
            raise ConfigError(f"min_exponent must be below max_exponent {self.max_exponent}, got {self.min_exponent}")

    def parameters(self) -> tuple[str, ...]:
        """Amplitude (y at x0, less the irreducible term), exponent and irreducible term."""
        return ("amplitude", "exponent", "irreducible")[: 3 if self.irreducible else 2]

    def bounds(self) -> tuple[Array, Array]:
        """An irreducible term is never negative."""
        import numpy as np

        size = len(self.parameters())
        return np.array([-50.0, self.min_exponent, 0.0])[:size], np.array([50.0, self.max_exponent, math.inf])[:size]

    def start(self, u_N: Array, v_N: Array) -> Array:
        """Variable projection: at each exponent of a grid the two linear terms have a closed form; the best exponent wins."""
        import numpy as np

        exponent_G = np.linspace(self.min_exponent, self.max_exponent, 401)
        # relative residuals (model - y) / y stand for log residuals: linear in amplitude and irreducible term
        decay_GN = np.exp(-exponent_G[:, None] * u_N - v_N)
        amplitude_G, floor_G = _non_negative(decay_GN, np.exp(-v_N), self.irreducible)
        error_G = ((amplitude_G[:, None] * decay_GN + floor_G[:, None] * np.exp(-v_N) - 1) ** 2).sum(axis=1)
        best = int(np.argmin(np.where(amplitude_G > 0, error_G, np.inf)))
        theta = [math.log(max(float(amplitude_G[best]), 1e-12)), float(exponent_G[best]), float(floor_G[best])]
        return np.array(theta[: len(self.parameters())])

    def log_value(self, theta_BP: Array, u_N: Array) -> tuple[Array, Array]:
        """ln(irreducible + exp(ln amplitude - exponent u)) and its analytic derivatives."""
        import numpy as np

        decay_BN = np.exp(np.clip(theta_BP[:, :1] - theta_BP[:, 1:2] * u_N, -300.0, 300.0))
        total_BN = decay_BN + theta_BP[:, 2:3] if self.irreducible else decay_BN
        share_BN = decay_BN / total_BN
        derivatives = [share_BN, -u_N * share_BN, 1 / total_BN]
        return np.log(total_BN), np.stack(derivatives[: len(self.parameters())], axis=-1)

    def reported(self, theta_BP: Array, y0: float) -> dict[str, Array]:
        """Amplitude and irreducible term in the units of y."""
        import numpy as np

        columns = [y0 * np.exp(theta_BP[:, 0]), theta_BP[:, 1], *([y0 * theta_BP[:, 2]] if self.irreducible else [])]
        return dict(zip(self.parameters(), columns, strict=True))

    def equation(self, values: Mapping[str, str], x: str, y: str, x0: str) -> str:
        """`y = E + A (x / x0)^-a`."""
        floor = f"{values['irreducible']} + " if self.irreducible else ""
        return f"{y} = {floor}{values['amplitude']} ({x} / {x0})^-{values['exponent']}"

    def concerns(self, values: Mapping[str, float], low: Mapping[str, float], high: Mapping[str, float]) -> list[str]:
        """An exponent at its bound, an irreducible term that may as well be zero."""
        found = []
        exponent, span = values["exponent"], self.max_exponent - self.min_exponent
        if min(exponent - self.min_exponent, self.max_exponent - exponent) < 1e-6 * span:
            found.append(f"the exponent stands at its bound {exponent:g}: the data do not follow this law, or the bound is too tight")
        if self.irreducible and values["irreducible"] <= 1e-9 * values["amplitude"]:
            found.append("the irreducible term is not identified: its best value is 0; compare law.irreducible=false")
        elif self.irreducible and low["irreducible"] <= 0:
            found.append("the irreducible term is not identified: its interval reaches 0; a longer axis or more seeds would tell")
        return found


def _non_negative(decay_GN: Array, inverse_N: Array, irreducible: bool) -> tuple[Array, Array]:
    """Least squares of 1 on the columns (decay, 1/y) with coefficients >= 0, for each exponent: two arrays (G,)."""
    import numpy as np

    dd_G, d1_G = (decay_GN**2).sum(axis=1), decay_GN.sum(axis=1)
    alone_G, zero_G = d1_G / dd_G, np.zeros_like(d1_G)
    if not irreducible:
        return alone_G, zero_G
    ii, i1, di_G = float((inverse_N**2).sum()), float(inverse_N.sum()), decay_GN @ inverse_N
    determinant_G = dd_G * ii - di_G**2
    singular_G = determinant_G <= 1e-12 * dd_G * ii
    safe_G = np.where(singular_G, 1.0, determinant_G)
    amplitude_G, floor_G = (ii * d1_G - di_G * i1) / safe_G, (dd_G * i1 - di_G * d1_G) / safe_G
    inside_G = ~singular_G & (floor_G >= 0)
    return np.where(inside_G, amplitude_G, alone_G), np.where(inside_G, floor_G, zero_G)
