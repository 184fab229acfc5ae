"""Whether groups of trainings move alike: the energy distance of their trajectories, tested by exchanging whole trainings."""

# N trainings; D numbers of each; M of the first group; B exchanges

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.pairing import CONFIDENCE, holm

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    Array = np.ndarray[Any, Any]

__all__ = ["Comparison", "compared", "courses", "energy_test"]

# all exchanges are made where there are no more, else so many at random
MOST_EXCHANGES = 9999


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


def energy_test(first_ND: "Array", second_ND: "Array", *, random_seed: int = 0) -> tuple[float, float, float]:
    """The energy distance's share (Szekely and Rizzo 2013), its p by exchanging rows, and the least p there can be.

    Columns are put on one scale by their standard deviation over both groups; a row is a training.
    """
    import numpy as np
    from scipy.spatial.distance import cdist

    both_ND = np.concatenate([first_ND, second_ND])
    num_first, num = len(first_ND), len(both_ND)
    if min(num_first, num - num_first) < 1 or num < 3:
        return math.nan, math.nan, math.nan
    deviation_D = both_ND.std(axis=0)
    scaled_ND = both_ND[:, deviation_D > 0] / deviation_D[deviation_D > 0]
    distance_NN = cdist(scaled_ND, scaled_ND)
    is_first_BN, is_exact = _exchanges(num, num_first, random_seed)
    statistic_B, between_B = _energies(distance_NN, is_first_BN)
    # the first row is what was seen
    as_large = int((statistic_B >= statistic_B[0] - 1e-12 * max(abs(statistic_B[0]), 1.0)).sum())
    mirrored = 2 if is_exact and 2 * num_first == num else 1
    share = float(statistic_B[0] / (2 * between_B[0])) if between_B[0] > 0 else 0.0
    return share, as_large / len(is_first_BN), mirrored / len(is_first_BN)


def _exchanges(num: int, num_first: int, random_seed: int) -> "tuple[Array, bool]":
    """Which rows are the first group (B, N), and whether these are all choices; the first is as given."""
    import numpy as np

    given = np.arange(num) < num_first
    if math.comb(num, num_first) <= MOST_EXCHANGES:
        chosen = np.zeros((math.comb(num, num_first), num), dtype=bool)
        for row, members in enumerate(itertools.combinations(range(num), num_first)):
            chosen[row, list(members)] = True
        return chosen, True
    random = np.random.default_rng(random_seed)
    return np.stack([given, *(random.permutation(given) for _ in range(MOST_EXCHANGES))]), False


def _energies(distance_NN: "Array", is_first_BN: "Array") -> "tuple[Array, Array]":
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| (B,), and E|X - Y| (B,)."""
    one, other = is_first_BN.astype(float), (~is_first_BN).astype(float)
    num_one, num_other = one[0].sum(), other[0].sum()
    across = ((one @ distance_NN) * other).sum(axis=1) / (num_one * num_other)
    within = ((one @ distance_NN) * one).sum(axis=1) / num_one**2 + ((other @ distance_NN) * other).sum(axis=1) / num_other**2
    return 2 * across - within, across


def compared(rows_ND: "Array", labels: Sequence[str]) -> list[Comparison]:
    """Every pair of groups, with Holm's correction over those that have trainings enough to decide."""
    import numpy as np

    label_N = np.asarray(labels)
    found = []
    for first, second in itertools.combinations(sorted(set(labels)), 2):
        groups = [rows_ND[label_N == name] for name in (first, second)]
        share, p, least = energy_test(*groups)
        nums = (len(groups[0]), len(groups[1]))
        found.append(Comparison(first=first, second=second, nums=nums, share=share, p_value=p, least_p=least))
    adjusted = holm([one.p_value if one.least_p < 1 - CONFIDENCE else math.nan for one in found])
    return [
        Comparison(
            first=one.first, second=one.second, nums=one.nums, share=one.share, p_value=one.p_value, least_p=one.least_p, p_holm=p
        )
        for one, p in zip(found, adjusted, strict=True)
    ]  # fmt: skip


def courses(frames: "pl.DataFrame", key: str = "key", *, num: int = 24) -> "tuple[list[Any], Array]":
    """Keys, and a row each: the logarithm of the mean distance at `num` times, log-spaced up to the shortest course.

    `frames`: columns `key`, seconds, mean_distance.
    """
    import numpy as np
    import polars as pl

    good = frames.filter(pl.col("mean_distance").is_finite() & (pl.col("mean_distance") > 0)).sort("seconds")
    parts = good.partition_by([key], as_dict=True, maintain_order=True)
    if not parts:
        return [], np.empty((0, num))
    ends = [float(part["seconds"][-1]) for part in parts.values()]
    starts = [float(part["seconds"].filter(part["seconds"] > 0).min() or 1.0) for part in parts.values()]  # type: ignore[arg-type]
    times = np.geomspace(max(starts), max(min(ends), max(starts)), num)
    rows = [np.interp(times, part["seconds"].to_numpy(), part["mean_distance"].log().to_numpy()) for part in parts.values()]
    return [one for (one,) in parts], np.stack(rows)
