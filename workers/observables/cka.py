"""Centred kernel alignment (Kornblith et al. 2019)."""

from typing import TYPE_CHECKING

from workers.kernel_data import centred

if TYPE_CHECKING:
    from workers.kernel_data import Kernel


def cka(reference_RR: "Kernel", kernel_RR: "Kernel") -> float:
    """<H K H, H L H> / (||H K H|| ||H L H||), H the projection off the constant over all rows. Biased upwards for few rows."""
    from workers.observables.kernel_alignment import kernel_alignment

    return kernel_alignment(centred(reference_RR), centred(kernel_RR))
