"""One number against another along training, on logarithmic axes: a line a value of an axis, the median over seeds with their range."""

from typing import TYPE_CHECKING, Any

from orchestrator.figures import style
from orchestrator.figures.lines import lines, shown_of

if TYPE_CHECKING:
    import polars as pl


def curves(frame: "pl.DataFrame", *, x: str, y: str, by: str, title: str, x_label: str = "", y_label: str = "", ax: Any = None) -> Any:
    """`frame` has a row a run and step, with the columns `x`, `y`, `by`.

    A value that is not above 0 counts in medians and ranges, which then end below the picture, and in the title.
    """
    import polars as pl

    good = frame.filter((pl.col(x) > 0) & pl.col(x).is_finite() & pl.col(y).is_finite())
    positive = good.filter(pl.col(y) > 0)
    with style.styled():
        ax = style.axes(ax)
        values = lines(ax, good, x, y, by)
        style.log_axis(ax.xaxis, good[x].to_list())
        style.log_axis(ax.yaxis, positive[y].to_list())
        if 0 < len(positive) < len(good):
            ax.set_ylim(bottom=min(positive[y].to_list()) / 1.5)
        ax.set_xlabel(x_label or style.label(x))
        ax.set_ylabel(y_label or style.label(y))
        style.legend(ax, style.subject(style.label(by)))
        below = len(good) - len(positive)
        style.title(ax, title + (f"; {below} values <= 0 are below the picture" if below else "") + shown_of(values, good, by))
        if not len(positive):
            style.note(ax, "no positive value")
    style.remember(ax, good)
    return ax
