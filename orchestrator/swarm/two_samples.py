"""Whether groups of trainings move alike: the energy distance of their trajectories, tested by exchanging whole trainings."""

# N trainings; D numbers of each; B exchanges

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from orchestrator.pairing import CONFIDENCE, holm

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    Array = np.ndarray[Any, Any]

__all__ = ["Comparison", "compared", "courses", "energy_test"]

# all exchanges are made where there are no more, else so many at random
MOST_EXCHANGES = 9999
# of many trainings fewer, so that products of exchanges and distances are no more
LEAST_EXCHANGES, MOST_PRODUCTS = 999, 2e10
_CHUNK = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """`share`: the energy distance over twice the mean distance between the groups, 0 for equal distributions, 1 for two points.

    `least_p`: what p can be at least with so few trainings; `p_holm`: adjusted for all pairs.
    """

    first: str
    second: str
    nums: tuple[int, int]
    share: float
    p_value: float
    least_p: float
    p_holm: float = math.nan

    @property
    def verdict(self) -> str:
        """`different`, `not told apart`, or `too few` where no outcome could have been different."""
        if not self.least_p < 1 - CONFIDENCE:
            return "too few"
        return "different" if self.p_holm < 1 - CONFIDENCE else "not told apart"


def energy_test(
    rows_ND: "Array", is_first_N: "Array", strata_N: "Array | None" = None, *, random_seed: int = 0
) -> tuple[float, float, float]:
    """The energy distance's share (Szekely and Rizzo 2013), its p by exchanging rows, and the least p there can be.

    A row is a training. `strata_N`: labels of rows that are alike but for their group; each stratum's mean is taken away, and rows are
    exchanged within it. Columns are put on one scale by their standard deviation.
    """
    import numpy as np
    from scipy.spatial.distance import cdist

    is_first = np.asarray(is_first_N, dtype=bool)
    stratum_N = np.zeros(len(is_first), dtype=int) if strata_N is None else np.unique(strata_N, return_inverse=True)[1]
    choices = math.prod(math.comb(len(own), int(is_first[own].sum())) for own in _members(stratum_N))
    if choices < 2:
        return math.nan, math.nan, math.nan
    left_ND = np.array(rows_ND, dtype=np.float64)
    for own in _members(stratum_N):
        left_ND[own] -= left_ND[own].mean(axis=0)
    deviation_D = left_ND.std(axis=0)
    scaled_ND = left_ND[:, deviation_D > 1e-12] / deviation_D[deviation_D > 1e-12]
    is_exact = choices <= MOST_EXCHANGES and stratum_N.max() == 0
    is_first_BN = _all(is_first) if is_exact else _at_random(is_first, stratum_N, random_seed)
    statistic_B, between_B = _energies(cdist(scaled_ND, scaled_ND), is_first_BN)
    seen = int(np.flatnonzero((is_first_BN == is_first).all(axis=1))[0])
    as_large = int((statistic_B >= statistic_B[seen] - 1e-12 * max(abs(float(statistic_B[seen])), 1.0)).sum())
    share = float(statistic_B[seen] / (2 * between_B[seen])) if between_B[seen] > 0 else 0.0
    # where halves are exchanged whole, the statistic is the same
    mirrored = 2 if is_exact and 2 * is_first.sum() == len(is_first) else 1
    return share, as_large / len(is_first_BN), max(mirrored / choices, 1 / len(is_first_BN))


def _members(stratum_N: "Array") -> "list[Array]":
    """Rows of each stratum."""
    import numpy as np

    return [np.flatnonzero(stratum_N == one) for one in np.unique(stratum_N)]


def _all(is_first_N: "Array") -> "Array":
    """Every choice of as many rows (B, N)."""
    import numpy as np

    num, num_first = len(is_first_N), int(is_first_N.sum())
    chosen = np.zeros((math.comb(num, num_first), num), dtype=bool)
    for row, members in enumerate(itertools.combinations(range(num), num_first)):
        chosen[row, list(members)] = True
    return chosen


def _at_random(is_first_N: "Array", stratum_N: "Array", random_seed: int) -> "Array":
    """What was seen, and as many exchanges within strata as so many trainings allow (B, N)."""
    import numpy as np

    random = np.random.default_rng(random_seed)
    num = int(np.clip(MOST_PRODUCTS / len(is_first_N) ** 2, LEAST_EXCHANGES, MOST_EXCHANGES))
    found = np.tile(is_first_N, (num + 1, 1))
    for own in _members(stratum_N):
        found[1:, own] = random.permuted(found[1:, own], axis=1)
    return found


def _energies(distance_NN: "Array", is_first_BN: "Array") -> "tuple[Array, Array]":
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| (B,), and E|X - Y| (B,)."""
    import numpy as np

    parts = [_energies_of(distance_NN, is_first_BN[start : start + _CHUNK]) for start in range(0, len(is_first_BN), _CHUNK)]
    statistic_B, between_B = (np.concatenate(own) for own in zip(*parts, strict=True))
    return statistic_B, between_B


def _energies_of(distance_NN: "Array", is_first_BN: "Array") -> "tuple[Array, Array]":
    one, other = is_first_BN.astype(float), (~is_first_BN).astype(float)
    num_one, num_other = one[0].sum(), other[0].sum()
    to_one, to_other = one @ distance_NN, other @ distance_NN
    across = (to_one * other).sum(axis=1) / (num_one * num_other)
    within = (to_one * one).sum(axis=1) / num_one**2 + (to_other * other).sum(axis=1) / num_other**2
    return 2 * across - within, across


def compared(rows_ND: "Array", labels: Sequence[str], strata: Sequence[Any] | None = None) -> list[Comparison]:
    """Every pair of groups, with Holm's correction over those that have trainings enough to decide.

    With `strata`: of each pair, those strata alone that have both groups.
    """
    import numpy as np

    label_N = np.asarray(labels)
    stratum_N = np.zeros(len(label_N), dtype=int) if strata is None else np.unique(np.asarray(strata), return_inverse=True)[1]
    found = []
    for first, second in itertools.combinations(sorted(set(labels)), 2):
        shared = [one for one in np.unique(stratum_N) if {first, second} <= set(label_N[stratum_N == one].tolist())]
        chosen = np.isin(label_N, (first, second)) & np.isin(stratum_N, shared)
        is_first = label_N[chosen] == first
        share, p, least = energy_test(rows_ND[chosen], is_first, stratum_N[chosen]) if chosen.any() else (math.nan,) * 3
        nums = (int(is_first.sum()), int((~is_first).sum()))
        found.append(Comparison(first=first, second=second, nums=nums, share=share, p_value=p, least_p=least))
    adjusted = holm([one.p_value if one.least_p < 1 - CONFIDENCE else math.nan for one in found])
    return [replace(one, p_holm=p) for one, p in zip(found, adjusted, strict=True)]


def courses(frames: "pl.DataFrame", key: str = "key", *, num: int = 24) -> "tuple[list[Any], Array]":
    """Keys, and a row each: the logarithm of the mean distance at `num` times, log-spaced up to the shortest course.

    `frames`: columns `key`, seconds, mean_distance.
    """
    import numpy as np
    import polars as pl

    good = frames.filter(pl.col("mean_distance").is_finite() & (pl.col("mean_distance") > 0)).sort(key, "seconds")
    parts = good.partition_by([key], as_dict=True, maintain_order=True)
    if not parts:
        return [], np.empty((0, num))
    ends = [float(part["seconds"][-1]) for part in parts.values()]
    starts = [float(part["seconds"].filter(part["seconds"] > 0).min() or 1.0) for part in parts.values()]  # type: ignore[arg-type]
    times = np.geomspace(max(starts), max(min(ends), max(starts)), num)
    rows = [np.interp(times, part["seconds"].to_numpy(), part["mean_distance"].log().to_numpy()) for part in parts.values()]
    return [one for (one,) in parts], np.stack(rows)
