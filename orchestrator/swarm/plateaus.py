"""Lines and saturating curves through measurements along an axis, with intervals from whole seeds weighted anew."""

# N measurements; S seeds; B weightings; G values of the scale; K linear coefficients

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.fitting.intervals import tails
from orchestrator.fitting.parameters import Parameter
from orchestrator.pairing import CONFIDENCE, NUM_RESAMPLES

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["Plateau", "Straight", "plateau", "straight"]

_SCALES = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class Straight:
    """y = intercept + slope x."""

    intercept: Parameter
    slope: Parameter
    num_seeds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plateau:
    """y = limit + (start - limit) exp(-x / scale); `start` is 0 where it was held. `is_reached`: the curve of every weighting that the
    interval holds is within 5 % of its change at the largest x."""

    limit: Parameter
    start: Parameter
    scale: Parameter
    num_seeds: int
    is_reached: bool

    def at(self, x: "Array") -> "Array":
        """The curve."""
        import numpy as np

        curve: Array = self.limit.value + (self.start.value - self.limit.value) * np.exp(-np.asarray(x) / self.scale.value)
        return curve


def straight(x_N: "Array", y_N: "Array", seed_N: "Array", *, random_seed: int = 0) -> Straight | None:
    """Least squares; None for fewer than two values of x. Intervals are NaN for one seed, or fewer than three values of x."""
    import numpy as np

    x, y, seeds = _finite(x_N, y_N, seed_N)
    if len(np.unique(x)) < 2:
        return None

    def solve(weight_BN: "Array") -> "Array":
        theta_BK, _ = _least_squares(np.stack([np.ones_like(x), x], axis=1), y, weight_BN)
        return theta_BK

    def residuals(theta_P: "Array") -> "Array":
        return np.asarray(y - theta_P[0] - theta_P[1] * x)

    found, _ = _with_intervals(solve, residuals, x, seeds, random_seed)
    return Straight(intercept=found[0], slope=found[1], num_seeds=len(np.unique(seeds)))


def plateau(x_N: "Array", y_N: "Array", seed_N: "Array", *, from_zero: bool = False, random_seed: int = 0) -> Plateau | None:
    """Least squares over the scale, each with its best limit and start; `from_zero` holds start at 0, as in y_inf (1 - exp(-x / x0)).

    None for no more values of x than parameters, which any such curve goes through. Scales are from a tenth of the least x to ten times
    the largest.
    """
    import numpy as np

    x, y, seeds = _finite(x_N, y_N, seed_N)
    if len(np.unique(x)) < (3 if from_zero else 4) or not (x > 0).all():
        return None
    scale_G = np.geomspace(0.1 * x.min(), 10.0 * x.max(), _SCALES)

    def solve(weight_BN: "Array") -> "Array":
        fits = [_least_squares(_design(x, scale, from_zero=from_zero), y, weight_BN) for scale in scale_G]
        log_scale_B = _vertices(np.log(scale_G), np.stack([loss_B for _, loss_B in fits]))
        own = [_least_squares(_design(x, math.exp(one), from_zero=from_zero), y, w[None])[0][0] for one, w in zip(log_scale_B, weight_BN)]
        own_BK = np.stack(own)
        start_B = np.zeros(len(own_BK)) if from_zero else own_BK[:, 1]
        return np.stack([own_BK[:, 0], start_B, log_scale_B], axis=1)

    def residuals(theta_P: "Array") -> "Array":
        first = 0.0 if from_zero else theta_P[1]
        return np.asarray(y - theta_P[0] - (first - theta_P[0]) * np.exp(-x / math.exp(theta_P[2])))

    (limit, start, log_scale), replicate_BP = _with_intervals(solve, residuals, x, seeds, random_seed)
    # beyond 700 a power of e is no number: the data do not bound the scale
    high = math.exp(log_scale.high) if not log_scale.high > 700 else math.inf
    scale = Parameter(value=math.exp(log_scale.value), low=math.exp(max(log_scale.low, -700.0)), high=high)
    longest = scale.value if math.isnan(scale.high) else scale.high
    reached = bool(math.exp(-x.max() / longest) < 0.05) and len(replicate_BP) > 0
    return Plateau(limit=limit, start=start, scale=scale, num_seeds=len(np.unique(seeds)), is_reached=reached)


def _design(x_N: "Array", scale: float, *, from_zero: bool) -> "Array":
    import numpy as np

    rest_N = np.exp(-x_N / scale)
    return (1 - rest_N)[:, None] if from_zero else np.stack([1 - rest_N, rest_N], axis=1)


def _vertices(place_G: "Array", loss_GB: "Array") -> "Array":
    """Where each column is least, by the parabola through three places; the ends of the grid stay (B,)."""
    import numpy as np

    best_B, column_B = loss_GB.argmin(axis=0), np.arange(loss_GB.shape[1])
    inner_B = np.clip(best_B, 1, len(place_G) - 2)
    before_B, at_B, after_B = (loss_GB[inner_B + shift, column_B] for shift in (-1, 0, 1))
    bend_B = before_B - 2 * at_B + after_B
    shift_B = np.where(bend_B > 0, 0.5 * (before_B - after_B) / np.where(bend_B > 0, bend_B, 1.0), 0.0)
    found_B = place_G[inner_B] + np.clip(shift_B, -1.0, 1.0) * (place_G[1] - place_G[0])
    return np.asarray(np.where(best_B == inner_B, found_B, place_G[best_B]))


def _finite(x_N: "Array", y_N: "Array", seed_N: "Array") -> "tuple[Array, Array, Array]":
    import numpy as np

    x, y, seeds = np.asarray(x_N, dtype=np.float64), np.asarray(y_N, dtype=np.float64), np.asarray(seed_N)
    good = np.isfinite(x) & np.isfinite(y)
    return x[good], y[good], seeds[good]


def _least_squares(design_NK: "Array", y_N: "Array", weight_BN: "Array") -> "tuple[Array, Array]":
    """Coefficients (B, K) and the weighted sums of squares (B,)."""
    import numpy as np

    num = design_NK.shape[1]
    moments_NX = (design_NK[:, :, None] * design_NK[:, None, :]).reshape(len(y_N), -1)
    normal_BKK = (weight_BN @ moments_NX).reshape(-1, num, num)
    right_BK = weight_BN @ (design_NK * y_N[:, None])
    # a scale far from all x makes columns alike
    ridge_BKK = 1e-12 * np.trace(normal_BKK, axis1=1, axis2=2)[:, None, None] * np.eye(num)
    theta_BK = np.linalg.solve(normal_BKK + ridge_BKK, right_BK[..., None])[..., 0]
    loss_B = weight_BN @ (y_N**2) - 2 * (theta_BK * right_BK).sum(1) + np.einsum("bk,bkl,bl->b", theta_BK, normal_BKK, theta_BK)
    return theta_BK, loss_B


def _with_intervals(
    solve: "Callable[[Array], Array]", residuals: "Callable[[Array], Array]", x_N: "Array", seed_N: "Array", random_seed: int
) -> "tuple[list[Parameter], Array]":
    """Parameters, and those of each weighting: seeds weighted as in `fitting.intervals.resample`, widened in the same way; and no
    narrower than what runs by themselves leave open, since one run alone at its x is missed by no weighting."""
    import numpy as np
    from scipy import stats

    centre_P = solve(np.ones((1, len(seed_N))))[0]
    label_N = np.unique(seed_N, return_inverse=True)[1]
    num = int(label_N.max()) + 1
    if num < 2 or len(np.unique(x_N)) < 3:
        return [Parameter(value=float(one), low=math.nan, high=math.nan) for one in centre_P], np.empty((0, len(centre_P)))
    draw_BS = np.random.default_rng(random_seed).exponential(size=(NUM_RESAMPLES, num))
    draw_BS *= num / draw_BS.sum(axis=1, keepdims=True)
    replicate_BP = solve(draw_BS[:, label_N])
    low, high = tails(CONFIDENCE)
    widening = float(stats.t.ppf(high, num - 1) / stats.norm.ppf(high)) * math.sqrt((num + 1) / (num - 1))
    ends = widening * np.quantile(replicate_BP - centre_P, [low, high], axis=0)
    half_P = float(stats.t.ppf(high, max(len(x_N) - len(centre_P), 1))) * _errors(residuals, centre_P)
    pairs = zip(centre_P, centre_P + np.minimum(ends[0], -half_P), centre_P + np.maximum(ends[1], half_P), strict=True)
    return [Parameter(value=float(one), low=float(a), high=float(b)) for one, a, b in pairs], replicate_BP


def _errors(residuals: "Callable[[Array], Array]", theta_P: "Array") -> "Array":
    """Standard errors (P,) of independent runs of unequal variance, by the HC3 estimator (MacKinnon and White 1985); 0 of a parameter that
    is held, or of what the data do not tell."""
    import numpy as np

    left_N = residuals(theta_P)
    step_P = 1e-5 * np.maximum(np.abs(theta_P), 1e-3)
    columns = [
        (residuals(theta_P - step * one) - residuals(theta_P + step * one)) / (2 * step) for step, one in zip(step_P, np.eye(len(theta_P)))
    ]
    jacobian_NP = np.stack(columns, axis=1)
    inverse_PN = np.linalg.pinv(jacobian_NP, rcond=1e-10)
    # as in fitting.intervals: at most three times the residual
    share_N = np.minimum((jacobian_NP * inverse_PN.T).sum(axis=1), 2 / 3)
    return np.asarray(np.sqrt(((inverse_PN * (left_N / (1 - share_N))) ** 2).sum(axis=1)))
