"""Entropy of the gradients' magnitudes (papyrus: NTKSelfEntropy; ZnNL: magnitude entropy)."""

from typing import TYPE_CHECKING

from workers.kernel_data import magnitudes

if TYPE_CHECKING:
    from workers.kernel_data import Kernel


def self_entropy(kernel_RR: "Kernel", *, normalised: bool = False) -> float:
    """-sum m ln m in nats, with m_i = sqrt(Theta_ii) / sum_j sqrt(Theta_jj): ln n where all gradients are equally long.

    `normalised` (papyrus: effective): over ln n, in [0, 1], NaN for one row. NaN for a kernel of zeros.
    """
    import math

    from workers.spectrum_data import shannon

    magnitudes_R = magnitudes(kernel_RR)
    size, total = len(magnitudes_R), magnitudes_R.sum()
    if total == 0.0 or (normalised and size == 1):
        return float("nan")
    return shannon(magnitudes_R / total) / (math.log(size) if normalised else 1.0)
