"""Norm of the derivative of the loss with respect to the outputs (ZnNL's notebooks, L_pq norm)."""

from typing import TYPE_CHECKING

from workers.kernel_data import float64

if TYPE_CHECKING:
    from workers.kernel_data import Kernel


def loss_derivative_norm(residuals_NC: "Kernel", *, inner: float = 2.0, outer: float = 2.0) -> float:
    """(sum_n (sum_c |u_nc|^p)^(q / p))^(1 / q) with p = `inner` over outputs and q = `outer` over units; by default Frobenius'.

    u is the derivative of each unit's own loss (D4). That of the mean loss, which ZnNL takes, is this over N; and chi_loss is its
    square over N (p = q = 2).
    """
    import numpy as np

    inner_N = (np.abs(float64(residuals_NC)) ** inner).sum(-1)
    return float((inner_N ** (outer / inner)).sum() ** (1.0 / outer))
