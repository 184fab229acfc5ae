"""Exponent of the decay of the residual over the kernel's eigenvectors."""

from workers.spectrum_data import SpectrumData, log_slope


def weight_exponent(spectrum: SpectrumData, *, first_rank: int | None = None, last_rank: int | None = None) -> float:
    """b of gamma_k^2 ~ k^-b, by least squares over the window of `decay_exponent`; NaN where a weight is zero.

    With alpha of `decay_exponent` and a frozen kernel, the loss falls in time as t^-((b - 1) / alpha) (D5).
    """
    ranks_W, _, weights_W = spectrum.window(first_rank, last_rank)
    return -log_slope(ranks_W, weights_W)
