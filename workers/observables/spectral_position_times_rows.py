"""Spectral position against that of a residual without direction (D3)."""

from workers.observables.spectral_position import spectral_position
from workers.spectrum_data import SpectrumData


def spectral_position_times_rows(spectrum: SpectrumData) -> float:
    """chi_pos N C of the full kernel, chi_pos N of the traced one: 1 for an isotropic residual."""
    return spectral_position(spectrum) * spectrum.num_rows
