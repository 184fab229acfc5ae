"""Comparisons of runs: two methods in pairs, and what goes along with what within groups, each with its interval."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    Array = np.ndarray[Any, Any]

# N pairs or points; B resamples

CONFIDENCE = 0.95
NUM_RESAMPLES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """A method over its reference in `num_pairs` pairs: the geometric mean of the ratios, its interval and p, and how many are below 1."""

    value: float
    low: float
    high: float
    p_value: float
    num_pairs: int
    num_below: int

    @property
    def verdict(self) -> str:
        """`lower` or `higher` where interval and test say so together, else `undecided`."""
        if self.p_value < 1 - CONFIDENCE and self.high < 1.0:
            return "lower"
        return "higher" if self.p_value < 1 - CONFIDENCE and self.low > 1.0 else "undecided"


@dataclass(frozen=True, slots=True, kw_only=True)
class Correlation:
    """Spearman's rank correlation with its bootstrap interval over clusters."""

    value: float
    low: float
    high: float
    num_points: int
    num_clusters: int

    @property
    def verdict(self) -> str:
        """`negative`, `positive`, or `undecided` where the interval holds 0 or is not to be had."""
        return "negative" if self.high < 0.0 else "positive" if self.low > 0.0 else "undecided"


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with its standard error, of so many degrees of freedom; NaN where the error is not known."""

    value: float
    error: float
    freedom: float

    @property
    def p_value(self) -> float:
        """Student's test, on two sides, of whether it is 0; NaN where the error is not known."""
        from scipy import stats

        if not self.error > 0:
            return math.nan if math.isnan(self.error) else float(self.value == 0)
        return float(2 * stats.t.sf(abs(self.value) / self.error, self.freedom))

    @property
    def interval(self) -> tuple[float, float]:
        """Student's, of CONFIDENCE."""
        half = _student(self.freedom) * self.error
        return self.value - half, self.value + half

    def minus(self, other: "Estimate") -> "Estimate":
        """The difference of two independent ones, with Welch's degrees of freedom."""
        first, second = self.error**2, other.error**2
        spread = first**2 / self.freedom + second**2 / other.freedom
        freedom = (first + second) ** 2 / spread if spread else self.freedom + other.freedom
        return Estimate(value=self.value - other.value, error=math.sqrt(first + second), freedom=freedom)

    def equality(self, margin: float) -> str:
        """Of a difference: `equal` where its interval lies within +-margin, `different` where it leaves 0 out, else `undecided`."""
        low, high = self.interval
        if -margin <= low and high <= margin:
            return "equal"
        return "different" if low > 0 or high < 0 else "undecided"


def estimate_of(value: float, low: float, high: float, freedom: float) -> Estimate:
    """From Student's interval of CONFIDENCE."""
    return Estimate(value=value, error=(high - low) / 2 / _student(freedom), freedom=freedom)


def _student(freedom: float) -> float:
    from scipy import stats

    return float(stats.t.ppf(0.5 + CONFIDENCE / 2, freedom))


def ratio_of(values_N: "Array", references_N: "Array") -> Ratio:
    """Positive values (N,) over their references, by logarithms: Student's interval of the mean, and Wilcoxon's signed rank test.

    NaN for the interval and p of fewer than two pairs.
    """
    import numpy as np
    from scipy import stats

    logs_N = np.log(np.asarray(values_N, dtype=np.float64) / np.asarray(references_N, dtype=np.float64))
    num = len(logs_N)
    if num < 2:
        value = float(np.exp(logs_N.mean())) if num else math.nan
        return Ratio(value=value, low=math.nan, high=math.nan, p_value=math.nan, num_pairs=num, num_below=int((logs_N < 0).sum()))
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, num - 1) * logs_N.std(ddof=1) / math.sqrt(num))
    mean = float(logs_N.mean())
    return Ratio(
        value=math.exp(mean),
        low=math.exp(mean - half),
        high=math.exp(mean + half),
        p_value=float(stats.wilcoxon(logs_N).pvalue) if np.any(logs_N) else 1.0,
        num_pairs=num,
        num_below=int((logs_N < 0).sum()),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """p values of a family of tests, adjusted by Holm's step-down; NaN stays and does not count."""
    good = sorted((p, index) for index, p in enumerate(p_values) if not math.isnan(p))
    found, largest = list(p_values), 0.0
    for rank, (p, index) in enumerate(good):
        largest = max(largest, min(1.0, p * (len(good) - rank)))
        found[index] = largest
    return found


def pairs(frame: "pl.DataFrame", by: str, method: str, reference: str, on: Sequence[str], y: str) -> "pl.DataFrame":
    """A row a pair of runs that agree in `on`: those columns, `y` and `reference`; pairs with a value that is not above 0 are left out."""
    import polars as pl

    own, other = (frame.filter(pl.col(by) == name).select(*on, y) for name in (method, reference))
    joined = own.join(other.rename({y: "reference"}), on=list(on), how="inner", nulls_equal=True)
    return joined.filter(pl.col(y).is_finite() & pl.col("reference").is_finite() & (pl.col(y) > 0) & (pl.col("reference") > 0)).sort(on)


def over_clusters(paired: "pl.DataFrame", cluster: Sequence[str], y: str) -> Ratio:
    """`ratio_of` with one number a cluster, the geometric mean of its pairs, which are not independent."""
    import numpy as np
    import polars as pl

    logs = pl.col(y).log() - pl.col("reference").log()
    each = paired.group_by(list(cluster), maintain_order=True).agg(ratio=logs.mean().exp())["ratio"].to_numpy()
    return ratio_of(each, np.ones(len(each)))


def correlation(x_N: "Array", y_N: "Array", clusters_N: "Array", *, seed: int = 0) -> Correlation:
    """Of finite pairs; the interval resamples whole clusters. NaN where a column does not vary or there are fewer than three clusters."""
    import numpy as np

    x, y, labels = (np.asarray(values) for values in (x_N, y_N, clusters_N))
    good = np.isfinite(x) & np.isfinite(y)
    x, y, labels = x[good], y[good], labels[good]
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    value = spearman(x, y)
    low = high = math.nan
    if len(groups) >= 3 and not math.isnan(value):
        found = np.concatenate([spearmans(x[index], y[index]) for index in _resamples(groups, seed)])
        low, high = (float(end) for end in np.nanquantile(found, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2]))
    return Correlation(value=value, low=low, high=high, num_points=len(x), num_clusters=len(groups))


def _resamples(groups: "Sequence[Array]", seed: int) -> "Iterator[Array]":
    """Indices (B, M) of points, of resamples that have equally many, in all NUM_RESAMPLES of them."""
    import numpy as np

    drawn = np.random.default_rng(seed).integers(len(groups), size=(NUM_RESAMPLES, len(groups)))
    by_length: dict[int, list[Array]] = {}
    for row in drawn:
        index = np.concatenate([groups[i] for i in row])
        by_length.setdefault(len(index), []).append(index)
    return map(np.stack, by_length.values())


def spearman(x_N: "Array", y_N: "Array") -> float:
    """Pearson's correlation of the ranks, equal values sharing theirs; NaN where a column does not vary."""
    return float(spearmans(x_N[None], y_N[None])[0])


def spearmans(x_BN: "Array", y_BN: "Array") -> "Array":
    """Of B samples each (B,)."""
    import numpy as np
    from scipy.stats import rankdata

    if not x_BN.size:
        return np.full(len(x_BN), math.nan)
    x, y = (rank - rank.mean(1, keepdims=True) for rank in (rankdata(x_BN, axis=1), rankdata(y_BN, axis=1)))
    norms = np.sqrt((x * x).sum(1) * (y * y).sum(1))
    return np.asarray(np.divide((x * y).sum(1), norms, out=np.full(len(norms), math.nan), where=norms > 0.0))
