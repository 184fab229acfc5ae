"""Von Neumann entropy of the kernel (D11)."""

from workers.spectrum_data import SpectrumData, shannon


def entropy(spectrum: SpectrumData) -> float:
    """-sum p ln p in nats, with p the eigenvalues over their sum; NaN for a cut spectrum."""
    return shannon(spectrum.probabilities_K)
