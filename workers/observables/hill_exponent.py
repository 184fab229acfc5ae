"""Exponent of the decay of the kernel's eigenvalues, by the Hill estimator of order statistics."""

from workers.spectrum_data import SpectrumData


def hill_exponent(spectrum: SpectrumData, *, first_rank: int | None = None, last_rank: int | None = None) -> float:
    """alpha of lambda_k ~ k^-alpha: the mean of k ln(lambda_k / lambda_k+1) over a window, which is that of `decay_exponent`.

    From rank 1 it is Hill's estimator (Hill 1975, of 1 / tail index), else the trimmed one (Bhattacharya, Kallitsis and Stoev 2019). Of an
    exact power law it gives alpha times the mean of k ln(1 + 1 / k). NaN for fewer than five ranks.
    """
    import numpy as np

    ranks_W, eigenvalues_W, _ = spectrum.window(first_rank, last_rank)
    if len(ranks_W) == 0:
        return float("nan")
    return float((ranks_W[:-1] * np.log(eigenvalues_W[:-1] / eigenvalues_W[1:])).mean())
