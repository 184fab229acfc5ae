"""Distance of two kernels whatever their scale (Fort et al. 2020)."""

from typing import TYPE_CHECKING

from workers.kernel_data import pair

if TYPE_CHECKING:
    from workers.kernel_data import Kernel


def kernel_distance(reference_RR: "Kernel", kernel_RR: "Kernel") -> float:
    """1 - <K, L> / (||K|| ||L||), in [0, 1] for kernels; as ||K / ||K|| - L / ||L|| ||^2 / 2, which keeps its digits where it is small."""
    import numpy as np

    first_RR, second_RR = pair(reference_RR, kernel_RR)
    first_norm, second_norm = np.linalg.norm(first_RR), np.linalg.norm(second_RR)
    if first_norm == 0.0 or second_norm == 0.0:
        return float("nan")
    return float(np.linalg.norm(first_RR / first_norm - second_RR / second_norm) ** 2 / 2.0)
