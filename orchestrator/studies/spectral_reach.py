"""Spectral reach (after arXiv 2605.31244): how deep into its kernel's spectrum a model of each size still learns, and what moves that."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.drawings import Drawing
from orchestrator.frozen_sections import FROZEN, KERNEL, frozen_modes, kernel_modes
from orchestrator.reaches import ESTIMATORS, Courses, Trend, courses, trend
from orchestrator.study import Section, Study, Table
from orchestrator.study_tables import exponent_rows, labelled, listed, need, sign, slope, slopes
from workers.errors import ConfigError
from workers.mode_flow import EPSILONS

if TYPE_CHECKING:
    import polars as pl

    from orchestrator.results import Results

TEXT, PIXELS = "spectral_reach", "spectral_reach_pixels"
INTERVENTIONS, FEATURES = "spectral_reach_interventions", "spectral_reach_features"
# of those of D10 the one at which the fewest of short trainings are still learning when they end; the tables have all
EPSILON = 0.1
# of the closed forms
FEATURES_EPSILON = 0.05
COMPUTE = "compute (FLOPs, 6 N D)"
TASKS = {TEXT: "text", PIXELS: "next pixel"}


def text(results: Mapping[str, "Results"]) -> Section:
    """Language models."""
    return _of_sizes(results, TEXT)


def pixels(results: Mapping[str, "Results"]) -> Section:
    """Next-pixel prediction."""
    return _of_sizes(results, PIXELS)


def _of_sizes(results: Mapping[str, "Results"], sweep: str) -> Section:
    """Losses, positions and reach of the models of one task against their size and compute."""
    found, task = courses(need(results, sweep)), TASKS[sweep]
    runs = labelled(found.runs, ["train_size"], "data size")
    fits = {name: slopes(runs, "num_params", name, "data size") for name in ("train_loss", "test_loss")}
    reaches, equal = found.reaches(), found.reaches(equal_compute=True)
    return Section(
        title=f"{task[0].upper()}{task[1:]}: {runs['num_params'].n_unique()} sizes",
        findings=[*_scaling_said(fits), *_position_said(found), *_reach_said(reaches, equal)],
        drawings=[*_loss_figures(runs, fits, task), *_course_figures(found, task), *_reach_figures(reaches, equal, task)],
        tables=[
            Table(
                name=f"{task}-exponents".replace(" ", "-"), heading="Exponents against parameters", rows=exponent_rows(fits, "data size")
            ),
            Table(name=f"{task}-reach".replace(" ", "-"), heading="Reach by size", rows=_reach_rows(reaches, equal)),
        ],
    )


def interventions(results: Mapping[str, "Results"]) -> Section:
    """The optimiser, depth against width, and norm placement, each beside the base."""
    found = courses(need(results, INTERVENTIONS))
    reaches = found.reaches()
    if reaches.is_empty():
        raise ConfigError(f"no training of {INTERVENTIONS} has a reach yet")
    reaches = labelled(reaches, ["optimizer", "norm", "depth", "width"], "model")
    rows = _intervention_rows(reaches)
    return Section(
        title="Interventions, with reach as outcome",
        findings=_interventions_said(rows),
        drawings=_intervention_figures(found),
        tables=[Table(name="interventions", heading=f"Reach at epsilon {EPSILON} and test loss", rows=rows)],
    )


def features(results: Mapping[str, "Results"]) -> Section:
    """Trained random features with a power-law spectrum, beside the closed form."""
    own = need(results, FEATURES)
    found = courses(own)
    rows = _feature_rows(found, _modes(own))
    ended = [row for row in rows if not row["bounds"] and math.isfinite(row["error"][1])]
    said = []
    if ended:
        decades, share = (max(ended, key=key) for key in (lambda row: abs(row["error"][1]), _share))
        said = [
            f"Reach of random features, measured on {len(ended)} of {len(rows)} models' trainings that ended their learning, is within "
            f"{abs(decades['error'][1]):.2f} decades of position of the closed form ({_share(share):.1%} of the reach)."
        ]
    return Section(
        title="Random features with a known spectrum",
        findings=said,
        drawings=_feature_figures(found),
        tables=[Table(name="features", heading=f"Reach at epsilon {FEATURES_EPSILON}: closed form and measured", rows=rows)],
    )


def _share(row: Mapping[str, Any]) -> float:
    return abs(float(row["error"][1] / row["closed form"][1]))


def _modes(results: "Results") -> dict[str, Any]:
    """The settings of the data set, the same for all of its tasks."""
    (text,) = results.tasks().select("settings").head(1).collect()["settings"]
    data = json.loads(text)["data"]
    return {"num_modes": data["num_modes"], "spectrum_exponent": data["feature_exponent"], "target_exponent": data["target_exponent"]}


# -- models of several sizes ----------------------------------------------------------------------------------------------------


def _scaling_said(fits: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = []
    for name, by_data in fits.items():
        told = [
            f"{_SCALES[sign(slope(one))]} with {size} samples (exponent {-slope(one).value:.3f} "
            f"[{-slope(one).high:.3f}, {-slope(one).low:.3f}], R² {one.r_squared:.3f})"
            for size, one in by_data.items()
        ]
        lines += [f"{name.replace('_', ' ').capitalize()} against the number of parameters {listed(told)}."] if told else []
    return lines


_SCALES = {-1: "falls as a power", 0: "has no clear slope", 1: "rises"}


def _position_said(found: Courses) -> list[str]:
    """From the first quarter of windows to the last, the medians over runs of chi_pos (unbiased and self) and chi_net."""
    import polars as pl

    windows = found.windows.filter(pl.col("step") > 0).sort("step")
    steps = sorted(windows["step"].unique().to_list())
    quarter = max(1, len(steps) // 4)
    early, late = (windows.filter(pl.col("step").is_in(some)) for some in (steps[:quarter], steps[-quarter:]))
    told = []
    for name, words in (("chi_pos", "unbiased position"), ("chi_pos_self", "self position"), ("chi_net", "sensitivity")):
        first, last = (_median(some[name]) for some in (early, late))
        told.append(f"the {words} goes from {first:.2g} to {last:.2g}")
    below = late.filter(pl.col("chi_pos") <= 0)
    share = len(below) / max(1, len(late.drop_nulls("chi_pos")))
    noise = f" {share:.0%} of the late unbiased values are not above 0: the gradient is then lost in the noise of a batch." if share else ""
    return [f"Along training {listed(told)} (medians over all runs, first and last quarter of the windows).{noise}"]


def _reach_said(reaches: "pl.DataFrame", equal: "pl.DataFrame") -> list[str]:
    """Whether reach grows with size, for each estimator, over whole trainings and at equal compute; and whether estimators agree."""
    lines: list[str] = []
    whole, at_equal = "over whole trainings", "at equal compute"
    for frame, where in ((reaches, whole), (equal, at_equal)):
        found = {name: one for name in ESTIMATORS if (one := trend(frame, name, EPSILON)) is not None}
        lines += [f"Reach (epsilon {EPSILON}) {where} {listed([_trend_said(*item) for item in found.items()])}."] if found else []
        if len({sign(one) for one in found.values()}) > 1:
            ways = listed([f"{name} {_WAYS[sign(one)]}" for name, one in found.items()])
            lines.append(f"The trend {where} depends on the estimator: {ways}.")
        if found and where == at_equal:
            lines.append(
                "At equal compute all but the smallest model stand in the middle of their schedule, where their rate is still high."
            )
    claimed = trend(reaches, "unbiased", EPSILON)
    if claimed is not None:
        agrees = {1: "agrees with", -1: "contradicts", 0: "neither shows nor contradicts"}[sign(claimed)]
        most = claimed.num_bounds > claimed.num_runs / 2
        but = "; but most trainings still learned when they ended, so that this compares bounds" if most else ""
        lines.append(f"By the unbiased estimator this {agrees} the paper's claim that larger models reach further{but}.")
    return lines


_WAYS = {1: "up", -1: "down", 0: "unclear"}


def _trend_said(estimator: str, found: Trend) -> str:
    way = {1: "grows", -1: "falls", 0: "has no clear trend"}[sign(found)]
    bounds = f", {found.num_bounds} of {found.num_runs} runs being lower bounds" if found.num_bounds else ""
    without = f", {found.num_without} more without reach as the position there is not above 0" if found.num_without else ""
    interval = f"{found.value:+.2f} [{found.low:+.2f}, {found.high:+.2f}] a decade of parameters"
    return f"{way} by the {estimator} estimator ({interval}{bounds}{without})"


def _loss_figures(runs: "pl.DataFrame", fits: Mapping[str, Mapping[str, Any]], task: str) -> list[Drawing]:
    from orchestrator.figures.scaling import scaling

    drawings = []
    for name, by_data in fits.items():
        ax = scaling(runs, list(by_data.values()), x="num_params", y=name, by="data size", y_label=f"{name.replace('_', ' ')} (nats)")
        caption = f"{task}: dots are trainings, lines power laws with 95 % bands from whole seeds."
        drawings.append(Drawing(name=f"{task}-{name}-parameters".replace(" ", "-").replace("_", "-"), ax=ax, caption=caption))
    return drawings


def _course_figures(found: Courses, task: str) -> list[Drawing]:
    """Loss, positions and amplification against compute, of the largest data size, a line a width."""
    import polars as pl

    from orchestrator.figures.curves import curves

    windows = found.windows.filter((pl.col("train_size") == pl.col("train_size").max()) & (pl.col("step") > 0)).sort("step")
    first = pl.col("chi_net").drop_nulls().first().over("key")
    noise = pl.col("kappa_over_units") / pl.col("chi_pos_self")
    windows = windows.with_columns(amplification=pl.col("chi_net") / first, noise_share=noise)
    wanted = {
        "batch_loss": ("Loss against compute", "training loss (nats)"),
        "chi_pos": ("Unbiased spectral position against compute", "spectral position (unbiased)"),
        "chi_pos_self": ("Self spectral position against compute", "spectral position (self)"),
        "noise_share": ("What of the self position is noise of the batch", "(kappa / N) / spectral position (self)"),
        "cross_chi_pos": ("Cross-batch spectral position against compute", "spectral position (cross)"),
        "amplification": ("Sensitivity over its first value", "chi_net / first chi_net"),
    }
    caption = f"{task}, largest training set: median over seeds with their range, at the windows of the training."
    return [
        Drawing(
            name=f"{task}-{name}-compute".replace(" ", "-").replace("_", "-"),
            ax=curves(windows.drop_nulls(name), x="compute", y=name, by="width", title=title, x_label=COMPUTE, y_label=label),
            caption=caption,
        )
        for name, (title, label) in wanted.items()
        if name in windows.columns and windows[name].drop_nulls().len()
    ]


def _reach_figures(reaches: "pl.DataFrame", equal: "pl.DataFrame", task: str) -> list[Drawing]:
    import polars as pl

    from orchestrator.figures.observables import observables

    drawings = []
    for frame, where, name in (
        (reaches, "over whole trainings", "reach"),
        (equal, "up to the compute of the smallest", "reach-equal-compute"),
    ):
        if frame.is_empty():
            continue
        own = frame.filter((pl.col("epsilon") == EPSILON) & pl.col("reach").is_finite())
        ax = observables(
            own.select("num_params", "estimator", value="reach"),
            x="num_params",
            name="spectral reach",
            by="estimator",
            title=f"Spectral reach {where}",
        )
        caption = (
            f"{task}: -log10 of the spectral position where the loss last fell by {EPSILON} a factor e of steps, {where}; dots are runs."
        )
        drawings.append(Drawing(name=f"{task}-{name}".replace(" ", "-"), ax=ax, caption=caption))
    return drawings


def _reach_rows(reaches: "pl.DataFrame", equal: "pl.DataFrame") -> list[dict[str, Any]]:
    """One a size, data size and estimator, with the median reach at each epsilon and how many of the runs that have one are bounds."""
    import polars as pl

    rows: list[dict[str, Any]] = []
    for frame, where in ((reaches, "whole training"), (equal, "equal compute")):
        if frame.is_empty():
            continue
        known = frame.filter(pl.col("reach").is_finite())
        by = ["num_params", "train_size", "estimator"]
        for (size, data, estimator), part in sorted(known.partition_by(by, as_dict=True).items()):
            row: dict[str, Any] = {"over": where, "parameters": int(size), "data size": data, "estimator": estimator}
            for epsilon in EPSILONS:
                own = part.filter(pl.col("epsilon") == epsilon)
                bounds, median = int(own["is_bound"].sum()), own["reach"].median()
                row[f"reach at {epsilon}"] = _reach(None if median is None else float(median), bounds)  # type: ignore[arg-type]
                row[f"bounds at {epsilon}"] = (f"{bounds} of {len(own)}", bounds)
            rows.append(row)
    return rows


def _reach(value: float | None, num_bounds: int) -> tuple[str, float]:
    """Of several runs; of which any is a lower bound, their mean or median is one."""
    return ("–", math.nan) if value is None else (f"{'≥ ' if num_bounds else ''}{value:.2f}", value)


def _median(values: Any) -> float:
    found = values.drop_nulls().median()
    return math.nan if found is None else float(found)


# -- interventions --------------------------------------------------------------------------------------------------------------


def _intervention_rows(reaches: "pl.DataFrame") -> list[dict[str, Any]]:
    import polars as pl

    own = reaches.filter((pl.col("epsilon") == EPSILON) & pl.col("estimator").is_in(["unbiased", "self"]))
    rows = []
    for (model,), part in sorted(own.partition_by(["model"], as_dict=True).items()):
        row: dict[str, Any] = {"optimizer, norm, depth, width": model, "parameters": int(part["num_params"][0])}
        for estimator in ("unbiased", "self"):
            known = part.filter((pl.col("estimator") == estimator) & pl.col("reach").is_finite())
            values = known["reach"].to_list()
            row[f"reach, {estimator}"] = _reach(sum(values) / len(values) if values else None, int(known["is_bound"].sum()))
            row[f"spread of {estimator}"] = _spread(values, 2)
        losses = part.unique("key")["test_loss"].to_list()
        row["test loss"] = (f"{sum(losses) / len(losses):.4f}", sum(losses) / len(losses))
        row["spread of loss"] = _spread(losses, 4)
        rows.append(row)
    return rows


def _spread(values: Sequence[float], digits: int) -> tuple[str, float]:
    """Over the seeds."""
    return (f"{max(values) - min(values):.{digits}f}", max(values) - min(values)) if len(values) > 1 else ("–", math.nan)


def _interventions_said(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The furthest and the least reach, and whether reach goes with the test loss over models, by a test that permutes them."""
    import numpy as np
    from scipy import stats

    known = [row for row in rows if math.isfinite(row["reach, unbiased"][1])]
    if len(known) < 3:
        return []
    furthest, least = (pick(known, key=lambda row: row["reach, unbiased"][1]) for pick in (max, min))
    name = "optimizer, norm, depth, width"
    reach, loss = (np.array([row[column][1] for row in known]) for column in ("reach, unbiased", "test loss"))
    found = stats.permutation_test(
        (reach,), lambda values: stats.spearmanr(values, loss).statistic, permutation_type="pairings", n_resamples=9999, rng=0
    )
    correlation, p = float(found.statistic), float(found.pvalue)
    told = "who reaches further has the lower loss" if correlation < 0 else "who reaches further has the higher loss"
    return [
        f"Of {len(known)} models {furthest[name]} reaches furthest ({_of_model(furthest)}) and {least[name]} least ({_of_model(least)}).",
        f"Over these models the rank correlation of reach with test loss is {correlation:+.2f} (p = {p:.2g} by permutations): "
        + (f"{told}." if p < 0.05 else "too few or too unlike models to tell the loss by reach."),
    ]


def _of_model(row: Mapping[str, Any]) -> str:
    """`6.11, seeds within 0.08, test loss 1.7291`."""
    spread = row["spread of unbiased"]
    return (
        f"{row['reach, unbiased'][0]}, {f'seeds within {spread[0]}, ' if math.isfinite(spread[1]) else ''}test loss {row['test loss'][0]}"
    )


def _intervention_figures(found: Courses) -> list[Drawing]:
    import polars as pl

    from orchestrator.figures.curves import curves

    windows = labelled(found.windows.filter(pl.col("step") > 0).sort("step"), ["optimizer", "norm", "depth", "width"], "model")
    return [
        Drawing(
            name=f"interventions-{name.replace('_', '-')}",
            ax=curves(windows.drop_nulls(name), x="compute", y=name, by="model", title=title, x_label=COMPUTE, y_label=label),
            caption="Optimiser, norm placement, depth and width: median over seeds with their range.",
            wide=True,
        )
        for name, title, label in (
            ("batch_loss", "Loss by intervention", "training loss (nats)"),
            ("chi_pos", "Unbiased spectral position by intervention", "spectral position (unbiased)"),
        )
    ]


# -- random features ------------------------------------------------------------------------------------------------------------


def _feature_rows(found: Courses, modes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Measured reach beside the closed form at these settings of the data set; `error`: in decades of the position."""
    import polars as pl

    from workers.mode_flow import closed_form_reach

    reaches = found.reaches().filter((pl.col("estimator") == "unbiased") & (pl.col("epsilon") == FEATURES_EPSILON))
    rows = []
    for (num,), part in sorted(reaches.partition_by(["num_features"], as_dict=True).items()):
        known = part.filter(pl.col("reach").is_finite())
        bounds = int(known["is_bound"].sum())
        measured = float(known["reach"].mean()) if len(known) else math.nan  # type: ignore[arg-type]
        exact = closed_form_reach(FEATURES_EPSILON, num_features=int(num), **modes)
        error = measured - exact
        rows.append(
            {
                "features": num,
                "closed form": _reach(exact, 0),
                "measured": _reach(measured, bounds),
                "error": (f"{error:+.2f}", error),
                "runs": len(known),
                "bounds": bounds,
            }
        )
    return rows


def _feature_figures(found: Courses) -> list[Drawing]:
    import polars as pl

    from orchestrator.figures.curves import curves

    windows = found.windows.filter((pl.col("step") > 0) & (pl.col("chi_pos") > 1e-9)).sort("step")
    ax = curves(
        windows,
        x="step",
        y="chi_pos",
        by="num_features",
        title="Spectral position of random features",
        y_label="spectral position (unbiased)",
    )
    caption = "Down to 1e-9. A model that has learned all that it can falls without end: the least position is no reach."
    return [Drawing(name="features-position", ax=ax, caption=caption)]


STUDY = Study(
    name="spectral_reach",
    title="Spectral reach of language models, next-pixel models and random features",
    sweeps={
        TEXT: "loss, position and reach of language models against size, data and compute",
        PIXELS: "the same of next-pixel prediction",
        FROZEN: "feature learning beside frozen modes, in two parameterisations",
        KERNEL: "descent in function space with the kernel of a time, beside the network",
        INTERVENTIONS: "what optimiser, depth and norm placement do to reach",
        FEATURES: "random features with a known spectrum beside the closed form",
    },
    sections=(text, pixels, frozen_modes, kernel_modes, interventions, features),
)
