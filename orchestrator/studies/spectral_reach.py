"""Spectral reach (after arXiv 2605.31244): how deep into its kernel's spectrum a model of each size still learns, and what moves that."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.drawings import Drawing
from orchestrator.frozen_sections import FROZEN, KERNEL, frozen_modes, kernel_modes
from orchestrator.reaches import ESTIMATORS, Courses, courses
from orchestrator.study import Section, Study, Table
from orchestrator.study_tables import exponent_rows, labelled, listed, need, slope, slopes
from workers.errors import ConfigError

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
    found = courses(need(results, FEATURES))
    rows = _feature_rows(found)
    errors = [row["error"][1] for row in rows if math.isfinite(row["error"][1])]
    said = (
        [f"Reach of random features, measured on their trainings, is within {max(map(abs, errors)):.1%} of the closed form."]
        if errors
        else []
    )
    return Section(
        title="Random features with a known spectrum",
        findings=said,
        drawings=_feature_figures(found),
        tables=[Table(name="features", heading=f"Reach at epsilon {FEATURES_EPSILON}: closed form and measured", rows=rows)],
    )


# -- models of several sizes ----------------------------------------------------------------------------------------------------


def _scaling_said(fits: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = []
    for name, by_data in fits.items():
        told = [
            f"{-slope(one).value:.3f} [{-slope(one).high:.3f}, {-slope(one).low:.3f}] (R² {one.r_squared:.3f}) with {size} samples"
            for size, one in by_data.items()
        ]
        lines += (
            [f"{name.replace('_', ' ').capitalize()} falls with the number of parameters as a power with exponent {listed(told)}."]
            if told
            else []
        )
    return lines


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
    lines, signs = [], {}
    for frame, where in ((reaches, "over whole trainings"), (equal, "at equal compute")):
        told = []
        for estimator in ESTIMATORS:
            trend = _trend(frame, estimator)
            if trend is None:
                continue
            value, low, high, bounds = trend
            signs[estimator, where] = 1 if low > 0 else -1 if high < 0 else 0
            way = {1: "grows", -1: "falls", 0: "has no clear trend"}[signs[estimator, where]]
            bound = f", {bounds:.0%} of the runs being lower bounds" if bounds else ""
            told.append(f"{way} by the {estimator} estimator ({value:+.2f} [{low:+.2f}, {high:+.2f}] a decade of parameters{bound})")
        lines += [f"Reach (epsilon {EPSILON}) {where} {listed(told)}."] if told else []
    for where in ("over whole trainings", "at equal compute"):
        own = {estimator: value for (estimator, place), value in signs.items() if place == where}
        if len(set(own.values())) > 1:
            lines.append(
                f"The trend {where} depends on the estimator: {listed([f'{name} {_WAYS[value]}' for name, value in own.items()])}."
            )
    claimed = signs.get(("unbiased", "over whole trainings"))
    if claimed is not None:
        agrees = {1: "agrees with", -1: "contradicts", 0: "neither shows nor contradicts"}[claimed]
        trend = _trend(reaches, "unbiased")
        but = "; but most trainings still learned when they ended, so that this compares bounds" if trend and trend[3] > 0.5 else ""
        lines.append(f"By the unbiased estimator this {agrees} the paper's claim that larger models reach further{but}.")
    return lines


_WAYS = {1: "up", -1: "down", 0: "unclear"}


def _trend(frame: "pl.DataFrame", estimator: str) -> tuple[float, float, float, float] | None:
    """Slope of reach against log10 of the parameters with a 95 % interval from resampled runs, and the share of bounds."""
    import numpy as np
    import polars as pl

    if frame.is_empty():
        return None
    own = frame.filter((pl.col("estimator") == estimator) & (pl.col("epsilon") == EPSILON) & pl.col("reach").is_finite())
    x, y = np.log10(own["num_params"].to_numpy().astype(float)), own["reach"].to_numpy()
    if len(own) < 4 or len(set(x)) < 3:
        return None
    random = np.random.default_rng(0)
    copies = []
    for _ in range(400):
        index = random.integers(0, len(x), len(x))
        if len(set(x[index])) > 1:
            copies.append(np.polyfit(x[index], y[index], 1)[0])
    low, high = np.quantile(copies, (0.025, 0.975))
    return float(np.polyfit(x, y, 1)[0]), float(low), float(high), float(own["is_bound"].mean() or 0.0)  # type: ignore[arg-type]


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
    windows = windows.with_columns(amplification=pl.col("chi_net") / first)
    wanted = {
        "batch_loss": ("Loss against compute", "training loss (nats)"),
        "chi_pos": ("Unbiased spectral position against compute", "spectral position (unbiased)"),
        "chi_pos_self": ("Self spectral position against compute", "spectral position (self)"),
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
    import polars as pl

    rows: list[dict[str, Any]] = []
    for frame, where in ((reaches, "whole training"), (equal, "equal compute")):
        if frame.is_empty():
            continue
        by = frame.group_by("num_params", "train_size", "estimator", "epsilon").agg(
            reach=pl.col("reach").drop_nans().median(), runs=pl.col("reach").drop_nans().len(), bounds=pl.col("is_bound").sum()
        )
        rows += [{"over": where, **row, "reach": _number(row["reach"])} for row in by.sort(by.columns[:4]).iter_rows(named=True)]
    return rows


def _number(value: float | None) -> tuple[str, float]:
    return ("–", math.nan) if value is None else (f"{value:.2f}", value)


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
            values = part.filter((pl.col("estimator") == estimator) & pl.col("reach").is_finite())["reach"].to_list()
            row[f"reach, {estimator}"] = _number(sum(values) / len(values) if values else None)
        row["bounds"] = int(part.filter(pl.col("estimator") == "unbiased")["is_bound"].sum())
        losses = part.unique("key")["test_loss"].to_list()
        row["test loss"] = (f"{sum(losses) / len(losses):.4f}", sum(losses) / len(losses))
        row["spread of seeds"] = (f"{max(losses) - min(losses):.4f}", max(losses) - min(losses))
        rows.append(row)
    return rows


def _interventions_said(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The furthest and the least reach, and whether reach goes with the test loss over models."""
    import numpy as np

    known = [row for row in rows if math.isfinite(row["reach, unbiased"][1])]
    if len(known) < 3:
        return []
    furthest, least = (pick(known, key=lambda row: row["reach, unbiased"][1]) for pick in (max, min))
    name = "optimizer, norm, depth, width"
    ranks = [np.argsort(np.argsort([row[column][1] for row in known])) for column in ("reach, unbiased", "test loss")]
    correlation = float(np.corrcoef(ranks[0], ranks[1])[0, 1])
    return [
        f"Of {len(known)} models {furthest[name]} reaches furthest ({furthest['reach, unbiased'][0]}, test loss "
        f"{furthest['test loss'][0]}) and {least[name]} least ({least['reach, unbiased'][0]}, test loss {least['test loss'][0]}).",
        f"Over these models the rank correlation of reach with test loss is {correlation:+.2f}: "
        + ("who reaches further has the lower loss." if correlation < -0.5 else "reach alone does not tell the loss."),
    ]


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
            ("chi_pos_self", "Self spectral position by intervention", "spectral position (self)"),
        )
    ]


# -- random features ------------------------------------------------------------------------------------------------------------


def _feature_rows(found: Courses) -> list[dict[str, Any]]:
    """Measured reach beside the closed form, at the settings of the sweep's file: a = 1.5, b = 1.8."""
    import polars as pl

    reaches = found.reaches().filter((pl.col("estimator") == "unbiased") & (pl.col("epsilon") == FEATURES_EPSILON))
    rows = []
    for (num,), part in sorted(reaches.partition_by(["num_features"], as_dict=True).items()):
        measured, exact = float(part["reach"].mean() or math.nan), closed_form_reach(int(num), FEATURES_EPSILON)  # type: ignore[arg-type]
        error = measured / exact - 1
        rows.append(
            {
                "features": num,
                "closed form": _number(exact),
                "measured": _number(measured),
                "error": (f"{error:+.1%}", error),
                "runs": len(part),
            }
        )
    return rows


def closed_form_reach(num_features: int, epsilon: float, num_modes: int = 4096, a: float = 1.5, b: float = 1.8) -> float:
    """log10(2 tr t / epsilon) at the last time t where -d ln L / d ln t = epsilon, of gradient flow with eigenvalues k^-a, k <= P (D10)."""
    import numpy as np

    k = np.arange(1.0, num_modes + 1)
    values = np.where(k <= num_features, k**-a, 0.0)
    times = np.geomspace(1.0, 100.0 * num_features**a, 4001)
    left = np.exp(-2.0 * np.multiply.outer(times, values)) * k**-b
    rate = 2.0 * times * (left @ values) / left.sum(1)
    last = np.flatnonzero(rate >= epsilon)[-1]
    return float(np.log10(2.0 * values.sum() * times[last] / rate[last]))


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
