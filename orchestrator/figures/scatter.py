"""One number of runs against another, a colour a method."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.figures import style

if TYPE_CHECKING:
    import polars as pl


def scatter(
    frame: "pl.DataFrame",
    *,
    x: str,
    y: str,
    by: str,
    values: Sequence[str] = (),
    title: str = "",
    x_label: str = "",
    y_label: str = "",
    ax: Any = None,
) -> Any:
    """`frame` has a row a point, columns `x`, `y` and `by`; rows without a finite pair are not drawn."""
    import polars as pl
    from matplotlib.ticker import MaxNLocator

    good = frame.filter(pl.col(x).is_finite() & pl.col(y).is_finite())
    names = [name for name in values or sorted(frame[by].unique().to_list()) if name in set(good[by])]
    with style.styled():
        ax = style.axes(ax)
        shade, marker = style.colours(values or names), style.markers(values or names)
        for name in names:
            own = good.filter(pl.col(by) == name)
            drawn = ax.scatter(
                own[x].to_numpy(), own[y].to_numpy(), s=14, c=shade[name], marker=marker[name], linewidths=0, alpha=0.8,
                label=name.replace("_", " "),
            )  # fmt: skip
            style.tips(ax, drawn, [f"{name}: {style.label(x)} {a:.4g}, {style.label(y)} {b:.4g}" for a, b in own.select(x, y).rows()])
        # as many ticks whatever the height, which the layout changes after it has measured their labels
        ax.yaxis.set_major_locator(MaxNLocator(6))
        ax.set_xlabel(x_label or style.label(x))
        ax.set_ylabel(y_label or style.label(y))
        style.legend(ax, below=True)
        style.title(ax, title)
        if not len(good):
            style.note(ax, "no run with both values")
    style.remember(ax, good)
    return ax
