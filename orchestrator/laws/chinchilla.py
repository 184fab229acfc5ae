"""Loss against model size and data size: loss = E + A / n^alpha + B / d^beta (Hoffmann et al. 2022, equation 2)."""

# B resamples, N points, P internal parameters (E, ln A, alpha, ln B, beta at the references n0 and d0), G grid points of the start

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.fitting.projection import best_of, non_negative
from orchestrator.laws.law import Array, Law, Term
from workers.settings import setting

_GRID = 30


@dataclass(frozen=True, kw_only=True)
class Chinchilla(Law):
    """`loss_n` and `loss_d` are the two terms at n0 and d0, the geometric means: there they are least correlated with the exponents.

    A and B, at n = d = 1, follow from them, as do the exponents a of n* ~ C^a and b of d* ~ C^b for a compute C ~ n d.
    """

    irreducible: bool = setting(True, help="with the term E")
    tied: bool = setting(False, help="one exponent for both terms")
    max_exponent: float = setting(3.0, above=0)

    def variables(self) -> tuple[str, ...]:
        """Parameters of the model, and samples or tokens seen."""
        return ("n", "d")

    def terms(self) -> tuple[Term, ...]:
        """E, the terms at the references, and their exponents."""
        names = ("exponent",) if self.tied else ("alpha", "beta")
        exponents = [Term.exponent(name, 0.0, self.max_exponent) for name in names]
        terms = [Term.amplitude("loss_n"), exponents[0], Term.amplitude("loss_d"), *exponents[1:]]
        return (*terms, Term.level("E")) if self.irreducible else tuple(terms)

    def starts(self, u_NV: Array, v_N: Array) -> Array:
        """The best pairs of exponents of a grid, with E, A and B projected out."""
        import numpy as np

        each_G = np.linspace(0.02, min(self.max_exponent, 1.5), _GRID)
        exponent_G2 = np.stack(np.meshgrid(each_G, each_G, indexing="ij"), axis=-1).reshape(-1, 2)
        shape: tuple[int, ...] = (_GRID, _GRID)
        if self.tied:
            exponent_G2, shape = np.column_stack([each_G, each_G]), (_GRID,)
        columns = [np.exp(np.clip(-exponent_G2[:, i, None] * u_NV[:, i] - v_N, -300.0, 300.0)) for i in (0, 1)]
        if self.irreducible:
            columns.append(np.broadcast_to(np.exp(-v_N), columns[0].shape))
        linear_GL, error_G = non_negative(np.stack(columns, axis=-1))
        log_GL = np.log(np.maximum(linear_GL[:, :2], 1e-9))
        theta = [log_GL[:, 0], exponent_G2[:, 0], log_GL[:, 1], *([] if self.tied else [exponent_G2[:, 1]]), *linear_GL[:, 2:].T]
        return best_of(np.column_stack(theta), error_G, shape)

    def log_value(self, theta_BP: Array, u_NV: Array) -> tuple[Array, Array]:
        """ln(E + exp(ln A - alpha ln n) + exp(ln B - beta ln d)) and its analytic derivatives."""
        import numpy as np

        last = 1 if self.tied else 3
        n_BN = np.exp(np.clip(theta_BP[:, :1] - theta_BP[:, 1:2] * u_NV[:, 0], -300.0, 300.0))
        d_BN = np.exp(np.clip(theta_BP[:, 2:3] - theta_BP[:, last : last + 1] * u_NV[:, 1], -300.0, 300.0))
        total_BN = n_BN + d_BN + (theta_BP[:, -1:] if self.irreducible else 0.0)
        n_BN, d_BN = n_BN / total_BN, d_BN / total_BN
        slopes = [-u_NV[:, 0] * n_BN, -u_NV[:, 1] * d_BN]
        derivatives = [n_BN, slopes[0] + slopes[1], d_BN] if self.tied else [n_BN, slopes[0], d_BN, slopes[1]]
        return np.log(total_BN), np.stack(derivatives + [1 / total_BN] * self.irreducible, axis=-1)

    def derived(self, values: Mapping[str, Array], x0: Mapping[str, float]) -> dict[str, Array]:
        """A, B at n = d = 1; a = beta / (alpha + beta) of n* ~ C^a, b = 1 - a, and G, with n* = G (C / 6)^a for C = 6 n d."""
        import numpy as np

        alpha_B = values["exponent" if self.tied else "alpha"]
        beta_B = values["exponent" if self.tied else "beta"]
        total_B = alpha_B + beta_B
        # a resample whose exponents stand at 0 has no optimum: NaN or infinity says so
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            a_B, b_B = values["loss_n"] * x0["n"] ** alpha_B, values["loss_d"] * x0["d"] ** beta_B
            scale_B = (alpha_B * a_B / (beta_B * b_B)) ** (1 / total_B)
            return {"A": a_B, "B": b_B, "a": beta_B / total_B, "b": alpha_B / total_B, "G": scale_B}

    def equation(self, values: Mapping[str, str], columns: Mapping[str, str], y: str, x0: Mapping[str, str]) -> str:
        """`loss = E + A (n / n0)^-alpha + B (d / d0)^-beta`."""
        one, other = (values["exponent"],) * 2 if self.tied else (values["alpha"], values["beta"])
        floor = f"{values['E']} + " if self.irreducible else ""
        n, d = (f"({columns[name]} / {x0[name]})" for name in ("n", "d"))
        return f"{y} = {floor}{values['loss_n']} {n}^-{one} + {values['loss_d']} {d}^-{other}"

    def concerns(self, values: Mapping[str, float], low: Mapping[str, float], high: Mapping[str, float]) -> list[str]:
        """Terms that may as well be zero."""
        found = []
        if self.irreducible and low["E"] <= 0:
            found.append("E is not identified: its interval reaches 0; larger and longer runs would tell")
        share = 1e-4 * (values["loss_n"] + values["loss_d"] + values.get("E", 0.0))
        found += [f"the term of {name[-1]} is nowhere to be seen" for name in ("loss_n", "loss_d") if values[name] < share]
        return found
