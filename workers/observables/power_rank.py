"""Number of the largest eigenvalues that hold a given share of the trace, the inverse of the cumulative power."""

from workers.spectrum_data import SpectrumData


def power_rank(spectrum: SpectrumData, *, share: float = 0.9) -> float:
    """The smallest k with C(k) >= `share`; NaN for a cut spectrum."""
    import numpy as np

    power_K = spectrum.probabilities_K[::-1].cumsum()
    # the last sum may miss 1 by rounding
    return float(np.searchsorted(power_K, min(share, power_K[-1])) + 1) if power_K[-1] > 0 else float("nan")
