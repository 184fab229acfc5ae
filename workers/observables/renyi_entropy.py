"""Renyi entropy of the kernel (Renyi 1961), the family in which the von Neumann entropy has order 1."""

from workers.observables.entropy import entropy
from workers.spectrum_data import SpectrumData


def renyi_entropy(spectrum: SpectrumData, *, order: float = 2.0) -> float:
    """ln(sum p^order) / (1 - order) in nats; NaN for a cut spectrum.

    Order 0: ln of the rank; 1: the von Neumann entropy; 2: ln of the participation ratio; infinity: -ln of the largest share.
    """
    import numpy as np

    p = spectrum.probabilities_K
    if order == 1.0:
        return entropy(spectrum)
    if np.isinf(order):
        return float(-np.log(p.max()))
    # p^0 counts what is there, and a NaN stays
    return float(np.log((p[p != 0.0] ** order).sum()) / (1.0 - order))
