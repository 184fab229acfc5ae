"""Trace of the kernel per row (D11)."""

from workers.spectrum_data import SpectrumData


def trace(spectrum: SpectrumData) -> float:
    """tr / (N C) of the full kernel, which equals tr / N of the traced one; NaN for a cut spectrum."""
    return float(spectrum.clean_K.sum()) / spectrum.num_rows if spectrum.is_whole else float("nan")
