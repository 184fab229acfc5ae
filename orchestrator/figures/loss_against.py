"""Loss against one variable of a law of several, or against compute: the runs, the law at some values of the other, the frontier."""

# N runs, M points of a curve

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from orchestrator.figures import compute_optimal, equations, style
from orchestrator.figures.compute_optimal import FLOPS_PER_PARAMETER_AND_TOKEN
from workers.errors import ConfigError, UnknownName

if TYPE_CHECKING:
    import polars as pl

    from orchestrator.fit import Fit

COMPUTE = "c"
_CURVES = 5
_POINTS = 120
# how far beyond the data the frontier is drawn, as a share of their decades
_BEYOND = 0.15


def loss_against(
    fit: "Fit",
    variable: str,
    *,
    flops: float = FLOPS_PER_PARAMETER_AND_TOKEN,
    y_label: str = "",
    ax: Any = None,
) -> Any:
    """One dot a run against `variable` of the law, or against compute "c" = flops n d where the law has n and d, coloured by the other one.

    Curves: the law at some values of the other variable, over the runs' range. Against compute also the least loss that the law allows,
    with its band, dashed beyond the data, and the runs on the lower envelope. The data have a column `kind`: run, law, frontier.
    """
    other = _other(fit, variable)
    runs = _runs(fit, variable, other, flops)
    x, z = _column(fit, variable), fit.columns[other]
    curves = _law_rows(fit, variable, other, runs, flops)
    optimum = _frontier_rows(fit, runs[x], flops, x) if variable == COMPUTE and compute_optimal.has_sizes(fit) else None
    with style.styled():
        ax = style.axes(ax, style.TALL_INCHES)
        colour = style.colour_bar(ax, runs[z].to_list(), style.label(z))
        for _, curve in curves.group_by(z, maintain_order=True):
            ax.plot(curve[x].to_numpy(), curve[fit.y].to_numpy(), color=colour(curve[z][0]), linewidth=1.0)
        _dots(ax, runs, x, z, fit.y, colour)
        if optimum is not None:
            _frontier(ax, optimum, runs, x, fit.y)
        style.log_axis(ax.xaxis, runs[x].to_list())
        style.log_axis(ax.yaxis, runs[fit.y].to_list())
        style.limit(ax.yaxis, [*runs[fit.y].to_list(), *(optimum[fit.y].to_list() if optimum is not None else [])])
        ax.set_xlabel(f"compute {flops:g} n d (FLOPs)" if optimum is not None else style.label(x))
        ax.set_ylabel(y_label or style.label(fit.y))
        equations.write(ax, fit, extra=("a",) if optimum is not None else ())
        style.title(ax, _finding(fit, variable, other, optimum is not None))
    style.remember(ax, _together(runs, curves, optimum))
    return ax


def _other(fit: "Fit", variable: str) -> str:
    """The variable that gives the colour."""
    allowed = [*fit.columns, *([COMPUTE] if compute_optimal.has_sizes(fit) and COMPUTE not in fit.columns else [])]
    if variable not in allowed:
        raise UnknownName(f"no variable {variable!r} of the {fit.law.plugin_name()} law; there are {', '.join(allowed)}")
    others = [name for name in fit.columns if name != variable]
    if not others:
        raise ConfigError(f"the {fit.law.plugin_name()} law has one variable, {variable}: draw it with fit.plot()")
    return others[0]


def _column(fit: "Fit", variable: str) -> str:
    return fit.columns.get(variable, "compute")


def _runs(fit: "Fit", variable: str, other: str, flops: float) -> "pl.DataFrame":
    """The runs of the fit, with compute where that is asked for."""
    import polars as pl

    frame = fit.residuals().rename({"observed": fit.y})
    if variable == COMPUTE and COMPUTE not in fit.columns:
        frame = frame.with_columns(compute=flops * pl.col(fit.columns["n"]) * pl.col(fit.columns["d"]))
    columns = [_column(fit, variable), *(one for one in fit.columns.values() if one != _column(fit, variable)), fit.y, "predicted"]
    return frame.select(columns).with_columns(kind=pl.lit("run"))


def _levels(values: Iterable[float]) -> list[float]:
    """At most five: of the runs' own where these are few, else even in logarithms within their range."""
    import numpy as np

    known = sorted(set(values))
    if len(known) <= 12:
        return [float(value) for value in style.thinned(known, _CURVES)]
    low, high = np.quantile(np.log(known), [0.02, 0.98])
    return [float(value) for value in np.exp(np.linspace(low, high, _CURVES))]


def _law_rows(fit: "Fit", variable: str, other: str, runs: "pl.DataFrame", flops: float) -> "pl.DataFrame":
    """The law along `variable` at levels of `other`; further variables in the middle of their range, unique data as many as are seen."""
    import numpy as np
    import polars as pl

    x, z = _column(fit, variable), fit.columns[other]
    parts = []
    for level in _levels(runs[z].to_list()):
        near = runs.filter((pl.col(z).log() - float(np.log(level))).abs() < 0.7)
        reach = near if len(near) > 1 else runs
        x_M = np.geomspace(float(reach[x].min()), float(reach[x].max()), _POINTS)  # type: ignore[arg-type]
        parts.append(pl.DataFrame({x: x_M, z: np.full(_POINTS, level), fit.y: fit.predict(**_at(fit, variable, other, x_M, level, flops))}))
    return pl.concat(parts).with_columns(kind=pl.lit("law"))


def _at(fit: "Fit", variable: str, other: str, x_M: Any, level: float, flops: float) -> dict[str, Any]:
    if variable == COMPUTE and COMPUTE not in fit.columns:
        return compute_optimal.point(fit, level, x_M / (flops * level))
    middle = {name: (low * high) ** 0.5 for name, (low, high) in fit.ranges.items()}
    values = {**middle, variable: x_M, other: level}
    if compute_optimal.has_sizes(fit) and variable != "u":
        return compute_optimal.point(fit, values["n"], values["d"])
    return values


def _frontier_rows(fit: "Fit", compute: "pl.Series", flops: float, x: str) -> "pl.DataFrame":
    import numpy as np
    import polars as pl

    low, high = float(compute.min()), float(compute.max())  # type: ignore[arg-type]
    inside = np.geomspace(low, high, _POINTS)
    found = compute_optimal.frontier(fit, np.r_[inside, np.geomspace(high, high * (high / low) ** _BEYOND, 30)[1:]], flops=flops)
    columns = {x: found.c_M, fit.columns["n"]: found.n_M, fit.columns["d"]: found.d_M, fit.y: found.loss_M}
    return pl.DataFrame({**columns, "low": found.low_M, "high": found.high_M}).with_columns(kind=pl.lit("frontier"))


def _dots(ax: Any, runs: "pl.DataFrame", x: str, z: str, y: str, colour: Callable[[Any], Any]) -> None:
    dots = ax.scatter(runs[x].to_numpy(), runs[y].to_numpy(), s=11, c=colour(runs[z].to_numpy()), linewidths=0, alpha=0.85, zorder=3)
    names = [name for name in runs.columns if name != "kind"]
    style.tips(ax, dots, [", ".join(f"{name} {value:.5g}" for name, value in row.items()) for row in runs.select(names).to_dicts()])


def _frontier(ax: Any, optimum: "pl.DataFrame", runs: "pl.DataFrame", x: str, y: str) -> None:
    """The law's frontier in black, dashed beyond the data, and rings around the runs of the lower envelope."""
    best = runs.filter(compute_optimal.envelope(runs[x].to_numpy(), runs[y].to_numpy())).sort(x)
    columns = [optimum[name].to_numpy() for name in (x, y, "low", "high")]
    inside = columns[0] <= float(runs[x].max()) * (1 + 1e-9)  # type: ignore[arg-type]
    ax.fill_between(columns[0], columns[2], columns[3], color=style.INK, alpha=0.2, linewidth=0)
    ax.plot(columns[0][inside], columns[1][inside], color=style.INK, linewidth=1.6, label="law, compute-optimal", zorder=4)
    ax.plot(columns[0][~inside], columns[1][~inside], color=style.INK, linewidth=1.6, linestyle=(0, (2, 1.5)), zorder=4)
    ring = {"facecolors": "none", "edgecolors": style.CATEGORIES[1], "linewidths": 0.7, "label": "best runs", "zorder": 5}
    ax.scatter(best[x].to_numpy(), best[y].to_numpy(), s=22, **ring)
    ax.legend(loc="upper right", handlelength=1.5)


def _together(runs: "pl.DataFrame", curves: "pl.DataFrame", optimum: "pl.DataFrame | None") -> "pl.DataFrame":
    import polars as pl

    return pl.concat([runs, curves, *([optimum] if optimum is not None else [])], how="diagonal")


def _finding(fit: "Fit", variable: str, other: str, optimal: bool) -> str:
    name = style.subject(style.label(fit.y)).capitalize()
    if optimal and "a" in fit.derived:
        return f"Compute-optimal {style.subject(style.label(fit.columns['n']))} grow as compute to the {fit.derived['a'].text()}"
    against = style.subject(style.label(_column(fit, variable)))
    return f"{name} against {against}: the law is within {fit.residual_sd:.1%} (one sd) of {fit.num_points} runs"
