"""Stable rank of the kernel (D11)."""

from workers.spectrum_data import SpectrumData


def stable_rank(spectrum: SpectrumData) -> float:
    """||Theta||_F^2 / ||Theta||_2^2 = sum lambda^2 / lambda_max^2; NaN for a cut spectrum."""
    p = spectrum.probabilities_K
    return float((p**2).sum() / p.max() ** 2)
