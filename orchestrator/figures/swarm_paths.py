"""Where the agents of single runs went: a panel a run, a colour an agent, with the source and a bar of length."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.figures import style

if TYPE_CHECKING:
    import polars as pl


def swarm_paths(
    runs: "Mapping[str, pl.DataFrame]", *, title: str = "", source: tuple[float, float] | None = (0.0, 0.0), ax: Any = None
) -> Any:
    """`runs`: name of the panel -> positions with the columns frame, agent, x and y (um), all on one scale; `ax` keeps the title."""
    import polars as pl

    with style.styled():
        ax = style.axes(ax, (3.5 * max(len(runs), 1), 3.6) if len(runs) < 3 else (7.0, 3.0))
        grid = style.panels(ax, [1.0], max(len(runs), 1), gap=0.04)[0]
        half = _half_width(list(runs.values()))
        for panel, (name, frame) in zip(grid, runs.items()):
            for place, (_, own) in enumerate(sorted(frame.partition_by(["agent"], as_dict=True).items())):
                own = own.sort("frame")
                colour = style.CATEGORIES[place % len(style.CATEGORIES)]
                panel.plot(own["x"].to_numpy(), own["y"].to_numpy(), color=colour, linewidth=0.7, alpha=0.85, rasterized=len(own) > 2000)
                panel.plot(own["x"][0], own["y"][0], marker="o", color=colour, markersize=2.5, linestyle="none")
            if source is not None:
                panel.plot(*source, marker="*", color=style.INK, markersize=8, linestyle="none", zorder=5)
            _frame(panel, name, half)
        style.title(ax, title)
        ax.set_title(ax.get_title(loc="left"), loc="left", pad=16)
    parts = [frame.select("frame", "agent", "x", "y").with_columns(run=pl.lit(name)) for name, frame in runs.items()]
    style.remember(ax, pl.concat(parts) if parts else pl.DataFrame())
    return ax


def _half_width(frames: "list[pl.DataFrame]") -> float:
    """Of a square about the origin that holds all paths."""
    return 1.05 * max((float(frame[name].abs().max() or 0.0) for frame in frames for name in ("x", "y")), default=1.0) or 1.0  # type: ignore[arg-type]


def _frame(panel: Any, name: str, half: float) -> None:
    """No numbers along the sides, but a bar of a round length."""
    panel.set(xlim=(-half, half), ylim=(-half, half), xticks=[], yticks=[])
    panel.set_aspect("equal", adjustable="box")
    panel.grid(visible=False)
    for side in ("top", "right"):
        panel.spines[side].set_visible(True)
    bar = round_length(0.5 * half)
    panel.plot([-0.92 * half, -0.92 * half + bar], [-0.9 * half] * 2, color=style.INK, linewidth=2.0, solid_capstyle="butt")
    panel.text(-0.92 * half + bar / 2, -0.87 * half, f"{bar:g} µm", ha="center", va="bottom", fontsize=7)
    panel.text(0.5, 1.02, name, transform=panel.transAxes, ha="center", va="bottom", fontsize=7.5)


def round_length(most: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is at most `most`."""
    import math

    power = 10.0 ** math.floor(math.log10(most))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= most * 1.0000001)
