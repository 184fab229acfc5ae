"""Curves of one number against another, one line a value of an axis: the median over seeds, with the range of the seeds."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.figures import style

if TYPE_CHECKING:
    import polars as pl


def lines(ax: Any, frame: "pl.DataFrame", x: str, y: str, by: str | None, *, dots: bool = False) -> list[Any]:
    """Draw into `ax` and return the values of `by` that were drawn (at most eight, evenly chosen); `dots` for the range."""
    import polars as pl

    values: list[Any] = style.thinned(frame[by].drop_nulls().unique().to_list()) if by else [None]
    shade, marker = style.colours(values) if by else {None: style.CATEGORIES[0]}, style.markers(values)
    for value in values:
        one = frame.filter(pl.col(by) == value) if by else frame
        band = one.group_by(x).agg(low=pl.col(y).min(), middle=pl.col(y).median(), high=pl.col(y).max()).sort(x)
        entry = None if value is None else value if isinstance(value, str) else style.number(value)
        columns = [band[name].to_numpy() for name in (x, "low", "middle", "high")]
        if not dots:
            ax.fill_between(columns[0], columns[1], columns[3], color=shade[value], alpha=0.18, linewidth=0)
        ax.plot(columns[0], columns[2], color=shade[value], label=entry)
        if dots:
            drawn = ax.scatter(
                one[x].to_numpy(), one[y].to_numpy(), s=11, c=shade[value], marker=marker[value], linewidths=0, alpha=0.8, zorder=3
            )
            style.tips(ax, drawn, [f"{style.label(x)} {a:g}, {style.label(y)} {b:.5g}" for a, b in one.select(x, y).rows()])
    return values


def along_training(ax: Any, frame: "pl.DataFrame", y: str, by: str | None, y_label: str = "") -> list[Any]:
    """`lines` against the column `step`, with logarithmic axes, labels and a legend."""
    values = lines(ax, frame, "step", y, by)
    _step_axis(ax, frame["step"].to_list())
    style.log_axis(ax.yaxis, frame[y].to_list())
    ax.set_xlabel(style.label("step"))
    ax.set_ylabel(y_label or style.label(y))
    style.legend(ax, style.subject(style.label(by)) if by else "")
    return values


def _step_axis(ax: Any, steps: list[int]) -> None:
    """Logarithmic, with room for step 0."""
    positive = [step for step in steps if step > 0]
    style.log_axis(ax.xaxis, positive)
    if positive and min(steps) == 0:
        from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

        ticks = [0.0, *(tick for tick in ax.xaxis.get_major_locator().locs if min(positive) <= tick <= max(positive))]
        ax.set_xscale("symlog", linthresh=min(positive), linscale=0.4)
        ax.xaxis.set_major_locator(FixedLocator(ticks))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: style.number(value)))
        ax.set_xlim(0, max(positive) * 1.15)


def shown_of(values: Sequence[Any], frame: "pl.DataFrame", by: str | None) -> str:
    """A note where not every value of `by` is drawn."""
    total = frame[by].drop_nulls().n_unique() if by else 1
    return f" ({len(values)} of {total} {style.subject(style.label(by or ''))} values)" if total > len(values) else ""
