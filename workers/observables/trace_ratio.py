"""Growth of the kernel's trace."""

from typing import TYPE_CHECKING

from workers.kernel_data import pair
from workers.spectrum_data import ratio

if TYPE_CHECKING:
    from workers.kernel_data import Kernel


def trace_ratio(reference_RR: "Kernel", kernel_RR: "Kernel") -> float:
    """tr Theta_t / tr Theta_0: the amplification of chi_net, 1 where the representation is frozen."""
    first_RR, second_RR = pair(reference_RR, kernel_RR)
    return ratio(second_RR.trace(), first_RR.trace())
