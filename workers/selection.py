"""What a way of choosing training samples declares, gets and gives: a pool of candidates in, orders of them out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from workers.errors import ConfigError, Diverged
from workers.settings import Plugin, setting

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from workers.workload import Model

    Array = np.ndarray[Any, Any]

# N candidates; S chosen ones, in their order; K orders

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Pool:
    """Candidates and what may be asked of them, all on one device.

    `inputs_N`: (N, *input_shape). `labels_N`: (N,) whole numbers on the CPU; None where targets are no labels. `network`: the production
    network at initialisation. `model`: its settings, for further networks. `seed`: of the method's own randomness.
    """

    inputs_N: "Tensor"
    labels_N: "Array | None"
    network: "nn.Module"
    model: "Model"
    seed: int
    progress: Progress = lambda done, total: None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Selection:
    """Orders of candidates (K, S), and which of them (S,) has the set of each size as its beginning.

    The set of n points is the first n of order `best_S[n - 1]`, whatever S is: a selection of many points holds those of fewer.
    `scores_KS`: what each point was chosen for, NaN where that says nothing. `facts`: numbers to be reported, name -> value.
    """

    orders_KS: "Array"
    best_S: "Array"
    scores_KS: "Array"
    facts: Mapping[str, float] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Points of the largest set."""
        return len(self.best_S)

    def of_size(self, size: int) -> "Array":
        """Indices (size,) of the candidates of one set; ConfigError for more than were chosen."""
        if not 1 <= size <= self.size:
            raise ConfigError(
                f"a set of this selection has 1 to {self.size} points, got {size}; raise max_size; or its method stopped before"
            )
        found: Array = self.orders_KS[self.best_S[size - 1], :size]
        return found


def one_order(order_S: "Array", scores_S: "Array", facts: Mapping[str, float] | None = None) -> Selection:
    """The selection whose sets are the beginnings of one order."""
    import numpy as np

    return Selection(
        orders_KS=np.asarray(order_S, dtype=np.int64)[None],
        best_S=np.zeros(len(order_S), dtype=np.int64),
        scores_KS=np.asarray(scores_S, dtype=np.float64)[None],
        facts=dict(facts or {}),
    )


@dataclass(frozen=True, kw_only=True)
class Method(Plugin):
    """A way of choosing: one file in `workers/selections/`, found by its name."""

    group: ClassVar[str] = "selections"

    by_class: bool = setting(False, help="take a point of each class in turn, by its label")

    def select(self, pool: Pool, size: int) -> Selection:
        """`size` of the candidates; the sets of fewer points are those that a smaller `size` gives."""
        raise NotImplementedError

    def classes(self, pool: Pool) -> "Array | None":
        """Labels (N,) for a choice by class, None for another; ConfigError where there are no labels."""
        if self.by_class and pool.labels_N is None:
            raise ConfigError("by_class=true needs data with one label for each sample; this data set has none, take by_class=false")
        return pool.labels_N if self.by_class else None


class Candidates:
    """Those of N candidates that are left, from which the best is taken; with labels, each class in turn."""

    def __init__(self, num: int, labels_N: "Array | None" = None) -> None:
        import numpy as np

        self.left_N = np.ones(num, dtype=bool)
        self.labels_N = labels_N
        self.turns = [None] if labels_N is None else list(np.unique(labels_N))
        self.turn = 0

    def allowed_N(self) -> "Array":
        """Which (N,) may be taken next: those left of the class whose turn it is, or of the next one that has any."""
        for _ in self.turns:
            label = self.turns[self.turn % len(self.turns)]
            found = self.left_N if label is None else self.left_N & (self.labels_N == label)
            if found.any():
                return found
            self.turn += 1
        raise ConfigError(f"all {len(self.left_N)} candidates are taken; a set has at most as many points as the pool")

    def best(self, scores_N: "Array") -> int:
        """The one with the largest score, the first of several; Diverged for scores that are no numbers. It stays until `take`."""
        import numpy as np

        if not np.isfinite(scores_N).all():
            raise Diverged(
                f"{int((~np.isfinite(scores_N)).sum())} of {len(scores_N)} scores are no numbers; the network behind them diverged"
            )
        return int(np.argmax(np.where(self.allowed_N(), scores_N, -np.inf)))

    def take(self, index: int) -> None:
        """Take one off."""
        self.left_N[index] = False
        self.turn += 1


def random_order(num: int, size: int, seed: int, counter: int = 0, labels_N: "Array | None" = None) -> "Array":
    """`size` of `num` candidates (size,) in the `counter`-th random order of a seed; with labels, a random one of each class in turn."""
    import numpy as np

    from workers.subsets import permutation

    scores_N = np.empty(num)
    scores_N[permutation(num, seed, counter)] = np.arange(num, 0, -1)
    candidates, order = Candidates(num, labels_N), []
    if labels_N is None:
        return np.argsort(-scores_N, kind="stable")[:size]
    for _ in range(size):
        order.append(candidates.best(scores_N))
        candidates.take(order[-1])
    return np.array(order, dtype=np.int64)
