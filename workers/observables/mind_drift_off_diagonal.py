"""Part off the diagonal of the product of two kernels (ZnNL's mind drift, an unmerged branch)."""

from typing import TYPE_CHECKING

from workers.kernel_data import drift

if TYPE_CHECKING:
    from workers.kernel_data import Kernel


def mind_drift_off_diagonal(reference_RR: "Kernel", kernel_RR: "Kernel") -> float:
    """||M - diag M|| with M = Theta_0 Theta_t / (tr Theta_0 tr Theta_t) and Frobenius' norm."""
    import numpy as np

    drift_RR = drift(reference_RR, kernel_RR)
    return float(np.linalg.norm(drift_RR - np.diag(drift_RR.diagonal())))
