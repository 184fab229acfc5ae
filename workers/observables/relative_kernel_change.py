"""Change of the kernel, with its scale (D12)."""

from typing import TYPE_CHECKING

from workers.kernel_data import pair
from workers.spectrum_data import ratio

if TYPE_CHECKING:
    from workers.kernel_data import Kernel


def relative_kernel_change(reference_RR: "Kernel", kernel_RR: "Kernel") -> float:
    """||Theta_t - Theta_0|| / ||Theta_0|| with Frobenius' norm, Theta_0 the reference."""
    import numpy as np

    first_RR, second_RR = pair(reference_RR, kernel_RR)
    return ratio(np.linalg.norm(second_RR - first_RR), np.linalg.norm(first_RR))
