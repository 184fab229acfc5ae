"""Overlap of the spaces of the largest eigenvectors of two kernels."""

from typing import TYPE_CHECKING

from workers.kernel_data import largest_eigenvectors, pair

if TYPE_CHECKING:
    from workers.kernel_data import Kernel


def eigenbasis_overlap(reference_RR: "Kernel", kernel_RR: "Kernel", *, num_largest: int = 10) -> float:
    """||Q_0^T Q_t||^2 / k, with Q (R, k) the eigenvectors of the k = `num_largest` largest eigenvalues (at most all rows), in [0, 1].

    Unrelated spaces have k / R. It means something where there is a gap behind the k-th eigenvalue.
    """
    import numpy as np

    first_RR, second_RR = pair(reference_RR, kernel_RR)
    num = min(num_largest, len(first_RR))
    products = largest_eigenvectors(first_RR, num).T @ largest_eigenvectors(second_RR, num)
    return float(np.linalg.norm(products) ** 2 / num)
