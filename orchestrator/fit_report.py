"""One self-contained HTML report of fits to any table: what was fitted, how, what it does not know, and every figure that applies."""

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator import page
from orchestrator.drawings import Drawing, drawn
from workers.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl

    from orchestrator.fit import Fit
    from orchestrator.isoflop import Isoflops

__all__ = ["fit_report"]

# fits whose figures are drawn; the tables have all
_MOST_DRAWN = 6


def fit_report(
    fits: "Fit | Sequence[Fit] | Mapping[str, Fit]",
    out_dir: str | Path,
    *,
    title: str | None = None,
    isoflops: "Isoflops | None" = None,
) -> Path:
    """The path of `out_dir`/fits.html, with figures/ and tables as CSV beside it. Fits may carry labels, by which they are compared; the
    figures are those of the first six. Raises ConfigError where there is nothing to report."""
    labelled = _labelled(fits)
    if not labelled and isoflops is None:
        raise ConfigError("nothing to report: give a fit, several fits, fits by label, or isoflops=isoflops(...)")
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    heading = title or _heading(labelled, isoflops)
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    shown = dict(list(labelled.items())[:_MOST_DRAWN])
    parts = [
        f'<h1>{escape(heading)}</h1><p class="faint">Written {now} by eigensweep</p>',
        page.cards(_cards(labelled, isoflops)),
        page.warnings([f"figures and details are of the first {len(shown)} of {len(labelled)} fits"] if len(shown) < len(labelled) else []),
        _overview(labelled, folder),
        *(_section(label, fit, f"fit-{number}", folder) for number, (label, fit) in enumerate(shown.items(), 1)),
        _isoflop_section(isoflops, folder) if isoflops is not None else "",
    ]
    path = folder / "fits.html"
    path.write_text(page.page(heading, "\n".join(part for part in parts if part)), encoding="utf-8")
    return path


# -- what they are called -----------------------------------------------------------------------------------------------


def _labelled(fits: "Fit | Sequence[Fit] | Mapping[str, Fit]") -> "dict[str, Fit]":
    """By label: as given, else what tells the fits apart."""
    if isinstance(fits, Mapping):
        return dict(fits)
    given = list(fits) if isinstance(fits, Sequence) else [fits]
    found: dict[str, Fit] = {}
    for fit in given:
        chosen = ", ".join(f"{name}={value}" for name, value in fit.choice.items()) or f"{fit.law.plugin_name()}, {fit.estimator}"
        number = 2
        label = chosen
        while label in found:
            label, number = f"{chosen} ({number})", number + 1
        found[label] = fit
    return found


def _heading(labelled: "Mapping[str, Fit]", isoflops: "Isoflops | None") -> str:
    if not labelled:
        assert isoflops is not None
        return f"Compute-optimal {isoflops.columns['n']} from runs at equal compute"
    one = next(iter(labelled.values()))
    laws = ", ".join(dict.fromkeys(fit.law.plugin_name() for fit in labelled.values()))
    return f"{one.y} against {', '.join(one.columns.values())}: {laws}"


def _cards(labelled: "Mapping[str, Fit]", isoflops: "Isoflops | None") -> dict[str, str]:
    """The numbers at the top."""
    cards = {}
    if labelled:
        fits = list(labelled.values())
        cards["fits"] = f"{len(fits)}"
        cards["runs fitted"] = " to ".join(
            dict.fromkeys(f"{one:,}" for one in (min(f.num_points for f in fits), max(f.num_points for f in fits)))
        )
        cards["residual standard deviation"] = " to ".join(
            dict.fromkeys(f"{one:.2%}" for one in (min(f.residual_sd for f in fits), max(f.residual_sd for f in fits)))
        )
        held = [abs(fit.held_out.error) for fit in fits if math.isfinite(fit.held_out.error)]
        cards["largest error at held-out runs"] = f"{max(held):.1%}" if held else "not known"
        cards["warnings"] = f"{sum(len(fit.warnings) for fit in fits)}"
    if isoflops is not None:
        cards["budgets with a minimum inside"] = f"{sum(one.inside for one in isoflops.curves)} of {len(isoflops.curves)}"
        if math.isfinite(isoflops.exponent.value):
            cards["exponent of the best size by compute"] = isoflops.exponent.text()
    return cards


# -- all fits -----------------------------------------------------------------------------------------------------------


def _overview(labelled: "Mapping[str, Fit]", folder: Path) -> str:
    """The fits beside each other, and their exponents where there are several."""
    if not labelled:
        return ""
    import polars as pl

    rows = [{"fit": label, **row} for label, fit in labelled.items() for row in fit.rows()]
    link = _csv(pl.DataFrame(rows, infer_schema_length=None), "fits.csv", "all parameters as CSV", folder)
    parts = [f"<h2>Fits</h2>{page.table(_even([_overview_row(label, fit) for label, fit in labelled.items()]))}<p>{link}</p>"]
    if len(labelled) > 1:
        from orchestrator.figures.choices import choices

        try:
            ax = choices(labelled)
        except ConfigError:
            # laws without an exponent in common have nothing to compare
            return "".join(parts)
        caption = "Exponents of all fits with their intervals. Vertical lines: the first fit."
        parts.append(drawn([Drawing(name="choices", ax=ax, caption=caption)], folder))
    return "".join(parts)


def _overview_row(label: str, fit: "Fit") -> dict[str, Any]:
    return {
        "fit": label,
        "law": fit.law.plugin_name(),
        "runs": fit.num_points,
        "left out": sum(fit.excluded.values()),
        "R²": (f"{fit.r_squared:.4f}", fit.r_squared),
        "held-out error": (_percent(fit.held_out.error), fit.held_out.error),
        **{name: (one.text(), one.value) for name, one in fit.parameters.items()},
    }


def _even(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every row with every column, for laws with different parameters."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [{name: row.get(name, ("–", math.nan)) for name in names} for row in rows]


def _percent(value: float) -> str:
    return f"{value:+.1%}" if math.isfinite(value) else "–"


def _csv(frame: "pl.DataFrame", name: str, label: str, folder: Path) -> str:
    """Write a table beside the page; the link that saves it from the page."""
    frame.write_csv(folder / name)
    return page.download(name, frame.write_csv(), label)


# -- one fit ------------------------------------------------------------------------------------------------------------


def _section(label: str, fit: "Fit", name: str, folder: Path) -> str:
    sensitivity = fit.sensitivity()
    links = [
        _csv(_frame(fit.rows()), f"{name}-parameters.csv", "parameters", folder),
        _csv(fit.residuals(), f"{name}-residuals.csv", "runs with predictions", folder),
        _csv(sensitivity, f"{name}-sensitivity.csv", "sensitivity", folder),
    ]
    if len(replicates := fit.replicates()):
        links.append(_csv(replicates, f"{name}-resamples.csv", "resamples", folder))
    return "\n".join(
        [
            f'<h2 id="{name}">{escape(label)}</h2><div class="equations"><code>{escape(fit.equation())}</code></div>',
            page.warnings(fit.warnings),
            f"<h3>Parameters</h3>{page.table(_parameter_rows(fit))}",
            f"<h3>Method</h3>{page.table(_method_rows(fit), wrapped=('value',))}",
            "<h3>Other choices</h3><p>The same law by other estimators, and without some of the runs. What moves more than its interval "
            f"is not known to that interval.</p>{page.table(_sensitivity_rows(sensitivity), wrapped=())}",
            f"<h3>Figures</h3>{drawn(list(_drawings(fit, sensitivity, name)), folder)}",
            f'<p class="faint">Data as CSV: {", ".join(links)}</p>',
        ]
    )


def _frame(rows: Sequence[Mapping[str, Any]]) -> "pl.DataFrame":
    import polars as pl

    return pl.DataFrame(rows, infer_schema_length=None)


def _parameter_rows(fit: "Fit") -> list[dict[str, Any]]:
    rows = []
    for name, one in {**fit.parameters, **fit.derived}.items():
        kind = "given" if name in fit.fixed else "fitted" if name in fit.parameters else "derived"
        low, high = ((f"{bound:.5g}" if math.isfinite(bound) else "–", bound) for bound in (one.low, one.high))
        rows.append({"parameter": name, "value": (f"{one.value:.5g}", one.value), "low": low, "high": high, "kind": kind})
    return rows


def _method_rows(fit: "Fit") -> list[dict[str, Any]]:
    held = fit.held_out
    ranges = ", ".join(f"{fit.columns[name]} {low:.4g} to {high:.4g}" for name, (low, high) in fit.ranges.items())
    names = {
        "law": fit.law.plugin_name(),
        "columns": ", ".join(f"{name} = {column}" for name, column in {**fit.columns, "target": fit.y}.items()),
        "references": ", ".join(f"{name}0 = {value:.6g}" for name, value in fit.reference.items()),
        "estimator": f"{fit.estimator}, delta {fit.delta:.4g}",
        "intervals": fit.interval_method(),
        "objective": f"{fit.objective:.8g}; {fit.num_agree} of {fit.num_starts} starts end here; "
        + ("converged" if fit.converged else "did not converge"),
        "condition": f"{fit.condition:.3g} (of J'J in units of each parameter)",
        "residuals of logarithms": f"standard deviation {fit.residual_sd:.3%}, robust {fit.robust_sd:.3%}, R² {fit.r_squared:.5f}",
        "held out": f"the {held.num_points} largest runs, by the law fitted without them: {_percent(held.error)} on average, "
        f"root mean square {held.rmsle:.3%} of logarithms"
        if held.num_points
        else "too few runs to hold out the largest",
        "runs": f"{fit.num_points} ({ranges})",
        "left out": ", ".join(f"{count} {reason}" for reason, count in fit.excluded.items()) or "none",
        "row filter": fit.where or "none",
        "weights": fit.weights or "none",
        "hash of the fitted values": fit.digest,
    }
    return [{"what": what, "value": value} for what, value in names.items()]


def _sensitivity_rows(frame: "pl.DataFrame") -> list[dict[str, Any]]:
    return [
        {name: value if isinstance(value, str | int) else (f"{value:.4g}", value) for name, value in row.items()}
        for row in frame.to_dicts()
    ]


def _drawings(fit: "Fit", sensitivity: "pl.DataFrame", name: str) -> Iterator[Drawing]:
    """All figures that apply to a fit."""
    from orchestrator.figures.fitted import fitted
    from orchestrator.figures.residuals import residuals

    band = f"{fit.confidence:.0%} band" if fit.num_bootstrap else "no band"
    single = len(fit.columns) == 1
    caption = f"Dots: runs. Line: the law, {band}, dashed beyond the data." if single else "Each run, and below it the relative error."
    yield Drawing(name=f"{name}-fitted", ax=fitted(fit), caption=caption)
    if not single:
        yield from _against(fit, name)
    yield from _choice(sensitivity, name)
    yield from _uncertain(fit, name)
    caption = "Relative error by variable and scale. Line: running median. Dashed: 5 robust standard deviations; crosses lie beyond."
    yield Drawing(name=f"{name}-residuals", ax=residuals(fit), caption=caption, wide=not single)


def _against(fit: "Fit", name: str) -> Iterator[Drawing]:
    from orchestrator.figures.compute_optimal import has_sizes
    from orchestrator.figures.contours import contours
    from orchestrator.figures.loss_against import COMPUTE, loss_against

    sizes = has_sizes(fit)
    for variable in dict.fromkeys([*fit.columns, *([COMPUTE] if sizes else [])]):
        caption = "Dots: runs. Lines: the law at some values of the variable that gives the colour."
        if variable == COMPUTE and sizes:
            caption += (
                " Black: the least loss that the law allows for a compute, dashed beyond the data. Rings: runs that no smaller one beats."
            )
        yield Drawing(name=f"{name}-against-{variable}", ax=loss_against(fit, variable), caption=caption)
    if sizes:
        caption = "Lines of equal loss by the law, runs, and the best size for each compute, dashed beyond the data."
        yield Drawing(name=f"{name}-contours", ax=contours(fit), caption=caption)


def _choice(sensitivity: "pl.DataFrame", name: str) -> Iterator[Drawing]:
    from orchestrator.figures.choices import choices

    try:
        ax = choices(sensitivity)
    except ConfigError:
        # a law without exponents
        return
    yield Drawing(name=f"{name}-choices", ax=ax, caption="Exponents by other estimators and rows. Vertical lines: as fitted.")


def _uncertain(fit: "Fit", name: str) -> Iterator[Drawing]:
    """Profiles of the free parameters, and pairs of the resamples."""
    from orchestrator.figures.pairs import pairs
    from orchestrator.figures.profile import profile

    free = [one for one in fit.parameters if one not in fit.fixed]
    for parameter in free:
        caption = f"The least objective with {parameter} held. Shaded: values that the data do not tell from the best."
        yield Drawing(name=f"{name}-profile-{parameter}", ax=profile(fit, parameter), caption=caption)
    if len(fit.replicates()) and len(free) > 1:
        caption = "Resampled fits; lines: the fit; numbers: correlations."
        yield Drawing(name=f"{name}-pairs", ax=pairs(fit), caption=caption, wide=len(free) > 3)


# -- isoFLOP ------------------------------------------------------------------------------------------------------------


def _isoflop_section(found: "Isoflops", folder: Path) -> str:
    from orchestrator.figures.isoflop import isoflop
    from orchestrator.figures.optimum import optimum

    rows = [_budget_row(one, found) for one in found.curves]
    plain = [{name: value[1] if isinstance(value, tuple) else value for name, value in row.items()} for row in rows]
    drawings = [
        Drawing(
            name="isoflop", ax=isoflop(found), caption="Runs of equal compute, their interpolation, and its minimum with its interval."
        ),
        Drawing(name="optimum", ax=optimum(found), caption="Minima by compute and their power law, dashed beyond the data."),
    ]
    link = _csv(_frame(plain), "isoflop-minima.csv", "minima as CSV", folder)
    equation = f'<div class="equations"><code>{escape(found.fit.equation(intervals=False))}</code></div>' if found.fit is not None else ""
    return (
        f"<h2>Runs at equal compute</h2>{equation}{page.warnings(list(found.warnings))}{page.table(rows)}"
        f"<p>Minima by {escape(found.method)}; noise of ln {escape(found.columns['loss'])}: {found.noise:.3g}. {link}</p>"
        f"{drawn(drawings, folder)}"
    )


def _budget_row(one: Any, found: "Isoflops") -> dict[str, Any]:
    numbers = {found.columns["c"]: one.c, "best " + found.columns["n"]: one.n_star, "low": one.n_low, "high": one.n_high}
    least = f"least {found.columns['loss']}"
    shown = {name: (f"{value:.4g}" if math.isfinite(value) else "–", value) for name, value in {**numbers, least: one.loss_star}.items()}
    return {**shown, "sizes": len(one.n_N), "inside": "yes" if one.inside else "no", "reason": one.reason}
