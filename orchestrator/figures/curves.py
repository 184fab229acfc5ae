"""One number against another along training, on logarithmic axes: a line a value of an axis, the median over seeds with their range."""

from typing import TYPE_CHECKING, Any

from orchestrator.figures import style
from orchestrator.figures.lines import lines, shown_of

if TYPE_CHECKING:
    import polars as pl


def curves(frame: "pl.DataFrame", *, x: str, y: str, by: str, title: str, x_label: str = "", y_label: str = "", ax: Any = None) -> Any:
    """`frame` has a row a run and step, with the columns `x`, `y`, `by`; what has no logarithm is left out and counted in the title."""
    import polars as pl

    good = frame.filter((pl.col(x) > 0) & (pl.col(y) > 0) & pl.col(x).is_finite() & pl.col(y).is_finite())
    with style.styled():
        ax = style.axes(ax)
        values = lines(ax, good, x, y, by)
        style.log_axis(ax.xaxis, good[x].to_list())
        style.log_axis(ax.yaxis, good[y].to_list())
        ax.set_xlabel(x_label or style.label(x))
        ax.set_ylabel(y_label or style.label(y))
        style.legend(ax, style.subject(style.label(by)))
        left_out = len(frame.drop_nulls([x, y]).filter(pl.col(x) > 0)) - len(good)
        style.title(ax, title + (f"; {left_out} values <= 0 not drawn" if left_out else "") + shown_of(values, good, by))
        if not len(good):
            style.note(ax, "no positive value")
    style.remember(ax, good)
    return ax
