"""Loss against compute and over-training: loss = E + (A m^eta + B m^-eta) c^-eta, m = d / n (Gadre et al. 2024, equation 4)."""

# B resamples, N points, P internal parameters (ln A, ln B, eta, E), G exponents of the start's grid

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.fitting.projection import best_of, non_negative
from orchestrator.laws.law import Array, Law, Term
from workers.settings import setting


@dataclass(frozen=True, kw_only=True)
class Overtraining(Law):
    """The reducible loss falls alike in compute for each token multiplier m. `loss_n`, `loss_d`: the two terms at c0 and m0."""

    irreducible: bool = setting(True, help="with the term E")
    max_exponent: float = setting(2.0, above=0)

    def variables(self) -> tuple[str, ...]:
        """Compute, and tokens per parameter."""
        return ("c", "m")

    def scale(self, u_NV: Array) -> Array:
        """Compute."""
        scale_N: Array = u_NV[:, 0]
        return scale_N

    def terms(self) -> tuple[Term, ...]:
        """The two terms at the references, their exponent and E."""
        terms = (Term.amplitude("loss_n"), Term.amplitude("loss_d"), Term.exponent("eta", 0.0, self.max_exponent), Term.level("E"))
        return terms[: 4 if self.irreducible else 3]

    def starts(self, u_NV: Array, v_N: Array) -> Array:
        """The best exponents of a grid, with E, A and B projected out."""
        import numpy as np

        eta_G = np.linspace(0.005, self.max_exponent, 400)
        columns = [np.exp(np.clip(eta_G[:, None] * way_N - v_N, -300.0, 300.0)) for way_N in _ways(u_NV)]
        if self.irreducible:
            columns.append(np.broadcast_to(np.exp(-v_N), columns[0].shape))
        linear_GL, error_G = non_negative(np.stack(columns, axis=-1))
        theta_GP = np.column_stack([np.log(np.maximum(linear_GL[:, :2], 1e-9)), eta_G, *linear_GL[:, 2:].T])
        return best_of(theta_GP, error_G, eta_G.shape)

    def log_value(self, theta_BP: Array, u_NV: Array) -> tuple[Array, Array]:
        """The logarithm of the sum and its analytic derivatives."""
        import numpy as np

        ways = _ways(u_NV)
        n_BN, d_BN = (np.exp(np.clip(theta_BP[:, i : i + 1] + theta_BP[:, 2:3] * ways[i], -300.0, 300.0)) for i in (0, 1))
        total_BN = n_BN + d_BN + (theta_BP[:, 3:4] if self.irreducible else 0.0)
        n_BN, d_BN = n_BN / total_BN, d_BN / total_BN
        derivatives = [n_BN, d_BN, n_BN * ways[0] + d_BN * ways[1]] + [1 / total_BN] * self.irreducible
        return np.log(total_BN), np.stack(derivatives, axis=-1)

    def equation(self, values: Mapping[str, str], columns: Mapping[str, str], y: str, x0: Mapping[str, str]) -> str:
        """`loss = E + (A (m / m0)^eta + B (m / m0)^-eta) (c / c0)^-eta`."""
        floor = f"{values['E']} + " if self.irreducible else ""
        m, c, eta = f"({columns['m']} / {x0['m']})", f"({columns['c']} / {x0['c']})", values["eta"]
        return f"{y} = {floor}({values['loss_n']} {m}^{eta} + {values['loss_d']} {m}^-{eta}) {c}^-{eta}"


def _ways(u_NV: Array) -> tuple[Array, Array]:
    """What the exponent multiplies in the term of the model's size, c^-eta m^eta, and of the data's, c^-eta m^-eta; each (N,)."""
    return u_NV[:, 1] - u_NV[:, 0], -u_NV[:, 1] - u_NV[:, 0]
