"""A section of the study of chemotaxis: at which radii and speeds it emerges, beside what noise allows (arXiv 2404.01999)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.drawings import Drawing
from orchestrator.study import Section, Table
from orchestrator.study_tables import listed, need
from orchestrator.swarm import boundaries, proportions, runs
from orchestrator.swarm.over_seeds import few_said
from orchestrator.swarm.proportions import Onset, proportion
from orchestrator.swarm.words import p_said, rows, some, standing

if TYPE_CHECKING:
    import polars as pl

    from orchestrator.results import Results

CHEMOTAXIS = "chemotaxis"
AXES = ("shape", "radius", "speed", "seed")
SHAPES = ("sphere", "prolate", "oblate")
# friction over that of a sphere of the same volume: of the axis' turning, and of swimming along it (3:1 and 1:3; Perrin, Oberbeck)
FRICTION = {"sphere": (1.0, 1.0), "prolate": (2.3408, 0.9738), "oblate": (1.4645, 1.2673)}
# a share of successes that is clearly above it is no accident
BOUND = 0.05


def emergence(results: Mapping[str, "Results"]) -> Section:
    """Where trainings succeed, by shape; whether the boundaries of turning and of swimming against noise tell where."""
    source = need(results, CHEMOTAXIS)
    frame, diverged = runs.deployments(source, AXES)
    noise = noise_of(runs.settings_of(source, frame["key"][0]))
    named = with_boundaries(frame, noise)
    shares = proportions.of_groups(frame, ["shape", "speed", "radius"])
    onsets = onset_rows(shares, noise)
    findings: list[str] = []
    for shape in shapes(frame):
        part = named.filter(named["shape"] == shape)
        findings += [*_shape_said(part, shares.filter(shares["shape"] == shape), shape), *_boundaries_said(part, shape)]
        findings += _onsets_said([row for row in onsets if row["shape"] == shape], shape)
    return Section(
        title="Where chemotaxis emerges",
        findings=findings,
        drawings=[_drawn(shares.filter(shares["shape"] == shape), shape, noise) for shape in shapes(frame)],
        tables=[
            Table(name="onsets", heading="Least radius that succeeds, by speed", rows=[_told(row) for row in onsets]),
            Table(name="chemotaxis-success", heading="Trainings that succeed (Wilson intervals)", rows=rows(shares)),
        ],
        notes=[
            *([f"{diverged} deployments diverged: left out"] if diverged else []),
            *few_said(min(shares["trials"].to_list(), default=0), CHEMOTAXIS),
        ],
    )


def shapes(frame: "pl.DataFrame") -> list[str]:
    """Those that there are, in the paper's order."""
    known = set(frame["shape"])
    return [*(one for one in SHAPES if one in known), *sorted(known - set(SHAPES))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """What the boundaries are of: turns (rad / s), temperature (K) and viscosity (Pa s)."""

    turn_rate: float = math.radians(600.0)
    temperature: float = 300.0
    viscosity: float = boundaries.WATER

    def translation(self, shape: str, speed: float) -> float:
        """Boundary radius (um) of swimming."""
        return boundaries.translational(speed, self.temperature, self.viscosity, FRICTION.get(shape, (1.0, 1.0))[1])

    def rotation(self, shape: str) -> float:
        """Boundary radius (um) of turning."""
        return boundaries.rotational(self.turn_rate, self.temperature, self.viscosity, FRICTION.get(shape, (1.0, 1.0))[0])


def noise_of(settings: Mapping[str, Any]) -> Noise:
    """As the settings of a deployment have it; else as in the paper."""
    paper = Noise()
    return Noise(
        turn_rate=math.radians(runs.setting(settings, "turn_rate", math.degrees(paper.turn_rate))),
        temperature=runs.setting(settings, "temperature_kelvin", paper.temperature),
        viscosity=runs.setting(settings, "viscosity", paper.viscosity),
    )


def with_boundaries(frame: "pl.DataFrame", noise: Noise) -> "pl.DataFrame":
    """With the columns `translation` and `rotation`, boundary radii (um) of each row's shape and speed."""
    import polars as pl

    pairs = frame.select("shape", "speed").rows()
    return frame.with_columns(
        pl.Series("translation", [noise.translation(shape, float(speed)) for shape, speed in pairs], dtype=pl.Float64),
        pl.Series("rotation", [noise.rotation(shape) for shape, _ in pairs], dtype=pl.Float64),
    )


def onset_rows(shares: "pl.DataFrame", noise: Noise) -> list[dict[str, Any]]:
    """A row a shape and speed: its `onset`, and the boundary of swimming."""
    found = []
    for (shape, speed), part in sorted(shares.partition_by(["shape", "speed"], as_dict=True).items()):
        one = proportions.onset(part, "radius", BOUND)
        found.append({"shape": shape, "speed": speed, "onset": one, "boundary": noise.translation(shape, float(speed))})
    return found


# -- words --------------------------------------------------------------------------------------------------------------------


def _told(row: Mapping[str, Any]) -> dict[str, Any]:
    one: Onset = row["onset"]
    numbers = {
        "first success (µm)": one.first,
        "next below, none (µm)": one.below,
        f"interval above {BOUND} (µm)": one.clear,
        "boundary of swimming (µm)": row["boundary"],
    }
    shown = {name: ("–" if math.isnan(value) else f"{value:.3f}", value) for name, value in numbers.items()}
    return {"shape": row["shape"], "speed (body lengths / s)": row["speed"], **shown}


def _shape_said(part: "pl.DataFrame", shares: "pl.DataFrame", shape: str) -> list[str]:
    """The least radius with a success, and that which is clear."""
    whole = proportion(part["success"])
    if not whole.successes:
        return [f"{shape}: none of {whole.trials} trainings succeeds, up to a radius of {max(part['radius'].to_list()):g} µm."]
    first = min(part.filter(part["success"] > 0.5)["radius"].to_list())
    below = proportion(part.filter(part["radius"] < first)["success"])
    clear = shares.filter(shares["low"] > BOUND)["radius"].to_list()
    told = f"from {min(clear):g} µm the Wilson interval of a point is above {BOUND}" if clear else "no point's interval is clear"
    none = f", none of {below.trials} below it" if below.trials else ", the least radius of the sweep"
    return [f"{shape}: {whole.successes} of {whole.trials} trainings succeed, the smallest with a radius of {first:g} µm{none}; {told}."]


def _boundaries_said(part: "pl.DataFrame", shape: str) -> list[str]:
    """Shares below and above each boundary, and what happens before swimming overpowers noise."""
    import polars as pl

    lines = []
    for column, said in (("rotation", "turning"), ("translation", "swimming")):
        above, below = (proportion(part.filter(chosen)["success"]) for chosen in _sides(column))
        if not (above.trials and below.trials):
            lines.append(f"{shape}: all radii lie on one side of the boundary of {said}: it is not tested.")
            continue
        where = f"R* = {part['rotation'][0]:.3f} µm" if column == "rotation" else "R* by speed, see the table"
        p = above.p_value(below)
        held = standing(above.value - below.value, p)
        lines.append(
            f"{shape}: above the boundary of {said} ({where}) {above.text()} succeed, below it {below.text()} "
            f"(Fisher's test, {p_said(p)}). This {held} the claim that chemotaxis emerges where {said} overpowers noise."
        )
    early = part.filter((pl.col("radius") < pl.col("translation")) & (pl.col("success") > 0.5))
    if len(early):
        ratio = early.select((pl.col("radius") / pl.col("translation")).min()).item()
        told = f"of those below the boundary of swimming {len(early)} succeed, down to {ratio:.2f} of it. This agrees with the paper's"
    else:
        told = "no training succeeds below the boundary of swimming. This does not show the paper's"
    return [*lines, f"{shape}: {told} finding that chemotaxis emerges sometimes before active swimming overpowers noise."]


def _sides(column: str) -> "tuple[pl.Expr, pl.Expr]":
    import polars as pl

    return pl.col("radius") >= pl.col(column), pl.col("radius") < pl.col(column)


def _onsets_said(onsets: list[dict[str, Any]], shape: str) -> list[str]:
    """At how many speeds the boundary of swimming lies in the bracket of the onset; of those that have a radius without a success."""
    onsets = [row for row in onsets if not math.isnan(row["onset"].below)]
    held = [(row["speed"], row["onset"].holds(row["boundary"])) for row in onsets]
    count = {answer: [f"{speed:g}" for speed, own in held if own is answer] for answer in (True, False, None)}
    lines = [
        f"{shape}: the boundary of swimming lies between the last radius without and the first with a success at "
        f"{len(count[True])} of {some(len(held) - len(count[None]), 'speed')} with one"
        + (f" (body lengths / s: {', '.join(count[True])})" if count[True] else "")
    ]
    earlier = [row for row in onsets if row["onset"].first < row["boundary"]]
    later = [row for row in onsets if row["onset"].holds(row["boundary"]) is False and row["onset"].first > row["boundary"]]
    if earlier or later:
        lines[0] += (
            f"; the first success is at a smaller radius than the boundary at {some(len(earlier), 'speed')}, and well beyond it at "
            f"{len(later)}"
        )
    told = [f"{row['onset'].first:g} µm at {row['speed']:g}" for row in onsets if not math.isnan(row["onset"].first)]
    paper = " The authors' early notebook has 0.325 µm at 4 and 5, 0.4 at 2 and 3, 0.7 at 1, with 10 seeds." if shape == "sphere" else ""
    return [f"{lines[0]}. First successes: {listed(told)}.{paper} More seeds find earlier ones."] if told else []


# -- figures ------------------------------------------------------------------------------------------------------------------


def _drawn(shares: "pl.DataFrame", shape: str, noise: Noise) -> Drawing:
    import numpy as np

    from orchestrator.figures.onset import onset

    ends = (float(shares["speed"].min() or 0.0), float(shares["speed"].max() or 0.0))  # type: ignore[arg-type]
    speeds = np.linspace(max(ends[0] - 0.1, 0.05), ends[1] + 0.1, 60)
    lines = {
        "noise moves as far as it swims": ([noise.translation(shape, float(one)) for one in speeds], speeds),
        "noise turns as far as it turns": ([noise.rotation(shape)] * 2, [speeds[0], speeds[-1]]),
    }
    some = shares.filter(shares["successes"] > 0)
    first = f"begins at {float(some['radius'].min()):g} µm" if len(some) else "is not seen"  # type: ignore[arg-type]
    ax = onset(
        shares, x="radius", y="speed", boundaries=lines, title=f"Chemotaxis of the {shape} {first}", x_label="radius (µm)",
        y_label="swim speed (body lengths / s)",
    )  # fmt: skip
    caption = f"{shape}. Colour: share of trainings that succeed; open: none. Lines: boundaries at {noise.temperature:g} K, of one volume."
    return Drawing(name=f"onset-{shape}", ax=ax, caption=caption)
