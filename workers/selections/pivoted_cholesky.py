"""Greedy choice by predictive variance under the kernel: pivots of its Cholesky decomposition."""

import copy
from dataclasses import dataclass

from workers.selection import Method, Pool, Selection, one_order
from workers.workload import setting


@dataclass(frozen=True, kw_only=True)
class PivotedCholesky(Method):
    """Each point has the largest variance given those before, under the traced kernel (D1) of the production network at initialisation.

    Greedy for the kernel Theta's ln det. Random network distillation of wide networks is much alike: there the error of a predictor that is
    trained on S has the variance 2 (K - 2 A K + A K A^T), A = Theta(x, S) Theta(S, S)^-1, with the covariance K of outputs at
    initialisation. That is the variance here, up to a factor, where K is proportional to Theta, as for linear networks.
    """

    columns_at_once: int = setting(16, low=1, identity=False, help="columns of the kernel that are computed together")

    def select(self, pool: Pool, size: int) -> Selection:
        """Scored by the variance over its mean at first. Rows `kernel_rank` and `num_columns`."""
        from workers.selection_kernel import pivoted_cholesky, traced_columns, traced_diagonal

        network, inputs_N = copy.deepcopy(pool.network).double(), pool.inputs_N.double()
        diagonal_N = traced_diagonal(network, inputs_N)

        found = pivoted_cholesky(
            diagonal_N,
            traced_columns(network, inputs_N),
            size,
            labels_N=self.classes(pool),
            num_at_once=self.columns_at_once,
            look=lambda done: pool.progress(done, size),
        )
        return one_order(found.order_S, found.variances_S / diagonal_N.mean(), {"kernel_rank": found.rank})
