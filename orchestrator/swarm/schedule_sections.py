"""Sections of the study of temperature: policies trained while it rises, falls or is drawn, beside those of one temperature."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from orchestrator.drawings import Drawing
from orchestrator.study import Section, Table
from orchestrator.study_tables import listed, need
from orchestrator.swarm import over_seeds, runs, transfer, transfer_sections
from orchestrator.swarm.over_seeds import few_said, mean
from orchestrator.swarm.words import estimated, kelvin, rows

if TYPE_CHECKING:
    import polars as pl

    from orchestrator.results import Results

GRADIENT, ROD = "gradient_schedules", "rod_schedules"
_AXES = ("temperatures", "temperature_range", "deployed", "seed")


def gradient(results: Mapping[str, "Results"]) -> Section:
    """Whether a source is searched better by policies whose temperature changed while they learned."""
    frame, num_diverged = _frame(results, GRADIENT, transfer_sections.GRADIENT)
    return _section(frame, num_diverged, GRADIENT, "success", "Searching after training at changing temperature", "share that succeeds")


def rod(results: Mapping[str, "Results"]) -> Section:
    """The same of a rod that is turned, either way round."""
    import polars as pl

    frame, num_diverged = _frame(results, ROD, transfer_sections.ROD)
    frame = frame.with_columns(pl.col("revolutions_per_hour").abs())
    title = "Turning a rod after training at changing temperature"
    return _section(frame, num_diverged, ROD, "revolutions_per_hour", title, "revolutions per hour")


def schedule(temperatures: Sequence[float], temperature_range: Sequence[float]) -> str:
    """What a curriculum does to the temperature, in words: `rising, 0 to 350 K`."""
    if temperature_range:
        return f"drawn, {temperature_range[0]:g} to {kelvin(temperature_range[1])}"
    if not temperatures:
        return "own"
    ways = {"rising": sorted(temperatures), "falling": sorted(temperatures, reverse=True)}
    way = next((name for name, order in ways.items() if list(temperatures) == order), "by phase")
    return f"{way}, {temperatures[0]:g} to {kelvin(temperatures[-1])}"


def _frame(results: Mapping[str, "Results"], schedules: str, constant: str) -> "tuple[pl.DataFrame, int]":
    """Deployments of both sweeps: trained (in words; is_constant: at one temperature), deployed, seed, scalars; and how many diverged."""
    import polars as pl

    changing, num_diverged = runs.deployments(need(results, schedules), _AXES)
    names = [schedule(*row) for row in changing.select(_AXES[:2]).iter_rows()]
    changing = changing.drop(_AXES[:2]).with_columns(trained=pl.Series(names, dtype=pl.String), is_constant=pl.lit(False))
    if constant not in results:
        return changing, num_diverged
    one, more = runs.deployments(results[constant], ("trained", "deployed", "seed"))
    named = one.sort("trained").with_columns(pl.col("trained").map_elements(kelvin, return_dtype=pl.String), is_constant=pl.lit(True))
    return pl.concat([named.select(changing.columns), changing]), num_diverged + more


def _section(frame: "pl.DataFrame", num_diverged: int, name: str, y: str, title: str, label: str) -> Section:
    import polars as pl

    order = frame["trained"].unique(maintain_order=True).to_list()
    changing = frame.filter(~pl.col("is_constant"))["trained"].unique(maintain_order=True).to_list()
    constant = [at for at in order if at not in changing]
    binary = y == "success"
    each = frame.filter(pl.col(y).is_finite()).group_by("trained", "seed").agg(pl.col(y).mean())
    found = transfer.between_trainings(each, "trained", y, changing, constant)
    cells = transfer.matrix(frame, "trained", "deployed", y, binary=binary)
    cells = cells.sort(pl.col("trained").replace_strict(order, range(len(order)), return_dtype=pl.Int64), "deployed")
    return Section(
        title=title,
        findings=[*_means_said(each, changing, y, label), *_compared_said(found)],
        drawings=[_drawn(cells, name, title, label)],
        tables=[
            Table(
                name=name.replace("_", "-"),
                heading="Changing temperature less one temperature, means over all temperatures of deployment",
                rows=rows(found, {"num": "trainings"}),
            )
        ],
        notes=[
            *([f"{num_diverged} deployments diverged: left out"] if num_diverged else []),
            *([] if constant else ["policies of one temperature to compare with lack: submit the sweep of transfers, too"]),
            *few_said(min(cells["num"].to_list(), default=0), name),
        ],
    )


def _means_said(each: "pl.DataFrame", changing: list[str], y: str, label: str) -> list[str]:
    told = over_seeds.means(each, ["trained"], y)["trained"].to_list()
    lines = [f"{estimated(mean(each.filter(each['trained'] == at)[y].to_list()))} if {at}" for at in changing if at in told]
    return [f"Over all temperatures of deployment, {label} is {listed(lines)} (means over trainings, 95 % intervals)."] if lines else []


def _compared_said(found: "pl.DataFrame") -> list[str]:
    if found.is_empty():
        return []
    clear = found.filter(found["decided"] != "undecided")
    told = [f"{row['trained']} is {row['decided']} than {row['beside']} ({row['value']:+.2f})" for row in clear.rows(named=True)]
    test = f"of {len(found)} pairs, by Welch's test with Holm's correction"
    if told:
        return [f"Beside policies trained at one temperature, {listed(told)}; the rest is undecided ({test})."]
    widest = float((found["high"] - found["low"]).fill_nan(None).max() or 0.0) / 2  # type: ignore[arg-type]
    return [
        f"None is decided to be better or worse than policies trained at one temperature ({test}; differences are known to {widest:.2g})."
    ]


def _drawn(cells: "pl.DataFrame", name: str, title: str, label: str) -> Drawing:
    from orchestrator.figures.transfer_matrix import transfer_matrix

    ax = transfer_matrix(cells, title=title, unit="K", label=label)
    caption = "Means over trainings with 95 % intervals; above, policies trained at one temperature."
    return Drawing(name=name.replace("_", "-"), ax=ax, caption=caption)
