"""Parameters with their intervals across choices: estimators, row filters, data sets, ways to count."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.figures import equations, style
from orchestrator.figures.equations import symbol
from workers.errors import ConfigError, UnknownName, nearest

if TYPE_CHECKING:
    import polars as pl

    from orchestrator.fit import Fit

_ROW_INCHES = 0.24


def choices(given: "Mapping[str, Fit] | pl.DataFrame", parameters: Sequence[str] | None = None, *, ax: Any = None) -> Any:
    """One line a choice, one colour and marker a parameter; vertical lines: the first choice. `given`: fits by label, with their intervals,
    or the rows of `Fit.sensitivity()`, which have none. By default the exponents that
    two choices or more have. Raises ConfigError where there is nothing to compare."""
    frame = _rows(given, parameters)
    names, labels = (list(dict.fromkeys(frame[name].to_list())) for name in ("parameter", "choice"))
    with style.styled():
        ax = style.axes(ax, (style.COLUMN_INCHES[0], (1.8 if isinstance(given, Mapping) else 1.2) + _ROW_INCHES * (len(labels) + 1)))
        shade, marker = ({name: known[i % len(known)] for i, name in enumerate(names)} for known in (style.CATEGORIES, style.MARKERS))
        step = 0.5 / max(len(names), 1)
        for at, name in enumerate(names):
            part = frame.filter(frame["parameter"] == name)
            rows = [labels.index(one) + (at - (len(names) - 1) / 2) * step for one in part["choice"].to_list()]
            value, low, high = (part[column].to_numpy() for column in ("value", "low", "high"))
            ax.axvline(value[0], color=shade[name], linewidth=0.8, alpha=0.5, zorder=1)
            ax.hlines(rows, low, high, color=shade[name], linewidth=1.3, zorder=2)
            dots = ax.scatter(value, rows, s=20, marker=marker[name], c=shade[name], linewidths=0, label=symbol(name), zorder=3)
            style.tips(ax, dots, [_tip(name, row) for row in part.to_dicts()])
        ax.set_yticks(range(len(labels)), labels=labels)
        # room for the legend above the first choice
        ax.set_ylim(len(labels) - 0.5, -1.5 if len(names) > 1 else -0.5)
        ax.grid(visible=False, axis="y")
        ax.set_xlabel("value" + (" and interval" if any(math.isfinite(one) for one in frame["low"]) else ""))
        if len(names) > 1:
            ax.legend(loc="upper center", ncols=len(names), handletextpad=0.1, borderaxespad=0.1)
        else:
            ax.set_xlabel(symbol(names[0]))
        margin = style.MARGIN_INCHES + style.text_inches(max(labels, key=len), 7.5) - 0.3
        if isinstance(given, Mapping):
            equations.write(ax, given[labels[0]], margin=margin, heading=f"{labels[0]}:" if len(labels) > 1 else "")
        style.title(ax, _finding(frame, names, len(labels)), margin=margin)
    style.remember(ax, frame)
    return ax


def exponents(fit: "Fit") -> list[str]:
    """The parameters of a law that are pure numbers, and those of its compute-optimal path."""
    pure = [term.name for term in fit.law.terms() if not (term.log or term.y_power or term.x_power) and term.name not in fit.fixed]
    return [*pure, *(name for name in ("a",) if name in fit.derived)]


def _rows(given: "Mapping[str, Fit] | pl.DataFrame", parameters: Sequence[str] | None) -> "pl.DataFrame":
    """Long: choice, parameter, value, low, high."""
    import polars as pl

    if not len(given):
        raise ConfigError("no choices to compare: give fits by label, or the rows of Fit.sensitivity()")
    schema = {"choice": pl.String, "parameter": pl.String, "value": pl.Float64, "low": pl.Float64, "high": pl.Float64}
    if not isinstance(given, Mapping):
        names = list(parameters or [name for name in ("exponent", "alpha", "beta", "eta", "slope", "a") if name in given.columns])
        _check(names, [name for name in given.columns if name not in ("choice", "delta", "num_points")])
        rows = [(row["choice"], name, row[name], math.nan, math.nan) for row in given.to_dicts() for name in names]
        return pl.DataFrame(rows, schema=schema, orient="row")
    known = {label: {**fit.parameters, **fit.derived} for label, fit in given.items()}
    every = [name for fit in given.values() for name in exponents(fit)]
    shared = [name for name in dict.fromkeys(every) if every.count(name) > 1 or len(given) == 1]
    names = list(parameters or shared)
    _check(names, list(dict.fromkeys(name for one in known.values() for name in one)))
    rows = [(label, name, one[name].value, one[name].low, one[name].high) for label, one in known.items() for name in names if name in one]
    return pl.DataFrame(rows, schema=schema, orient="row")


def _check(names: Sequence[str], allowed: Sequence[str]) -> None:
    if not names:
        raise ConfigError(f"which parameters? There are {', '.join(allowed)}")
    for name in names:
        if name not in allowed:
            raise UnknownName(f"no parameter {name!r}{nearest(name, allowed)} There are {', '.join(allowed)}")


def _tip(name: str, row: Mapping[str, Any]) -> str:
    interval = f" [{row['low']:.4g}, {row['high']:.4g}]" if math.isfinite(row["low"]) else ""
    return f"{row['choice']}: {name} {row['value']:.4g}{interval}"


def _finding(frame: "pl.DataFrame", names: Sequence[str], count: int) -> str:
    """The parameter that moves most."""
    spans = []
    for name in names:
        value = frame.filter(frame["parameter"] == name)["value"].to_numpy()
        spans.append((float(value.max() - value.min()), name, float(value.min()), float(value.max())))
    _, name, low, high = max(spans)
    return f"{symbol(name)} goes from {low:.3f} to {high:.3f} over {count} choices" if high > low else f"{symbol(name)} is {low:.3g}"
