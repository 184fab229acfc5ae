"""What a sweep has cost as a table: each attempt's share and its job's overhead, told apart into what was of use and what was wasted.

*useful*: the attempts whose results stand. *continued*: attempts that were cut short, and from whose checkpoint the task went on (or can).
*wasted*: all else, by cause: how the attempt ended, `retracted` where its result was taken back, `overhead` of the job (its start, idle
slots, killed runs; `orchestrator.cost`), which is shared over its attempts by their time and slots.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.cost import MEASURES
from workers.errors import UnknownName, nearest

if TYPE_CHECKING:
    import polars as pl

    from orchestrator.cost import Hours
    from orchestrator.results import Results

KINDS = ("useful", "continued", "wasted")
SUMMED = (*MEASURES, "energy_joules")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """What the tasks with one value of something have cost; None: not known. `wasted` is a part of `hours`."""

    value: Any
    tasks: int
    attempts: int
    hours: dict[str, float | None]
    wasted: dict[str, float]
    joules: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What the tasks of a sweep have cost so far, in all sweeps that computed them; jobs at work are counted when they have ended.

    `by`: axis (or `workload`) -> groups; `causes`: (kind, cause) -> group. `unknown`: attempts of which nobody knows what they cost.
    `limits`, `spent`, `at_work`: the budget of the sweep, what the jobs that it sent have cost, and those of them that are at work.
    """

    name: str
    total: Group
    by: dict[str, list[Group]]
    causes: list[tuple[str, Group]]
    jobs: int = 0
    unknown: int = 0
    limits: "Hours" = field(default_factory=dict)
    spent: "Hours" = field(default_factory=dict)
    at_work: "Hours" = field(default_factory=dict)
    next: str = ""


def frame(attempts: "pl.DataFrame", jobs: "pl.DataFrame", committed: "pl.DataFrame", keys: "pl.Series", name: str) -> "pl.DataFrame":
    """A row per attempt of the tasks `keys` of the sweep `name`, and per attempt's share of its job's overhead, which has no attempt.

    `attempts`, `jobs`: also of other sweeps. `committed`: key and attempt of the results that stand.
    """
    import polars as pl

    attempts = attempts.with_columns(pl.col(*SUMMED).cast(pl.Float64))
    jobs = jobs.with_columns(pl.col(*SUMMED).cast(pl.Float64))
    mine = keys.to_frame("key")
    rows = _causes(attempts.join(mine, on="key", how="semi"), committed.select("key", _committed="attempt"))
    overhead = _overhead(attempts, jobs, name).join(mine, on="key", how="semi")
    columns = ["key", "attempt", "batch", "kind", "cause", *SUMMED]
    return pl.concat([rows.select(columns), overhead.select(columns)], how="vertical_relaxed")


def _causes(rows: "pl.DataFrame", committed: "pl.DataFrame") -> "pl.DataFrame":
    """Attempts with their kind and cause."""
    import polars as pl

    stands = pl.col("attempt") == pl.col("_committed")
    done = pl.col("class").is_in(["completed", "diverged"])
    went_on = _went_on()
    rows = rows.join(committed, on="key", how="left", maintain_order="left").sort("started", nulls_last=True, maintain_order=True)
    return rows.with_columns(
        kind=pl.when(stands.fill_null(False)).then(pl.lit("useful")).when(went_on).then(pl.lit("continued")).otherwise(pl.lit("wasted")),
        cause=pl.when(done & ~stands.fill_null(False)).then(pl.lit("retracted")).otherwise(pl.col("class")),
    )


def _went_on() -> "pl.Expr":
    """Whether an attempt, in the order of their start, brought its task further: the next of which that is known began at a later step
    than this one; where there is none, its checkpoint is newer. Of one that was lost, its start is the newest checkpoint before it."""
    import polars as pl

    done = pl.col("class").is_in(["completed", "diverged"])
    known = pl.when(done).then(pl.col("resumed_at").fill_null(-1)).otherwise(pl.col("resumed_at"))
    before = pl.col("checkpoint").cum_max().forward_fill().shift(1).over("key")
    begun = pl.coalesce(pl.col("resumed_at"), before, pl.lit(-1))
    following = known.shift(-1).backward_fill().over("key")
    return ~done & pl.coalesce(following > begun, pl.col("checkpoint") > begun, pl.lit(False))


def _overhead(attempts: "pl.DataFrame", jobs: "pl.DataFrame", name: str) -> "pl.DataFrame":
    """What jobs cost beyond their attempts: of those with attempts shared over these, of the sweep's others over their tasks."""
    import polars as pl

    ours = attempts.group_by("batch").agg(*(pl.col(one).fill_null(0).sum().alias(f"_{one}") for one in SUMMED))
    rest = jobs.join(ours, on="batch", how="left").select(
        "batch", "sweep", "idle_tasks", *((pl.col(one) - pl.col(f"_{one}").fill_null(0)).clip(lower_bound=0).alias(one) for one in SUMMED)
    )
    weight = pl.col("node_hours").fill_null(0)
    share = pl.when(weight.sum().over("batch") > 0).then(weight / weight.sum().over("batch")).otherwise(1 / pl.len().over("batch"))
    shared = attempts.select("key", "batch", share.alias("_share")).join(rest.filter(pl.col("idle_tasks").is_null()), on="batch")
    idle = rest.filter(pl.col("idle_tasks").is_not_null() & (pl.col("sweep") == name)).with_columns(
        key=pl.col("idle_tasks").str.json_decode(pl.List(pl.String))
    )
    idle = idle.with_columns(_share=1 / pl.col("key").list.len()).explode("key").filter(pl.col("key").is_not_null())
    both = [
        rows.select("key", "batch", pl.lit(cause).alias("cause"), *(pl.col(one) * pl.col("_share") for one in SUMMED))
        for rows, cause in ((shared, "overhead"), (idle, "never_started"))
    ]
    return pl.concat(both, how="vertical_relaxed").with_columns(attempt=pl.lit(None, pl.String), kind=pl.lit("wasted"))


def grouped(rows: "pl.DataFrame", by: Sequence[str]) -> "pl.DataFrame":
    """Rows of `frame`, with axes, summed up: tasks, attempts, the measures, and of each the part that was wasted."""
    import polars as pl

    columns = [name for name in rows.columns if name not in ("attempt", "batch", *SUMMED)]
    for name in by:
        if name not in columns:
            raise UnknownName(f"no column {name!r} to tell costs apart by{nearest(name, columns)} There are {', '.join(columns)}")
    wasted = pl.col("kind") == "wasted"
    aggregates = [
        pl.col("key").n_unique().alias("tasks"),
        pl.col("attempt").drop_nulls().n_unique().alias("attempts"),
        *(pl.when((pl.col(one).count() > 0) | (pl.len() == 0)).then(pl.col(one).sum()).alias(one) for one in MEASURES),
        pl.col(*MEASURES).filter(wasted).sum().name.prefix("wasted_"),
        pl.when(pl.col("energy_joules").count() > 0).then(pl.col("energy_joules").sum()).alias("energy_joules"),
    ]
    if not by:
        return rows.select(aggregates)
    lists = [name for name in by if rows[name].dtype == pl.List]
    rows = rows.with_columns(pl.col(lists).cast(pl.List(pl.String)).list.join(", "))
    return rows.group_by(by, maintain_order=True).agg(aggregates).sort(by, nulls_last=True)


def table(results: "Results", by: Iterable[str] = ()) -> Cost:
    """The cost of a sweep by each of its axes and by workload, or by what `by` names; without its budget."""
    import polars as pl

    rows = results.costs().collect()
    axes = [name if f"{name}_axis" not in rows.columns else f"{name}_axis" for name in results.axis_names]
    names = list(by) or [*axes, "workload"]
    causes = grouped(rows, ["kind", "cause"])
    order = {kind: number for number, kind in enumerate(KINDS)}
    listed = sorted(causes.to_dicts(), key=lambda row: (order[row["kind"]], -(row["cpu_hours"] or 0.0)))
    return Cost(
        name=results.name,
        total=_group(grouped(rows, []).to_dicts()[0], "all"),
        by={name: [_group(row, row[name]) for row in grouped(rows, [name]).to_dicts()] for name in names},
        causes=[(row["kind"], _group(row, row["cause"])) for row in listed],
        jobs=rows["batch"].drop_nulls().n_unique(),
        next=f"eigensweep status {results.name}",
        unknown=rows.filter(pl.col("attempt").is_not_null() & pl.col("cpu_hours").is_null()).height,
    )


def _group(row: dict[str, Any], value: Any) -> Group:
    return Group(
        value=value,
        tasks=row["tasks"],
        attempts=row["attempts"],
        hours={one: row[one] for one in MEASURES},
        wasted={one: row[f"wasted_{one}"] for one in MEASURES},
        joules=row["energy_joules"],
    )
