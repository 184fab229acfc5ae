"""Spectral position against that of a residual which is spread as the spectrum is (D3)."""

from workers.observables.participation_ratio import participation_ratio
from workers.observables.spectral_position import spectral_position
from workers.spectrum_data import SpectrumData


def spectral_position_times_participation_ratio(spectrum: SpectrumData) -> float:
    """chi_pos PR: 1 where gamma_k^2 = p_k. Unlike chi_pos, it can be compared between kernels of unlike shape."""
    return spectral_position(spectrum) * participation_ratio(spectrum)
