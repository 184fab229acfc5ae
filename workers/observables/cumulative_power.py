"""Share of the trace in the largest eigenvalues (Canatar, Bordelon and Pehlevan 2021, cumulative power)."""

from workers.spectrum_data import SpectrumData


def cumulative_power(spectrum: SpectrumData, *, num_largest: int = 10) -> float:
    """C(k) = sum of the k largest eigenvalues over the trace, k = `num_largest`; NaN for a cut spectrum."""
    return float(spectrum.probabilities_K[-num_largest:].sum())
