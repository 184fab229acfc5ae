"""Distance of the two largest eigenvalues, as a share of the trace."""

from workers.spectrum_data import SpectrumData


def spectral_gap(spectrum: SpectrumData) -> float:
    """(lambda_1 - lambda_2) / tr, in [0, 1]; NaN for a cut spectrum and for one row."""
    p = spectrum.probabilities_K
    return float(p[-1] - p[-2]) if len(p) > 1 else float("nan")
