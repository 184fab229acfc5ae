"""Share of a kernel's change that its eigenvalues make; the rest turns eigenvectors."""

from typing import TYPE_CHECKING

from workers.kernel_data import pair
from workers.spectrum_data import ratio

if TYPE_CHECKING:
    from workers.kernel_data import Kernel


def stretch_share(reference_RR: "Kernel", kernel_RR: "Kernel") -> float:
    """sum_k (lambda_k(t) - lambda_k(0))^2 / ||Theta_t - Theta_0||^2, both sorted: 1 for a pure stretch, 0 for a pure rotation.

    It is at most 1 (Hoffman and Wielandt 1953), and needs no eigenvectors, so that degenerate ones do no harm. NaN without a change.
    """
    import numpy as np

    first_RR, second_RR = pair(reference_RR, kernel_RR)
    stretch_R = np.linalg.eigvalsh(second_RR) - np.linalg.eigvalsh(first_RR)
    return ratio(stretch_R @ stretch_R, np.linalg.norm(second_RR - first_RR) ** 2)
