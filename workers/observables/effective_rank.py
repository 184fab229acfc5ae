"""Effective rank of the kernel (D11; Roy and Vetterli 2007)."""

from workers.observables.entropy import entropy
from workers.spectrum_data import SpectrumData


def effective_rank(spectrum: SpectrumData) -> float:
    """exp(S), with S the von Neumann entropy: n equal eigenvalues give n."""
    import math

    return math.exp(entropy(spectrum))
