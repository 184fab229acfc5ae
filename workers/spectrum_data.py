"""A stored spectrum as the observables see it: plain NumPy arrays, no torch, computed on the login node."""

import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

# K stored eigenvalues


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SpectrumData:
    """Eigenvalues of a kernel (ascending) with the part of the residual along each eigenvector.

    `weights_K` are gamma_k^2 (D1), which sum to 1 over a whole spectrum. `num_units` is N, `num_outputs` is C (D2); the full kernel
    has N C rows, the traced one N.
    """

    eigenvalues_K: "Array"
    weights_K: "Array"
    noise_floor: float
    num_units: int
    num_outputs: int
    num_rows: int

    @property
    def is_traced(self) -> bool:
        """Whether it is the mean over outputs, whose observables carry `_traced` in their names."""
        return self.num_rows == self.num_units and self.num_outputs > 1

    @property
    def is_whole(self) -> bool:
        """Whether every eigenvalue is stored, not only the largest."""
        return len(self.eigenvalues_K) == self.num_rows

    @property
    def clean_K(self) -> "Array":
        """Eigenvalues (K,) with those at or below the noise floor as 0 (D11)."""
        import numpy as np

        return np.where(self.eigenvalues_K > self.noise_floor, self.eigenvalues_K, 0.0)

    @property
    def probabilities_K(self) -> "Array":
        """Eigenvalues (K,) divided by their sum; NaN where the spectrum is cut or all of it is noise."""
        import numpy as np

        total = self.clean_K.sum()
        return self.clean_K / total if self.is_whole and total > 0 else np.full(len(self.clean_K), np.nan)


Observable = Callable[[SpectrumData], float]


@functools.cache
def observables() -> Mapping[str, Observable]:
    """Every observable of a spectrum by its name, which is that of its file in `workers/observables/`."""
    from workers import plugins

    found = plugins.names("observables")
    return {name: getattr(importlib.import_module(f"workers.observables.{name}"), name) for name in found}


def observe(spectrum: SpectrumData) -> dict[str, float]:
    """All observables; those of the traced kernel are named `<observable>_traced` (D1)."""
    suffix = "_traced" if spectrum.is_traced else ""
    return {name + suffix: function(spectrum) for name, function in observables().items()}


def from_rows(scalars: Mapping[str, Any], spectra: Mapping[str, Any]) -> SpectrumData:
    """The spectrum in the tables `scalars` and `spectra` of one spectrum task."""
    import numpy as np

    value = dict(zip(scalars["name"], scalars["value"]))
    order = np.argsort(np.asarray(spectra["index"]), kind="stable")
    return SpectrumData(
        eigenvalues_K=np.asarray(spectra["eigenvalue"], dtype=np.float64)[order],
        weights_K=np.asarray(spectra["weight"], dtype=np.float64)[order],
        noise_floor=value["noise_floor"],
        num_units=int(value["num_units"]),
        num_outputs=int(value["num_outputs"]),
        num_rows=int(value["num_rows"]),
    )
