"""Alignment of the kernel with the residual."""

from typing import TYPE_CHECKING

from workers.kernel_data import alignment_with

if TYPE_CHECKING:
    from workers.kernel_data import Kernel


def residual_alignment(kernel_RR: "Kernel", residuals_NC: "Kernel") -> float:
    """<Theta, U U^T> / (||Theta|| ||U U^T||), as `target_alignment`; with the trace in place of ||Theta|| it is the spectral position."""
    return alignment_with(kernel_RR, residuals_NC)
