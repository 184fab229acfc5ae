"""The runs of a data selection sweep as one table, and the agreement of the sets that methods choose."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

SEEDS = ("seed", "seed_init", "seed_subset", "seed_noise")
# what makes runs of one kind, compared only within; `classes` is "balanced" where a method took each class in turn, else "any"
KIND = ("data", "model", "classes")
# of the kernel of the set at initialisation (D11, D13), and of its labels
AT_START = (
    "entropy_traced",
    "entropy_normalised_traced",
    "effective_rank_traced",
    "trace_traced",
    "cosine_entropy_traced",
    "label_entropy",
)
AT_END = ("test_loss", "test_accuracy", "train_loss")


def runs(results: Any) -> "pl.DataFrame":
    """A row a training on a chosen set: key, KIND, method, set_size, the seeds, AT_END at the last step and AT_START at step 0.

    `least_test_loss`: the smallest along training. What a run has not is null; a diverged one has NaN.
    """
    import polars as pl

    tasks = results.tasks().collect().filter(pl.col("workload") == "train_selected")
    scalars = results.scalars().collect().filter(pl.col("workload") == "train_selected").select("key", "step", "name", "value")
    of_loss = scalars.filter(pl.col("name") == "test_loss").group_by("key").agg(value=pl.col("value").nan_min())
    wanted = [
        scalars.filter(pl.col("name").is_in(AT_END) & (pl.col("step") == pl.col("step").max().over("key", "name"))),
        scalars.filter(pl.col("name").is_in(AT_START) & (pl.col("step") == 0)),
        of_loss.with_columns(name=pl.lit("least_test_loss")),
    ]
    values = pl.concat([one.select("key", "name", "value") for one in wanted])
    frame = _settings(tasks)
    if len(values):
        frame = frame.join(values.pivot("name", index="key", values="value"), on="key", how="left")
    absent = [pl.lit(None, dtype=pl.Float64).alias(name) for name in (*AT_END, *AT_START, "least_test_loss") if name not in frame.columns]
    return frame.with_columns(absent).sort(*KIND, "method", "set_size", *SEEDS)


def _settings(tasks: "pl.DataFrame") -> "pl.DataFrame":
    import polars as pl

    rows = []
    for key, text in tasks.select("key", "settings").rows():
        settings = json.loads(text)
        select = settings["select"]
        rows.append(
            {"key": key, **_kind(select), "method": select["method"]["name"], "set_size": settings["set_size"]}
            | {name: select[name] for name in SEEDS}
        )
    schema = {"key": pl.String, **dict.fromkeys((*KIND, "method"), pl.String), "set_size": pl.Int64}
    return pl.DataFrame(rows, schema=schema | dict.fromkeys(SEEDS, pl.Int64))


def _kind(select: dict[str, Any]) -> dict[str, str]:
    """Of the settings of a selection."""
    return {name: select[name]["name"] for name in ("data", "model")} | {"classes": "balanced" if select["method"]["by_class"] else "any"}


def by_set(frame: "pl.DataFrame") -> "pl.DataFrame":
    """A row a set, with the means over initialisations of what `runs` gives."""
    import polars as pl

    own = [*KIND, "method", "set_size", *(name for name in SEEDS if name != "seed_init")]
    numbers = [name for name in (*AT_END, *AT_START, "least_test_loss") if name in frame.columns]
    return frame.group_by(own, maintain_order=True).agg(pl.col(numbers).mean(), runs=pl.len())


def agreement(results: Any, pairs: Sequence[tuple[str, str]]) -> "pl.DataFrame":
    """Which share of the largest set two methods have in common, and which two random sets of that size would have.

    A row for each of `pairs` and each selection of `select` tasks that differ in the method alone: data, model, classes, width, the seeds,
    first, second, set_size, overlap, chance (null where the pool is all data).
    """
    import polars as pl

    tasks = results.tasks().collect().filter(pl.col("workload") == "select")
    table = results.table("select.points").collect()
    points = {key[0]: part for key, part in table.partition_by("key", as_dict=True).items()}
    chosen: dict[tuple[Any, ...], dict[str, tuple[set[int], int | None]]] = {}
    for key, text in tasks.select("key", "settings").rows():
        settings = json.loads(text)
        place = (*_kind(settings).values(), settings["model"].get("width"), *(settings[name] for name in SEEDS))
        chosen.setdefault(place, {})[settings["method"]["name"]] = _largest_set(points[key]), settings["pool_size"]
    rows = []
    for place, methods in chosen.items():
        for first, second in pairs:
            if first in methods and second in methods:
                (one, pool_size), (other, _) = methods[first], methods[second]
                size = min(len(one), len(other))
                rows.append((*place, first, second, size, len(one & other) / size, size / pool_size if pool_size else None))
    names = (*KIND, "width", *SEEDS, "first", "second", "set_size", "overlap", "chance")
    types = {"overlap": pl.Float64, "chance": pl.Float64, **dict.fromkeys((*KIND, "first", "second"), pl.String)}
    return pl.DataFrame(rows, schema={name: types.get(name, pl.Int64) for name in names}, orient="row").sort(*KIND, "width")


def _largest_set(points: "pl.DataFrame") -> set[int]:
    import polars as pl

    last = points["rank"].max()
    order = points.filter(pl.col("is_set") & (pl.col("rank") == last))["order"][0]
    return set(points.filter(pl.col("order") == order)["index"].to_list())
