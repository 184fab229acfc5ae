"""Spread of the gradients' magnitudes (ZnNL)."""

from typing import TYPE_CHECKING

from workers.kernel_data import magnitudes

if TYPE_CHECKING:
    from workers.kernel_data import Kernel


def magnitude_variance(kernel_RR: "Kernel") -> float:
    """Variance (over n, not n - 1) of sqrt(Theta_ii) over the mean of sqrt(Theta_jj): the squared coefficient of variation.

    NaN for a kernel of zeros.
    """
    magnitudes_R = magnitudes(kernel_RR)
    mean = magnitudes_R.mean()
    return float((magnitudes_R / mean).var()) if mean > 0.0 else float("nan")
