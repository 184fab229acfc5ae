"""What a scaling law must provide to be fitted: its variables and terms, starts, and its logarithm with derivatives."""

# B resamples, N points, V variables, P internal parameters, K starts; float64 throughout

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from workers.settings import Plugin

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
else:
    Array = Any

__all__ = ["Array", "Law", "Term"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One parameter of a law: how its internal value, of order one, becomes the reported one, and between which internal bounds it stays.

    reported = f(internal) * y0^y_power * x0[variable]^x_power, with f the exponential where `log`.
    """

    name: str
    log: bool = False
    y_power: int = 0
    variable: int = 0
    x_power: int = 0
    low: float = -math.inf
    high: float = math.inf

    def reported(self, theta_B: Array, y0: float, x0_V: Sequence[float]) -> Array:
        """In the units of y and x."""
        import numpy as np

        unit = y0**self.y_power * x0_V[self.variable] ** self.x_power
        value_B: Array = unit * (np.exp(theta_B) if self.log else theta_B)
        return value_B

    def internal(self, value: float, y0: float, x0_V: Sequence[float]) -> float:
        """The inverse of `reported`."""
        pure = value / (y0**self.y_power * x0_V[self.variable] ** self.x_power)
        if not self.log:
            return pure
        return math.log(pure) if pure > 0 else -math.inf

    @classmethod
    def amplitude(cls, name: str) -> "Term":
        """A positive number in the units of y."""
        return cls(name=name, log=True, y_power=1, low=-60.0, high=60.0)

    @classmethod
    def level(cls, name: str) -> "Term":
        """A number in the units of y that is not negative."""
        return cls(name=name, y_power=1, low=0.0)

    @classmethod
    def exponent(cls, name: str, low: float = 0.0, high: float = 5.0) -> "Term":
        """A pure number."""
        return cls(name=name, low=low, high=high)


@dataclass(frozen=True, kw_only=True)
class Law(Plugin):
    """y > 0 as a function of one or several variables > 0; a new one is a file `orchestrator/laws/<name>.py` or a module of the user's own.

    The fit works on centred logarithms, u = ln(x / x0) and v = ln(y / y0) with x0 and y0 geometric means, so that every internal
    parameter is of order one and nearly uncorrelated with the others. `own_units`: the law needs its variables as they are, x0 = 1.
    """

    package: ClassVar[str] = "orchestrator"
    group: ClassVar[str] = "laws"
    own_units: ClassVar[bool] = False

    def variables(self) -> tuple[str, ...]:
        """Names of the V variables, for which the user names columns."""
        return ("x",)

    def terms(self) -> tuple[Term, ...]:
        """The P parameters, in the internal order."""
        raise NotImplementedError

    def starts(self, u_NV: Array, v_N: Array) -> Array:
        """Internal parameters (K, P) near the minima that there may be, best first, found without a start of their own."""
        raise NotImplementedError

    def log_value(self, theta_BP: Array, u_NV: Array) -> tuple[Array, Array]:
        """v at `u_NV` as (B, N), and its derivative by the internal parameters as (B, N, P)."""
        raise NotImplementedError

    def derived(self, values: Mapping[str, Array], x0: Mapping[str, float]) -> dict[str, Array]:
        """Further numbers that follow from the reported parameters, each (B,)."""
        return {}

    def scale(self, u_NV: Array) -> Array:
        """(N,) what grows with the size of a run, so that the largest can be held out."""
        scale_N: Array = u_NV.sum(axis=1)
        return scale_N

    def equation(self, values: Mapping[str, str], columns: Mapping[str, str], y: str, x0: Mapping[str, str]) -> str:
        """The law as one line of text, from the texts of its values, the columns of its variables and their references."""
        raise NotImplementedError

    def concerns(self, values: Mapping[str, float], low: Mapping[str, float], high: Mapping[str, float]) -> list[str]:
        """Warnings about a fit: a term that the data do not identify. What stands at a bound is told without this."""
        return []

    def parameters(self) -> tuple[str, ...]:
        """Names of the terms."""
        return tuple(term.name for term in self.terms())

    def bounds(self) -> tuple[Array, Array]:
        """Lower and upper bound of the internal parameters, each (P,)."""
        import numpy as np

        terms = self.terms()
        return np.array([term.low for term in terms]), np.array([term.high for term in terms])
