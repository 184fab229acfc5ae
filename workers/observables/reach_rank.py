"""Rank to which the residual has moved down the kernel's spectrum (D10)."""

from workers.observables.spectral_position import spectral_position
from workers.spectrum_data import SpectrumData


def reach_rank(spectrum: SpectrumData) -> float:
    """Number of eigenvalues of at least chi_pos tr; NaN for a cut spectrum."""
    position = spectral_position(spectrum)
    # one rounding must not leave out the mode that the residual lies along
    return float((spectrum.probabilities_K >= position * (1.0 - 1e-12)).sum()) if position == position else float("nan")
