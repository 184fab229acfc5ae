"""A number against a size, a line a method: the mean over seeds with its standard error."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.figures import style

if TYPE_CHECKING:
    import polars as pl


def means(
    frame: "pl.DataFrame", *, x: str, y: str, by: str, values: Sequence[str] = (), title: str = "", y_label: str = "", ax: Any = None
) -> Any:
    """`frame` has a row a run; columns `x` (positive), `y` and `by`, whose `values` are drawn in that order (default: all, sorted).

    Bars are standard errors of the mean; without a bar there is one run. Values that are not finite are counted in the title.
    """
    import polars as pl
    from matplotlib.ticker import MaxNLocator

    good = frame.filter(pl.col(y).is_finite())
    names = [name for name in values or sorted(frame[by].unique().to_list()) if name in set(good[by])]
    with style.styled():
        ax = style.axes(ax)
        shade, marker = style.colours(values or names), style.markers(values or names)
        table = _means(good.filter(pl.col(by).is_in(names)), x, y, by)
        for place, name in enumerate(names):
            own = table.filter(pl.col(by) == name)
            # side by side, so that bars of equal x do not hide each other
            beside = own[x].to_numpy() * 1.02 ** (place - (len(names) - 1) / 2)
            errors = own["standard_error"].fill_null(0.0).to_numpy()
            ax.errorbar(
                beside, own["mean"].to_numpy(), errors, color=shade[name], marker=marker[name], markersize=4, capsize=2,
                elinewidth=0.9, label=name.replace("_", " "),
            )  # fmt: skip
        style.log_axis(ax.xaxis, table[x].to_list(), exact=True)
        if len(table) and (table["mean"] > 0).all() and table["mean"].max() / table["mean"].min() > 3:  # type: ignore[operator]
            style.log_axis(ax.yaxis, table["mean"].to_list())
        else:
            # as many ticks whatever the height, which the layout changes after it has measured their labels
            ax.yaxis.set_major_locator(MaxNLocator(6))
        ax.set_xlabel(style.label(x))
        ax.set_ylabel(y_label or style.label(y))
        style.legend(ax, below=True)
        left_out = f"; {count} values that are no numbers not drawn" if (count := len(frame) - len(good)) else ""
        style.title(ax, (title or f"{style.subject(style.label(y))} against {style.subject(style.label(x))}") + left_out)
        if not len(table):
            style.note(ax, "no run with a finite value")
    style.remember(ax, table)
    return ax


def _means(frame: "pl.DataFrame", x: str, y: str, by: str) -> "pl.DataFrame":
    import polars as pl

    error = pl.col(y).std() / pl.len().sqrt()
    return frame.group_by(by, x).agg(mean=pl.col(y).mean(), standard_error=error, runs=pl.len()).sort(by, x)
