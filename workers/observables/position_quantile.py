"""Quantile of where in the kernel's spectrum the residual sits, whose mean is the spectral position."""

from workers.spectrum_data import SpectrumData


def position_quantile(spectrum: SpectrumData, *, quantile: float = 0.5) -> float:
    """The smallest p_k up to which the modes hold `quantile` of the residual gamma_k^2; by default the median. NaN for a cut spectrum."""
    import numpy as np

    held_K = spectrum.weights_K.cumsum()
    if not spectrum.is_whole or np.isnan(held_K[-1]):
        return float("nan")
    # as many roundings as there are modes: equal weights reach their quantile
    reached = np.searchsorted(held_K, quantile * held_K[-1] * (1.0 - len(held_K) * np.finfo(np.float64).eps))
    return float(spectrum.probabilities_K[reached])
