"""A section of the study of temperature: how fast swarms turn a rod, and where on it they push (arXiv 2307.00994)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from orchestrator.drawings import Drawing
from orchestrator.pairing import correlation
from orchestrator.study import Section, Table
from orchestrator.study_tables import listed, need
from orchestrator.swarm import clusters, densities, examples, over_seeds, rods, runs
from orchestrator.swarm.over_seeds import few_said, mean
from orchestrator.swarm.proportions import Proportion
from orchestrator.swarm.words import estimated, kelvin, rows, trend_said
from workers.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl

    from orchestrator.results import Results

ROTATION = "rod_rotation"
BY, HEADING = "trained", "temperature (K)"
# revolutions per hour of trainings that count as turning the rod
KEPT = 0.5
# um beside the rod within which agents touch or nearly touch it
BESIDE = 12.0
# frames of a run, at most, that places are taken from
MOST_FRAMES = 400


def rotating(results: Mapping[str, "Results"]) -> Section:
    """Revolutions per hour against temperature, and where agents stand in the frame of the rod."""
    source = need(results, ROTATION)
    frame, diverged = runs.deployments(source, ("trained", "seed"))
    rates = _rates(source, frame)
    if rates.is_empty():
        raise ConfigError(f"no deployment of {source.name} has a rod")
    kept = rates.filter(rates["rate"] > KEPT)
    length = runs.setting(runs.settings_of(source, rates["key"][0]), "rod_length", examples.ROD_LENGTH)
    placed = _placed(source, kept)
    table = over_seeds.means(kept, [BY], "rate")
    return Section(
        title="Turning a rod at different temperatures",
        findings=[*_rates_said(rates, kept), *_places_said(placed, length), *_groups_said(placed, length)],
        drawings=[_rates_drawn(table, kept), *_places_drawn(placed, length)],
        tables=[Table(name="rod-rates", heading=f"Revolutions per hour of those above {KEPT}", rows=rows(table, {BY: HEADING}))],
        notes=[
            *([f"{diverged} deployments diverged: left out"] if diverged else []),
            *few_said(min(rates.group_by(BY).len()["len"].to_list()), ROTATION),
        ],
        attachments=examples.animated(source, {f"rod at {kelvin(t)}": key for t, key in _fastest(kept).items()}, "rod"),
    )


def _rates(source: "Results", frame: "pl.DataFrame") -> "pl.DataFrame":
    """key, trained, seed, and `rate`: revolutions per hour either way round, as deployments told it of their scored frames, or of all."""
    import polars as pl

    found = frame.select("key", rate="revolutions_per_hour")
    if not found["rate"].is_finite().any():
        frames = runs.table(source, "frames", ()).select("key", "seconds", "rod_angle").collect()
        found = rods.revolutions_per_hour(frames).rename({"revolutions_per_hour": "rate"})
    own = frame.select("key", BY, "seed").join(found, on="key").with_columns(pl.col("rate").abs())
    return own.filter(pl.col("rate").is_finite())


def _fastest(kept: "pl.DataFrame") -> dict[float, str]:
    """Of the lowest and the highest temperature."""
    found = examples.best(kept, BY, "rate", most=True)
    return {t: found[t] for t in sorted({min(found), max(found)})} if found else {}


def _placed(source: "Results", kept: "pl.DataFrame") -> "pl.DataFrame":
    """Positions in the rod's frame of the second half of each run that is kept, in at most MOST_FRAMES of its frames."""
    import polars as pl

    keys = kept["key"].to_list()
    frames = runs.table(source, "frames", (BY,), keys).select("key", BY, "frame", "seconds", "rod_angle").collect()
    last = int(frames["frame"].max() or 0)  # type: ignore[arg-type]
    late = runs.table(source, "positions", (BY,), keys).filter(pl.col("frame") >= last // 2)
    known = late.select("frame").unique().collect()["frame"].sort()
    chosen = known.gather_every(max(1, len(known) // MOST_FRAMES)).to_list()
    positions = late.filter(pl.col("frame").is_in(chosen)).select("key", BY, "frame", "agent", "x", "y").collect()
    return rods.in_rod_frame(positions, frames.drop(BY))


# -- words --------------------------------------------------------------------------------------------------------------------


def _rates_said(rates: "pl.DataFrame", kept: "pl.DataFrame") -> list[str]:
    counts = {t: len(part) for (t,), part in sorted(rates.partition_by([BY], as_dict=True).items())}
    own = {t: kept.filter(kept[BY] == t)["rate"].to_list() for t in counts}
    shares = [f"{Proportion(successes=len(own[t]), trials=number).text()} at {kelvin(t)}" for t, number in counts.items()]
    lines = [f"Trainings that turn the rod by more than {KEPT} revolutions per hour (Wilson intervals): {listed(shares)}."]
    told = [f"{estimated(mean(values))} at {kelvin(t)}" for t, values in own.items() if values]
    if not told:
        return [*lines, "None turns it faster: there is no rate to tell."]
    trend = correlation(kept[BY].to_numpy(), kept["rate"].to_numpy(), kept["key"].to_numpy())
    along = trend_said(trend, "the rate", "temperature")
    return [
        *lines,
        f"Of these, revolutions per hour: {listed(told)} (means and 95 % intervals over trainings); {along}. The paper's own rates are not "
        "known here.",
    ]


def _near(placed: "pl.DataFrame", length: float) -> "pl.DataFrame":
    import polars as pl

    return placed.filter((pl.col("across").abs() < BESIDE) & (pl.col("along").abs() < length / 2 + BESIDE))


def _places_said(placed: "pl.DataFrame", length: float) -> list[str]:
    """How far out agents beside the rod push."""
    import polars as pl

    each = _near(placed, length).group_by("key", BY).agg(lever=pl.col("along").abs().mean())
    parts = sorted(each.partition_by([BY], as_dict=True).items())
    if not parts:
        return []
    told = [f"{estimated(mean(part['lever'].to_list()), '.1f')} at {kelvin(t)}" for (t,), part in parts]
    trend = correlation(each[BY].to_numpy(), each["lever"].to_numpy(), each["key"].to_numpy())
    return [
        f"Agents within {BESIDE:g} µm of the rod stand on average so far from its middle, in µm ({length / 2:g} is the tip, {length / 4:g} "
        f"what even places give): {listed(told)}; {trend_said(trend, 'the lever', 'temperature')}."
    ]


def _groups_said(placed: "pl.DataFrame", length: float) -> list[str]:
    """Whether trainings fall into groups by where their agents stand."""
    import numpy as np

    found = rods.occupation(placed, ["key"], length / 2 + BESIDE, 16) if len(placed) else {}
    if len(found) < 4:
        return ["Too few trainings turn the rod to look for groups of places."] if len(placed) else []
    shares = np.stack([own.ravel() for _, own in found.values()])
    groups = clusters.clusters(clusters.distances((shares + 1e-9)[:, None, :]))
    if len(groups.sizes) == 1:
        return [f"By where their agents stand beside the rod the {len(found)} trainings are one group: no silhouette speaks for more."]
    temperatures = dict(placed.select("key", BY).unique().iter_rows())
    told = []
    for place, size in enumerate(groups.sizes):
        own = [temperatures[key] for (key,), label in zip(found, groups.labels, strict=True) if label == place]
        told.append(f"{size} of {listed([kelvin(t) for t in sorted(set(own))])}")
    how = f"{len(groups.sizes)} groups (mean silhouette {groups.silhouette:.2f})"
    return [f"By where their agents stand beside the rod the trainings fall into {how}: {listed(told)}."]


# -- figures ------------------------------------------------------------------------------------------------------------------


def _rates_drawn(table: "pl.DataFrame", kept: "pl.DataFrame") -> Drawing:
    from orchestrator.figures.against import against

    ends = (float(table["value"].min() or 0.0), float(table["value"].max() or 0.0))  # type: ignore[arg-type]
    title = f"Rods turn by {ends[0]:.2g} to {ends[1]:.2g} revolutions per hour" if len(table) else "No rod turns"
    ax = against(
        table, x=BY, dots=kept.select(BY, value="rate"), title=title, x_label=HEADING, y_label="revolutions per hour", neutral=0.0,
        ticks=table[BY].to_list(), joined=False,
    )  # fmt: skip
    caption = f"Trainings that turn the rod by more than {KEPT} revolutions per hour (dots), their means and 95 % intervals."
    return Drawing(name="rod-rates", ax=ax, caption=caption)


def _places_drawn(placed: "pl.DataFrame", length: float) -> list[Drawing]:
    import polars as pl

    from orchestrator.figures.density_curves import density_curves
    from orchestrator.figures.rod_frame import rod_frame

    if placed.is_empty():
        return []
    half = length / 2 + 2 * BESIDE
    shares = {f"{kelvin(t)}": own for (t,), own in sorted(rods.occupation(placed, [BY], half).items())}
    histogram = rod_frame(shares, length=length, title="Where agents stand in the frame of the rod")
    near = _near(placed, length)
    # a rod has no front
    both = pl.concat([near, near.with_columns(-pl.col("along"))])
    along = densities.of_groups(both, "along", BY, (-half, half), length / 40)
    curves = density_curves(
        along, by=BY, x_label="position along the rod (µm)", heading=HEADING, title="Where along the rod agents push",
        marks=(-length / 2, length / 2),
    )  # fmt: skip
    caption = "Second half of the runs that turn the rod, each counted alike; the rod (blue) is laid level, and turns counter-clockwise."
    return [
        Drawing(name="rod-places", ax=histogram, caption=caption, wide=True),
        Drawing(
            name="rod-along",
            ax=curves,
            caption=f"Agents within {BESIDE:g} µm of the rod, its ends (dotted) alike; standard errors over trainings.",
        ),
    ]
