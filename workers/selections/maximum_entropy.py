"""The random set whose kernel has most entropy (ZnNL's approximate maximum entropy)."""

import copy
from dataclasses import dataclass

from workers.selection import Method, Pool, Selection, random_order
from workers.workload import setting


@dataclass(frozen=True, kw_only=True)
class MaximumEntropy(Method):
    """Of `num_sets` random sets of each size the one of most entropy, by the traced kernel of the production network at initialisation.

    Sets grow along random orders of their own, of which the first is that of `method=random` with the same seed. The set of a size is not
    always part of that of a larger one.
    """

    num_sets: int = setting(10, low=1, help="random sets of which the best is taken")

    def select(self, pool: Pool, size: int) -> Selection:
        """Scored by entropy, in nats."""
        import numpy as np
        import torch

        from workers import entk
        from workers.selection_kernel import most_entropy

        labels_N, num = self.classes(pool), len(pool.inputs_N)
        orders_KS = np.stack([random_order(num, size, pool.seed, counter, labels_N) for counter in range(self.num_sets)])
        network, kernels = copy.deepcopy(pool.network).double(), []
        for done, order_S in enumerate(orders_KS):
            inputs_S = pool.inputs_N[torch.from_numpy(order_S).to(pool.inputs_N.device)].double()
            kernels.append(entk.gram(network, inputs_S, outputs="traced").cpu().numpy())
            pool.progress(done + 1, self.num_sets)
        best_S, entropy_S = most_entropy(orders_KS, kernels)
        scores_KS = np.full(orders_KS.shape, np.nan)
        scores_KS[best_S, np.arange(size)] = entropy_S
        return Selection(orders_KS=orders_KS, best_S=best_S, scores_KS=scores_KS, facts={"num_sets": self.num_sets})
