"""Noise of a unit's gradient over the squared mean gradient (McCandlish et al. 2018, the simple noise scale)."""

from typing import TYPE_CHECKING

from workers.kernel_data import loss_kernel
from workers.spectrum_data import ratio

if TYPE_CHECKING:
    from workers.kernel_data import Kernel


def gradient_noise_scale(full_RR: "Kernel", residuals_NC: "Kernel") -> float:
    """tr Sigma / ||g||^2 in units, both without bias from the N units: the batch size at which noise and signal are equal.

    With L the loss kernel, ||g||^2 = (sum L - tr L) / (N (N - 1)) and tr Sigma = tr L / N - ||g||^2. Negative where ||g||^2 is lost in
    noise; NaN for one unit.
    """
    loss_NN = loss_kernel(full_RR, residuals_NC)
    size, own = len(loss_NN), float(loss_NN.trace())
    if size < 2:
        return float("nan")
    squared_mean = (float(loss_NN.sum()) - own) / (size * (size - 1))
    return ratio(own / size - squared_mean, squared_mean)
