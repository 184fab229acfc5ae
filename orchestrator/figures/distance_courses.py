"""How far agents are from the source along time: the mean over trainings and its standard error, a line a group."""

from typing import TYPE_CHECKING, Any

from orchestrator.figures import style

if TYPE_CHECKING:
    import polars as pl

# points of a line
_MOST = 400


def distance_courses(
    frame: "pl.DataFrame",
    *,
    by: str,
    heading: str = "",
    title: str = "",
    x: str = "seconds",
    x_label: str = "time (s)",
    logarithmic: bool = True,
    until: float | None = None,
    ax: Any = None,
) -> Any:
    """`frame` has a row a place along `x` and group: columns `by`, `x`, value, low and high (um); `until` cuts the axis."""
    import polars as pl
    from matplotlib.ticker import MaxNLocator

    shown = frame if until is None else frame.filter(pl.col(x) <= until)
    names = sorted(shown[by].unique().to_list(), key=lambda one: (isinstance(one, str), one))
    with style.styled():
        ax = style.axes(ax)
        shade = style.colours(names)
        for name in names:
            own = shown.filter(pl.col(by) == name).sort(x)
            own = own.gather_every(max(1, len(own) // _MOST))
            at, low, middle, high = (own[column].to_numpy() for column in (x, "low", "value", "high"))
            label = style.said(name)
            ax.fill_between(at, low, high, color=shade[name], alpha=0.2, linewidth=0)
            ax.plot(at, middle, color=shade[name], linewidth=1.0, label=label)
        ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        if logarithmic:
            style.log_axis(ax.yaxis, shown.filter(pl.col("value") > 0)["value"].to_list())
        ax.set_xlabel(x_label)
        ax.set_ylabel("mean distance to source (µm)")
        style.legend(ax, heading)
        style.title(ax, title)
        if shown.is_empty():
            style.note(ax, "no course to show")
    style.remember(ax, shown)
    return ax
