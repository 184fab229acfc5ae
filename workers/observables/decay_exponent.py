"""Exponent of the decay of the kernel's eigenvalues, by least squares."""

from workers.spectrum_data import SpectrumData, log_slope


def decay_exponent(spectrum: SpectrumData, *, first_rank: int | None = None, last_rank: int | None = None) -> float:
    """alpha of lambda_k ~ k^-alpha: minus the slope of ln lambda_k against ln k over ranks `first_rank` to `last_rank` (1: the largest).

    By default from a twentieth to half of the rows, without head and tail. Ranks at or below the noise floor end the window; NaN for fewer
    than five ranks, or where the window is not stored. Each rank counts alike, so half of them are in the last octave.
    """
    ranks_W, eigenvalues_W, _ = spectrum.window(first_rank, last_rank)
    return -log_slope(ranks_W, eigenvalues_W)
