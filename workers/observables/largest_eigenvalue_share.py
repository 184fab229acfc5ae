"""Share of the largest eigenvalue in the trace of the kernel."""

from workers.spectrum_data import SpectrumData


def largest_eigenvalue_share(spectrum: SpectrumData) -> float:
    """lambda_1 / tr, which no spectral position exceeds; exp of minus the Renyi entropy of infinite order. NaN for a cut spectrum."""
    return float(spectrum.probabilities_K.max())
