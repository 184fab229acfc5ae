"""pi(a | o): how probable each action is by what is observed, a line a group."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.figures import style

if TYPE_CHECKING:
    import polars as pl

ACTIONS = {"ccw": "turn counter-clockwise", "forward": "swim", "cw": "turn clockwise", "nothing": "nothing"}
# of policies whose more frequent turn is called ccw
FOLDED = {**ACTIONS, "ccw": "the preferred turn", "cw": "the other turn"}
_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


def policy_curves(
    frame: "pl.DataFrame", *, by: str, title: str = "", heading: str = "", actions: Mapping[str, str] = ACTIONS, ax: Any = None
) -> Any:
    """`frame` has columns `by`, observation, action, value, low and high; `ax` keeps the title, the `actions` stand in insets."""
    import polars as pl

    names = sorted(frame[by].unique().to_list(), key=lambda one: (isinstance(one, str), one))
    with style.styled():
        ax = style.axes(ax, style.WIDE_INCHES)
        grid = style.panels(ax, [1.0], len(actions), gap=0.025)[0]
        shade = style.colours(names)
        for panel, (action, said) in zip(grid, actions.items(), strict=True):
            for place, name in enumerate(names):
                own = frame.filter((pl.col(by) == name) & (pl.col("action") == action)).sort("observation")
                x, low, middle, high = (own[column].to_numpy() for column in ("observation", "low", "value", "high"))
                panel.fill_between(x, low.clip(0, 1), high.clip(0, 1), color=shade[name], alpha=0.15, linewidth=0)
                label = style.said(name)
                panel.plot(x, middle, color=shade[name], linestyle=_DASHES[place % len(_DASHES)], label=label)
            panel.axvline(0.0, color=style.INK, linewidth=0.6)
            panel.set_ylim(-0.03, 1.03)
            panel.tick_params(labelleft=panel is grid[0], labelsize=7)
            panel.text(0.5, 1.02, said, transform=panel.transAxes, ha="center", va="bottom", fontsize=7.5)
        grid[0].set_ylabel("probability")
        ax.text(0.5, -0.15, "observed change of concentration", transform=ax.transAxes, ha="center", va="top", fontsize=8)
        grid[-1].legend(title=heading or None, loc="center left", bbox_to_anchor=(1.02, 0.5), alignment="left")
        style.title(ax, title)
        ax.set_title(ax.get_title(loc="left"), loc="left", pad=16)
    style.remember(ax, frame)
    return ax
