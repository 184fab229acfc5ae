"""What a scaling law must provide to be fitted: bounds, a start, its logarithm with derivatives, and its reported parameters."""

# B resamples, N points, P internal parameters; float64 throughout

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from workers.settings import Plugin

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
else:
    Array = Any

__all__ = ["Array", "Law"]


@dataclass(frozen=True, kw_only=True)
class Law(Plugin):
    """A curve y(x) > 0; a new one is a file `orchestrator/laws/<name>.py` or a module of the user's own.

    The fit works on centred logarithms, u = ln(x / x0) and v = ln(y / y0) with x0 and y0 geometric means, so that every internal
    parameter is of order one and nearly uncorrelated with the others.
    """

    package: ClassVar[str] = "orchestrator"
    group: ClassVar[str] = "laws"

    def parameters(self) -> tuple[str, ...]:
        """Names of the P reported parameters, in the internal order."""
        raise NotImplementedError

    def bounds(self) -> tuple[Array, Array]:
        """Lower and upper bound of the internal parameters, each (P,)."""
        raise NotImplementedError

    def start(self, u_N: Array, v_N: Array) -> Array:
        """Internal parameters (P,) near the global optimum, found without a start of its own."""
        raise NotImplementedError

    def log_value(self, theta_BP: Array, u_N: Array) -> tuple[Array, Array]:
        """v at `u_N` as (B, N), and its derivative by the internal parameters as (B, N, P)."""
        raise NotImplementedError

    def reported(self, theta_BP: Array, y0: float) -> dict[str, Array]:
        """The parameters in the units of y, each (B,), under the names of `parameters`."""
        raise NotImplementedError

    def equation(self, values: Mapping[str, str], x: str, y: str, x0: str) -> str:
        """The law as one line of text, from the texts of its values."""
        raise NotImplementedError

    def concerns(self, values: Mapping[str, float], low: Mapping[str, float], high: Mapping[str, float]) -> list[str]:
        """Warnings about a fit: a parameter at its bound, a term that the data do not identify."""
        raise NotImplementedError
