"""Rotation between two kernels, by a polar decomposition (ZnNL's mind drift, an unmerged branch)."""

from typing import TYPE_CHECKING

from workers.kernel_data import pair, spectrum_of

if TYPE_CHECKING:
    from workers.kernel_data import Kernel


def kernel_rotation(reference_RR: "Kernel", kernel_RR: "Kernel") -> float:
    """1 - tr U / R, with Theta_0 Theta_t^-1 = U P, U orthogonal and P positive: one minus the mean cosine of the angles of U.

    0 where the two commute. NaN where an eigenvalue of either is not above its noise floor: then U is not determined.
    """
    import numpy as np

    first_RR, second_RR = pair(reference_RR, kernel_RR)
    if not all((spectrum_of(one).clean_K > 0.0).all() for one in (reference_RR, kernel_RR)):
        return float("nan")
    # the transpose of Theta_0 Theta_t^-1, whose U is U^T and has its trace
    left_RR, _, right_RR = np.linalg.svd(np.linalg.solve(second_RR, first_RR))
    return 1.0 - float(np.vdot(left_RR, right_RR.T)) / len(first_RR)
