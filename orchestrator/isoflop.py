"""Compute-optimal sizes from runs of equal compute: a minimum a budget, and their power law (approach 2 of Hoffmann et al. 2022)."""

# N runs of one budget, M points of its interpolation, R resamples, C budgets

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.fit import Fit, Parameter, fit
from orchestrator.fitting.intervals import tails
from orchestrator.fitting.table import Runs, read
from orchestrator.laws.law import Array
from workers.errors import ConfigError

__all__ = ["Budget", "Isoflops", "isoflops"]

METHODS = ("akima", "parabola")
LEAST_RUNS = 4
_LINE_POINTS = 401


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Budget:
    """Runs of compute `c` by size, and where their loss is least. `inside`: the minimum is one within the sizes that were run; else
    `n_star` is an end of them, or NaN, and says only on which side the minimum is. The interval is of noise in the loss."""

    c: float
    n_N: Array
    loss_N: Array
    n_star: float
    loss_star: float
    n_low: float
    n_high: float
    log_sd: float
    inside: bool
    line_n_M: Array
    line_loss_M: Array
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Isoflops:
    """The budgets in order of compute; `exponent` a of n* ~ c^a, with an interval from noise in the losses; `fit`: the line, if there are
    budgets enough. `noise`: standard deviation of ln loss that was assumed."""

    curves: Sequence[Budget]
    fit: Fit | None
    exponent: Parameter
    method: str
    noise: float
    columns: dict[str, str]
    warnings: Sequence[str]

    def plot(self, ax: Any = None) -> Any:
        """The curves with their minima; the Axes."""
        from orchestrator.figures.isoflop import isoflop

        return isoflop(self, ax=ax)


def isoflops(
    table: Any,
    *,
    c: str,
    n: str,
    loss: str,
    method: str = "akima",
    window: float | None = None,
    noise: float | None = None,
    where: str | None = None,
    num_bootstrap: int = 400,
    confidence: float = 0.95,
    random_seed: int = 0,
) -> Isoflops:
    """Minima of loss over `n` in each group of runs of equal compute `c`; columns of a table as `fit` takes it.

    akima: the minimum of an interpolation of ln loss in ln n (Porian et al. 2024), which assumes no shape; parabola: the vertex of a
    parabola, which wide or lopsided samples shift. `window`: only sizes within this factor of the smallest loss. `noise`: standard
    deviation of ln loss, by default that of the runs about the cubic of their neighbours. A minimum outside the sizes that were run is
    left out of the line.
    """
    if method not in METHODS:
        raise ConfigError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if window is not None and not window > 1:
        raise ConfigError(f"window must be a factor above 1, such as 10, got {window}")
    runs = read(table, [c, n], loss, group=None, where=where)
    groups = list(_budgets(runs, window))
    sd = noise if noise is not None else _noise(groups)
    import numpy as np

    random = np.random.default_rng(random_seed)
    found = [_budget(*group, method, sd, num_bootstrap, confidence, random) for group in groups]
    curves = [budget for budget, _ in found]
    line, exponent = _line(found, c, n, confidence)
    return Isoflops(
        curves=curves,
        fit=line,
        exponent=exponent,
        method=method,
        noise=sd,
        columns={"c": c, "n": n, "loss": loss},
        warnings=list(_warnings(curves, runs, c, n)),
    )


def _budgets(runs: Runs, window: float | None) -> Iterator[tuple[float, Array, Array, Array]]:
    """Compute, and of its sizes in order: ln n, mean ln loss, number of runs."""
    import numpy as np

    for c in np.unique(runs.x_NV[:, 0]):
        own = runs.x_NV[:, 0] == c
        sizes, at, count = np.unique(runs.x_NV[own, 1], return_inverse=True, return_counts=True)
        mean = np.bincount(at, np.log(runs.y_N[own])) / count
        if window is not None:
            near = np.abs(np.log(sizes / sizes[np.argmin(mean)])) <= math.log(window)
            sizes, mean, count = sizes[near], mean[near], count[near]
        yield float(c), np.log(sizes), mean, count


def _noise(groups: Sequence[tuple[float, Array, Array, Array]]) -> float:
    """Robust sd of the mean ln loss about the cubic through two neighbours on each side; 0 where there are too few sizes to tell."""
    import numpy as np

    residuals = []
    for _, u_N, v_N, _ in groups:
        for at in range(2, len(u_N) - 2):
            near = np.r_[at - 2 : at, at + 1 : at + 3]
            # the value there by the cubic of four neighbours, and how much noise of its own that has
            weight = np.array([np.prod([(u_N[at] - u_N[k]) / (u_N[j] - u_N[k]) for k in near if k != j]) for j in near])
            residuals.append((v_N[at] - weight @ v_N[near]) / math.sqrt(1 + float(weight @ weight)))
    return float(1.4826 * np.median(np.abs(residuals))) if len(residuals) >= 5 else 0.0


def _budget(
    c: float, u_N: Array, v_N: Array, count_N: Array, method: str, sd: float, number: int, confidence: float, random: Any
) -> tuple[Budget, Array]:
    """The minimum of one budget, and ln n* of noisy copies of its losses (R,), NaN where that has none inside."""
    import numpy as np

    line_u_M = np.linspace(u_N[0], u_N[-1], _LINE_POINTS) if len(u_N) > 1 else u_N
    if len(u_N) < LEAST_RUNS:
        nothing = Budget(
            **_of(c, u_N, v_N), n_star=math.nan, loss_star=math.nan, n_low=math.nan, n_high=math.nan, log_sd=math.nan, inside=False,
            line_n_M=np.exp(u_N), line_loss_M=np.exp(v_N), reason=f"{len(u_N)} sizes, and a minimum needs {LEAST_RUNS}",
        )  # fmt: skip
        return nothing, np.full(number, math.nan)
    minimum = _akima if method == "akima" else _parabola
    line_v_M, u_star, v_star, inside = minimum(u_N, v_N, line_u_M)
    copies = [minimum(u_N, v_N + noisy, line_u_M) for noisy in sd / np.sqrt(count_N) * random.standard_normal((number, len(u_N)))]
    star_R = np.array([one[1] if one[3] else math.nan for one in copies])
    known = np.isfinite(star_R)
    low, high = np.quantile(star_R[known], tails(confidence)) if inside and sd > 0 and known.any() else (math.nan, math.nan)
    budget = Budget(
        **_of(c, u_N, v_N),
        n_star=math.exp(u_star),
        loss_star=math.exp(v_star),
        n_low=math.exp(low),
        n_high=math.exp(high),
        log_sd=float(star_R[known].std()) if known.sum() > 1 else math.nan,
        inside=inside,
        line_n_M=np.exp(line_u_M),
        line_loss_M=np.exp(line_v_M),
        reason="" if inside else "the loss is least at an end of the sizes, or has no minimum",
    )
    return budget, star_R


def _of(c: float, u_N: Array, v_N: Array) -> dict[str, Any]:
    import numpy as np

    return {"c": c, "n_N": np.exp(u_N), "loss_N": np.exp(v_N)}


def _akima(u_N: Array, v_N: Array, line_u_M: Array) -> tuple[Array, float, float, bool]:
    """The interpolation at `line_u_M`, its least point, and whether that is inside."""
    import numpy as np
    from scipy.interpolate import Akima1DInterpolator

    curve = Akima1DInterpolator(u_N, v_N)
    line_v_M = curve(line_u_M)
    candidates = np.concatenate([curve.derivative().roots(extrapolate=False), u_N[[0, -1]]])
    candidates = candidates[np.isfinite(candidates)]
    values = curve(candidates)
    best = int(np.argmin(values))
    inside = best < len(candidates) - 2 and u_N[0] < candidates[best] < u_N[-1]
    return line_v_M, float(candidates[best]), float(values[best]), bool(inside)


def _parabola(u_N: Array, v_N: Array, line_u_M: Array) -> tuple[Array, float, float, bool]:
    """The same of the parabola through all sizes."""
    import numpy as np

    centre = float(u_N.mean())
    a, b, height = np.polyfit(u_N - centre, v_N, 2)
    line_v_M = np.polyval([a, b, height], line_u_M - centre)
    if a <= 0:
        end = float(u_N[np.argmin(v_N)])
        return line_v_M, end, float(v_N.min()), False
    star = centre - b / (2 * a)
    return line_v_M, float(star), float(height - b * b / (4 * a)), bool(u_N[0] < star < u_N[-1])


def _line(found: Sequence[tuple[Budget, Array]], c: str, n: str, confidence: float) -> tuple[Fit | None, Parameter]:
    """The power law of the minima inside, and its exponent with the interval of noisy copies."""
    import numpy as np

    good = [(budget, star_R) for budget, star_R in found if budget.inside]
    nothing = Parameter(value=math.nan, low=math.nan, high=math.nan)
    if len(good) < 2:
        return None, nothing
    table = {c: [one.c for one, _ in good], n: [one.n_star for one, _ in good]}
    line = fit(table, "loglog", x=c, y=n, estimator="least_squares", group=None, num_bootstrap=0)
    u_C = np.log(table[c]) - np.mean(np.log(table[c]))
    star_RC = np.stack([star_R for _, star_R in good], axis=1)
    slope_R = (star_RC @ u_C / (u_C @ u_C))[np.isfinite(star_RC).all(axis=1)]
    value = line.parameters["slope"].value
    if len(slope_R) < 20 or not slope_R.std() > 0:
        return line, Parameter(value=value, low=math.nan, high=math.nan)
    low, high = np.quantile(slope_R, tails(confidence))
    return line, Parameter(value=value, low=float(low), high=float(high))


def _warnings(curves: Sequence[Budget], runs: Runs, c: str, n: str) -> Iterator[str]:
    outside = [budget for budget in curves if not budget.inside]
    for budget in outside:
        yield f"{c} {budget.c:.3g} is left out: {budget.reason}; run sizes on both sides of its minimum"
    if 2 <= len(curves) - len(outside) < 4:
        yield f"{len(curves) - len(outside)} minima inside: a line through so few says little of its own error"
    if len(curves) - len(outside) < 2:
        yield f"no exponent: it needs minima inside at two values of {c} or more"
    if runs.excluded:
        yield "left out: " + ", ".join(f"{count} {reason}" for reason, count in runs.excluded.items())
