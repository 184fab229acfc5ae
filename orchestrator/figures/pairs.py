"""Resampled fits, each parameter against each other: which of them the data can tell only together."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.figures import equations, style
from orchestrator.figures.equations import symbol
from workers.errors import ConfigError, UnknownName, nearest

if TYPE_CHECKING:
    from orchestrator.fit import Fit

_MOST_DOTS = 1500
_PANEL_INCHES = 1.15
# largest over least value, above which an axis is logarithmic
_WIDE = 30.0


def pairs(fit: "Fit", parameters: Sequence[str] | None = None, *, ax: Any = None) -> Any:
    """A dot a resample below the diagonal, histograms on it, the fit as a cross and a line. `ax` is the host: it keeps the title, and the
    grid stands in insets, `ax.child_axes`. By default the law's own parameters. Raises ConfigError where there are no resamples."""
    frame = fit.replicates()
    names = list(parameters) if parameters is not None else [name for name in fit.parameters if name not in fit.fixed]
    best = {name: one.value for name, one in {**fit.parameters, **fit.derived}.items()}
    for name in names:
        if name not in best:
            raise UnknownName(f"no parameter {name!r}{nearest(name, list(best))} The {fit.law.plugin_name()} law has {', '.join(best)}")
    if not len(frame):
        raise ConfigError(f"no resamples to draw: {fit.interval_method()}; fit with num_bootstrap=1000 and runs enough")
    if len(names) < 2:
        raise ConfigError(f"a pair plot needs two free parameters, got {', '.join(names) or 'none'}")
    frame = frame.select(names)
    with style.styled():
        side = max(3.5, _PANEL_INCHES * len(names) + 0.8)
        ax = style.axes(ax, (side, side if len(names) > 3 else side + 0.7))
        grid = style.panels(ax, [1.0] * len(names), len(names))
        for i, row in enumerate(grid):
            for j, part in enumerate(row):
                if j > i:
                    part.remove()
                    continue
                _panel(part, frame, names[j], names[i], best)
                _labels(part, i, j, names, frame)
        if len(names) > 3:
            equations.write(ax, fit, corner="right")
        else:
            equations.write(ax, fit, drop=48)
        style.title(ax, _finding(frame, names))
    style.remember(ax, frame)
    return ax


def _panel(part: Any, frame: Any, x: str, y: str, best: dict[str, float]) -> None:
    import numpy as np

    part.axvline(best[x], color=style.CATEGORIES[1], linewidth=0.9, zorder=1 if x != y else 3)
    if x == y:
        values = frame[x].to_numpy()
        ends = float(values.min()), float(values.max())
        part.hist(values, bins=np.geomspace(*ends, 31) if _wide(values) else 30, color=style.CATEGORIES[0], alpha=0.7)
        return
    part.axhline(best[y], color=style.CATEGORIES[1], linewidth=0.9, zorder=1)
    some = frame.head(_MOST_DOTS)
    part.scatter(some[x].to_numpy(), some[y].to_numpy(), s=3, c=style.CATEGORIES[0], alpha=0.35, linewidths=0, rasterized=len(some) > 500)
    part.plot([best[x]], [best[y]], marker="P", color=style.CATEGORIES[1], markersize=5, markeredgecolor="white", markeredgewidth=0.5)
    part.annotate(
        f"{_correlation(frame, x, y):+.2f}", (0.97, 0.95), xycoords="axes fraction", ha="right", va="top", fontsize=6,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8},
    )  # fmt: skip


def _wide(values: Any) -> bool:
    """Whether an axis must be logarithmic."""
    return bool(values.min() > 0 and values.max() / values.min() > _WIDE)


def _labels(part: Any, i: int, j: int, names: Sequence[str], frame: Any) -> None:
    """Numbers and names at the left and the bottom only; no counts on the histograms."""
    from matplotlib.ticker import MaxNLocator

    for axis, name in ((part.xaxis, names[j]), (part.yaxis, names[i])):
        values = frame[name].to_numpy()
        if axis is part.yaxis and i == j:
            axis.set_ticks([])
        elif _wide(values):
            style.log_axis(axis, [float(values.min()), float(values.max())])
            axis.set_ticks([tick for k, tick in enumerate(axis.get_major_locator().locs) if k % 2 == 0])
        else:
            axis.set_major_locator(MaxNLocator(3))
    part.tick_params(labelsize=6.5, labelbottom=i == len(names) - 1, labelleft=j == 0)
    part.tick_params(axis="x", rotation=30)
    part.grid(visible=False)
    if i == len(names) - 1:
        part.set_xlabel(symbol(names[j]))
    if j == 0:
        part.set_ylabel(symbol(names[i]))


def _correlation(frame: Any, x: str, y: str) -> float:
    """Of the logarithms where the axis is logarithmic."""
    import numpy as np

    one, other = (np.log(values) if _wide(values) else values for values in (frame[x].to_numpy(), frame[y].to_numpy()))
    return float(np.corrcoef(one, other)[0, 1]) if one.std() > 0 and other.std() > 0 else 0.0


def _finding(frame: Any, names: Sequence[str]) -> str:
    each = [(x, y, _correlation(frame, x, y)) for i, y in enumerate(names) for x in names[:i]]
    x, y, value = max(each, key=lambda one: abs(one[2]))
    told = "can hardly be told apart" if abs(value) > 0.95 else "are the most correlated"
    return f"{symbol(x)} and {symbol(y)} {told}: correlation {value:+.2f} over {len(frame)} resamples"
