"""Trace of the empirical Fisher matrix: the mean squared norm of the units' own gradients."""

from typing import TYPE_CHECKING

from workers.kernel_data import loss_kernel

if TYPE_CHECKING:
    from workers.kernel_data import Kernel


def fisher_trace(full_RR: "Kernel", residuals_NC: "Kernel") -> float:
    """(1 / N) sum_i u_i^T Theta_ii u_i, with u_i the residual of one unit (D4) and Theta_ii its (C, C) block of the full kernel.

    With the residual of the mean loss, which ZnNL takes, it is 1 / N^2 of this.
    """
    return float(loss_kernel(full_RR, residuals_NC).diagonal().mean())
