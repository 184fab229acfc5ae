"""How often trainings succeed over two axes: a dot a point coloured by its share, with boundaries that theory draws."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.figures import style

if TYPE_CHECKING:
    import polars as pl

_LOOKS = ("-", "--", ":")


def onset(
    frame: "pl.DataFrame",
    *,
    x: str,
    y: str,
    boundaries: "Mapping[str, tuple[Any, Any]] | None" = None,
    title: str = "",
    x_label: str = "",
    y_label: str = "",
    ax: Any = None,
) -> Any:
    """`frame` has columns `x`, `y`, successes, trials and value; `boundaries`: name -> x and y of a line. No success: an open dot."""
    import polars as pl
    from matplotlib.ticker import MaxNLocator

    with style.styled():
        ax = style.axes(ax, (4.6, 3.4))
        good = frame.filter(pl.col("trials") > 0)
        none, some = good.filter(pl.col("successes") == 0), good.filter(pl.col("successes") > 0)
        ax.scatter(none[x].to_numpy(), none[y].to_numpy(), s=16, facecolors="none", edgecolors=style.CATEGORIES[7], linewidths=0.7)
        dots = ax.scatter(
            some[x].to_numpy(), some[y].to_numpy(), s=30, c=some["value"].to_numpy(), cmap="viridis_r", vmin=0, vmax=1, linewidths=0
        )
        columns = some.select(x, y, "successes", "trials").rows()
        style.tips(ax, dots, [f"{x} {a:g}, {y} {b:g}: {k} of {n} trainings" for a, b, k, n in columns])
        for look, (name, (places, heights)) in zip(_LOOKS, (boundaries or {}).items()):
            ax.plot(places, heights, color=style.CATEGORIES[1], linewidth=1.3, linestyle=look, label=name)
        bar = ax.figure.colorbar(dots, ax=ax, pad=0.02, aspect=28)
        bar.set_label("share of trainings that succeed", fontsize=7.5)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=7)
        ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
        ax.set_xlabel(x_label or style.label(x))
        ax.set_ylabel(y_label or style.label(y))
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
        style.title(ax, title, margin=1.5)
    style.remember(ax, frame)
    return ax
