"""Groups of policies, or of any distributions, by how unlike they are: hierarchical, as many as the silhouette chooses."""

# N members; O places; A outcomes at each; K clusters

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

__all__ = ["Clusters", "clusters", "distances", "silhouette"]

MOST_CLUSTERS = 8
# mean silhouettes below it are no structure (Kaufman and Rousseeuw 1990)
LEAST_SILHOUETTE = 0.25
# and what it takes to set members apart that are alone
LEAST_OF_LONE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Clusters:
    """`labels` (N,) from 0, the largest cluster first; `silhouette`: NaN of one cluster; `medoids`: the member nearest to all others."""

    labels: "Array"
    silhouette: float
    medoids: tuple[int, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Members of each."""
        return tuple(int((self.labels == one).sum()) for one in range(len(self.medoids)))


def distances(probabilities_NOA: "Array") -> "Array":
    """(N, N) Jensen-Shannon distances (square roots of divergences in bits), the mean over places: 0 alike, 1 without a common outcome."""
    import numpy as np
    from scipy.spatial.distance import jensenshannon

    num = len(probabilities_NOA)
    found_NN = np.zeros((num, num))
    for row in range(num - 1):
        rest = probabilities_NOA[row + 1 :]
        # of equal distributions rounding may leave the root of a negative number
        with np.errstate(invalid="ignore"):
            apart = jensenshannon(np.broadcast_to(probabilities_NOA[row], rest.shape), rest, base=2, axis=2)
        found_NN[row, row + 1 :] = np.nan_to_num(apart).mean(axis=1)
    return found_NN + found_NN.T


def clusters(distance_NN: "Array") -> Clusters:
    """Average linkage, cut at the number of clusters (2 to MOST_CLUSTERS) of the largest mean silhouette; one where that shows none."""
    import numpy as np
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    num = len(distance_NN)
    best, height = np.zeros(num, dtype=int), math.nan
    if num > 2:
        tree = linkage(squareform(distance_NN, checks=False), "average")
        for count in range(2, min(MOST_CLUSTERS, num - 1) + 1):
            labels = fcluster(tree, count, "maxclust")
            own = silhouette(distance_NN, labels)
            least = LEAST_SILHOUETTE if (np.bincount(labels) > 1).sum() > 1 else LEAST_OF_LONE
            if own >= least and not own <= height:
                best, height = labels, own
    return _ordered(distance_NN, best, height)


def silhouette(distance_NN: "Array", label_N: "Array") -> float:
    """Mean over members of (b - a) / max(a, b): mean distance within the own cluster, and to the nearest other one; 0 for one alone."""
    import numpy as np

    names, index_N = np.unique(label_N, return_inverse=True)
    if len(names) < 2:
        return math.nan
    is_in_NK = np.eye(len(names))[index_N]
    sizes_K, sums_NK = is_in_NK.sum(axis=0), distance_NN @ is_in_NK
    own_N, members = sizes_K[index_N], np.arange(len(index_N))
    within_N = sums_NK[members, index_N] / np.maximum(own_N - 1, 1)
    to_NK = sums_NK / sizes_K
    to_NK[members, index_N] = np.inf
    nearest_N = to_NK.min(axis=1)
    width_N = np.where(own_N > 1, (nearest_N - within_N) / np.maximum(np.maximum(nearest_N, within_N), 1e-300), 0.0)
    return float(width_N.mean())


def _ordered(distance_NN: "Array", label_N: "Array", height: float) -> Clusters:
    import numpy as np

    names, sizes = np.unique(label_N, return_counts=True)
    labels, medoids = np.zeros(len(label_N), dtype=int), []
    for place, name in enumerate(names[np.argsort(-sizes, kind="stable")]):
        members = np.flatnonzero(label_N == name)
        labels[members] = place
        medoids.append(int(members[distance_NN[np.ix_(members, members)].sum(axis=1).argmin()]))
    return Clusters(labels=labels, silhouette=height, medoids=tuple(medoids))
