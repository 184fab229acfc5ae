"""Alignment of two kernels (Cristianini et al. 2001): the cosine of the angle between them."""

from typing import TYPE_CHECKING

from workers.kernel_data import pair
from workers.spectrum_data import ratio

if TYPE_CHECKING:
    from workers.kernel_data import Kernel


def kernel_alignment(reference_RR: "Kernel", kernel_RR: "Kernel") -> float:
    """<K, L> / (||K|| ||L||) with Frobenius' product and norms, in [0, 1] for kernels."""
    import numpy as np

    first_RR, second_RR = pair(reference_RR, kernel_RR)
    return ratio(np.vdot(first_RR, second_RR), np.linalg.norm(first_RR) * np.linalg.norm(second_RR))
