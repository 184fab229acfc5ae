"""A stored spectrum as the observables see it: plain NumPy arrays, no torch, computed on the login node."""

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workers.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

# K stored eigenvalues; W eigenvalues of a window

MIN_WINDOW = 5


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

    def window(self, first_rank: int | None = None, last_rank: int | None = None) -> "tuple[Array, Array, Array]":
        """Ranks (W,), eigenvalues and weights from `first_rank` to `last_rank`, rank 1 being the largest, as far as the noise floor.

        By default from a twentieth to half of the rows. Empty where not all of it is stored, or fewer than MIN_WINDOW are above the floor;
        ConfigError for ranks that are no window.
        """
        import numpy as np

        first = max(1, self.num_rows // 20) if first_rank is None else first_rank
        last = self.num_rows // 2 if last_rank is None else last_rank
        if not 1 <= first < last <= self.num_rows and (first_rank, last_rank) != (None, None):
            raise ConfigError(
                f"a window needs 1 <= first_rank < last_rank <= {self.num_rows}, the rows of the kernel, got {first} and {last}"
            )
        ranks_W = np.arange(first, last + 1)
        if last > len(self.eigenvalues_K):
            ranks_W = ranks_W[:0]
        eigenvalues_W = self.clean_K[::-1][ranks_W - 1]
        num_clean = int((eigenvalues_W > 0.0).sum())
        chosen = slice(0, num_clean if num_clean >= MIN_WINDOW else 0)
        return ranks_W[chosen], eigenvalues_W[chosen], self.weights_K[::-1][ranks_W - 1][chosen]


def shannon(probabilities_K: "Array") -> float:
    """-sum p ln p in nats of probabilities (K,); a NaN stays."""
    import numpy as np

    p = probabilities_K
    # p ln p -> 0 with p
    return float(-(p * np.log(np.where(p == 0.0, 1.0, p))).sum()) + 0.0


def ratio(numerator: Any, denominator: Any) -> float:
    """A quotient of two numbers; NaN over 0 or NaN."""
    above, below = float(numerator), float(denominator)
    return above / below if abs(below) > 0.0 else float("nan")


def log_slope(ranks_W: "Array", values_W: "Array") -> float:
    """Least-squares slope of ln values against ln ranks; NaN for fewer than MIN_WINDOW, or where a value is not above 0."""
    import numpy as np

    if len(ranks_W) < MIN_WINDOW or not (values_W > 0.0).all():
        return float("nan")
    x_W, y_W = np.log(ranks_W), np.log(values_W)
    x_W = x_W - x_W.mean()
    return float(x_W @ y_W / (x_W @ x_W))


Observable = Callable[..., float]


@functools.cache
def required() -> Mapping[str, tuple[Observable, tuple[str, ...]]]:
    """Every observable by its name, which is that of its file in `workers/observables/`, with its required parameters.

    These say what it is of: `spectrum` (a SpectrumData), `kernel_RR` (any kernel), `full_RR`, `traced_NN`, `reference_RR` and `kernel_RR`
    (two kernels), `residuals_NC`, `targets_NC`, `labels_N`; or else it is called by hand alone.
    """
    from workers import plugins

    found = {}
    for name in plugins.names("observables"):
        function = getattr(importlib.import_module(f"workers.observables.{name}"), name)
        parameters = inspect.signature(function).parameters.values()
        found[name] = function, tuple(one.name for one in parameters if one.default is one.empty)
    return found


@functools.cache
def observables(*inputs: str) -> Mapping[str, Observable]:
    """The observables that require nothing but `inputs`; without any, those of a spectrum."""
    return {name: function for name, (function, needed) in required().items() if set(needed) <= set(inputs or ("spectrum",))}


def call(function: Observable, inputs: Mapping[str, Any]) -> float:
    """An observable with those of the inputs that it requires."""
    return function(**{name: inputs[name] for name in required()[function.__name__][1]})


def observe(spectrum: SpectrumData) -> dict[str, float]:
    """All observables of a spectrum; those of the traced kernel are named `<observable>_traced` (D1)."""
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
