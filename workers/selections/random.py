"""Training samples chosen at random."""

from dataclasses import dataclass

from workers.selection import Method, Pool, Selection, one_order, random_order


@dataclass(frozen=True, kw_only=True)
class Random(Method):
    """A random order of the pool; its beginnings are the sets."""

    def select(self, pool: Pool, size: int) -> Selection:
        """No score."""
        import numpy as np

        order_S = random_order(len(pool.inputs_N), size, pool.seed, labels_N=self.classes(pool))
        return one_order(order_S, np.full(size, np.nan))
