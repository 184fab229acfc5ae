"""Condition number of the kernel."""

from workers.spectrum_data import SpectrumData


def condition_number(spectrum: SpectrumData) -> float:
    """lambda_max / lambda_min; infinite where the smallest is not above the noise floor (D11). NaN for a cut spectrum."""
    p = spectrum.probabilities_K
    smallest = p.min()
    return float(p.max() / smallest) if smallest != 0.0 else float("inf")
