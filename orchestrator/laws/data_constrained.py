"""Loss where data are repeated: the Chinchilla law of effective parameters and effective data (Muennighoff et al. 2023, section 3)."""

# B resamples, N points, P internal parameters (ln A, alpha, ln B, beta, E, ln R_D*, ln R_N*), 2: of data and of parameters

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from orchestrator.laws.chinchilla import Chinchilla
from orchestrator.laws.law import Array, Law, Term

# repetitions (of data, of parameters) that the starts try
_STARTS = ((15.0, 5.0), (100.0, 2.0), (4.0, 30.0), (1.0, 1.0))


@dataclass(frozen=True, kw_only=True)
class DataConstrained(Law):
    """Data seen for the r-th time are worth exp(-r / R_D*) of new data; likewise parameters beyond the optimum for the unique data.

    d' = u + u R_D* (1 - exp(-R_D / R_D*)) with R_D = d / u - 1; n' of U_N, the optimal n for u, alike. The optimum is that of the law's
    own A, alpha, B, beta, so these are in the units of n and d. The five of the Chinchilla law are often given: fixed={"A": ...}.
    """

    own_units: ClassVar[bool] = True

    def variables(self) -> tuple[str, ...]:
        """Parameters, tokens seen in all, unique tokens."""
        return ("n", "d", "u")

    def scale(self, u_NV: Array) -> Array:
        """Compute."""
        scale_N: Array = u_NV[:, 0] + u_NV[:, 1]
        return scale_N

    def terms(self) -> tuple[Term, ...]:
        """Those of the Chinchilla law, and the numbers of repetitions after which their worth has fallen to 1 / e."""
        exponents = [Term.exponent(name, 1e-3, 3.0) for name in ("alpha", "beta")]
        repeats = [Term(name=name, log=True, low=-5.0, high=16.0) for name in ("R_D", "R_N")]
        return (Term.amplitude("A"), exponents[0], Term.amplitude("B"), exponents[1], Term.level("E"), *repeats)

    def starts(self, u_NV: Array, v_N: Array) -> Array:
        """The Chinchilla law of data and parameters as they are, with several numbers of repetitions."""
        import numpy as np

        mean_2 = u_NV[:, :2].mean(axis=0)
        # as for data of their own: repeated ones count in part, which the fit mends
        first_P = Chinchilla().starts(u_NV[:, :2] - mean_2, v_N)[0]
        first_P = np.maximum(first_P, 1e-2 * np.array([-9e9, 1, -9e9, 1, 0]))
        raw_P = first_P + np.array([first_P[1] * mean_2[0], 0, first_P[3] * mean_2[1], 0, 0])
        return np.stack([np.concatenate([raw_P, np.log(pair)]) for pair in _STARTS])

    def log_value(self, theta_BP: Array, u_NV: Array) -> tuple[Array, Array]:
        """ln(E + A / n'^alpha + B / d'^beta) and its analytic derivatives."""
        import numpy as np

        a, alpha, b, beta, floor, ln_rd, ln_rn = (theta_BP[:, i : i + 1] for i in range(7))
        n_N, d_N, u_N = u_NV[:, 0], u_NV[:, 1], np.minimum(u_NV[:, 2], u_NV[:, 1])
        data, data_rd, _ = _effective(d_N, u_N, ln_rd)
        # G of n* = G (C / 6)^(beta / (alpha + beta)), in logarithms, and the n that is optimal for the unique data
        total = alpha + beta
        scale = (np.log(alpha / beta) + a - b) / total
        ratio, both = beta / alpha, u_N + scale
        optimal = scale + ratio * both
        free = optimal < n_N
        size, size_rn, size_optimal = _effective(n_N, np.minimum(optimal, n_N), ln_rn)
        by_scale = np.where(free, size_optimal * (1 + ratio), 0.0)
        by_ratio = np.where(free, size_optimal * both, 0.0)
        n_term, d_term = np.exp(np.clip(a - alpha * size, -300.0, 300.0)), np.exp(np.clip(b - beta * data, -300.0, 300.0))
        value = floor + n_term + d_term
        n_term, d_term = n_term / value, d_term / value
        by_size = -alpha * n_term
        derivatives = [
            n_term + by_size * by_scale / total,
            -size * n_term + by_size * (by_scale * (1 / alpha - scale) / total - by_ratio * ratio / alpha),
            d_term - by_size * by_scale / total,
            -data * d_term + by_size * (by_scale * (-1 / beta - scale) / total + by_ratio / alpha),
            1 / value,
            -beta * d_term * data_rd,
            by_size * size_rn,
        ]
        return np.log(value), np.stack(np.broadcast_arrays(*derivatives), axis=-1)

    def equation(self, values: Mapping[str, str], columns: Mapping[str, str], y: str, x0: Mapping[str, str]) -> str:
        """The law of n' and d', and what they are."""
        n, d = columns["n"], columns["d"]
        terms = f"{values['A']} / {n}'^{values['alpha']} + {values['B']} / {d}'^{values['beta']}"
        return f"{y} = {values['E']} + {terms}, with R_D* = {values['R_D']}, R_N* = {values['R_N']}"


def _effective(all_N: Array, unique_BN: Array, ln_repeats_B1: Array) -> tuple[Array, Array, Array]:
    """ln of the effective amount, and its derivatives by ln R* and by ln of the unique amount; amounts as logarithms, each (B, N)."""
    import numpy as np

    repeats_B1 = np.exp(ln_repeats_B1)
    # expm1: with 1 - exp(-r / R*) a false optimum appears at large R* by cancellation
    extra_BN = np.expm1(np.clip(all_N - unique_BN, 0.0, 300.0))
    rate_BN = extra_BN / repeats_B1
    worth_BN = -np.expm1(-rate_BN)
    left_BN = np.exp(-rate_BN)
    factor_BN = 1 + repeats_B1 * worth_BN
    by_repeats_BN = repeats_B1 * (worth_BN - rate_BN * left_BN) / factor_BN
    by_unique_BN = (factor_BN - left_BN * (1 + extra_BN)) / factor_BN
    return unique_BN + np.log(factor_BN), by_repeats_BN, by_unique_BN
