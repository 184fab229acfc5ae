"""Writes what a sweep found: one self-contained HTML file, and beside it each figure as PNG, PDF and CSV and the fits as CSV."""

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator import page
from orchestrator.drawings import Drawing, drawn
from orchestrator.points import Points, axis_names, fit_points, last_values, points
from workers.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl

    from orchestrator.fit import Fit

__all__ = ["report"]

OBSERVABLES = ("trace", "entropy", "effective_rank")
_MOST_FACETS = 6


def report(
    results: Any,
    out_dir: str | Path,
    *,
    fits: Sequence["Fit"] | None = None,
    x: str | None = None,
    y: str | None = None,
    status: Any = None,
    title: str | None = None,
) -> Path:
    """The path of `out_dir`/report.html. `results` offers name, axes, scalars(), spectra(), tasks() and attempts().

    `status` (see `orchestrator/status.py`) adds tasks that have no result yet and causes of failure. What cannot be drawn yet, in a
    sweep that has just begun, is said instead.
    """
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    notes: list[str] = []
    found = _points(results, x, y, notes)
    if fits is None:
        fits, why = fit_points(found) if found else ([], [])
        notes += [f"no fit for {one}" for one in why]
    drawings = _drawings(results, found, fits, notes) if found else []
    text = _body(results, found, fits, drawings, notes, status, title, folder)
    path = folder / "report.html"
    path.write_text(page.page(f"{results.name}: eigensweep report", text), encoding="utf-8")
    return path


def _points(results: Any, x: str | None, y: str | None, notes: list[str]) -> Points | None:
    try:
        return points(results, x=x, y=y)
    except ConfigError as error:
        if x or y:
            raise
        notes.append(str(error))
        return None


def _body(
    results: Any,
    found: Points | None,
    fits: Sequence["Fit"],
    drawings: Sequence[Drawing],
    notes: Sequence[str],
    status: Any,
    title: str | None,
    folder: Path,
) -> str:
    heading = title or _headline(results.name, found, fits)
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    parts = [
        f'<h1>{escape(heading)}</h1><p class="faint">Sweep <code>{escape(results.name)}</code>, written {now} by eigensweep</p>',
        page.cards(_summary(results, status)),
        page.warnings(notes),
        _fit_section(fits, folder),
        _figure_section(drawings, folder),
        _sweep_section(results, status),
        _data_section(results.name, found, folder),
    ]
    return "\n".join(part for part in parts if part)


def _headline(name: str, found: Points | None, fits: Sequence["Fit"]) -> str:
    from orchestrator.figures.scaling import finding

    return finding(fits, found.x, found.y) if found and fits else f"Sweep {name}"


def _summary(results: Any, status: Any) -> dict[str, str]:
    """The numbers at the top."""
    counts = _counts(results, status)
    totals: dict[str, int] = {}
    for row in counts.values():
        for state, count in row.items():
            totals[state] = totals.get(state, 0) + count
    done = sum(totals.get(state, 0) for state in ("completed", "ok", "diverged"))
    cards = {"tasks completed": f"{done:,} of {sum(totals.values()):,}"}
    cards |= {f"tasks {state}": f"{count:,}" for state, count in totals.items() if state not in ("completed", "ok")}
    if (seconds := _seconds(results)) is not None:
        cards["computing time of all attempts"] = _duration(seconds)
    codes = _codes(results)
    cards["code fingerprint" if len(codes) < 2 else "code fingerprints, mixed"] = ", ".join(code[:12] for code in codes) or "none yet"
    return cards


def _counts(results: Any, status: Any) -> dict[str, dict[str, int]]:
    """Workload -> state -> tasks, of all tasks where `status` is given, else of those with a result."""
    if status is not None:
        return {workload: dict(counts) for workload, counts in status.by_workload.items()}
    tasks = results.tasks().collect()
    state = next((name for name in ("state", "status") if name in tasks.columns), None)
    counts: dict[str, dict[str, int]] = {}
    if state and len(tasks):
        for workload, value, count in tasks.group_by("workload", state, maintain_order=True).len().rows():
            counts.setdefault(workload, {})[value] = count
    return counts


def _codes(results: Any) -> list[str]:
    tasks = results.tasks().collect()
    return sorted(tasks["code"].drop_nulls().unique().to_list()) if "code" in tasks.columns else []


def _seconds(results: Any) -> float | None:
    """Seconds of all attempts together; None where they are not known."""
    if not hasattr(results, "attempts"):
        return None
    attempts = results.attempts().collect()
    return float(attempts["seconds"].sum()) if "seconds" in attempts.columns and len(attempts) else None


def _fit_section(fits: Sequence["Fit"], folder: Path) -> str:
    if not fits:
        return ""
    import polars as pl

    table = pl.DataFrame([row for fit in fits for row in fit.rows()], infer_schema_length=None)
    table.write_csv(folder / "fits.csv")
    warned = [(_chosen(fit.choice), warning) for fit in fits for warning in fit.warnings]
    equations = "".join(f"<code>{escape(_chosen(fit.choice) + ': ' if fit.choice else '')}{escape(fit.equation())}</code>" for fit in fits)
    one, deltas = fits[0], ", ".join(sorted({f"{fit.delta:.2g}" for fit in fits}))
    how = (
        f"Estimator <code>{escape(str(one.estimator))}</code> of log residuals (delta {deltas}); {escape(one.interval_method())}. "
        "R² is of logarithms. The held-out error compares the law, fitted without the largest "
        f"{escape(one.x)}, with the runs there: predicted over observed, less 1."
    )
    download = page.download("fits.csv", table.write_csv(), "fits as CSV")
    rows = page.table([_fit_row(fit) for fit in fits])
    return (
        f'<h2>Fits</h2>{rows}{page.warnings(_merged(warned))}<div class="equations">{equations}</div><p class="faint">{how} {download}</p>'
    )


def _fit_row(fit: "Fit") -> dict[str, Any]:
    return {
        **{name: (value, value) for name, value in fit.choice.items()},
        "law": fit.law.plugin_name(),
        **{name: (one.text(), one.value) for name, one in fit.parameters.items()},
        "R²": (f"{fit.r_squared:.4f}", fit.r_squared),
        "held-out error": (f"{fit.held_out.error:+.1%}" if math.isfinite(fit.held_out.error) else "–", fit.held_out.error),
        "runs": fit.num_points,
        "seeds": fit.num_clusters,
        "left out": sum(fit.excluded.values()),
    }


def _merged(warned: Sequence[tuple[str, str]]) -> list[str]:
    """Equal warnings of several fits as one, with the runs that they are about."""
    groups: dict[str, list[str]] = {}
    for chosen, warning in warned:
        groups.setdefault(warning, []).append(chosen)
    return [f"{'; '.join(chosen)}: {warning}" if any(chosen) else warning for warning, chosen in groups.items()]


def _figure_section(drawings: Sequence[Drawing], folder: Path) -> str:
    return f"<h2>Figures</h2>{drawn(drawings, folder)}" if drawings else ""


def _sweep_section(results: Any, status: Any) -> str:
    counts = _counts(results, status)
    states = list(dict.fromkeys(state for row in counts.values() for state in row))
    tasks = page.table([{"workload": workload, **{state: row.get(state, 0) for state in states}} for workload, row in counts.items()])
    causes = [
        {"cause": cause, "tasks": count, "what": what, "cure": cure} for cause, count, what, cure in getattr(status, "causes", None) or ()
    ]
    failed = f"<h3>Failures</h3>{page.table(causes, wrapped=('what', 'cure'))}" if causes else ""
    axes = page.table(_axis_rows(results), wrapped=("values",))
    return f"<h2>Sweep</h2><h3>Tasks by workload and state</h3>{tasks}{failed}<h3>Axes</h3>{axes}"


def _axis_rows(results: Any) -> list[dict[str, Any]]:
    tasks = results.tasks().collect()
    scalars = results.scalars().collect() if not set(axis_names(results)) <= set(tasks.columns) else tasks
    rows = []
    for name in axis_names(results):
        if name in scalars.columns:
            values = scalars[name].drop_nulls().unique().sort().to_list()
            shown = values if len(values) <= 12 else [*values[:6], "…", *values[-3:]]
            rows.append({"axis": name, "number": len(values), "values": ", ".join(map(str, shown))})
    return rows


def _data_section(name: str, found: Points | None, folder: Path) -> str:
    if found is None:
        return ""
    found.frame.write_csv(folder / "points.csv")
    link = page.download("points.csv", found.frame.write_csv(), "points of the fit as CSV")
    return (
        f"<h2>Data</h2><p>{link}: one row a run, {len(found.frame):,} in all. Every figure stands beside this file in "
        f"<code>figures/</code> as PNG, PDF and CSV, the fits as <code>fits.csv</code>. The whole data set: "
        f"<code>eigensweep.load({escape(repr(name))})</code>.</p>"
    )


def _drawings(results: Any, found: Points, fits: Sequence["Fit"], notes: list[str]) -> list[Drawing]:
    """Each figure once for each combination of the groups that do not colour it; what is not drawn goes to `notes`."""
    scalars = results.scalars().collect()
    return [
        *_scaling(found, fits, f"{found.y.replace('_', ' ')}{_loss_unit(results, found.y)}", notes),
        *_curves(scalars, found, f"{found.y.replace('_', ' ')}{_loss_unit(results, found.y)}", notes),
        *_kernel(results, scalars, found, notes),
    ]


def _scaling(found: Points, fits: Sequence["Fit"], y_label: str, notes: list[str]) -> list[Drawing]:
    from orchestrator.figures.scaling import scaling

    colour, facets = _colour_and_facets(found.frame, found.groups)
    drawings = []
    for choice, part in _split(found.frame, facets, notes):
        own = [fit for fit in fits if all(fit.choice.get(name) == value for name, value in choice.items())]
        ax = scaling(part, own, x=found.x, y=found.y, by=colour, y_label=y_label)
        caption = f"{_prefix(choice)}Dots: runs. Lines: fitted laws with {_confidence(own)}, dashed beyond the data."
        drawings.append(Drawing(name=_file("scaling", choice), ax=_named(ax, choice), caption=caption))
    return drawings


def _curves(scalars: "pl.DataFrame", found: Points, y_label: str, notes: list[str]) -> list[Drawing]:
    from orchestrator.figures.learning_curves import learning_curves

    curves = scalars.filter(scalars["name"] == found.y)
    if curves["step"].n_unique() < 3:
        return []
    by = found.x if found.x in curves.columns else None
    drawings = []
    for choice, part in _split(*_largest(curves, found.groups), notes):
        ax = learning_curves(part, by=by, y=found.y, y_label=y_label)
        caption = f"{_prefix(choice)}Median over seeds; the band is their range."
        drawings.append(Drawing(name=_file("learning-curves", choice), ax=_named(ax, choice), caption=caption))
    return drawings


def _kernel(results: Any, scalars: "pl.DataFrame", found: Points, notes: list[str]) -> list[Drawing]:
    """Spectra, and the observables of the tasks that have one."""
    spectra = results.spectra().collect()
    if not len(spectra) or found.x not in spectra.columns:
        return []
    # a kernel may have axes that its training does not have, such as the snapshot
    axes = [name for name in axis_names(results) if name not in (found.x, found.replicate) and name in spectra.columns]
    groups = sorted((name for name in axes if spectra[name].drop_nulls().n_unique() > 1), key=lambda name: spectra[name].dtype.is_numeric())
    own = scalars.join(spectra.select("key").unique(), on="key", how="semi")
    return [*_spectra(spectra, own, found.x, groups, notes), *_observables(own, found.x, groups, notes)]


def _spectra(values: "pl.DataFrame", scalars: "pl.DataFrame", x: str, groups: Sequence[str], notes: list[str]) -> list[Drawing]:
    from orchestrator.figures import style
    from orchestrator.figures.spectra import spectra

    floors = scalars.filter(scalars["name"] == "noise_floor")
    drawings = []
    for choice, part in _split(*_largest(values, groups), notes):
        floor = style.median(floors.join(part.select("key").unique(), on="key")["value"])
        ax = spectra(part, by=x, noise_floor=floor)
        caption = f"{_prefix(choice)}Eigenvalues of the kernel, median over seeds with their range; the noise floor is the tasks' median."
        drawings.append(Drawing(name=_file("spectra", choice), ax=_named(ax, choice), caption=caption))
    return drawings


def _observables(scalars: "pl.DataFrame", x: str, groups: Sequence[str], notes: list[str]) -> list[Drawing]:
    from orchestrator.figures.observables import observables

    colour, facets = _colour_and_facets(scalars, groups)
    known, drawings = set(scalars["name"].unique()), []
    for name in (one for quantity in OBSERVABLES for one in (quantity, f"{quantity}_traced") if one in known):
        frame = last_values(scalars, name).rename({name: "value"})
        for choice, part in _split(frame, facets, notes):
            ax = observables(part, x=x, name=name, by=colour)
            caption = f"{_prefix(choice)}Dots: tasks, at their last step. Line: median over seeds."
            drawings.append(Drawing(name=_file(name.replace("_", "-"), choice), ax=_named(ax, choice), caption=caption))
    return drawings


def _colour_and_facets(frame: "pl.DataFrame", groups: Sequence[str]) -> tuple[str | None, list[str]]:
    """The first numeric group, else none; and the others."""
    colour = next((name for name in groups if frame[name].dtype.is_numeric()), None)
    return colour, [name for name in groups if name != colour]


def _largest(frame: "pl.DataFrame", groups: Sequence[str]) -> tuple["pl.DataFrame", list[str]]:
    """The rows at the largest value of each numeric group, and the groups (of which those now have one value)."""
    import polars as pl

    for name in groups:
        if frame[name].dtype.is_numeric():
            frame = frame.filter(pl.col(name) == pl.col(name).max())
    return frame, list(groups)


def _split(frame: "pl.DataFrame", names: Sequence[str], notes: list[str]) -> list[tuple[dict[str, Any], "pl.DataFrame"]]:
    """The frame by combinations of `names`: the first six, with a note where there are more."""
    if not names:
        return [({}, frame)]
    parts = frame.drop_nulls(names).partition_by(names, as_dict=True, maintain_order=True)
    ordered = sorted(parts.items(), key=lambda item: tuple((isinstance(value, str), value) for value in item[0]))
    note = f"figures show the first {_MOST_FACETS} of {len(ordered)} combinations of {', '.join(names)}; the tables and CSV files have all"
    if len(ordered) > _MOST_FACETS and note not in notes:
        notes.append(note)
    return [(dict(zip(names, values, strict=True)), part) for values, part in ordered[:_MOST_FACETS]]


def _loss_unit(results: Any, y: str) -> str:
    """The unit of a loss, from the settings of the tasks: nats for cross entropy."""
    tasks = results.tasks().collect()
    if "loss" not in y or "settings" not in tasks.columns:
        return ""
    known = {str(json.loads(text).get("loss")) for text in tasks.filter(tasks["workload"] == "train")["settings"].head(1)}
    return {"cross_entropy": " (nats)", "mse": " (half squared distance)"}.get(known.pop() if known else "", "")


def _named(ax: Any, choice: dict[str, Any]) -> Any:
    """The choice of runs in the title, after the finding."""
    if choice:
        from orchestrator.figures import style

        style.title(ax, f"{ax.get_title(loc='left')} ({_chosen(choice)})")
    return ax


def _file(name: str, choice: dict[str, Any]) -> str:
    safe = "-".join(str(value) for value in choice.values())
    return (
        "".join(letter if letter.isalnum() or letter in "-." else "-" for letter in f"{name}-{safe}" if letter)
        .rstrip("-")
        .replace(".", "_")
    )


def _prefix(choice: dict[str, Any]) -> str:
    return f"{_chosen(choice)}. " if choice else ""


def _chosen(choice: Any) -> str:
    return ", ".join(f"{name}={value}" for name, value in choice.items())


def _confidence(fits: Sequence["Fit"]) -> str:
    return (
        f"{fits[0].confidence:.0%} bands from {fits[0].num_clusters} {fits[0].unit}s"
        if fits and fits[0].num_bootstrap
        else "no bands (one seed)"
    )


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"
