"""Alignment of the centred kernel with the targets (Cortes, Mohri and Rostamizadeh 2012)."""

from typing import TYPE_CHECKING

from workers.kernel_data import alignment_with, centred

if TYPE_CHECKING:
    from workers.kernel_data import Kernel


def target_alignment_centred(kernel_RR: "Kernel", targets_NC: "Kernel") -> float:
    """<H Theta H, Y Y^T> / (||H Theta H|| ||H Y Y^T H||), H the projection off the constant over all rows; Y as in `target_alignment`."""
    return alignment_with(centred(kernel_RR), targets_NC, centre=True)
