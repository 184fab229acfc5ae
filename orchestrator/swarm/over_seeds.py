"""Means over seeds with Student's intervals, and their differences: in pairs of one seed, or between independent trainings."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.pairing import Estimate

if TYPE_CHECKING:
    import polars as pl

__all__ = ["FEW", "few_said", "mean", "means", "paired_shares"]

# trainings of a group, below which the page says that they are few
FEW = 5


def mean(values: Sequence[float]) -> Estimate:
    """Of independent finite numbers; NaN for its error where there is one."""
    good = [value for value in values if math.isfinite(value)]
    if len(good) < 2:
        return Estimate(value=good[0] if good else math.nan, error=math.nan, freedom=math.nan)
    centre = math.fsum(good) / len(good)
    variance = math.fsum((value - centre) ** 2 for value in good) / (len(good) - 1)
    return Estimate(value=centre, error=math.sqrt(variance / len(good)), freedom=len(good) - 1)


def means(frame: "pl.DataFrame", by: Sequence[str], y: str) -> "pl.DataFrame":
    """A row a group: the columns `by`, value, low, high (Student's) and num, of the finite values of `y`."""
    import polars as pl

    rows: list[dict[str, Any]] = []
    good = frame.filter(pl.col(y).is_finite())
    for values, part in good.partition_by(list(by), as_dict=True, maintain_order=True).items():
        one = mean(part[y].to_list())
        low, high = one.interval
        rows.append({**dict(zip(by, values, strict=True)), "value": one.value, "low": low, "high": high, "num": len(part)})
    own, numbers = {name: frame.schema[name] for name in by}, dict.fromkeys(("value", "low", "high"), pl.Float64)
    return pl.DataFrame(rows, schema={**own, **numbers, **dict.fromkeys(("num",), pl.Int64)}).sort(list(by), nulls_last=True)


def paired_shares(gained: int, lost: int, pairs: int) -> tuple[float, float, float, float]:
    """Difference of two shares of the same trials, its interval (Agresti and Min 2005), and McNemar's exact p.

    `gained`: pairs that succeed only the second time; `lost`: only the first time.
    """
    from scipy import stats

    if not pairs:
        return math.nan, math.nan, math.nan, math.nan
    # half a pair in each of the four cells keeps the interval of few pairs from being a point
    more, less, num = gained + 0.5, lost + 0.5, pairs + 2
    centre = (more - less) / num
    half = 1.959964 * math.sqrt((more + less) - (more - less) ** 2 / num) / num
    p_value = float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return (gained - lost) / pairs, max(centre - half, -1.0), min(centre + half, 1.0), p_value


def few_said(least: int, what: str) -> list[str]:
    """A note where a group has fewer than FEW trainings."""
    if least >= FEW:
        return []
    return [
        f"{what}: as few as {least} training{'' if least == 1 else 's'} in a group, so that intervals are wide and little can be decided"
    ]
