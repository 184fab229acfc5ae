"""The power law with an irreducible term: y = irreducible + amplitude * (x / x0)^(-exponent) (M2 of Alabdulmohsin et al. 2022)."""

# B resamples, N points, P internal parameters (ln amplitude, exponent, irreducible), G exponents of the start's grid

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.fitting.projection import best_of, non_negative
from orchestrator.laws.law import Array, Law, Term
from workers.errors import ConfigError
from workers.settings import setting


@dataclass(frozen=True, kw_only=True)
class Power(Law):
    """Centred at x0, the geometric mean of the x of the fit: there amplitude and exponent are least correlated.

    Without the irreducible term it is M1 of the same paper.
    """

    irreducible: bool = setting(True, help="with a term that no x removes")
    min_exponent: float = setting(0.0, help="below 0 lets y grow with x")
    max_exponent: float = setting(5.0)

    def check(self) -> None:
        """The exponents must span a range."""
        if self.min_exponent >= self.max_exponent:
            raise ConfigError(f"min_exponent must be below max_exponent {self.max_exponent}, got {self.min_exponent}")

    def terms(self) -> tuple[Term, ...]:
        """Amplitude (y at x0, less the irreducible term), exponent and irreducible term."""
        exponent = Term.exponent("exponent", self.min_exponent, self.max_exponent)
        return (Term.amplitude("amplitude"), exponent, Term.level("irreducible"))[: 3 if self.irreducible else 2]

    def starts(self, u_NV: Array, v_N: Array) -> Array:
        """The best exponents of a grid, with the two linear terms projected out."""
        import numpy as np

        exponent_G = np.linspace(self.min_exponent, self.max_exponent, 401)
        decay_GN = np.exp(np.clip(-exponent_G[:, None] * u_NV[:, 0] - v_N, -300.0, 300.0))
        columns = [decay_GN, np.broadcast_to(np.exp(-v_N), decay_GN.shape)]
        linear_GL, error_G = non_negative(np.stack(columns[: 2 if self.irreducible else 1], axis=-1))
        theta_GP = np.column_stack([np.log(np.maximum(linear_GL[:, 0], 1e-12)), exponent_G, *linear_GL[:, 1:].T])
        return best_of(theta_GP, np.where(linear_GL[:, 0] > 0, error_G, np.inf), exponent_G.shape)

    def log_value(self, theta_BP: Array, u_NV: Array) -> tuple[Array, Array]:
        """ln(irreducible + exp(ln amplitude - exponent u)) and its analytic derivatives."""
        import numpy as np

        u_N = u_NV[:, 0]
        decay_BN = np.exp(np.clip(theta_BP[:, :1] - theta_BP[:, 1:2] * u_N, -300.0, 300.0))
        total_BN = decay_BN + theta_BP[:, 2:3] if self.irreducible else decay_BN
        share_BN = decay_BN / total_BN
        derivatives = [share_BN, -u_N * share_BN, 1 / total_BN]
        return np.log(total_BN), np.stack(derivatives[: len(self.terms())], axis=-1)

    def equation(self, values: Mapping[str, str], columns: Mapping[str, str], y: str, x0: Mapping[str, str]) -> str:
        """`y = E + A (x / x0)^-a`."""
        floor = f"{values['irreducible']} + " if self.irreducible else ""
        return f"{y} = {floor}{values['amplitude']} ({columns['x']} / {x0['x']})^-{values['exponent']}"

    def concerns(self, values: Mapping[str, float], low: Mapping[str, float], high: Mapping[str, float]) -> list[str]:
        """An irreducible term that may as well be zero."""
        if self.irreducible and values["irreducible"] <= 1e-9 * values["amplitude"]:
            return ["the irreducible term is not identified: its best value is 0; compare law.irreducible=false"]
        if self.irreducible and low["irreducible"] <= 0:
            return ["the irreducible term is not identified: its interval reaches 0; a longer axis or more seeds would tell"]
        return []
