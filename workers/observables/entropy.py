"""Von Neumann entropy of the kernel (D11)."""

from workers.spectrum_data import SpectrumData


def entropy(spectrum: SpectrumData) -> float:
    """-sum p ln p in nats, with p the eigenvalues over their sum; NaN for a cut spectrum."""
    import numpy as np

    p = spectrum.probabilities_K
    # p ln p -> 0 with p; a NaN stays
    return float(-(p * np.log(np.where(p == 0.0, 1.0, p))).sum()) + 0.0
