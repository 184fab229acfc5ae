"""Von Neumann entropy of the cosine kernel, which knows the angles of gradients alone (ZnNL's covariance entropy)."""

from typing import TYPE_CHECKING

from workers.kernel_data import cosine_kernel, rounding, spectrum_of

if TYPE_CHECKING:
    from workers.kernel_data import Kernel


def cosine_entropy(kernel_RR: "Kernel", *, normalised: bool = False) -> float:
    """-sum p ln p in nats, p the eigenvalues over their sum of Theta_ij / sqrt(Theta_ii Theta_jj), whose rows without gradient are 0.

    `normalised` (papyrus: effective): over ln n, in [0, 1], NaN for one row; compare it only at equal n.
    """
    from workers.observables.entropy import entropy
    from workers.observables.entropy_normalised import entropy_normalised

    spectrum = spectrum_of(cosine_kernel(kernel_RR), precision=rounding(kernel_RR))
    return entropy_normalised(spectrum) if normalised else entropy(spectrum)
