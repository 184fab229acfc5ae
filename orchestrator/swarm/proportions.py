"""How often trainings succeed: shares with Wilson's intervals by group, the onset along an axis, and whether two shares differ."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.pairing import CONFIDENCE

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Onset", "Proportion", "of_groups", "onset", "wilson"]


def wilson(successes: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share; NaN without trials."""
    from scipy import stats

    if not trials:
        return math.nan, math.nan
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    share, weight = successes / trials, 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / weight
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / weight
    # of none and of all the ends are 0 and 1 but for rounding
    return 0.0 if successes == 0 else centre - half, 1.0 if successes == trials else centre + half


@dataclass(frozen=True, slots=True, kw_only=True)
class Proportion:
    """So many successes of so many trials."""

    successes: int
    trials: int

    @property
    def value(self) -> float:
        """The share; NaN without trials."""
        return self.successes / self.trials if self.trials else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's, of CONFIDENCE."""
        return wilson(self.successes, self.trials)

    def p_value(self, other: "Proportion") -> float:
        """Fisher's exact test, on two sides, of whether two shares are one; NaN where one has no trials."""
        from scipy import stats

        if not (self.trials and other.trials):
            return math.nan
        table = [[one.successes, one.trials - one.successes] for one in (self, other)]
        return float(stats.fisher_exact(table).pvalue)

    def text(self) -> str:
        """`3 of 20 (0.15 [0.05, 0.36])`."""
        low, high = self.interval
        return f"{self.successes} of {self.trials} ({self.value:.2f} [{low:.2f}, {high:.2f}])" if self.trials else "0 of 0"


def proportion(values: "pl.Series") -> Proportion:
    """Of a column of 1 and 0; what is no number is no trial."""
    good = values.drop_nulls().drop_nans()
    return Proportion(successes=int((good > 0.5).sum()), trials=len(good))


def of_groups(frame: "pl.DataFrame", by: Sequence[str], column: str = "success") -> "pl.DataFrame":
    """A row a group: the columns `by`, successes, trials, value, low, high (Wilson's)."""
    import polars as pl

    rows: list[dict[str, Any]] = []
    for values, part in frame.partition_by(list(by), as_dict=True, maintain_order=True).items():
        one = proportion(part[column])
        low, high = one.interval
        numbers = {"successes": one.successes, "trials": one.trials, "value": one.value, "low": low, "high": high}
        rows.append({**dict(zip(by, values, strict=True)), **numbers})
    own = {name: frame.schema[name] for name in by}
    whole, real = dict.fromkeys(("successes", "trials"), pl.Int64), dict.fromkeys(("value", "low", "high"), pl.Float64)
    return pl.DataFrame(rows, schema={**own, **whole, **real}).sort(list(by), nulls_last=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Onset:
    """Along an axis: `first`, the least value with a success; `below`, the next lesser one, all without; `clear`, the least value whose
    interval lies above the bound. NaN where there is none."""

    first: float
    below: float
    clear: float

    def holds(self, value: float) -> bool | None:
        """Whether `value` may be where successes begin: above `below`, and not above `first`. None where the axis does not tell."""
        if math.isnan(self.first):
            return None
        return (math.isnan(self.below) or value > self.below) and value <= self.first


def onset(table: "pl.DataFrame", x: str, bound: float = 0.05) -> Onset:
    """Of rows of `of_groups` along `x`. More trials find an earlier first success; that of `clear` says what is not chance."""
    import polars as pl

    ordered = table.filter(pl.col("trials") > 0).sort(x)
    successful = ordered.filter(pl.col("successes") > 0)[x].to_list()
    clear = ordered.filter(pl.col("low") > bound)[x].to_list()
    first = float(successful[0]) if successful else math.nan
    lesser = [float(value) for value in ordered[x].to_list() if value < first]
    return Onset(first=first, below=lesser[-1] if lesser else math.nan, clear=float(clear[0]) if clear else math.nan)
