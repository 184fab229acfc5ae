"""Loss against the fitted axis on logarithmic axes, with the laws, their bands and equations."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.figures import equations, style

if TYPE_CHECKING:
    import polars as pl

    from orchestrator.fit import Fit

# below it a title does not claim the law
_LEAST_R_SQUARED = 0.9


def scaling(
    points: "pl.DataFrame", fits: Sequence["Fit"] = (), *, x: str, y: str, by: str | None = None, y_label: str = "", ax: Any = None
) -> Any:
    """One dot a run of `points` (columns `x`, `y`, `by`, seed), one line and band for each fit, coloured by the column `by`.

    A fit belongs to the value of `by` in its `choice`. Beyond the data a law is dashed. `y_label` may give y its unit.
    """
    long = bool(fits) and not by and _corner(fits[0]) == "below"
    with style.styled():
        ax = style.axes(ax, style.TALL_INCHES if long else style.COLUMN_INCHES)
        good = points.filter(points[x].is_finite() & points[y].is_finite() & (points[y] > 0)) if len(points) else points
        values = style.thinned(good[by].unique().to_list()) if by else [None]
        shade, marker = style.colours(values) if by else {None: style.CATEGORIES[0]}, style.markers(values)
        for value in values:
            one = good.filter(good[by] == value) if by else good
            found = next((fit for fit in fits if not by or fit.choice.get(by) == value), None)
            _dots(ax, one, x, y, shade[value], marker[value], _entry(value, found) if by else None)
            if found:
                _law(ax, found, shade[value])
        style.log_axis(ax.xaxis, good[x].to_list(), exact=True)
        style.log_axis(ax.yaxis, good[y].to_list())
        ax.set_xlabel(style.label(x))
        ax.set_ylabel(y_label or style.label(y))
        if by:
            style.legend(ax, f"{style.label(by)}: exponent", below=True)
        elif fits:
            equations.write(ax, fits[0], corner=_corner(fits[0]))
        style.title(ax, finding(fits, x, y))
        if not len(good):
            style.note(ax, "no run with a finite, positive value")
    style.remember(ax, points)
    return ax


def finding(fits: Sequence["Fit"], x: str, y: str) -> str:
    """What the figure shows, in one line."""
    name, axis = style.subject(style.label(y)).capitalize(), style.subject(style.label(x))
    if not fits:
        return f"{name} against {axis}"
    if (worst := min(fit.r_squared for fit in fits)) < _LEAST_R_SQUARED:
        return f"{name} is no clear power of {axis}: R² down to {worst:.2f}"
    powers = [fit for fit in fits if _exponent(fit)]
    if not powers:
        return f"{name} follows the {fits[0].law.plugin_name()} law of {axis} to within {max(fit.residual_sd for fit in fits):.1%}"
    ways = {_rises(fit) for fit in powers}
    way = f"{'rises' if ways == {True} else 'falls' if ways == {False} else 'goes'} as a power of {axis}, exponent"
    if len(powers) == 1:
        one = powers[0].parameters[_exponent(powers[0])]
        known = f" [{one.text().partition('[')[2]}" if one.high > one.low else ""
        return f"{name} {way} {one.text(interval=False)}{known}"
    exponents = sorted(fit.parameters[_exponent(fit)].value for fit in powers)
    ends = list(dict.fromkeys(f"{exponent:.2f}" for exponent in (exponents[0], exponents[-1])))
    return f"{name} {way} {' to '.join(ends)}"


def _exponent(fit: "Fit") -> str:
    """The parameter of a power law of one variable that is its exponent; "" of other laws."""
    known = fit.law.parameters()
    return next((name for name in ("exponent", "slope") if len(fit.columns) == 1 and name in known and len(known) <= 3), "")


def _corner(fit: "Fit") -> str:
    """What the curve leaves free, where the equation fits there."""
    return "below" if len(fit.law.parameters()) > 3 else "left" if _rises(fit) else "right"


def _rises(fit: "Fit") -> bool:
    return bool(fit.predict(fit.x_max)[0] > fit.predict(fit.x_min)[0])


def _dots(ax: Any, frame: "pl.DataFrame", x: str, y: str, colour: str, marker: str, entry: str | None) -> None:
    dots = ax.scatter(
        frame[x].to_numpy(),
        frame[y].to_numpy(),
        s=13,
        c=colour,
        marker=marker,
        alpha=0.75,
        linewidths=0,
        label=entry,
        zorder=3,
        clip_on=True,
    )
    shown = [column for column in frame.columns if column not in ("key", "value", "status", "code", "workload", "name", "step")]
    style.tips(ax, dots, [", ".join(f"{name} {_short(value)}" for name, value in row.items()) for row in frame.select(shown).to_dicts()])


def _law(ax: Any, fit: "Fit", colour: str) -> None:
    import numpy as np

    inside = np.geomspace(fit.x_min, fit.x_max, 200)
    beyond = np.geomspace(fit.x_max, fit.x_max * (fit.x_max / fit.x_min) ** 0.12, 30)
    whole = np.concatenate([inside, beyond])
    low, high = fit.band(whole)
    ax.fill_between(whole, low, high, color=colour, alpha=0.16, linewidth=0)
    ax.plot(inside, fit.predict(inside), color=colour)
    ax.plot(beyond, fit.predict(beyond), color=colour, linestyle=(0, (2, 1.5)))


def _entry(value: Any, fit: "Fit | None") -> str:
    name = value if isinstance(value, str) else style.number(value)
    return f"{name}: {fit.parameters[_exponent(fit)].text()}" if fit and _exponent(fit) else name


def _short(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)
