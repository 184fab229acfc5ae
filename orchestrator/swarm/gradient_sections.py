"""Sections of the study of temperature: who finds the source of a gradient, by which policies (arXiv 2307.00994)."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.drawings import Drawing
from orchestrator.pairing import correlation, holm
from orchestrator.study import Section, Table
from orchestrator.study_tables import listed, need
from orchestrator.swarm import densities, examples, over_seeds, proportions, runs, strategies
from orchestrator.swarm.over_seeds import few_said, mean
from orchestrator.swarm.proportions import proportion
from orchestrator.swarm.strategies import STRATEGIES
from orchestrator.swarm.words import counted, estimated, kelvin, p_said, rows, standing, trend_said

if TYPE_CHECKING:
    import polars as pl

    from orchestrator.results import Results

SEARCH = "gradient_search"
BY, HEADING = "trained", "trained at (K)"
# trainings that the paper kept, of ten, by temperature
KEPT = {0.0: 3, 150.0: 9, 273.0: 4, 300.0: 5, 350.0: 6}
FIRST_FRAMES, LATE_FRAME = 250, 1000


def searching(results: Mapping[str, "Results"]) -> Section:
    """How often trainings find the source at each temperature, how close agents come, and along which paths."""
    source = need(results, SEARCH)
    frame, diverged = runs.deployments(source, ("trained", "seed"))
    shares = proportions.of_groups(frame, [BY])
    good = frame.filter(frame["success"] > 0.5)
    drawings = [_shares_drawn(shares), *_learnt(source), *_courses(source, good), *_late(source, good), *_paths(source, good)]
    return Section(
        title="Searching a source at different temperatures",
        findings=[*_success_said(frame, shares), *_distance_said(good)],
        drawings=drawings,
        tables=[Table(name="success", heading="Trainings that find the source (Wilson intervals)", rows=rows(shares, {BY: HEADING}))],
        notes=[*_diverged_said(diverged), *few_said(min(shares["trials"].to_list(), default=0), SEARCH)],
        attachments=examples.animated(source, {f"trained at {kelvin(t)}": key for t, key in _ends(good).items()}, "gradient"),
    )


def policies(results: Mapping[str, "Results"]) -> Section:
    """What successful trainings have learnt to do where the concentration falls, by temperature."""
    source = need(results, SEARCH)
    frame, _ = runs.deployments(source, ("trained", "seed"))
    kept = frame.filter(frame["success"] > 0.5)
    table = runs.table(source, "policy", ("trained",), kept["key"].to_list()).collect()
    named = strategies.table(table).join(kept.select("key", BY), on="key")
    few = over_seeds.means(named, [BY], "falling_nothing")
    return Section(
        title="Policies by temperature",
        findings=[*_nothing_said(named), *_strategies_said(named)],
        drawings=[_policy_drawn(table)] if len(table) else [],
        tables=[
            Table(name="strategies-by-temperature", heading="Strategies of trainings that succeed", rows=_strategy_rows(named)),
            Table(name="nothing", heading="Probability of doing nothing where it falls", rows=rows(few, {BY: HEADING, "num": "trainings"})),
        ],
        notes=few_said(min(few["num"].to_list(), default=0), "policies of successful trainings"),
    )


# -- words --------------------------------------------------------------------------------------------------------------------


def _diverged_said(number: int) -> list[str]:
    return [f"{number} {'deployment' if number == 1 else 'deployments'} diverged: left out"] if number else []


def _success_said(frame: "pl.DataFrame", shares: "pl.DataFrame") -> list[str]:
    import polars as pl

    told = [f"{kelvin(row[BY])} {proportion(frame.filter(pl.col(BY) == row[BY])['success']).text()}" for row in shares.rows(named=True)]
    lines = [f"Trainings that find the source, with 95 % Wilson intervals: {listed(told)}."]
    cold, noisy = (proportion(frame.filter(chosen)["success"]) for chosen in (pl.col(BY) == 0, pl.col(BY) > 0))
    if not (cold.trials and noisy.trials):
        return [*lines, "Whether trainings at 0 K succeed least often cannot be said: this sweep does not have 0 K and others."]
    p = cold.p_value(noisy)
    fewest = shares.filter(pl.col("value") == pl.col("value").min())[BY].to_list()
    kept = listed([f"{number} at {kelvin(t)}" for t, number in KEPT.items()])
    least = proportions.Proportion(successes=0, trials=cold.trials).p_value(
        proportions.Proportion(successes=noisy.trials, trials=noisy.trials)
    )
    line = (
        f"The share is smallest at {listed([kelvin(t) for t in fewest])}; at 0 K it is {cold.value:.2f}, at all others together "
        f"{noisy.text()} (Fisher's test, {p_said(p)}). This {standing(noisy.value - cold.value, p)} the paper's finding that trainings "
        f"at 0 K succeed least often (it kept, of ten each: {kept})."
    )
    if not least < 0.05:
        line += f" With so few trainings no outcome could have: p is at least {least:.2g}."
    return [*lines, line]


def _distance_said(good: "pl.DataFrame") -> list[str]:
    if good.is_empty():
        return ["No training succeeds: there is no distance to tell."]
    lines = []
    for column, said, unit in (
        ("mean_distance", "Mean distance to the source in the end", "µm"),
        ("time_to_source", "Time to the source", "s"),
    ):
        own = good.filter(good[column].is_finite())
        if own.is_empty():
            continue
        parts = sorted(own.partition_by([BY], as_dict=True).items())
        told = [f"{kelvin(t)} {estimated(mean(part[column].to_list()))}" for (t,), part in parts]
        trend = correlation(own[BY].to_numpy(), own[column].to_numpy(), own["key"].to_numpy())
        lines.append(f"{said} of those that succeed, {unit}: {listed(told)}; {trend_said(trend, 'it', 'temperature')}.")
    return lines


def _nothing_said(named: "pl.DataFrame") -> list[str]:
    """Of successful trainings: whether those with noise do nothing more often where the concentration falls, and turn less."""
    import polars as pl

    if named.is_empty():
        return ["No training succeeds: there are no policies to compare."]
    turning = named.with_columns(falling_turn=pl.col("falling_ccw") + pl.col("falling_cw"))
    cold, noisy = (turning.filter(chosen) for chosen in (pl.col(BY) == 0, pl.col(BY) > 0))
    lines, differences = [], {}
    for column, said in (("falling_nothing", "do nothing"), ("falling_turn", "turn")):
        parts = sorted(turning.partition_by([BY], as_dict=True).items())
        told = [f"{estimated(mean(part[column].to_list()), '.2f')} at {kelvin(t)}" for (t,), part in parts]
        lines.append(f"Where the concentration falls, policies of successful trainings {said} with probability {listed(told)}.")
        differences[column] = mean(noisy[column].to_list()).minus(mean(cold[column].to_list()))
    nothing, turn = differences.values()
    p_values = holm([one.p_value for one in differences.values()])
    if math.isnan(nothing.error):
        held = "cannot be tested: it takes two successful trainings at 0 K, and two with noise"
        return [*lines, f"That policies do nothing more often with noise, and turn without, {held}."]
    by = f"{estimated(nothing, '+.2f')} for doing nothing ({p_said(p_values[0])}) and {estimated(turn, '+.2f')} for turning"
    waits, turns = standing(nothing.value, p_values[0]), standing(turn.value, p_values[1], sign=-1)
    lines.append(
        f"With noise less without, {by} ({p_said(p_values[1])}; Welch's tests with Holm's correction). The first {waits} the paper's "
        f"finding that with noise agents wait for Brownian motion to turn them, the second {turns} its finding that without they turn."
    )
    return lines


def _strategies_said(named: "pl.DataFrame") -> list[str]:
    parts = sorted(named.partition_by([BY], as_dict=True).items())
    told = [f"at {kelvin(t)} {counted(dict(part['strategy'].value_counts().iter_rows()))}" for (t,), part in parts]
    return [f"By the rules for strategies: {'; '.join(told)}."] if told else []


def _strategy_rows(named: "pl.DataFrame") -> list[dict[str, Any]]:
    found = []
    for (t,), part in sorted(named.partition_by([BY], as_dict=True).items()):
        counts = dict(part["strategy"].value_counts().iter_rows())
        found.append({HEADING: t, **{strategies.NAMES[name]: counts.get(name, 0) for name in STRATEGIES}})
    return found


# -- figures ------------------------------------------------------------------------------------------------------------------


def _shares_drawn(shares: "pl.DataFrame") -> Drawing:
    from orchestrator.figures.against import against

    ends = [row for row in shares.rows(named=True) if row["trials"]]
    low, high = (pick(ends, key=lambda row: row["value"]) for pick in (min, max))
    title = f"{low['value']:.0%} succeed at {kelvin(low[BY])}, {high['value']:.0%} at {kelvin(high[BY])}"
    ax = against(
        shares, x=BY, title=title, x_label="temperature of training (K)", y_label="share of trainings that succeed",
        ticks=shares[BY].to_list(), joined=False,
    )  # fmt: skip
    return Drawing(name="gradient-success", ax=ax, caption="Trainings that find the source; bars: 95 % Wilson intervals.")


def _learnt(source: "Results") -> list[Drawing]:
    """Along training."""
    import polars as pl

    from orchestrator.figures.distance_courses import distance_courses

    frame = runs.learning(source, ("trained",)).filter(pl.col("mean_distance").is_finite())
    if frame.is_empty():
        return []
    middle, error = _mean_and_error("mean_distance")
    ax = distance_courses(
        _banded(frame.group_by(BY, "step").agg(middle, error)), by=BY, x="step", x_label="episode of training", heading=HEADING,
        title="Distance to the source while policies are learnt",
    )  # fmt: skip
    caption = "All trainings, also those that fail: the mean over agents and trainings, its standard error as band."
    return [Drawing(name="gradient-learning", ax=ax, caption=caption)]


def _mean_and_error(column: str) -> "tuple[pl.Expr, pl.Expr]":
    import polars as pl

    value = pl.col(column)
    return value.mean().alias("value"), (value.std() / pl.len().sqrt()).fill_null(0.0).alias("error")


def _banded(frame: "pl.DataFrame") -> "pl.DataFrame":
    import polars as pl

    value, error = pl.col("value"), pl.col("error")
    return frame.with_columns(low=value - error, high=value + error).drop("error")


def _courses(source: "Results", good: "pl.DataFrame") -> list[Drawing]:
    from orchestrator.figures.distance_courses import distance_courses

    if good.is_empty():
        return []
    middle, error = _mean_and_error("mean_distance")
    every = runs.table(source, "frames", ("trained",), good["key"].to_list())
    frame = _banded(every.group_by(BY, "frame", "seconds").agg(middle, error).collect()).sort(BY, "frame")
    if frame.is_empty():
        return []
    ends = [float(part["value"][-1]) for part in frame.partition_by(BY)]
    until = float(frame.filter(frame["frame"] <= FIRST_FRAMES)["seconds"].max() or 0.0)  # type: ignore[arg-type]
    whole = distance_courses(
        frame, by=BY, heading=HEADING, title=f"Swarms end {min(ends):.1f} to {max(ends):.1f} µm from the source",
    )  # fmt: skip
    zoom = distance_courses(frame, by=BY, heading=HEADING, title=f"The first {FIRST_FRAMES} frames", logarithmic=False, until=until)
    caption = "Successful trainings, deployed: the mean over agents and trainings, its standard error as band."
    return [
        Drawing(name="gradient-courses", ax=whole, caption=caption),
        Drawing(name="gradient-first", ax=zoom, caption=f"{caption} As beside, the beginning."),
    ]


def _late(source: "Results", good: "pl.DataFrame") -> list[Drawing]:
    """Densities of agents' distances after LATE_FRAME, or in the second half of shorter runs."""
    import polars as pl

    from orchestrator.figures.density_curves import density_curves

    if good.is_empty():
        return []
    every = runs.table(source, "positions", ("trained",), good["key"].to_list())
    last = every.select(pl.col("frame").max()).collect().item() or 0
    first = LATE_FRAME if last > 1.2 * LATE_FRAME else last // 2
    distance = (pl.col("x") ** 2 + pl.col("y") ** 2 + pl.col("z") ** 2).sqrt()
    late = every.filter(pl.col("frame") > first).select("key", BY, distance=distance).collect()
    if late.is_empty():
        return []
    most = float(late["distance"].quantile(0.99) or 1.0)
    frame = densities.of_groups(late, "distance", BY, (0.0, most), most / 40)
    peaks = [float(part["x"][part["value"].arg_max() or 0]) for part in frame.partition_by(BY)]
    title = f"Agents are most often {min(peaks):.1f} to {max(peaks):.1f} µm from the source"
    ax = density_curves(frame, by=BY, x_label="distance to source (µm)", heading=HEADING, title=title)
    caption = f"Distances of single agents after frame {first}; mean of the trainings' densities, standard error as band."
    return [Drawing(name="gradient-density", ax=ax, caption=caption)]


def _ends(good: "pl.DataFrame") -> dict[float, str]:
    """The closest runs of the lowest and the highest temperature that has successful ones."""
    found = examples.best(good, BY, "mean_distance")
    return {t: found[t] for t in sorted({min(found), max(found)})} if found else {}


def _paths(source: "Results", good: "pl.DataFrame") -> list[Drawing]:
    from orchestrator.figures.swarm_paths import swarm_paths

    chosen = {f"trained at {kelvin(t)}": key for t, key in _ends(good).items()}
    shown = examples.positions_of(source, chosen, FIRST_FRAMES)
    if not shown:
        return []
    ax = swarm_paths(shown, title=f"Paths over the first {FIRST_FRAMES} frames")
    caption = "The runs that end closest to the source (star), of the lowest and the highest temperature; dots: starts."
    return [Drawing(name="gradient-paths", ax=ax, caption=caption, wide=True)]


def _policy_drawn(table: "pl.DataFrame") -> Drawing:
    """Turns are called by their frequency in each training, as either hand is as good."""
    from orchestrator.figures.policy_curves import FOLDED, policy_curves

    frame = over_seeds.means(strategies.folded(table), [BY, "observation", "action"], "probability")
    low, high = float(frame[BY].min()), float(frame[BY].max())  # type: ignore[arg-type]
    title = f"What agents do by what they observe, trained at {low:g} to {high:g} K"
    ax = policy_curves(frame, by=BY, title=title, heading=HEADING, actions=FOLDED)
    caption = "Mean policy of the trainings that succeed; bands: 95 % intervals over trainings. The preferred turn is each training's own."
    return Drawing(name="gradient-policies", ax=ax, caption=caption, wide=True)
