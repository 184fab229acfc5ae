"""Entropy of the residual over the kernel's eigenvectors."""

from workers.spectrum_data import SpectrumData, shannon


def residual_entropy(spectrum: SpectrumData) -> float:
    """-sum gamma_k^2 ln gamma_k^2 in nats: ln n for a residual of equal part along all; NaN for a cut spectrum."""
    return shannon(spectrum.weights_K) if spectrum.is_whole else float("nan")
