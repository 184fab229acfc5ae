"""Spectral position of the residual (D3): where in the kernel's spectrum the gradient sits."""

from workers.spectrum_data import SpectrumData


def spectral_position(spectrum: SpectrumData) -> float:
    """chi_pos = sum gamma_k^2 p_k, of the residual on the same units as the kernel (the self estimate).

    It equals ||grad L||^2 / (chi_loss chi_net) for the full kernel. The self estimate is inflated by kappa / N: compare at equal N.
    """
    return float((spectrum.weights_K * spectrum.probabilities_K).sum())
