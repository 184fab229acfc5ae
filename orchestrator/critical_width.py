"""The width at which feature learning is lost: where the kernel's change leaves the power law of wide networks (D12)."""

# W widths, ascending

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workers.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["CriticalWidth", "Line", "at_loss", "critical_width"]

FEWEST_WIDE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """ln change = intercept + slope ln width; NaN with fewer than two widths. `error`: of the slope, from those of the widths' means."""

    slope: float
    intercept: float
    error: float

    def at(self, width: float) -> float:
        """The change there."""
        return math.exp(self.intercept + self.slope * math.log(width))


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticalWidth:
    """`width`: the largest whose change deviates from the law of all wider ones by more than 2 standard errors, as does the next narrower
    one, and no narrower one clearly to the other side; NaN: none does.

    `deviation` is ln(change / law) there. `wide`, `narrow`: power laws of the widths above, and up to it. `is_bound`: fewer than three
    widths on one side, so that it is only a bound: an upper one where no width deviates.
    """

    width: float
    deviation: float
    wide: Line
    narrow: Line
    is_bound: bool

    @property
    def is_tested(self) -> bool:
        """Whether there are standard errors to compare a deviation with: some width has more than one seed."""
        return not math.isnan(self.wide.error)


def critical_width(changes: Mapping[int, Sequence[float]], num_errors: float = 2.0) -> CriticalWidth:
    """Of relative kernel changes by width, one for each seed, at matched training loss. ConfigError for fewer than four widths.

    From the widest down, each width is compared with the line of those above it (at least three); the standard error is that of its own
    seeds (pooled over the widths where it has fewer than three) and of the line's value there.
    """
    import numpy as np

    if len(changes) < FEWEST_WIDE + 1:
        raise ConfigError(f"a critical width needs at least {FEWEST_WIDE + 1} widths, got {', '.join(map(str, sorted(changes)))}")
    widths = sorted(changes)
    x_W = np.log(np.array(widths, dtype=np.float64))
    logs = [np.log(np.asarray(changes[width], dtype=np.float64)) for width in widths]
    y_W = np.array([values.mean() for values in logs])
    error_W = _errors(logs)
    for at in range(len(widths) - FEWEST_WIDE - 1, -1, -1):
        values, errors = zip(*(_predicted(x_W[at + 1 :], y_W[at + 1 :], error_W[at + 1 :], x) for x in x_W[: at + 1]))
        deviations = y_W[: at + 1] - np.array(values)
        clear = np.abs(deviations) > num_errors * np.hypot(errors, error_W[: at + 1])
        side = math.copysign(1.0, float(deviations[-1]))
        if clear[-2:].all() and not (clear & (deviations * side < 0)).any():
            narrow = slice(0, at + 1)
            return CriticalWidth(
                width=float(widths[at]),
                deviation=float(deviations[-1]),
                wide=_line(x_W[at + 1 :], y_W[at + 1 :], error_W[at + 1 :]),
                narrow=_line(x_W[narrow], y_W[narrow], error_W[narrow]),
                is_bound=at + 1 < FEWEST_WIDE,
            )
    nothing = Line(slope=math.nan, intercept=math.nan, error=math.nan)
    return CriticalWidth(width=math.nan, deviation=math.nan, wide=_line(x_W, y_W, error_W), narrow=nothing, is_bound=True)


def at_loss(losses: Sequence[float], values: Sequence[float], target: float) -> float:
    """The value, interpolated in logarithms, where the loss of a training first falls to `target`; NaN where it does not."""
    for before in range(len(losses) - 1):
        first, second = losses[before], losses[before + 1]
        if first >= target >= second and first > second and values[before] > 0:
            share = math.log(first / target) / math.log(first / second)
            return math.exp((1 - share) * math.log(values[before]) + share * math.log(values[before + 1]))
    return math.nan


def _errors(logs: Sequence["Array"]) -> "Array":
    """Standard errors of the means: each from its own seeds, or from the pooled deviation where a width has fewer than three."""
    import numpy as np

    freedom = sum(len(values) - 1 for values in logs)
    pooled = math.sqrt(sum(float(((values - values.mean()) ** 2).sum()) for values in logs) / freedom) if freedom else math.nan
    return np.array([(values.std(ddof=1) if len(values) >= 3 else pooled) / math.sqrt(len(values)) for values in logs])


def _predicted(x_W: "Array", y_W: "Array", error_W: "Array", x: float) -> tuple[float, float]:
    """The line's value at x, and its standard error from those of the points."""
    import numpy as np

    centred = x_W - x_W.mean()
    weights_W = 1.0 / len(x_W) + (x - x_W.mean()) * centred / float(centred @ centred)
    return float(weights_W @ y_W), float(np.sqrt((weights_W**2) @ (error_W**2)))


def _line(x_W: "Array", y_W: "Array", error_W: "Array") -> Line:
    import numpy as np

    if len(x_W) < 2:
        return Line(slope=math.nan, intercept=math.nan, error=math.nan)
    slope, intercept = np.polyfit(x_W, y_W, 1)
    centred = x_W - x_W.mean()
    error = float(np.sqrt(centred**2 @ error_W**2)) / float(centred @ centred)
    return Line(slope=float(slope), intercept=float(intercept), error=error)
