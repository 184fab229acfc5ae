"""The field of a point source, which agents smell."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.errors import ConfigError
from workers.settings import Settings, setting

if TYPE_CHECKING:
    from torch import Tensor

# D dimensions, first


@dataclass(frozen=True, kw_only=True)
class Concentration(Settings):
    """c(d) at a distance d (um) of a source: of `decay` inverse length / d, inverse_square (length / d)^2, exponential exp(-d / length)."""

    decay: str = setting("inverse", choices=("inverse", "inverse_square", "exponential"))
    length: float = setting(1000.0, above=0, unit="um")
    source: tuple[float, ...] = setting((), help="um from the middle; empty: in the middle")
    nearest: float = setting(1e-3, above=0, unit="um", help="nearer than this the field is as there")

    def check(self) -> None:
        """A place has two or three coordinates."""
        if len(self.source) not in (0, 2, 3):
            raise ConfigError(f"source must have two or three coordinates, or none for the middle, got {list(self.source)}")

    def distance(self, positions: "Tensor") -> "Tensor":
        """(...) of positions (D, ...), in um."""
        return self._square(positions).sqrt()

    def at(self, positions: "Tensor") -> "Tensor":
        """The concentration (...) at positions (D, ...)."""
        square = self._square(positions).clamp(min=self.nearest**2)
        found: Tensor
        if self.decay == "inverse":
            found = self.length * square.rsqrt()
        elif self.decay == "inverse_square":
            found = square.reciprocal() * self.length**2
        else:
            found = (-square.sqrt() / self.length).exp()
        return found

    def change(self, before: "Tensor", after: "Tensor") -> "Tensor":
        """From one place to the other."""
        return self.at(after) - self.at(before)

    def _square(self, positions: "Tensor") -> "Tensor":
        """Of the distance, summed axis by axis, so that no number depends on who else is in the batch."""
        found: Tensor | None = None
        for number, values in enumerate(positions):
            apart = values - self.source[number] if self.source else values
            found = apart.square() if found is None else found + apart.square()
        assert found is not None
        return found
