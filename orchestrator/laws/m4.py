"""A sigmoid in logarithms: s / (1 - s)^alpha = beta (x / x0)^-exponent, s = (y - floor) / range (M4 of Alabdulmohsin et al. 2022)."""

# B resamples, N points, P internal parameters (floor, ln(ceiling - floor), ln beta, exponent, ln alpha)

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.laws.law import Array, Law, Term

_STEPS = 60


@dataclass(frozen=True, kw_only=True)
class M4(Law):
    """From the ceiling, the y of a model that knows nothing, through a power law to the floor; alpha sets how sharply it leaves the
    ceiling."""

    def terms(self) -> tuple[Term, ...]:
        """`floor` and `range`, which is ceiling - floor, in the units of y."""
        exponent = Term.exponent("exponent", 1e-3, 8.0)
        return (
            Term.level("floor"),
            Term.amplitude("range"),
            Term(name="beta", log=True, low=-40.0, high=40.0),
            exponent,
            Term(name="alpha", log=True, low=-6.0, high=3.0),
        )

    def derived(self, values: Mapping[str, Array], x0: Mapping[str, float]) -> dict[str, Array]:
        """The ceiling."""
        return {"ceiling": values["floor"] + values["range"]}

    def starts(self, u_NV: Array, v_N: Array) -> Array:
        """Floors and ceilings around the data; the line that the logarithms then follow."""
        import numpy as np

        y_N, u_N = np.exp(v_N), u_NV[:, 0]
        found = []
        for low, high, alpha in ((0.98, 1.05, 1.0), (0.9, 1.3, 1.0), (0.5, 1.3, 1.0), (0.9, 3.0, 0.3), (0.0, 10.0, 0.1)):
            floor, ceiling = low * y_N.min(), high * y_N.max()
            line_N = np.log(y_N - floor) - alpha * np.log(ceiling - y_N)
            slope, height = np.polyfit(u_N, line_N, 1)
            scaled = height - (1 - alpha) * np.log(ceiling - floor)
            found.append([floor, np.log(ceiling - floor), scaled, max(-slope, 0.01), np.log(alpha)])
        return np.array(found)

    def log_value(self, theta_BP: Array, u_NV: Array) -> tuple[Array, Array]:
        """y = floor + range s(t), where ln s(t) - alpha ln s(-t) = ln beta - exponent u; the derivatives are those of the implicit t."""
        import numpy as np

        floor, ln_range, ln_beta, exponent, ln_alpha = (theta_BP[:, i : i + 1] for i in range(5))
        u_N, alpha = u_NV[:, 0], np.exp(ln_alpha)
        target = ln_beta - exponent * u_N
        t = np.where(target > 0, target / alpha, target)
        for _ in range(_STEPS):
            up, down = -np.logaddexp(0, -t), -np.logaddexp(0, t)
            step = (up - alpha * down - target) / (np.exp(down) + alpha * np.exp(up))
            t = t - np.clip(step, -20.0, 20.0)
            if (np.abs(step) < 1e-12 * (1 + np.abs(t))).all():
                break
        up, down = -np.logaddexp(0, -t), -np.logaddexp(0, t)
        slope = 1 / (np.exp(down) + alpha * np.exp(up))
        span = np.exp(ln_range)
        total = floor + span * np.exp(up)
        by_t = span * np.exp(up + down) * slope
        derivatives = [np.ones_like(total), span * np.exp(up), by_t, -u_N * by_t, alpha * down * by_t]
        return np.log(total), np.stack([one / total for one in derivatives], axis=-1)

    def equation(self, values: Mapping[str, str], columns: Mapping[str, str], y: str, x0: Mapping[str, str]) -> str:
        """With s = (y - floor) / range: `s / (1 - s)^alpha = beta (x / x0)^-c`."""
        share = f"s = ({y} - {values['floor']}) / {values['range']}"
        return f"s / (1 - s)^{values['alpha']} = {values['beta']} ({columns['x']} / {x0['x']})^-{values['exponent']}, {share}"
