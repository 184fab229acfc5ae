"""Numbers with their intervals against a size, a colour a kind, and the value that would mean nothing as a line."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.figures import style

if TYPE_CHECKING:
    import polars as pl


def intervals(
    frame: "pl.DataFrame",
    *,
    x: str,
    by: str,
    values: Sequence[str] = (),
    neutral: float = 0.0,
    dots: "pl.DataFrame | None" = None,
    title: str = "",
    y_label: str = "",
    logarithmic: bool = False,
    ax: Any = None,
) -> Any:
    """`frame` has the columns `x` (positive), `by`, value, low and high; `dots` has `x`, `by` and value, of the runs behind them."""
    import polars as pl
    from matplotlib.ticker import MaxNLocator

    names = [name for name in values or sorted(frame[by].unique().to_list()) if name in set(frame[by])]
    with style.styled():
        ax = style.axes(ax)
        shade, marker = style.colours(values or names), style.markers(values or names)
        ax.axhline(neutral, color=style.INK, linewidth=0.8)
        for place, name in enumerate(names):
            shift = 1.045 ** (place - (len(names) - 1) / 2)
            own = frame.filter(pl.col(by) == name).sort(x)
            middle = own["value"].to_numpy()
            bars = [middle - own["low"].to_numpy(), own["high"].to_numpy() - middle]
            if dots is not None:
                some = dots.filter(pl.col(by) == name)
                ax.scatter(some[x].to_numpy() * shift, some["value"].to_numpy(), s=5, c=shade[name], alpha=0.35, linewidths=0)
            ax.errorbar(
                own[x].to_numpy() * shift, middle, bars, color=shade[name], marker=marker[name], markersize=4.5, capsize=2.5,
                linestyle="none", elinewidth=1.1, label=name.replace("_", " "),
            )  # fmt: skip
        style.log_axis(ax.xaxis, frame[x].to_list(), exact=True)
        # as many ticks whatever the height, which the layout changes after it has measured their labels
        ax.yaxis.set_major_locator(MaxNLocator(6))
        if logarithmic:
            shown = frame if dots is None else dots
            style.log_axis(ax.yaxis, [*shown["value"].to_list(), *frame["low"].to_list(), *frame["high"].to_list()])
        ax.set_xlabel(style.label(x))
        ax.set_ylabel(y_label)
        style.legend(ax, below=True)
        style.title(ax, title)
        if not len(frame):
            style.note(ax, "nothing to compare")
    style.remember(ax, frame)
    return ax
