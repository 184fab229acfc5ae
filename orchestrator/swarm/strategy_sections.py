"""A section of the study of chemotaxis: the strategies of trainings that succeed, where they occur, and whether they differ in motion."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from orchestrator.drawings import Drawing
from orchestrator.pairing import CONFIDENCE
from orchestrator.study import Attachment, Section, Table
from orchestrator.study_tables import listed, need
from orchestrator.swarm import clusters, examples, over_seeds, runs, strategies, two_samples
from orchestrator.swarm.emergence_sections import AXES, CHEMOTAXIS, shapes
from orchestrator.swarm.strategies import NAMES, STRATEGIES
from orchestrator.swarm.words import counted, estimated, p_said, rows

if TYPE_CHECKING:
    import polars as pl

    from orchestrator.results import Results

# of which all distances are computed
_MOST_POLICIES = 1500
CHOSEN = ("run_and_rotate", "brownian_piloting", "gradient_gliding")


def kinds(results: Mapping[str, "Results"]) -> Section:
    """Which strategies there are, by the rules and by clusters; their radii; their trajectories beside each other."""
    source = need(results, CHEMOTAXIS)
    frame, _ = runs.deployments(source, AXES)
    good = frame.filter(frame["success"] > 0.5)
    table = runs.table(source, "policy", (), good["key"].to_list()).select("key", "observation", "action", "probability").collect()
    named = strategies.table(table).join(good, on="key")
    tested = _tests(source, named)
    findings = [*_counts_said(named), *_radii_said(named), *_clusters_said(table, named), *_tests_said(tested)]
    return Section(
        title="Strategies",
        findings=findings,
        drawings=[*_shares_drawn(named), *_surfaces(table, named)],
        tables=[
            Table(name="strategies", heading="Strategies by shape", rows=_rows(named)),
            Table(name="policies", heading="Trainings that succeed, with their evidence", rows=_evidence(named)),
        ],
        notes=[]
        if len(named) >= 20
        else [f"only {len(named)} trainings succeed: rare strategies are not seen, and few differences decided"],
        attachments=_animated(source, named),
    )


# -- words --------------------------------------------------------------------------------------------------------------------


def _counts(named: "pl.DataFrame") -> dict[str, int]:
    return dict(named["strategy"].value_counts().iter_rows())


def _counts_said(named: "pl.DataFrame") -> list[str]:
    if named.is_empty():
        return ["No training succeeds: there are no strategies to tell."]
    counts = _counts(named)
    dominant = sum(counts.get(name, 0) for name in CHOSEN)
    turns = dict(named.filter(named["strategy"] == "run_and_rotate")["handedness"].value_counts().iter_rows())
    seen = [NAMES[name] for name in CHOSEN if counts.get(name)]
    held = "agrees with" if len(seen) == len(CHOSEN) and dominant > len(named) / 2 else "shows in part" if seen else "does not show"
    return [
        f"Of {len(named)} trainings that succeed, by the rules: {counted(counts)}. {dominant / len(named):.0%} are of the paper's three "
        f"dominant strategies, of which {listed(seen) if seen else 'none'} occur; this {held} its finding of three with rare exotic ones.",
        f"Run and Rotate turns counter-clockwise in {turns.get('ccw', 0)} and clockwise in {turns.get('cw', 0)} trainings.",
    ]


def _radii_said(named: "pl.DataFrame") -> list[str]:
    """Whether those that wait for noise are smaller."""
    from scipy import stats

    waiting, turning = (named.filter(named["strategy"] == name)["radius"].to_list() for name in ("brownian_piloting", "run_and_rotate"))
    if not (waiting and turning):
        return ["Whether Brownian Piloting belongs to small radii cannot be said: it takes it and Run and Rotate."] if len(named) else []
    p = float(stats.mannwhitneyu(waiting, turning).pvalue)
    medians = [sorted(values)[len(values) // 2] for values in (waiting, turning)]
    smaller = medians[0] < medians[1]
    seen = "is neither seen nor contradicted" if not p < 1 - CONFIDENCE else "is seen" if smaller else "is contradicted"
    parts = {name: named.filter(named["strategy"] == name)["mean_distance"].to_list() for name in ("brownian_piloting", "run_and_rotate")}
    distances = [estimated(over_seeds.mean(values)) for values in parts.values()]
    told = [f"{min(own):g} to {max(own):g} µm (median {median:g})" for own, median in zip((waiting, turning), medians, strict=True)]
    return [
        f"Brownian Piloting has radii of {told[0]}, Run and Rotate {told[1]}; Mann-Whitney, {p_said(p)}: that it belongs to small robots "
        f"{seen}. Mean distances are {distances[0]} and {distances[1]} µm, of other radii."
    ]


def _clusters_said(table: "pl.DataFrame", named: "pl.DataFrame") -> list[str]:
    """Groups of policies without rules, and which strategies are in each."""
    import numpy as np

    known = strategies.policies(table)
    if len(known) < 4:
        return []
    names = dict(named.select("key", "strategy").iter_rows())
    keys = [key for key in known if key in names][:_MOST_POLICIES]
    found = clusters.clusters(clusters.distances(np.stack([known[key].folded() for key in keys])))
    if len(found.sizes) == 1:
        return [f"By Jensen-Shannon distances the {len(keys)} policies are one group: no silhouette speaks for more."]
    told = []
    for place, size in enumerate(found.sizes):
        own = [names[key] for key, label in zip(keys, found.labels, strict=True) if label == place]
        told.append(f"{size} ({counted({name: own.count(name) for name in set(own)})})")
    return [
        f"By Jensen-Shannon distances, turns of either hand counted as one, {len(keys)} policies fall into {len(found.sizes)} groups "
        f"(mean silhouette {found.silhouette:.2f}): {'; '.join(told)}."
    ]


def _tests(source: "Results", named: "pl.DataFrame") -> list[two_samples.Comparison]:
    """Courses of strategies, of trainings of one shape, radius and speed."""
    frames = runs.table(source, "frames", (), named["key"].to_list()).select("key", "seconds", "mean_distance").collect()
    keys, rows_ND = two_samples.courses(frames)
    by_key = {row["key"]: row for row in named.iter_rows(named=True)}
    own = [by_key[key] for key in keys]
    return two_samples.compared(
        rows_ND, [row["strategy"] for row in own], [f"{row['shape']} {row['radius']} {row['speed']}" for row in own]
    )


def _tests_said(tested: list[two_samples.Comparison]) -> list[str]:
    judged = [one for one in tested if one.verdict != "too few"]
    if not judged:
        return [
            "Whether strategies differ in their trajectories cannot be tested: too few trainings of one shape, radius and speed do both."
        ]
    verbs = {"different": "differ", "not told apart": "are not told apart"}
    told = [
        f"{NAMES[one.first]} and {NAMES[one.second]} {verbs[one.verdict]} ({p_said(one.p_holm)}, {one.nums[0]} and {one.nums[1]} "
        f"trainings, energy {one.share:.2f} of 1)"
        for one in judged
    ]
    apart = sum(one.verdict == "different" for one in judged)
    held = f"contradicts in {apart} of {len(judged)} pairs" if apart else "does not contradict"
    return [
        f"Mean distance along time, between trainings of one shape, radius and speed: {listed(told)} (permutations of whole trainings, "
        f"Holm's correction). This {held} the paper's finding that strategies give nearly identical trajectories."
    ]


def _rows(named: "pl.DataFrame") -> list[dict[str, object]]:
    found = []
    for shape in shapes(named):
        counts = _counts(named.filter(named["shape"] == shape))
        found.append({"shape": shape, **{NAMES[name]: counts.get(name, 0) for name in STRATEGIES}})
    return found


def _evidence(named: "pl.DataFrame") -> list[dict[str, object]]:
    columns = ("shape", "radius", "speed", "seed", "strategy", "handedness", "mean_distance", "evidence")
    return rows(named.sort("shape", "radius", "speed", "seed").select(columns).head(300))


# -- figures ------------------------------------------------------------------------------------------------------------------


def _shares_drawn(named: "pl.DataFrame") -> list[Drawing]:
    """Strategies against the radius."""
    import polars as pl

    from orchestrator.figures.against import against

    present = [name for name in STRATEGIES if name in set(named["strategy"])]
    if len(present) < 2:
        return []
    parts = []
    for name in present:
        one = named.with_columns(is_it=(pl.col("strategy") == name).cast(pl.Float64))
        parts.append(over_seeds.means(one, ["radius"], "is_it").with_columns(strategy=pl.lit(NAMES[name]), low=math.nan, high=math.nan))
    ax = against(
        pl.concat(parts), x="radius", by="strategy", title="Strategies by radius", x_label="radius (µm)",
        y_label="share of trainings that succeed",
    )  # fmt: skip
    return [Drawing(name="strategies-radius", ax=ax, caption="Shares among the trainings that succeed, of all shapes and speeds.")]


def _surfaces(table: "pl.DataFrame", named: "pl.DataFrame") -> list[Drawing]:
    """Mean policies over the radius, a figure a shape, of all speeds."""
    import polars as pl

    from orchestrator.figures.policy_curves import FOLDED
    from orchestrator.figures.policy_surface import policy_surface

    found = []
    joined = strategies.folded(table).join(named.select("key", "shape", "radius"), on="key")
    for shape in shapes(named):
        part = joined.filter(joined["shape"] == shape)
        frame = part.group_by("radius", "observation", "action").agg(value=pl.col("probability").mean())
        ax = policy_surface(frame, y="radius", title=f"Policies against the radius, {shape}", y_label="radius (µm)", actions=FOLDED)
        caption = f"{shape}: mean policy of the trainings that succeed, of all speeds; the preferred turn is each training's own."
        found.append(Drawing(name=f"policies-{shape}", ax=ax, caption=caption, wide=True))
    return found


def _animated(source: "Results", named: "pl.DataFrame") -> list[Attachment]:
    """The closest run of each strategy."""
    chosen = examples.best(named, "strategy", "mean_distance")
    about = {row["key"]: row for row in named.iter_rows(named=True)}
    told = {}
    for name, key in chosen.items():
        row = about[key]
        told[f"{NAMES[name]}, {row['shape']} of {row['radius']:g} µm at {row['speed']:g} body lengths a second"] = key
    return examples.animated(source, told, "chemotaxis")
