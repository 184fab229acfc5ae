"""A section of the study of chemotaxis: how close and how fast swarms come that succeed, against radius and speed (arXiv 2404.01999)."""

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.drawings import Drawing
from orchestrator.study import Section, Table
from orchestrator.study_tables import listed, need
from orchestrator.swarm import over_seeds, runs
from orchestrator.swarm.emergence_sections import AXES, CHEMOTAXIS, shapes
from orchestrator.swarm.over_seeds import few_said, mean
from orchestrator.swarm.plateaus import Plateau, Straight, plateau, straight
from orchestrator.swarm.words import between, estimated, rows, some

if TYPE_CHECKING:
    import polars as pl

    from orchestrator.results import Results

# um from which the distance grows with the radius; below, noise decides
LARGE = 1.0
# equilibrium distance of spheres of a radius of 2.5 um by speed, read off the authors' figure (um)
AUTHORS = {1.0: 4.1, 2.0: 4.7, 3.0: 5.3, 4.0: 6.0, 5.0: 6.8}
AUTHORS_RADIUS, TOLERANCE = 2.5, 0.1
MEASURES = {
    "time_to_source": ("time to the source", "s", False),
    # times the radius, as the authors scale it: near the source a robot comes as far from it as it is large
    "scaled_reward": ("mean reward times radius", "µm per decision", True),
}
# what may have a limit along what: the other axis, its unit and its plural, and what converges then
ALONG = {
    "radius": ("speed", "lengths / s", "speeds", "size"),
    "speed": ("radius", "µm", "radii", "speed"),
}
UNITS = {"radius": "µm", "speed": "lengths / s"}


def efficiency(results: Mapping[str, "Results"]) -> Section:
    """Equilibrium distance, time to the source and reward of the trainings that succeed."""
    import polars as pl

    frame, _ = runs.deployments(need(results, CHEMOTAXIS), AXES)
    good = frame.filter(frame["success"] > 0.5).with_columns(scaled_reward=pl.col("mean_reward") * pl.col("radius"))
    findings: list[str] = []
    drawings: list[Drawing] = []
    tables: list[dict[str, Any]] = []
    for shape in shapes(good):
        part = good.filter(good["shape"] == shape)
        lines = growth(part)
        findings += _growth_said(lines, shape) + (_authors_said(part) if shape == "sphere" else [])
        drawings.append(_distance_drawn(part, lines, shape))
        for along, column in itertools.product(ALONG, MEASURES):
            if part[along].n_unique() == 1:
                continue
            fits = plateaus(part, column, along)
            findings += _plateau_said(fits, shape, column, along)
            drawings.append(_plateau_drawn(part, fits, shape, column, along))
            tables += [_plateau_row(shape, column, along, at, one) for at, one in fits.items()]
    means = over_seeds.means(good, ["shape", "speed", "radius"], "mean_distance")
    return Section(
        title="How close and how fast",
        findings=findings or ["No training succeeds: there is no efficiency to tell."],
        drawings=drawings,
        tables=[
            Table(
                name="plateaus",
                heading="Limits at large radii and speeds, with the radius or speed over which they are reached",
                rows=tables,
            ),
            Table(name="equilibrium", heading="Equilibrium distance (µm) of trainings that succeed", rows=rows(means)),
        ],
        notes=[
            "only trainings that succeed are counted, which end within the distance that counts as success: those that fail are in no mean",
            *few_said(min(means["num"].to_list(), default=0), "efficiency, of the trainings that succeed"),
        ],
    )


def growth(part: "pl.DataFrame") -> dict[float, Straight]:
    """By speed: a line through the distances of radii of at least LARGE."""
    large = part.filter(part["radius"] >= LARGE)
    found = {}
    for (speed,), own in sorted(large.partition_by(["speed"], as_dict=True).items()):
        one = straight(own["radius"].to_numpy(), own["mean_distance"].to_numpy(), own["seed"].to_numpy())
        if one is not None:
            found[float(speed)] = one
    return found


def plateaus(part: "pl.DataFrame", column: str, along: str) -> dict[float, Plateau]:
    """A saturating curve of the column along the radius by speed, or along the speed by radius."""
    by, from_zero = ALONG[along][0], MEASURES[column][2]
    found = {}
    for (at,), own in sorted(part.filter(part[column].is_finite()).partition_by([by], as_dict=True).items()):
        one = plateau(own[along].to_numpy(), own[column].to_numpy(), own["seed"].to_numpy(), from_zero=from_zero)
        if one is not None:
            found[float(at)] = one
    return found


# -- words --------------------------------------------------------------------------------------------------------------------


def _growth_said(lines: Mapping[float, Straight], shape: str) -> list[str]:
    if not lines:
        return [f"{shape}: too few radii above {LARGE:g} µm succeed for a line of distance against radius."]
    told = [f"{one.slope.value:.2f} {between(one.slope.low, one.slope.high, '.2f')} at {speed:g}" for speed, one in lines.items()]
    rising = [f"{speed:g}" for speed, one in lines.items() if one.slope.low > 0]
    falling = [f"{speed:g}" for speed, one in lines.items() if one.slope.high < 0]
    held = f"agrees with it at {len(rising)} of {len(lines)} speeds" + (f" and contradicts it at {', '.join(falling)}" if falling else "")
    return [
        f"{shape}: from a radius of {LARGE:g} µm on, the equilibrium distance grows by (µm a µm, by speed) {listed(told)}; intervals are "
        f"from whole seeds. The authors' figure shows linear growth: this {held}."
    ]


def _authors_said(part: "pl.DataFrame") -> list[str]:
    """At AUTHORS_RADIUS, or the radius next to it. Medians, as a training that just counts as a success ends three times as far away."""
    import polars as pl

    near = part.filter((pl.col("radius") - AUTHORS_RADIUS).abs() <= 0.1)
    told = []
    for speed, theirs in AUTHORS.items():
        found = near.filter(pl.col("speed") == speed)["mean_distance"]
        if len(found):
            own, middle = mean(found.to_list()), float(found.median())  # type: ignore[arg-type]
            low, high = own.interval
            inside = abs(middle - theirs) <= TOLERANCE * theirs
            apart = low > theirs * (1 + TOLERANCE) or high < theirs * (1 - TOLERANCE)
            verdict = f"within {TOLERANCE:.0%}" if inside else "clearly elsewhere" if apart else "undecided"
            told.append(f"{middle:.3g} for their {theirs} at {speed:g} ({verdict}; mean {estimated(own)})")
    if not told:
        return []
    return [f"sphere, radius {AUTHORS_RADIUS} µm: the median distance in the end is, in µm, {listed(told)}; theirs are read off a figure."]


def _plateau_said(fits: Mapping[float, Plateau], shape: str, column: str, along: str) -> list[str]:
    (said, unit, _), (by, _, plural, what) = MEASURES[column], ALONG[along]
    if not fits:
        few = "radii" if along == "radius" else "speeds"
        return [f"{shape}: too few {few} succeed to say whether the {said} converges along the {along}."]
    reached = [at for at, one in fits.items() if one.is_reached]
    told = [
        f"{one.limit.value:.3g} {between(one.limit.low, one.limit.high)} at {at:g} (over {one.scale.value:.2g} {UNITS[along]})"
        for at, one in fits.items()
        if one.is_reached
    ]
    claim = f"the claim that efficiency converges in {what}"
    if not reached:
        return [f"{shape}: along the {along} the {said} is not shown to have reached a limit within this sweep; it does not show {claim}."]
    rest = "" if len(reached) == len(fits) else f", not shown to at {len(fits) - len(reached)} others"
    return [
        f"{shape}: with growing {along} the {said} comes within 5 % of its limit at {len(reached)} of {some(len(fits), by)}{rest}; limits, "
        f"{unit}: {listed(told)}. This agrees with {claim} at these {plural}."
    ]


def _plateau_row(shape: str, column: str, along: str, at: float, one: Plateau) -> dict[str, Any]:
    return {
        "shape": shape,
        "of": MEASURES[column][0],
        "along": along,
        "at": (f"{ALONG[along][0]} {at:g}", at),
        "limit": (one.limit.text(), one.limit.value),
        "start": (one.start.text(), one.start.value),
        "over": (f"{one.scale.text()} {UNITS[along]}", one.scale.value),
        "reached": "yes" if one.is_reached else "not shown",
        "seeds": one.num_seeds,
    }


# -- figures ------------------------------------------------------------------------------------------------------------------


def _distance_drawn(part: "pl.DataFrame", lines: Mapping[float, Straight], shape: str) -> Drawing:
    import numpy as np

    from orchestrator.figures.against import against

    shown, chosen = _few(part, "speed")
    radii = np.linspace(LARGE, max(part["radius"].to_list()), 20)
    curves = {speed: (radii, one.intercept.value + one.slope.value * radii) for speed, one in lines.items() if speed in chosen}
    slopes = [one.slope.value for one in lines.values() if one.slope.low > 0.0]
    grows = slopes and len(slopes) == len(lines)
    ends = " to ".join(f"{one:.2g}" for one in sorted({min(slopes), max(slopes)})) if grows else ""
    title = f"Distance grows by {ends} µm a µm" if grows else "Equilibrium distance"
    ax = against(
        over_seeds.means(shown, ["speed", "radius"], "mean_distance"), x="radius", by="speed", title=f"{title}, {shape}",
        x_label="radius (µm)", y_label="equilibrium distance (µm)", heading="speed\n(lengths / s)", curves=curves, joined=False,
        dots=shown.select("radius", "speed", value="mean_distance"),
    )  # fmt: skip
    caption = (
        f"{shape}, trainings that succeed (dots), means and 95 % intervals over seeds, the longest cut; dashed: lines from {LARGE:g} µm on."
    )
    return Drawing(name=f"equilibrium-{shape}", ax=ax, caption=caption)


def _plateau_drawn(part: "pl.DataFrame", fits: Mapping[float, Plateau], shape: str, column: str, along: str) -> Drawing:
    import numpy as np

    from orchestrator.figures.against import against

    (said, unit, _), (by, by_unit, plural, _) = MEASURES[column], ALONG[along]
    shown, chosen = _few(part, by)
    places = np.linspace(min(part[along].to_list()), max(part[along].to_list()), 80)
    curves = {at: (places, one.at(places)) for at, one in fits.items() if at in chosen}
    reached = sum(one.is_reached for one in fits.values())
    title = f"{said[0].upper()}{said[1:]}, {shape}"
    if fits:
        title += f": a limit at {reached} of {len(fits)} {plural if len(fits) > 1 else by}"
    ax = against(
        over_seeds.means(shown, [by, along], column), x=along, by=by, x_label=f"{along} ({UNITS[along]})", y_label=f"{said} ({unit})",
        title=title, heading=f"{by}\n({by_unit})", curves=curves, joined=False,
    )  # fmt: skip
    caption = f"{shape}, trainings that succeed: means and 95 % intervals over seeds; dashed: curves with a limit."
    beside = "" if along == "radius" else f"-along-{along}"
    return Drawing(name=f"{column.replace('_', '-')}{beside}-{shape}", ax=ax, caption=caption)


def _few(part: "pl.DataFrame", by: str) -> "tuple[pl.DataFrame, list[float]]":
    """At most five values of an axis, with both ends."""
    from orchestrator.figures import style

    chosen = [float(one) for one in style.thinned(part[by].to_list(), 5)]
    return part.filter(part[by].is_in(chosen)), chosen
