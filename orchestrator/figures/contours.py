"""Contours of the loss over model size and data size, with the runs and the compute-optimal path."""

from typing import TYPE_CHECKING, Any

from orchestrator.figures import compute_optimal, equations, style
from orchestrator.figures.compute_optimal import FLOPS_PER_PARAMETER_AND_TOKEN

if TYPE_CHECKING:
    from orchestrator.fit import Fit

_GRID = 80
_LEVELS = 10


def contours(fit: "Fit", *, flops: float = FLOPS_PER_PARAMETER_AND_TOKEN, y_label: str = "", ax: Any = None) -> Any:
    """Lines of equal loss by a law of n and d, the runs coloured by their own loss, and the best n for each compute, dashed beyond the
    data. The data have a column `kind`: run, optimum."""
    import numpy as np
    import polars as pl

    compute_optimal.check_sizes(fit, "contours")
    n, d = fit.columns["n"], fit.columns["d"]
    runs = fit.residuals().rename({"observed": fit.y})
    size, data = (_reach(runs[name].to_list()) for name in (n, d))
    with style.styled():
        ax = style.axes(ax, style.TALL_INCHES)
        colour = style.colour_bar(ax, runs[fit.y].to_list(), y_label or style.label(fit.y))
        n_GG, d_GG = np.meshgrid(size, data)
        loss_GG = fit.predict(**compute_optimal.point(fit, n_GG.ravel(), d_GG.ravel())).reshape(n_GG.shape)
        levels = _levels(fit, runs[fit.y].to_list(), float(loss_GG.min()), float(loss_GG.max()))
        lines = ax.contour(n_GG, d_GG, loss_GG, levels=levels, colors=[colour(level) for level in levels], linewidths=0.9)
        for axis, values, name in ((ax.xaxis, size, n), (ax.yaxis, data, d)):
            style.log_axis(axis, values)
            style.limit(axis, values, 0.0)
            axis.set_label_text(style.label(name))
        _label(ax, lines, fit, size, data)
        low, high = (flops * float((runs[n] * runs[d]).min()), flops * float((runs[n] * runs[d]).max()))  # type: ignore[arg-type]
        path = compute_optimal.frontier(fit, np.geomspace(low, high * (high / low) ** 0.15, 100), flops=flops)
        _path(ax, path, high)
        dots = ax.scatter(
            runs[n].to_numpy(), runs[d].to_numpy(), s=16, c=colour(runs[fit.y].to_numpy()), edgecolors="white", linewidths=0.4, zorder=4
        )
        style.tips(ax, dots, [", ".join(f"{name} {value:.5g}" for name, value in row.items()) for row in runs.to_dicts()])
        ax.legend(loc="upper left", handlelength=1.5, frameon=True, framealpha=0.9, edgecolor="none")
        equations.write(ax, fit, extra=("a",))
        style.title(ax, _finding(fit, path, high))
    best = pl.DataFrame({n: path.n_M, d: path.d_M, fit.y: path.loss_M, "low": path.low_M, "high": path.high_M, "compute": path.c_M})
    style.remember(ax, pl.concat([runs.with_columns(kind=pl.lit("run")), best.with_columns(kind=pl.lit("optimum"))], how="diagonal"))
    return ax


def _reach(values: list[float]) -> Any:
    """The range of the runs, and a little beside."""
    import numpy as np

    beside = max((max(values) / min(values)) ** 0.06, 1.1)
    return np.geomspace(min(values) / beside, max(values) * beside, _GRID)


def _levels(fit: "Fit", losses: list[float], low: float, high: float) -> list[float]:
    """Even in the logarithm of the reducible loss, so that lines do not crowd at small runs; rounded to three digits."""
    import numpy as np

    floor = min(fit.parameters["E"].value if "E" in fit.parameters else 0.0, 0.999 * min(low, *losses))
    inside = np.geomspace(max(low, min(losses)) - floor, min(high, max(losses)) - floor, _LEVELS) + floor
    return sorted({float(f"{level:.3g}") for level in inside})


def _label(ax: Any, lines: Any, fit: "Fit", size: Any, data: Any) -> None:
    """Each level once, where it crosses one of two lines beside the diagonal, on which most runs lie."""
    import numpy as np

    share = np.linspace(0, 1, 200)
    places = []
    for start, end in (((0.45, 0.04), (0.96, 0.7)), ((0.04, 0.45), (0.7, 0.96))):
        n_M, d_M = (
            np.exp(np.interp(a + (b - a) * share, np.linspace(0, 1, _GRID), np.log(values)))
            for a, b, values in zip(start, end, (size, data), strict=True)
        )
        places.append((n_M, d_M, fit.predict(**compute_optimal.point(fit, n_M, d_M))))
    for level in lines.levels:
        crossed = [(n_M, d_M, loss_M) for n_M, d_M, loss_M in places if loss_M.min() < level < loss_M.max()]
        if crossed:
            at = int(np.abs(crossed[0][2] - level).argmin())
            spot = [(float(crossed[0][0][at]), float(crossed[0][1][at]))]
            ax.clabel(lines, levels=[level], fmt=lambda value: f"{value:.3g}", fontsize=6, inline=False, colors=style.INK, manual=spot)
    for text in lines.labelTexts:
        text.set(bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85}, zorder=5, rotation=0)


def _path(ax: Any, path: Any, end: float) -> None:
    inside = path.c_M <= end
    look = {"color": style.INK, "linewidth": 1.5, "zorder": 3}
    ax.plot(path.n_M[inside], path.d_M[inside], label="compute-optimal", **look)
    ax.plot(path.n_M[~inside], path.d_M[~inside], linestyle=(0, (2, 1.5)), **look)


def _finding(fit: "Fit", path: Any, end: float) -> str:
    import numpy as np

    at = int(np.searchsorted(path.c_M, end, side="right")) - 1
    return f"Compute-optimal d / n is {path.d_M[at] / path.n_M[at]:.3g} at the largest compute of the runs"
