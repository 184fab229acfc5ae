"""The compute-optimal size against compute, with its power law and what that says beyond the data."""

from typing import TYPE_CHECKING, Any

from orchestrator.figures import equations, style
from orchestrator.figures.isoflop import check_budgets

if TYPE_CHECKING:
    from orchestrator.isoflop import Isoflops

# of the decades of compute, how far the line is drawn beyond them
_BEYOND = 0.5


def optimum(found: "Isoflops", *, until: float | None = None, n_label: str = "", ax: Any = None) -> Any:
    """Minima with their intervals, hollow where no minimum is inside, and the line through the others, dashed to the compute `until`.
    `n_label`: what n is, with its unit."""
    import math

    import polars as pl

    check_budgets(found)
    known = [one for one in found.curves if math.isfinite(one.n_star)]
    c, n = found.columns["c"], found.columns["n"]
    rows = [{c: one.c, n: one.n_star, "low": one.n_low, "high": one.n_high, "inside": bool(one.inside)} for one in known]
    frame = pl.DataFrame(rows, schema={c: pl.Float64, n: pl.Float64, "low": pl.Float64, "high": pl.Float64, "inside": pl.Boolean})
    with style.styled():
        ax = style.axes(ax, style.TALL_INCHES)
        inside = frame.filter(pl.col("inside"))
        drawn_x = frame[c].to_list()
        if found.fit is not None:
            drawn_x = [*drawn_x, _line(ax, found, until)]
            equations.write(ax, found.fit, known={"slope": found.exponent})
        _points(ax, inside, frame.filter(~pl.col("inside")), c, n)
        style.log_axis(ax.xaxis, drawn_x)
        style.log_axis(ax.yaxis, [*frame[n].to_list(), *([float(found.fit.predict(max(drawn_x))[0])] if found.fit else [])])
        ax.set_xlabel(style.label(c))
        ax.set_ylabel(f"compute-optimal {n_label or style.label(n)}")
        style.title(ax, _finding(found, len(inside), style.subject(n_label or style.label(n))))
        if not len(frame):
            style.note(ax, "no minimum of any budget")
    style.remember(ax, frame)
    return ax


def _line(ax: Any, found: "Isoflops", until: float | None) -> float:
    """Draw the line, and return where it ends."""
    import numpy as np

    line = found.fit
    assert line is not None
    end = max(until or line.x_max * (line.x_max / line.x_min) ** _BEYOND, line.x_max)
    for low, high, dashes in ((line.x_min, line.x_max, "-"), (line.x_max, end, (0, (2, 1.5)))):
        x = np.geomspace(low, high, 60)
        below, above = _band(found, x)
        ax.fill_between(x, below, above, color=style.CATEGORIES[0], alpha=0.16, linewidth=0)
        ax.plot(x, line.predict(x), color=style.CATEGORIES[0], linestyle=dashes)
    return float(end)


def _band(found: "Isoflops", x: Any) -> tuple[Any, Any]:
    """That of the fit; where it has none, the line turned about its centre by the exponent's interval."""
    import numpy as np

    line = found.fit
    assert line is not None
    low, high = line.band(x)
    if np.isfinite(low).all():
        return low, high
    slope, exponent = line.parameters["slope"].value, found.exponent
    ways = [line.predict(x) * (x / line.x0) ** (bound - slope) for bound in (exponent.low, exponent.high)]
    return np.minimum(*ways), np.maximum(*ways)


def _points(ax: Any, inside: Any, outside: Any, c: str, n: str) -> None:
    look = {"marker": "D", "linewidths": 0.8, "edgecolors": style.INK, "zorder": 4, "s": 24}
    for low, high, x in inside.select("low", "high", c).rows():
        ax.plot([x, x], [low, high], color=style.INK, linewidth=1.0, zorder=3)
    for part, face, entry in ((inside, style.CATEGORIES[0], "minimum"), (outside, "white", "no minimum inside: left out")):
        if len(part):
            dots = ax.scatter(part[c].to_numpy(), part[n].to_numpy(), facecolors=face, label=entry, **look)
            style.tips(
                ax, dots, [f"{c} {x:.4g}, best {n} {y:.4g} [{low:.4g}, {high:.4g}]" for x, y, low, high in part.drop("inside").rows()]
            )
    if len(inside) or len(outside):
        ax.legend(loc="lower right", handletextpad=0.2)


def _finding(found: "Isoflops", num_inside: int, what: str) -> str:
    if found.fit is None:
        return f"No power law of the best {what}: {num_inside} budgets have a minimum inside"
    return f"Compute-optimal {what} grow as compute to the {found.exponent.text()}"
