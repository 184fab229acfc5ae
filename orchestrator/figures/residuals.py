"""Residuals of a fit against each of its variables and the scale of the run, with outliers marked."""

from typing import TYPE_CHECKING, Any

from orchestrator.figures import equations, style

if TYPE_CHECKING:
    import polars as pl

    from orchestrator.fit import Fit

OUTLIER_SDS = 5.0


def is_far(fit: "Fit", runs: "pl.DataFrame") -> Any:
    """(N,) whether a run lies more than 5 robust standard deviations from the law."""
    import numpy as np

    error = runs["predicted"].to_numpy() - runs["observed"].to_numpy()
    # robust_sd is in the units of the objective: of ln y, or of y over its geometric mean
    size = (
        np.abs(error) / float(np.exp(np.log(runs["observed"].to_numpy()).mean()))
        if fit.estimator.linear
        else np.abs(runs["residual"].to_numpy())
    )
    return size > OUTLIER_SDS * max(fit.robust_sd, 1e-12)


def residuals(fit: "Fit", *, ax: Any = None) -> Any:
    """Relative error of the law in percent: a panel for each variable and, where there are several, one for the scale of the run (their
    product for n and d). The line is a running median, which shows misfit that a law of this form cannot mend. Two columns wide."""
    import numpy as np
    import polars as pl

    runs = fit.residuals()
    far = is_far(fit, runs)
    runs = runs.with_columns(percent=100 * (pl.col("residual").exp() - 1), outlier=pl.Series(far))
    names = list(fit.columns.values())
    if len(names) > 1:
        u_NV = np.log(np.column_stack([runs[name].to_numpy() / fit.reference[key] for key, name in fit.columns.items()]))
        scale_N = fit.law.scale(u_NV)
        runs, names = runs.with_columns(scale=pl.Series(np.exp(scale_N - scale_N.mean()))), [*names, "scale"]
    with style.styled():
        ax = style.axes(ax, style.WIDE_INCHES if len(names) > 1 else style.TALL_INCHES)
        parts = style.panels(ax, [1.0], len(names))[0]
        band = 100 * np.expm1(OUTLIER_SDS * fit.robust_sd)
        most = 1.1 * max(float(np.abs(runs["percent"].to_numpy()).max()), 1e-9)
        for at, (part, name) in enumerate(zip(parts, names, strict=True)):
            _panel(part, runs, name, band)
            part.set_ylim(-most, most)
            part.set_xlabel(_label(fit, name))
            if at:
                part.tick_params(labelleft=False)
        parts[0].set_ylabel("predicted over observed, less 1 (%)")
        equations.write(ax, fit)
        style.title(ax, _finding(fit, runs))
    style.remember(ax, runs)
    return ax


def _label(fit: "Fit", name: str) -> str:
    if name != "scale" or name in fit.columns.values():
        return style.label(name)
    return "scale of the run (mean 1)"


def _panel(part: Any, runs: "pl.DataFrame", name: str, band: float) -> None:
    x, y, far = (runs[column].to_numpy() for column in (name, "percent", "outlier"))
    part.axhline(0, color=style.INK, linewidth=0.8, zorder=1)
    for edge in (-band, band):
        part.axhline(edge, color=style.CATEGORIES[1], linewidth=0.8, linestyle=(0, (3, 2)), zorder=1)
    look = {"linewidths": 0, "alpha": 0.75, "zorder": 3}
    texts = [f"{name} {a:.4g}, error {b:+.3g}%" for a, b in zip(x, y, strict=True)]
    for kept, marker, colour, size in ((~far, "o", style.CATEGORIES[0], 11), (far, "X", style.CATEGORIES[1], 28)):
        if kept.any():
            dots = part.scatter(x[kept], y[kept], s=size, marker=marker, c=colour, **look)
            style.tips(part, dots, [text for text, keep in zip(texts, kept, strict=True) if keep])
    part.plot(*_running(x, y), color=style.INK, linewidth=1.2, zorder=4)
    style.log_axis(part.xaxis, x.tolist())


def _running(x: Any, y: Any) -> tuple[Any, Any]:
    """Medians of about eight groups of neighbours; of each value of x where there are few."""
    import numpy as np

    values = np.unique(x)
    groups = [x == value for value in values] if len(values) <= 10 else []
    if not groups:
        order = np.argsort(x)
        groups = list(np.array_split(order, 8))
    return np.array([np.exp(np.log(x[one]).mean()) for one in groups]), np.array([np.median(y[one]) for one in groups])


def _finding(fit: "Fit", runs: "pl.DataFrame") -> str:
    count = int(runs["outlier"].sum())
    spread = f"Residuals have a standard deviation of {fit.residual_sd:.2%}"
    return f"{spread}; outliers (> {OUTLIER_SDS:g} robust sd): {count or 'none'} of {fit.num_points} runs"
