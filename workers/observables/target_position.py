"""Spectral position of the targets: of the residual of squared error where the outputs are zero (D3)."""

from typing import TYPE_CHECKING

from workers.kernel_data import position_of

if TYPE_CHECKING:
    from workers.kernel_data import Kernel


def target_position(kernel_RR: "Kernel", targets_NC: "Kernel") -> float:
    """y^T Theta y / (||y||^2 tr Theta); for a traced kernel summed over outputs above and below, as D1 projects a residual."""
    return position_of(kernel_RR, targets_NC)
