"""Densities of a number, a line a group, with the standard error over trainings as band."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.figures import style

if TYPE_CHECKING:
    import polars as pl


def density_curves(
    frame: "pl.DataFrame", *, by: str, x_label: str, heading: str = "", title: str = "", marks: Sequence[float] = (), ax: Any = None
) -> Any:
    """`frame` has the columns `by`, x, value, low and high of `swarm.densities.of_groups`; `marks`: places along x, dotted."""
    import polars as pl
    from matplotlib.ticker import MaxNLocator

    names = sorted(frame[by].unique().to_list(), key=lambda one: (isinstance(one, str), one))
    with style.styled():
        ax = style.axes(ax)
        shade = style.colours(names)
        for at in marks:
            ax.axvline(at, color=style.CATEGORIES[7], linewidth=0.9, linestyle=":")
        for name in names:
            own = frame.filter(pl.col(by) == name)
            x, low, middle, high = (own[column].to_numpy() for column in ("x", "low", "value", "high"))
            label = style.said(name)
            ax.fill_between(x, low.clip(0), high, color=shade[name], alpha=0.18, linewidth=0)
            ax.plot(x, middle, color=shade[name], label=label)
        ax.set_ylim(bottom=0)
        ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        ax.set_xlabel(x_label)
        ax.set_ylabel("density (1/µm)")
        style.legend(ax, heading)
        style.title(ax, title)
        if frame.is_empty():
            style.note(ax, "no agent to show")
    style.remember(ax, frame)
    return ax
