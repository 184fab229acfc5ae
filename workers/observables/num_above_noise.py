"""Numerical rank of the kernel (D11)."""

from workers.spectrum_data import SpectrumData


def num_above_noise(spectrum: SpectrumData) -> float:
    """Number of eigenvalues above the noise floor; NaN for a cut spectrum."""
    return float((spectrum.clean_K > 0).sum()) if spectrum.is_whole else float("nan")
