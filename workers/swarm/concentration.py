"""Fields that fall with the distance from what they come from: a point source, which agents smell, or other particles."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.errors import ConfigError
from workers.settings import Settings, setting
from workers.swarm.sums import dot

if TYPE_CHECKING:
    from torch import Tensor

# D dimensions, first

DECAYS = ("inverse", "inverse_square", "exponential")


def decayed(square: "Tensor", decay: str, length: float, nearest: float) -> "Tensor":
    """Of squared distances (um^2), element by element; nearer than `nearest` (um) it is as there."""
    square = square.clamp(min=nearest**2)
    if decay == "inverse":
        return length * square.rsqrt()
    if decay == "inverse_square":
        return length**2 / square
    return (-square.sqrt() / length).exp()


def beyond(positions: "Tensor", place: tuple[float, ...]) -> "list[Tensor]":
    """Vectors, D tensors (...), from a place to positions (D, ...); coordinates that it lacks are 0, so () is the middle."""
    return [values - place[number] if number < len(place) else values for number, values in enumerate(positions)]


@dataclass(frozen=True, kw_only=True)
class Decay(Settings):
    """How what comes from a particle falls with its distance d (um): as `Concentration` does from its source."""

    decay: str = setting("inverse", choices=DECAYS)
    length: float = setting(1000.0, above=0, unit="um")
    nearest: float = setting(1e-3, above=0, unit="um", help="nearer than this it is as there")

    def of(self, square: "Tensor") -> "Tensor":
        """(...) of squared distances (...) in um^2."""
        return decayed(square, self.decay, self.length, self.nearest)


@dataclass(frozen=True, kw_only=True)
class Concentration(Settings):
    """c(d) at a distance d (um) of a source: of `decay` inverse length / d, inverse_square (length / d)^2, exponential exp(-d / length)."""

    decay: str = setting("inverse", choices=DECAYS)
    length: float = setting(1000.0, above=0, unit="um")
    source: tuple[float, ...] = setting(
        (), unit="um", help="from the middle; empty: in the middle; without a third coordinate: in its plane"
    )
    nearest: float = setting(1e-3, above=0, unit="um", help="nearer than this the field is as there")

    def check(self) -> None:
        """A place has two or three coordinates."""
        if len(self.source) not in (0, 2, 3):
            raise ConfigError(f"source must have two or three coordinates, or none for the middle, got {list(self.source)}")

    def at(self, positions: "Tensor") -> "Tensor":
        """The concentration (...) at positions (D, ...), summed axis by axis, so that no number depends on who else is in the batch."""
        apart = beyond(positions, self.source)
        return decayed(dot(apart, apart), self.decay, self.length, self.nearest)

    def change(self, before: "Tensor", after: "Tensor") -> "Tensor":
        """From one place to the other."""
        return self.at(after) - self.at(before)
