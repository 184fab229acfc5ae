"""Rank of the kernel to a relative accuracy in the spectral norm (Golub and Van Loan, Matrix Computations, section 5.4)."""

from workers.spectrum_data import SpectrumData


def epsilon_rank(spectrum: SpectrumData, *, epsilon: float = 0.01) -> float:
    """Number of eigenvalues above epsilon lambda_max: the smallest rank that comes so close to the kernel. NaN for a cut spectrum."""
    p = spectrum.probabilities_K
    return float((p > epsilon * p.max()).sum()) if p.max() > 0 else float("nan")
