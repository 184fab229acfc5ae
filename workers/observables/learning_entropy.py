"""Entropy of the squared gradient over the kernel's eigenvectors: in how many modes learning happens."""

from workers.spectrum_data import SpectrumData, ratio, shannon


def learning_entropy(spectrum: SpectrumData) -> float:
    """-sum s ln s in nats, with s_k = gamma_k^2 lambda_k over its sum, the share of mode k in ||grad L||^2; NaN for a cut spectrum."""
    power_K = spectrum.weights_K * spectrum.probabilities_K
    return shannon(power_K * ratio(1.0, power_K.sum()))
