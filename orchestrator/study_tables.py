"""What studies read out of results: one row a run with its numbers, slopes of power laws by group, and words for numbers."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from workers.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl

    from orchestrator.fit import Fit, Parameter
    from orchestrator.reaches import Trend
    from orchestrator.results import Results


def need(results: Mapping[str, "Results"], sweep: str) -> "Results":
    """The results of a sweep; ConfigError where there are none yet."""
    if sweep not in results:
        raise ConfigError(f"no results yet of the sweep {sweep}")
    return results[sweep]


def by_step(results: "Results", names: Sequence[str]) -> "pl.DataFrame":
    """One row a task and step with the axes and a column for each scalar; the rows that have any of them."""
    import polars as pl

    scalars = results.scalars().filter(pl.col("name").is_in(list(names))).collect()
    index = [name for name in scalars.columns if name not in ("name", "value")]
    wide = scalars.pivot(on="name", index=index, values="value")
    return wide.with_columns(pl.lit(None, dtype=pl.Float64).alias(name) for name in names if name not in wide.columns)


def at_end(frame: "pl.DataFrame", names: Sequence[str]) -> "pl.DataFrame":
    """One row a task: the last value of each scalar that is not null."""
    import polars as pl

    rest = [name for name in frame.columns if name not in (*names, "step", "key")]
    return (
        frame.sort("step")
        .group_by("key", maintain_order=True)
        .agg(*(pl.col(name).first() for name in rest), *(pl.col(name).drop_nulls().last() for name in names))
    )


def labelled(frame: "pl.DataFrame", names: Sequence[str], label: str) -> "pl.DataFrame":
    """With a column of words for the values of the columns `names`."""
    import polars as pl

    return frame.with_columns(pl.concat_str([pl.col(name).cast(pl.String) for name in names], separator=" ").alias(label))


def slopes(frame: "pl.DataFrame", x: str, y: str, by: str, *, law: str = "loglog", group: str | None = "seed") -> "dict[str, Fit]":
    """A power law of `y` against `x` for each value of the column `by`; those that can be fitted."""
    from orchestrator.fit import fit

    found = {}
    for (value,), part in sorted(frame.partition_by([by], as_dict=True).items()):
        try:
            found[str(value)] = fit(part, law, x=x, y=y, group=group, choice={by: value}, mixed_code=True)
        except ConfigError:
            continue
    return found


def slope(one: "Fit") -> "Parameter":
    """The exponent of a `loglog` fit, with its interval."""
    return one.parameters["slope"]


def sign(one: "Parameter | Trend") -> int:
    """1 or -1 where the interval leaves 0 out, else 0."""
    return 1 if one.low > 0 else -1 if one.high < 0 else 0


def exponent_rows(fits: Mapping[str, Mapping[str, "Fit"]], heading: str) -> list[dict[str, Any]]:
    """A row a value of the column, a column an observable: exponents with their intervals."""
    values = sorted({value for found in fits.values() for value in found})
    rows = []
    for value in values:
        row: dict[str, Any] = {heading: value}
        for name, found in fits.items():
            row[name] = (slope(found[value]).text(), slope(found[value]).value) if value in found else ("–", float("nan"))
            row[f"R² of {name}"] = (f"{found[value].r_squared:.3f}", found[value].r_squared) if value in found else ("–", float("nan"))
        rows.append(row)
    return rows


def listed(words: Sequence[str]) -> str:
    """a, b and c."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
