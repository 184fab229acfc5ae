"""Divergence of the gradients of two classes, between equal and orthogonal ones (quantum Jensen-Shannon; Majtey, Lamberti, Prato 2005)."""

from collections.abc import Collection
from typing import TYPE_CHECKING

from workers.kernel_data import class_entropies

if TYPE_CHECKING:
    from workers.kernel_data import Kernel


def class_divergence(traced_NN: "Kernel", labels_N: "Kernel", first: Collection[int], second: Collection[int]) -> float:
    """(S(X and Y) - w S(X) - (1 - w) S(Y)) / H(w), in [0, 1]: 0 for equal second moments of the gradients, 1 for orthogonal ones.

    w is the share of X in the trace of both and H(w) = -w ln w - (1 - w) ln(1 - w). The kernel of both has the eigenvalues of
    w rho_X + (1 - w) rho_Y with rho = J^T J / tr, so that the entropy's concavity and Holevo's bound (1973) give the ends.
    """
    import math

    of_first, of_second, of_both, share = class_entropies(traced_NN, labels_N, first, second)
    if not 0.0 < share < 1.0:  # one of the two has no gradient
        return float("nan")
    most = -share * math.log(share) - (1.0 - share) * math.log(1.0 - share)
    return (of_both - share * of_first - (1.0 - share) * of_second) / most
