"""The least objective with one parameter held: where it is flat, the data do not tell."""

from typing import TYPE_CHECKING, Any

from orchestrator.figures import equations, style
from orchestrator.figures.equations import symbol

if TYPE_CHECKING:
    import polars as pl

    from orchestrator.fit import Fit

# the rise that is drawn, in thresholds
_SHOWN = 3.5


def profile(fit: "Fit", name: str, *, num: int = 61, ax: Any = None) -> Any:
    """Rise of the objective above its minimum in units of the noise, along the parameter `name`; the line is what a value may rise that the
    data do not tell from the best, shaded where it stays below; bar: the bootstrap interval. A curve that does not cross the line on
    one side is flat there, and the title says so."""
    import numpy as np
    from scipy import stats

    frame = fit.profile(name, num=num)
    limit = float(stats.chi2.ppf(fit.confidence, 1))
    one = fit.parameters[name]
    value, rise = frame["value"].to_numpy(), frame["rise"].to_numpy()
    with style.styled():
        ax = style.axes(ax, style.TALL_INCHES)
        fine = np.interp(np.linspace(0, len(value) - 1, 4001), np.arange(len(value)), value)
        inside = np.interp(fine, value, rise) <= limit
        ax.fill_between(fine, 0, limit, where=inside, color=style.CATEGORIES[0], alpha=0.15, linewidth=0)
        ax.plot(value, rise, color=style.CATEGORIES[0])
        ax.axhline(limit, color=style.CATEGORIES[1], linewidth=1.0, linestyle=(0, (3, 2)))
        ax.annotate(
            f"{fit.confidence:.0%}", (1, limit), xycoords=("axes fraction", "data"), xytext=(-2, 2), textcoords="offset points",
            ha="right", fontsize=6.5, color=style.CATEGORIES[1],
        )  # fmt: skip
        ax.axvline(one.value, ymax=0.85, color=style.INK, linewidth=0.8)
        if one.high > one.low:
            at = 0.06 * _SHOWN * limit
            ax.hlines([at], [one.low], [one.high], color=style.INK, linewidth=1.8, label=f"{fit.confidence:.0%} bootstrap")
            ax.legend(loc="upper center", handlelength=1.3)
        ax.set_ylim(0, _SHOWN * limit)
        _range(ax, frame, limit, one)
        ax.set_xlabel(symbol(name))
        ax.set_ylabel("rise of the objective (noise units)")
        equations.write(ax, fit)
        style.title(ax, _finding(fit, name, frame, limit))
    style.remember(ax, frame)
    return ax


def _range(ax: Any, frame: "pl.DataFrame", limit: float, one: Any) -> None:
    """Where the curve is to be seen; logarithmic where that is more than a decade."""
    seen = frame.filter(frame["rise"] <= 1.2 * _SHOWN * limit)["value"].to_list()
    ends = [value for value in (*seen, one.low, one.high) if value == value]
    low, high = min(ends), max(ends)
    if low > 0 and high / low > 10:
        style.log_axis(ax.xaxis, [low, high])
    ax.set_xlim(low, high) if high > low else None


def interval(frame: "pl.DataFrame", limit: float) -> tuple[float, float]:
    """Where the profile crosses `limit`, on each side of its least; NaN where it does not within the range."""
    import numpy as np

    value, rise = frame["value"].to_numpy(), frame["rise"].to_numpy()
    best, ends = int(rise.argmin()), []
    for order in (range(best, -1, -1), range(best, len(value))):
        inside = list(order)
        over = next((k for k in range(1, len(inside)) if rise[inside[k]] > limit), None)
        if over is None:
            ends.append(float("nan"))
            continue
        one, other = inside[over - 1], inside[over]
        ends.append(float(np.interp(limit, [rise[one], rise[other]], [value[one], value[other]])))
    return ends[0], ends[1]


def _finding(fit: "Fit", name: str, frame: "pl.DataFrame", limit: float) -> str:
    low, high = interval(frame, limit)
    what = symbol(name)
    if low == low and high == high:
        return f"{what} is between {low:.3g} and {high:.3g} by its profile"
    if low == low or high == high:
        side, bound = ("below", high) if high == high else ("above", low)
        return f"{what} is {side} {bound:.3g}, and flat on the other side: the data do not bound it"
    return f"{what} is not bounded by the data: its profile is flat"
