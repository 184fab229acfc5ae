"""Learning curves of several sizes, rescaled by their ends: where they collapse, one curve describes them all."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.figures import style
from workers.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl

# shares of training at which the curves are compared
_COMPARED = (0.1, 0.2, 0.3, 0.5, 0.7)


def collapse(
    frame: "pl.DataFrame",
    *,
    by: str,
    x: str = "step",
    y: str = "value",
    irreducible: float | Mapping[Any, float] = 0.0,
    y_name: str = "loss",
    ax: Any = None,
) -> Any:
    """`frame` has a row a step of each run: columns `x`, `y`, `by`; of several seeds the median. A curve is drawn against x / its last x,
    as (y - irreducible) / (its last y - irreducible); `irreducible`: one number, or one for each value of `by`. The title tells the
    spread: the largest difference of two curves in ln, before the ends meet. Raises ConfigError where there is nothing to rescale."""
    import polars as pl

    curves = rescaled(frame, by, x, y, irreducible)
    values: list[Any] = style.thinned(curves[by].unique().to_list())
    curves = curves.filter(pl.col(by).is_in(values))
    with style.styled():
        ax = style.axes(ax)
        shade = style.colours(values)
        for value in values:
            one = curves.filter(pl.col(by) == value)
            entry = value if isinstance(value, str) else style.number(value)
            ax.plot(one["share"].to_numpy(), one["rescaled"].to_numpy(), color=shade[value], label=entry, linewidth=1.1)
        style.log_axis(ax.xaxis, curves["share"].to_list())
        style.log_axis(ax.yaxis, curves["rescaled"].to_list())
        ax.set_xlabel(f"{style.subject(style.label(x))} / last {style.subject(style.label(x))}")
        known = "" if irreducible == 0.0 else " − irreducible"
        ax.set_ylabel(f"({y_name}{known}) / its last" if known else f"{y_name} / its last")
        style.legend(ax, style.subject(style.label(by)))
        style.title(ax, _finding(curves, by, len(values)))
    style.remember(ax, curves)
    return ax


def rescaled(frame: "pl.DataFrame", by: str, x: str, y: str, irreducible: float | Mapping[Any, float]) -> "pl.DataFrame":
    """Columns `by`, `x`, `y` (median), share, rescaled; only x > 0 and what is above the irreducible part."""
    import polars as pl

    good = frame.filter(pl.col(y).is_finite() & (pl.col(x) > 0)).group_by(by, x).agg(pl.col(y).median()).sort(by, x)
    if not len(good):
        raise ConfigError(f"no curve to rescale: no row with a finite {y} and {x} > 0, of {len(frame)} rows")
    floors = {value: irreducible[value] if isinstance(irreducible, Mapping) else irreducible for value in good[by].unique().to_list()}
    parts = []
    for (value,), one in good.group_by(by, maintain_order=True):
        last = one[y][-1] - floors[value]
        if last <= 0:
            raise ConfigError(f"the last {y} of {by} {value}, {one[y][-1]:.4g}, is not above its irreducible part {floors[value]:.4g}")
        part = one.with_columns(share=pl.col(x) / one[x][-1], rescaled=(pl.col(y) - floors[value]) / last)
        parts.append(part.filter(pl.col("rescaled") > 0))
    return pl.concat(parts)


def spread(curves: "pl.DataFrame", by: str) -> float:
    """The largest difference of ln between two curves at some shares of training; NaN of one curve."""
    import numpy as np

    lines = [one.sort("share") for _, one in curves.group_by(by, maintain_order=True)]
    if len(lines) < 2:
        return math.nan
    at = np.log(_COMPARED)
    values = []
    for one in lines:
        u, v = np.log(one["share"].to_numpy()), np.log(one["rescaled"].to_numpy())
        values.append(np.where(at >= u[0], np.interp(at, u, v), np.nan))
    apart = np.nanmax(values, axis=0) - np.nanmin(values, axis=0)
    return float(np.nanmax(apart)) if np.isfinite(apart).any() else math.nan


def _finding(curves: "pl.DataFrame", by: str, count: int) -> str:
    apart = spread(curves, by)
    what = f"Learning curves of {count} values of {style.subject(style.label(by))}"
    if math.isnan(apart):
        return f"{what}, rescaled by their ends"
    percent = f"{math.expm1(apart):.1%}"
    return f"{what} collapse to within {percent}" if apart < 0.1 else f"{what} do not collapse: they differ by up to {percent}"
