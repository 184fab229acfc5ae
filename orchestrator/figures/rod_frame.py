"""Where agents stand in the frame that turns with a rod: a histogram a group, the rod drawn over it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.figures import style

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


def rod_frame(shares: "Mapping[str, tuple[Array, Array]]", *, length: float, title: str = "", ax: Any = None) -> Any:
    """`shares`: name of the panel -> edges (U + 1,) in um and shares (U, U) along and across; `length`: of the rod; `ax`: the host."""
    import numpy as np
    import polars as pl

    columns = min(max(len(shares), 1), 3)
    lines = -(-max(len(shares), 1) // columns)
    with style.styled():
        ax = style.axes(ax, (7.0, 0.8 + 2.5 * lines))
        grid = [panel for row in style.panels(ax, [1.0] * lines, columns, gap=0.09 if lines > 1 else 0.05) for panel in row]
        densities = {name: own / np.diff(edges)[0] ** 2 for name, (edges, own) in shares.items()}
        most = max((float(np.quantile(own[own > 0], 0.99)) if (own > 0).any() else 1.0 for own in densities.values()), default=1.0)
        drawn = None
        for panel, (name, (edges, _)) in zip(grid, shares.items()):
            drawn = panel.pcolormesh(
                edges, edges, np.where(densities[name] > 0, densities[name], np.nan).T, cmap="magma_r", vmin=0, vmax=most, rasterized=True
            )
            panel.plot([-length / 2, length / 2], [0, 0], color=style.CATEGORIES[5], linewidth=2.0, solid_capstyle="round")
            panel.set_aspect("equal")
            panel.grid(visible=False)
            panel.tick_params(labelsize=6.5)
            panel.text(0.5, 1.02, name, transform=panel.transAxes, ha="center", va="bottom", fontsize=7.5)
        for panel in grid[len(shares) :]:
            panel.set_axis_off()
        for place, panel in enumerate(grid[: len(shares)]):
            panel.tick_params(labelleft=place % columns == 0)
        if drawn is not None:
            scale = ax.inset_axes([1.02, 0.0, 0.015, 1.0])
            ax.figure.colorbar(drawn, cax=scale).set_label("share of time (1/µm²)", fontsize=7.5)
            scale.tick_params(labelsize=6.5)
        ax.text(0.5, -0.1 / lines - 0.06, "along the rod (µm)", transform=ax.transAxes, ha="center", va="top", fontsize=8)
        ax.text(-0.08, 0.5, "across (µm)", transform=ax.transAxes, ha="right", va="center", rotation=90, fontsize=8)
        style.title(ax, title)
        ax.set_title(ax.get_title(loc="left"), loc="left", pad=16)
    style.remember(ax, pl.concat([_rows(name, *own) for name, own in shares.items()]) if shares else pl.DataFrame())
    return ax


def _rows(name: str, edges: "Array", shares: "Array") -> Any:
    """Of the squares where agents were."""
    import numpy as np
    import polars as pl

    centres = (edges[1:] + edges[:-1]) / 2
    along, across = np.nonzero(shares)
    return pl.DataFrame({"group": [name] * len(along), "along": centres[along], "across": centres[across], "share": shares[along, across]})
