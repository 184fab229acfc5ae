"""pi(a | o) as a surface over what is observed and another number, such as the radius: a panel an action."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.figures import style
from orchestrator.figures.policy_curves import ACTIONS

if TYPE_CHECKING:
    import polars as pl


def policy_surface(
    frame: "pl.DataFrame", *, y: str, title: str = "", y_label: str = "", actions: Mapping[str, str] = ACTIONS, ax: Any = None
) -> Any:
    """`frame` has columns `y`, observation, action and value; what is not in it stays white. `ax` keeps the title."""
    import numpy as np
    import polars as pl

    heights = sorted(frame[y].unique().to_list())
    observations = sorted(frame["observation"].unique().to_list())
    with style.styled():
        ax = style.axes(ax, style.WIDE_INCHES)
        grid = style.panels(ax, [1.0], len(actions), gap=0.025)[0]
        drawn = None
        for panel, (action, said) in zip(grid, actions.items(), strict=True):
            surface = np.full((len(heights), len(observations)), np.nan)
            for row in frame.filter(pl.col("action") == action).iter_rows(named=True):
                surface[heights.index(row[y]), observations.index(row["observation"])] = row["value"]
            drawn = panel.pcolormesh(_edges(observations), _edges(heights), surface, vmin=0, vmax=1, cmap="viridis", rasterized=True)
            panel.tick_params(labelleft=panel is grid[0], labelsize=7)
            panel.grid(visible=False)
            panel.text(0.5, 1.02, said, transform=panel.transAxes, ha="center", va="bottom", fontsize=7.5)
        grid[0].set_ylabel(y_label or style.label(y))
        ax.text(0.5, -0.15, "observed change of concentration", transform=ax.transAxes, ha="center", va="top", fontsize=8)
        scale = ax.inset_axes([1.02, 0.0, 0.018, 1.0])
        scale.figure.colorbar(drawn, cax=scale).set_label("probability", fontsize=7.5)
        scale.tick_params(labelsize=7)
        style.title(ax, title)
        ax.set_title(ax.get_title(loc="left"), loc="left", pad=16)
    style.remember(ax, frame)
    return ax


def _edges(centres: "list[float]") -> "list[float]":
    """Of cells around ascending places."""
    if len(centres) < 2:
        return [centres[0] - 0.5, centres[0] + 0.5]
    inner = [(a + b) / 2 for a, b in zip(centres, centres[1:], strict=False)]
    return [2 * centres[0] - inner[0], *inner, 2 * centres[-1] - inner[-1]]
