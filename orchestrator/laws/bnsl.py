"""The smoothly broken power law: y = a + b x^-c0 prod_i (1 + (x / d_i)^(1 / f_i))^(-c_i f_i) (Caballero et al. 2022, equation 1)."""

# B resamples, N points, P internal parameters (ln b, c0, then ln d, c, ln f of each break, a), I breaks

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.laws.law import Array, Law, Term
from workers.settings import setting


@dataclass(frozen=True, kw_only=True)
class Bnsl(Law):
    """The slope in logarithms goes from -c0 to -(c0 + c_1) at the first break, and so on. y may rise between breaks."""

    breaks: int = setting(1, low=1, high=4, help="each needs three parameters, and points on both sides")
    irreducible: bool = setting(True, help="with the term a")

    def terms(self) -> tuple[Term, ...]:
        """`d` is where a break is, in the units of x; `f` its width in ln x."""
        found = [Term.amplitude("b"), Term.exponent("c0", -8.0, 8.0)]
        for number in range(1, self.breaks + 1):
            place = Term(name=f"d{number}", log=True, x_power=1, low=-30.0, high=30.0)
            width = Term(name=f"f{number}", log=True, low=-5.0, high=3.0)
            found += [place, Term.exponent(f"c{number}", -16.0, 16.0), width]
        return (*found, Term.level("a")) if self.irreducible else tuple(found)

    def starts(self, u_NV: Array, v_N: Array) -> Array:
        """Breaks among the data's quantiles, slopes between them by least squares."""
        import numpy as np

        u_N = u_NV[:, 0]
        places = np.quantile(np.unique(u_N), np.linspace(0.15, 0.85, 7))
        found: list[tuple[float, Array]] = []
        for chosen in itertools.combinations(places, self.breaks):
            hinges = [np.ones_like(u_N), u_N, *(np.maximum(u_N - place, 0.0) for place in chosen)]
            for floor in (0.0, 0.5, 0.9) if self.irreducible else (0.0,):
                below = floor * np.exp(v_N.min())
                line_N = np.log(np.exp(v_N) - below)
                solved, *_ = np.linalg.lstsq(np.column_stack(hinges), line_N, rcond=None)
                error = float(((np.column_stack(hinges) @ solved - line_N) ** 2).sum())
                breaks = [number for place, slope in zip(chosen, solved[2:], strict=True) for number in (place, -slope, -1.0)]
                theta = [solved[0], -solved[1], *breaks, *([below] if self.irreducible else [])]
                found.append((error, np.array(theta)))
        return np.stack([theta for _, theta in sorted(found, key=lambda one: one[0])[:24]])

    def log_value(self, theta_BP: Array, u_NV: Array) -> tuple[Array, Array]:
        """The logarithm of the sum and its analytic derivatives."""
        import numpy as np

        u_N = u_NV[:, 0]
        log_BN = theta_BP[:, :1] - theta_BP[:, 1:2] * u_N
        derivatives = [np.ones_like(log_BN), np.broadcast_to(-u_N, log_BN.shape)]
        for number in range(self.breaks):
            place, slope, ln_width = (theta_BP[:, i : i + 1] for i in range(2 + 3 * number, 5 + 3 * number))
            width = np.exp(ln_width)
            at_BN = (u_N - place) / width
            soft_BN, share_BN = np.logaddexp(0.0, at_BN), np.exp(-np.logaddexp(0.0, -at_BN))
            log_BN = log_BN - slope * width * soft_BN
            derivatives += [slope * share_BN, -width * soft_BN, -slope * width * (soft_BN - at_BN * share_BN)]
        value_BN = np.exp(np.clip(log_BN, -300.0, 300.0))
        total_BN = value_BN + (theta_BP[:, -1:] if self.irreducible else 0.0)
        share_BN = value_BN / total_BN
        last = [1 / total_BN] if self.irreducible else []
        return np.log(total_BN), np.stack([one * share_BN for one in derivatives] + last, axis=-1)

    def equation(self, values: Mapping[str, str], columns: Mapping[str, str], y: str, x0: Mapping[str, str]) -> str:
        """`y = a + b (x / x0)^-c0 (1 + (x / d1)^(1 / f1))^(-c1 f1) ...`."""
        x = columns["x"]
        breaks = "".join(
            f" (1 + ({x} / {values[f'd{i}']})^(1 / {values[f'f{i}']}))^(-{values[f'c{i}']} {values[f'f{i}']})"
            for i in range(1, self.breaks + 1)
        )
        floor = f"{values['a']} + " if self.irreducible else ""
        return f"{y} = {floor}{values['b']} ({x} / {x0['x']})^-{values['c0']}{breaks}"
