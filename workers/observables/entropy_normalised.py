"""Von Neumann entropy over the largest that the kernel's size allows (D11)."""

from workers.observables.entropy import entropy
from workers.spectrum_data import SpectrumData


def entropy_normalised(spectrum: SpectrumData) -> float:
    """S / ln n with n the rows of the kernel, in [0, 1]; NaN for one row. Compare only at equal n."""
    import math

    return entropy(spectrum) / math.log(spectrum.num_rows) if spectrum.num_rows > 1 else float("nan")
