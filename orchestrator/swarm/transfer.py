"""Policies trained at one temperature and deployed at others: the matrix, and what each cell differs by from its policies' own place."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.pairing import CONFIDENCE, holm
from orchestrator.swarm import over_seeds, proportions
from orchestrator.swarm.over_seeds import mean, paired_shares
from orchestrator.swarm.proportions import Proportion, proportion

if TYPE_CHECKING:
    import polars as pl

__all__ = ["between_trainings", "from_home", "from_natives", "matrix"]

_NUMBERS = ("value", "low", "high", "p_value", "p_holm")


def matrix(frame: "pl.DataFrame", trained: str, deployed: str, y: str, *, binary: bool = False) -> "pl.DataFrame":
    """A row a cell: trained, deployed, value, low, high and num, the trainings in it. `binary`: shares with Wilson's intervals."""
    import polars as pl

    by = [trained, deployed]
    if binary:
        found = proportions.of_groups(frame, by, y).rename({"trials": "num"}).drop("successes")
    else:
        found = over_seeds.means(frame, by, y)
    return found.select(pl.col(trained).alias("trained"), pl.col(deployed).alias("deployed"), "value", "low", "high", "num")


def from_home(frame: "pl.DataFrame", trained: str, deployed: str, seed: str, y: str, *, binary: bool = False) -> "pl.DataFrame":
    """What the same policies do elsewhere less what they do where they were trained, in pairs of one training.

    A row a cell off the diagonal: trained, deployed, value, low, high, num (pairs), p_value (Student's, or McNemar's for `binary`),
    p_holm (adjusted for all rows), decided: `better`, `worse` or `undecided`, as more of `y` is better.
    """
    import polars as pl

    good = frame.filter(pl.col(y).is_finite())
    home = good.filter(pl.col(trained) == pl.col(deployed)).select(trained, seed, home=y)
    rows: list[dict[str, Any]] = []
    for (at, to), part in good.partition_by([trained, deployed], as_dict=True).items():
        pairs = part.join(home, on=[trained, seed])
        if at == to or pairs.is_empty():
            continue
        values, own = pairs[y].to_list(), pairs["home"].to_list()
        numbers = _of_pairs(values, own, binary=binary)
        rows.append({"trained": at, "deployed": to, **numbers, "num": len(pairs)})
    return _decided(rows)


def from_natives(frame: "pl.DataFrame", trained: str, deployed: str, y: str, *, binary: bool = False) -> "pl.DataFrame":
    """What policies do where others were trained, less what those do there; trainings are independent (Welch's test, or Fisher's)."""
    import polars as pl

    good = frame.filter(pl.col(y).is_finite())
    cells = good.partition_by([trained, deployed], as_dict=True)
    rows: list[dict[str, Any]] = []
    for (at, to), part in cells.items():
        native = cells.get((to, to))
        if at == to or native is None:
            continue
        numbers = _of_shares(proportion(part[y]), proportion(native[y])) if binary else _of_means(part[y].to_list(), native[y].to_list())
        rows.append({"trained": at, "deployed": to, **numbers, "num": min(len(part), len(native))})
    return _decided(rows)


def between_trainings(frame: "pl.DataFrame", trained: str, y: str, of: Sequence[str], beside: Sequence[str]) -> "pl.DataFrame":
    """Of trainings, a row each of `frame`: `y` of those at each of `of` less that of those at each of `beside` (Welch's test).

    A row a pair: trained, beside, value, low, high, num (the fewer trainings), p_value, p_holm, decided, as from_home says them.
    """
    import polars as pl

    each = {at: frame.filter((pl.col(trained) == at) & pl.col(y).is_finite())[y].to_list() for at in (*of, *beside)}
    rows = [
        {"trained": one, "beside": other, **_of_means(each[one], each[other]), "num": min(len(each[one]), len(each[other]))}
        for one in of
        for other in beside
    ]
    return _decided(rows, {"trained": pl.String(), "beside": pl.String()})


def _of_pairs(values: list[float], own: list[float], *, binary: bool) -> dict[str, float]:
    if binary:
        gained, lost = (sum(a > 0.5 >= b for a, b in zip(*two, strict=True)) for two in ((values, own), (own, values)))
        return dict(zip(_NUMBERS, paired_shares(gained, lost, len(values)), strict=False))
    one = mean([a - b for a, b in zip(values, own, strict=True)])
    return {"value": one.value, "low": one.interval[0], "high": one.interval[1], "p_value": one.p_value}


def _of_means(values: list[float], own: list[float]) -> dict[str, float]:
    one = mean(values).minus(mean(own))
    return {"value": one.value, "low": one.interval[0], "high": one.interval[1], "p_value": one.p_value}


def _of_shares(one: Proportion, other: Proportion) -> dict[str, float]:
    """The interval of the difference is Newcombe's (1998), of the two Wilson intervals."""
    (low, high), (other_low, other_high) = one.interval, other.interval
    value = one.value - other.value
    below, above = math.hypot(one.value - low, other_high - other.value), math.hypot(high - one.value, other.value - other_low)
    return {"value": value, "low": value - below, "high": value + above, "p_value": one.p_value(other)}


def _decided(rows: list[dict[str, Any]], ends: "Mapping[str, pl.DataType] | None" = None) -> "pl.DataFrame":
    """With p_holm and decided, sorted by the columns `ends`."""
    import polars as pl

    ends = ends or {"trained": pl.Float64(), "deployed": pl.Float64()}

    for row, p in zip(rows, holm([row["p_value"] for row in rows]), strict=True):
        row["p_holm"] = p
        row["decided"] = ("better" if row["value"] > 0 else "worse") if p < 1 - CONFIDENCE else "undecided"
    schema: dict[str, Any] = {**ends, **dict.fromkeys(_NUMBERS, pl.Float64), "num": pl.Int64, "decided": pl.String}
    return pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema=schema).sort(*ends)
