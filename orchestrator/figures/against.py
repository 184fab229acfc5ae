"""A number with its interval against another on plain axes, a colour a group, with curves and places that were expected."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.figures import style

if TYPE_CHECKING:
    import polars as pl


def against(
    frame: "pl.DataFrame",
    *,
    x: str,
    by: str | None = None,
    title: str = "",
    x_label: str = "",
    y_label: str = "",
    heading: str = "",
    dots: "pl.DataFrame | None" = None,
    curves: "Mapping[Any, tuple[Any, Any]] | None" = None,
    marks: Mapping[str, float] | None = None,
    neutral: float | None = None,
    logarithmic: bool = False,
    ticks: Sequence[float] = (),
    joined: bool = True,
    ax: Any = None,
) -> Any:
    """`frame` has the columns `x`, `by`, value, low and high; `dots` has `x`, `by` and value, of the trainings behind them.

    `curves`: by value of `by`, x and y of a fit, dashed; `marks`: places along x with their names; `neutral`: a horizontal line.
    """
    import polars as pl
    from matplotlib.ticker import MaxNLocator

    names = sorted(frame[by].unique().to_list()) if by else [None]
    with style.styled():
        ax = style.axes(ax)
        shade, marker = (style.colours(names), style.markers(names)) if by else ({None: style.CATEGORIES[0]}, {None: "o"})
        if neutral is not None:
            ax.axhline(neutral, color=style.INK, linewidth=0.8)
        span = _span(frame[x].to_list())
        for place, name in enumerate(names):
            shift = 0.008 * span * (place - (len(names) - 1) / 2)
            own = (frame.filter(pl.col(by) == name) if by else frame).sort(x)
            if dots is not None:
                some = dots.filter(pl.col(by) == name) if by else dots
                beside = some[x].to_numpy() + shift
                ax.scatter(beside, some["value"].to_numpy(), s=6, c=shade[name], alpha=0.35, linewidths=0)
            _points(ax, own, x, shift, shade[name], marker[name], joined=joined, label=None if name is None else style.said(name))
            if curves and name in curves:
                ax.plot(*curves[name], color=shade[name], linewidth=0.9, linestyle="--")
        for place, (label, at) in enumerate((marks or {}).items()):
            ax.axvline(at, color=style.CATEGORIES[7], linewidth=1.0, linestyle=("--", ":")[place % 2], label=label, zorder=1)
        ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
        if logarithmic:
            good = frame.filter(pl.col("value") > 0)
            style.log_axis(ax.yaxis, [*good["value"].to_list(), *(dots["value"].to_list() if dots is not None else [])])
        elif not frame.is_empty():
            ax.set_ylim(*_limits(frame, dots))
        if ticks:
            ax.set_xticks(list(ticks), labels=[style.number(tick) for tick in ticks], fontsize=6.5)
        ax.set_xlabel(x_label or style.label(x))
        ax.set_ylabel(y_label)
        style.legend(ax, heading)
        style.title(ax, title)
        if frame.is_empty():
            style.note(ax, "nothing to show")
    style.remember(ax, frame)
    return ax


def _limits(frame: "pl.DataFrame", dots: "pl.DataFrame | None") -> tuple[float, float]:
    """All values and dots, and of intervals no more than as much again on each side: those of two seeds would flatten all else.

    Where nothing is below 0, intervals that are, of few seeds, are cut there.
    """
    values = [*frame["value"].drop_nans().drop_nulls().to_list(), *(dots["value"].drop_nans().to_list() if dots is not None else [])]
    least, most = min(values, default=0.0), max(values, default=1.0)
    room = max(most - least, 0.1 * abs(most), 1e-12)
    ends = [*frame["low"].drop_nans().drop_nulls().to_list(), *frame["high"].drop_nans().drop_nulls().to_list(), least, most]
    low, high = max(min(ends), least - room), min(max(ends), most + room)
    if least >= 0.0 >= low:
        return (-0.06 * high if least == 0.0 else 0.0), 1.06 * high
    return low - 0.06 * (high - low), high + 0.06 * (high - low)


def _points(ax: Any, own: "pl.DataFrame", x: str, shift: float, colour: str, marker: str, *, joined: bool, label: str | None) -> None:
    """Bars of finite intervals."""
    import numpy as np

    middle = own["value"].to_numpy()
    bars = [np.nan_to_num(middle - own["low"].to_numpy()).clip(0), np.nan_to_num(own["high"].to_numpy() - middle).clip(0)]
    ax.errorbar(
        own[x].to_numpy() + shift, middle, bars, color=colour, marker=marker, markersize=4, capsize=2, elinewidth=0.9, linewidth=1.1,
        linestyle="-" if joined else "none", label=label,
    )  # fmt: skip


def _span(values: list[float]) -> float:
    return max(values) - min(values) if values else 0.0
