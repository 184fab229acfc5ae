"""Centred kernel alignment from unbiased estimates of HSIC (Song et al. 2012; Nguyen, Raghu and Kornblith 2021)."""

from typing import TYPE_CHECKING

from workers.kernel_data import pair, unbiased_hsic

if TYPE_CHECKING:
    from workers.kernel_data import Kernel


def cka_unbiased(reference_RR: "Kernel", kernel_RR: "Kernel") -> float:
    """HSIC_1(K, L) / sqrt(HSIC_1(K, K) HSIC_1(L, L)): 1 for equal kernels, about 0 for unrelated ones, which may be negative.

    NaN for fewer than four rows, or where a kernel's own HSIC_1 is not above 0.
    """
    import math

    first_RR, second_RR = pair(reference_RR, kernel_RR)
    if len(first_RR) < 4:
        return float("nan")
    of_first, of_second = unbiased_hsic(first_RR, first_RR), unbiased_hsic(second_RR, second_RR)
    if of_first <= 0.0 or of_second <= 0.0:
        return float("nan")
    return unbiased_hsic(first_RR, second_RR) / math.sqrt(of_first * of_second)
