"""The physics of a swarm as settings: fluid, temperature, robots, time; checked on the login node, where nothing heavy is imported."""

import math
from dataclasses import dataclass
from typing import ClassVar

from workers.errors import ConfigError
from workers.settings import Settings, setting
from workers.swarm.contacts import Rod
from workers.swarm.friction import Friction, spheroid, water_viscosity

ASPECTS = {"sphere": 1.0, "prolate": 3.0, "oblate": 1.0 / 3.0}
# where the temperature gives contacts no energy (D15)
FREEZING = 273.15


@dataclass(frozen=True, kw_only=True)
class Physics(Settings):
    """Of fluid and contacts. The middle of the box is the origin."""

    temperature_kelvin: float = setting(300.0, low=0.0, unit="K")
    viscosity: float | None = setting(8.9e-4, above=0.0, unit="Pa s", help="null: water's at the temperature")
    contact_kelvin: float | None = setting(
        None, above=0.0, unit="K", help="depth of contacts (WCA) over Boltzmann's constant; null: the temperature, 273.15 K at 0 K"
    )
    num_dimensions: int = setting(2, choices=(2, 3))
    box_length: float | None = setting(1000.0, above=0.0, unit="um", help="of a box that is periodic for contacts; null: there is none")
    rod_length: float = setting(0.0, low=0.0, unit="um", help="of a rod that turns about the origin; 0: there is none")
    rod_beads: int = setting(59, low=2)
    rod_friction: float = setting(690.2407326, above=0.0, unit="pN um s", help="of its turning")

    def check(self) -> None:
        """Water has a viscosity where it is water."""
        self.eta()

    def eta(self) -> float:
        """The viscosity (Pa s)."""
        if self.viscosity is not None:
            return self.viscosity
        try:
            return water_viscosity(self.temperature_kelvin)
        except ConfigError as error:
            raise ConfigError(f"viscosity: {error}") from None

    def contact(self) -> float:
        """Depth of contacts (K)."""
        return self.contact_kelvin or self.temperature_kelvin or FREEZING

    def rod(self) -> Rod | None:
        """None where there is none."""
        return Rod(length=self.rod_length, num_beads=self.rod_beads, friction=self.rod_friction) if self.rod_length else None


@dataclass(frozen=True, kw_only=True)
class Robots(Settings):
    """The robots of one policy: spheroids of the volume of a sphere of `radius`, which swim along their axis."""

    shapes: ClassVar[tuple[str, ...]] = tuple(ASPECTS)

    num_agents: int = setting(10, low=1)
    shape: str = setting("sphere", choices=tuple(ASPECTS), help="prolate: 3 times as long as thick, oblate: a third; or as aspect says")
    aspect: float | None = setting(None, above=0.0, help="axis along the swim direction over those across; null: as of the shape")
    radius: float = setting(2.14, above=0.0, unit="um", help="of the sphere of the same volume")
    speed: float = setting(1.1268, low=0.0, unit="um/s", help="of swimming")
    speed_body_lengths: float | None = setting(None, low=0.0, unit="1/s", help="in place of speed: in units of 2 radius")
    turn_rate: float = setting(10.572, low=0.0, unit="deg/s", help="of turning")
    force_viscosity: float | None = setting(
        None, above=0.0, unit="Pa s", help="at which the forces give these rates, whatever the fluid's is; null: at the fluid's"
    )

    def check(self) -> None:
        """A shape is what its name says."""
        if self.shape == "sphere" and self.aspect not in (None, 1.0):
            raise ConfigError(f"aspect must be 1 or null for shape=sphere, got {self.aspect}; take shape=prolate or shape=oblate")
        if self.aspect is not None and self.shape != "sphere" and (self.aspect > 1.0) != (self.shape == "prolate"):
            wanted = "above 1" if self.shape == "prolate" else "below 1"
            raise ConfigError(f"aspect must be {wanted} for shape={self.shape}, got {self.aspect}")

    def friction(self, viscosity: float) -> Friction:
        """In a fluid."""
        return spheroid(self.radius, self.aspect or ASPECTS[self.shape], viscosity)

    def swim_speed(self) -> float:
        """um / s."""
        return self.speed if self.speed_body_lengths is None else 2.0 * self.radius * self.speed_body_lengths

    def force(self, viscosity: float) -> float:
        """Of swimming (pN)."""
        return self.swim_speed() * self.friction(self.force_viscosity or viscosity).along

    def torque(self, viscosity: float) -> float:
        """Of turning (pN um)."""
        return math.radians(self.turn_rate) * self.friction(self.force_viscosity or viscosity).rotation


@dataclass(frozen=True, kw_only=True)
class Timing(Settings):
    """How time is cut: an action holds for a slice, which is computed in substeps."""

    slice_seconds: float = setting(1.0, above=0.0, unit="s", help="between two decisions")
    num_substeps: int | None = setting(None, low=1, help="of a slice; null: 10, 20, 50, 100 ... as turns by diffusion and contacts need")
    allow_coarse_dt: bool = setting(False, help="run substeps too long for diffusion or contacts, as the authors did; rows are marked")

    def substeps(self, physics: Physics, robots: Robots) -> int:
        """Of a slice, as given, or as many as are needed, in a few numbers, so that many policies make one batch."""
        return self.num_substeps or _round_up(self.needed(physics, robots))

    def needed(self, physics: Physics, robots: Robots) -> int:
        """D_r dt <= 0.1 (D15), no more than a tenth of the radius on the way."""
        rotation = robots.friction(physics.eta()).diffusion(physics.temperature_kelvin)[2]
        return max(1, math.ceil(self.slice_seconds * max(rotation / 0.1, robots.swim_speed() / (0.1 * robots.radius))))

    def is_coarse(self, physics: Physics, robots: Robots) -> bool:
        """Whether there are fewer than are needed."""
        return self.substeps(physics, robots) < self.needed(physics, robots)


def _round_up(count: int) -> int:
    """To 10, 20, 50, 100 and so on."""
    scale = 10
    while scale < count:
        scale *= 10
    return next((number for number in (scale // 5, scale // 2) if number >= max(count, 10)), scale)
