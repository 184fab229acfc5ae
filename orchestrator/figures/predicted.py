"""What a fit predicts against what was observed, and below it the relative error."""

from typing import TYPE_CHECKING, Any

from orchestrator.figures import equations, style
from orchestrator.figures.residuals import is_far

if TYPE_CHECKING:
    from orchestrator.fit import Fit


def predicted(fit: "Fit", *, y_label: str = "", ax: Any = None) -> Any:
    """One dot a run of the fit; outliers of more than 5 robust standard deviations are crosses. `ax` is the host: it keeps the
    title, and the two panels stand in insets, `ax.child_axes`."""
    import numpy as np

    runs = fit.residuals()
    with style.styled():
        ax = style.axes(ax, style.TALLER_INCHES)
        (upper,), (lower,) = style.panels(ax, [0.7, 0.3], 1)
        percent = 100 * np.expm1(runs["residual"].to_numpy())
        for part, y in ((upper, runs["predicted"].to_numpy()), (lower, percent)):
            _dots(part, fit, runs, y)
        both = [*runs["observed"].to_list(), *runs["predicted"].to_list()]
        ends = [min(both), max(both)]
        upper.plot(ends, ends, color=style.INK, linewidth=0.8, zorder=1)
        lower.axhline(0, color=style.INK, linewidth=0.8, zorder=1)
        for axis in (upper.xaxis, upper.yaxis, lower.xaxis):
            style.log_axis(axis, both)
            style.limit(axis, both)
        upper.tick_params(labelbottom=False)
        name = y_label or style.label(fit.y)
        upper.set_ylabel(f"predicted {name}")
        lower.set_xlabel(f"observed {name}")
        lower.set_ylabel("error (%)")
        equations.write(ax, fit)
        style.title(ax, _finding(fit, percent))
    style.remember(ax, runs)
    return ax


def _dots(part: Any, fit: "Fit", runs: Any, y: Any) -> None:
    far = is_far(fit, runs)
    look = {"linewidths": 0, "alpha": 0.75, "zorder": 3}
    texts = [", ".join(f"{name} {value:.5g}" for name, value in row.items()) for row in runs.to_dicts()]
    for kept, marker, colour, size in ((~far, "o", style.CATEGORIES[0], 11), (far, "X", style.CATEGORIES[1], 26)):
        if kept.any():
            dots = part.scatter(runs["observed"].to_numpy()[kept], y[kept], s=size, marker=marker, c=colour, **look)
            style.tips(part, dots, [text for text, keep in zip(texts, kept, strict=True) if keep])


def _finding(fit: "Fit", percent: Any) -> str:
    import numpy as np

    middle, most = float(np.median(np.abs(percent))), float(np.abs(percent).max())
    return f"The law is within {middle:.2g}% of half of {fit.num_points} runs, and within {most:.2g}% of all"
