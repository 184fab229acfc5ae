"""From internal to reported numbers: parameters and what follows from them, with the intervals that their resamples give."""

# B resamples, P internal parameters, K directions

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.fitting.estimators import Estimated
from orchestrator.fitting.intervals import Resampled
from orchestrator.laws.law import Array, Law

__all__ = ["Parameter", "reported", "undetermined", "with_intervals"]


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A fitted number with its interval; NaN bounds where there is no interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return self.text()

    def text(self, *, interval: bool = True) -> str:
        """The value to the digits that its interval supports, and the interval in brackets."""
        width = self.high - self.low
        if 0 < 10 * self.low < self.high:  # an interval of factors: by its width the value would have no digit left
            value, low, high = (f"{number:.2g}" for number in (self.value, self.low, self.high))
            return f"{value} [{low}, {high}]" if interval else value
        digits = 4 if not (math.isfinite(width) and width > 0) else 1 - math.floor(math.log10(width))
        value, low, high = (_rounded(number, digits, width) for number in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]" if interval and math.isfinite(width) else value


def reported(law: Law, theta_BP: Array, y0: float, x0: Mapping[str, float]) -> dict[str, Array]:
    """Parameters and derived numbers in the units of x and y, each (B,)."""
    values = {term.name: term.reported(theta_BP[:, i], y0, list(x0.values())) for i, term in enumerate(law.terms())}
    return {**values, **law.derived(values, x0)}


def undetermined(law: Law, direction_KP: Array, theta_P: Array, y0: float, x0: Mapping[str, float]) -> list[str]:
    """Names of the reported numbers that change along directions of which the data say nothing."""
    import numpy as np

    moved = reported(law, np.concatenate([theta_P[None], theta_P + 1e-3 * direction_KP]), y0, x0)
    return [name for name, one in moved.items() if (np.abs(one[1:] - one[0]) > 1e-5 * np.abs(one[0])).any()]


def with_intervals(
    law: Law, found: Estimated, resampled: Resampled, confidence: float, y0: float, x0: Mapping[str, float], unknown: Sequence[str]
) -> dict[str, Parameter]:
    """With intervals of the internal parameters, so that an amplitude stays positive and a bound stays a bound; of derived numbers with
    those of the numbers themselves, or of their logarithms where they are all positive. None for what is `unknown`."""
    import numpy as np

    theta_P, nan = found.solved.theta_P, math.nan
    best = {name: float(one[0]) for name, one in reported(law, theta_P[None], y0, x0).items()}
    if not len(resampled.replicate_BP):
        return {name: Parameter(value=value, low=nan, high=nan) for name, value in best.items()}
    centre_P = found.smooth_P
    bound_2P = np.clip(theta_P + resampled.deviations(resampled.replicate_BP, centre_P, confidence), *law.bounds())
    lows, highs = (reported(law, bound[None], y0, x0) for bound in bound_2P)
    centre, replicates = (reported(law, theta, y0, x0) for theta in (centre_P[None], resampled.replicate_BP))
    made = {}
    for name, value in best.items():
        low, high = float(lows[name][0]), float(highs[name][0])
        if name not in law.parameters():
            positive = bool((replicates[name] > 0).all()) and value > 0
            change, back = (np.log, math.exp) if positive else (np.asarray, float)
            deviation_2 = resampled.deviations(change(replicates[name]), change(centre[name]), confidence)
            low, high = (back(float(change(value)) + float(one)) for one in deviation_2)
        made[name] = Parameter(value=value, low=nan, high=nan) if name in unknown else Parameter(value=value, low=low, high=high)
    return made


def _rounded(number: float, digits: int, width: float) -> str:
    """`number` to `digits` significant digits, or, with an interval, to `digits` decimals."""
    if not math.isfinite(width) or width <= 0 or abs(number) >= 1e6 or 0 < abs(number) < 1e-4:
        return f"{number:.3g}" if math.isfinite(width) and width > 0 else f"{number:.{digits}g}"
    return f"{round(number, digits):.{max(digits, 0)}f}"
