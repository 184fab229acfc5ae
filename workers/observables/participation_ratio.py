"""Participation ratio of the kernel's eigenvalues (D11)."""

from workers.spectrum_data import SpectrumData


def participation_ratio(spectrum: SpectrumData) -> float:
    """(sum lambda)^2 / sum lambda^2, the inverse of sum p^2: n equal eigenvalues give n."""
    return float(1.0 / (spectrum.probabilities_K**2).sum())
