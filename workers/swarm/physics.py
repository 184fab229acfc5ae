"""The physics of a swarm as settings: fluid, temperature, robots, time; checked on the login node, where nothing heavy is imported."""

import itertools
import math
from dataclasses import dataclass

from workers.errors import ConfigError
from workers.settings import Settings, setting
from workers.swarm.contacts import Rod
from workers.swarm.field import Field
from workers.swarm.fields.none import Nothing
from workers.swarm.friction import Friction, spheroid, water_viscosity
from workers.swarm.resolution import Resolution, check_substeps, needed_substeps
from workers.swarm.walls import Segment, Wall, cuboid, rectangle

ASPECTS = {"sphere": 1.0, "prolate": 3.0, "oblate": 1.0 / 3.0}
MAX_SUBSTEPS, COARSE = 10_000, 20
# of the disc or ball in which robots begin: chance finds no places in a fuller one
MAX_FILLED = 0.4
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
    dynamics: str = setting("overdamped", choices=("overdamped", "langevin"), help="langevin: robots have inertia")
    contact: str = setting("wca", choices=("wca", "gay_berne"), help="of robots with each other; gay_berne: of spheroids, with torques")
    field: Field = Nothing()
    walls: tuple[float, ...] = setting((), above=0.0, unit="um", help="lengths of a box of walls about the origin, in each dimension")
    wall_segments: tuple[float, ...] = setting((), unit="um", help="further walls in a plane, each by x, y of both its ends")
    box_length: float | None = setting(
        1000.0, above=0.0, unit="um", help="of a box that is periodic for contacts and sight; null: there is none"
    )
    rod_length: float = setting(0.0, low=0.0, unit="um", help="of a rod that turns about the origin; 0: there is none")
    rod_beads: int = setting(59, low=2)
    rod_friction: float = setting(690.2407326, above=0.0, unit="pN um s", help="of its turning")

    def check(self) -> None:
        """Water has a viscosity where it is water; walls have ends, and no images."""
        self.eta()
        if self.walls and len(self.walls) != self.num_dimensions:
            raise ConfigError(f"walls must have a length in each of {self.num_dimensions} dimensions, got {list(self.walls)}")
        if self.wall_segments and (self.num_dimensions == 3 or len(self.wall_segments) % 4):
            raise ConfigError(
                f"wall_segments must be x, y of two ends for each wall, in a plane, got {len(self.wall_segments)} numbers in "
                f"{self.num_dimensions} dimensions"
            )
        if any(ends[:2] == ends[2:] for ends in self._segments()):
            raise ConfigError(f"wall_segments must each have two ends, got {list(self.wall_segments)}, with one that has no length")
        if self.rod_length and self.num_dimensions == 3:
            raise ConfigError("rod_length must be 0 in 3 dimensions: a rod turns in a plane; give num_dimensions=2")

    @property
    def has_walls(self) -> bool:
        """Whether there are any."""
        return bool(self.walls or self.wall_segments)

    def all_walls(self) -> tuple[Wall, ...]:
        """The box and the segments."""
        segments = tuple(Segment((x, y), (u, v)) for x, y, u, v in self._segments())
        if not self.walls:
            return segments
        width, height, *depth = self.walls
        return (*cuboid(width, height, *depth), *segments) if depth else (*rectangle(width, height), *segments)

    def _segments(self) -> list[tuple[float, ...]]:
        return [self.wall_segments[i : i + 4] for i in range(0, len(self.wall_segments), 4)]

    def images(self) -> float | None:
        """The length of the periodic box; within closed walls nothing has images."""
        return None if self.walls else self.box_length

    def room(self, start_radius: float) -> float:
        """The radius of the disc (ball) that is as large as what walls leave of that in which robots begin."""
        return min(start_radius, *(0.5 * length for length in self.walls)) if self.walls else start_radius

    def eta(self) -> float:
        """The viscosity (Pa s)."""
        if self.viscosity is not None:
            return self.viscosity
        try:
            return water_viscosity(self.temperature_kelvin)
        except ConfigError as error:
            raise ConfigError(f"viscosity: {error}") from None

    def contact_depth(self) -> float:
        """Depth of contacts (K)."""
        return self.contact_kelvin or self.temperature_kelvin or FREEZING

    def rod(self) -> Rod | None:
        """None where there is none."""
        return Rod(length=self.rod_length, num_beads=self.rod_beads, friction=self.rod_friction) if self.rod_length else None


@dataclass(frozen=True, kw_only=True)
class Robots(Settings):
    """The robots of one policy: spheroids of the volume of a sphere of `radius`, which swim along their axis."""

    num_agents: int = setting(10, low=1)
    shape: str = setting("sphere", choices=tuple(ASPECTS), help="prolate: 3 times as long as thick, oblate: a third; or as aspect says")
    aspect: float | None = setting(None, above=0.0, help="axis along the swim direction over those across; null: as of the shape")
    radius: float = setting(2.14, above=0.0, unit="um", help="of the sphere of the same volume")
    speed: float = setting(1.1268, low=0.0, unit="um/s", help="of swimming")
    speed_body_lengths: float | None = setting(None, low=0.0, unit="1/s", help="in place of speed: in units of 2 radius")
    mass: float | None = setting(None, above=0.0, unit="pN s^2/um", help="for dynamics=langevin; null: of a ball of water")
    turn_rate: float = setting(10.572, low=0.0, unit="deg/s", help="of turning")
    start_positions: tuple[float, ...] = setting(
        (), unit="um", help="where robots begin, x, y (and z) of each; empty: anywhere in a disc about the origin"
    )
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

    def check_starts(self, num_dimensions: int, start_radius: float) -> None:
        """ConfigError where robots would overlap at the start, or there is no room to draw places for them."""
        given, width = self.start_positions, 2.0 * self.radius
        if not given:
            share = self.num_agents * (self.radius / start_radius) ** num_dimensions
            if share > MAX_FILLED:
                least = self.radius * (self.num_agents / MAX_FILLED) ** (1.0 / num_dimensions)
                raise ConfigError(
                    f"{self.num_agents} robots of radius {self.radius:g} um would fill {share:.0%} of where they begin, and overlap: "
                    f"take a start_radius of at least {least:.3g} um, got {start_radius:g}, or fewer or smaller robots"
                )
            return
        if len(given) != self.num_agents * num_dimensions:
            raise ConfigError(f"start_positions must be {num_dimensions} numbers for each of {self.num_agents} robots, got {len(given)}")
        places = [given[i : i + num_dimensions] for i in range(0, len(given), num_dimensions)]
        for (i, one), (j, other) in itertools.combinations(enumerate(places), 2):
            if (apart := math.dist(one, other)) < width:
                raise ConfigError(
                    f"start_positions overlap: robots {i} and {j} are {apart:.3g} um apart, and must be at least {width:g} um, two radii"
                )

    @property
    def axis_ratio(self) -> float:
        """Of the axis along the swim direction to those across."""
        return self.aspect or ASPECTS[self.shape]

    def friction(self, viscosity: float) -> Friction:
        """In a fluid."""
        return spheroid(self.radius, self.axis_ratio, viscosity)

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
    num_substeps: int | None = setting(None, low=1, help="of a slice; null: 20, 30, 50, 100 ... as turns by diffusion and contacts need")
    allow_coarse_dt: bool = setting(False, help="run substeps too long for diffusion or contacts, as the authors did; rows are marked")

    def needed(self, resolution: Resolution, *, contacts: bool = True) -> int:
        """The fewest substeps that resolve turns by diffusion (D15) and contacts, or turns alone."""
        return needed_substeps(resolution, self.slice_seconds, contacts=contacts)

    def substeps(self, resolution: Resolution) -> int:
        """Of a slice, as given, or as many as are needed, in a few numbers, so that many policies make one batch.

        With `allow_coarse_dt` contacts are resolved no further than COARSE substeps do.
        """
        if self.num_substeps is not None:
            return self.num_substeps
        if self.allow_coarse_dt:
            needed = min(self._for_contacts(resolution), COARSE)
            return _round_up(max(self.needed(resolution, contacts=False), needed))
        needed = self.needed(resolution)
        if needed > MAX_SUBSTEPS:
            raise ConfigError(
                f"{resolution.worst()} needs {needed:,} substeps in a slice of {self.slice_seconds:g} s for robots of radius "
                f"{resolution.radius:g} um, more than {MAX_SUBSTEPS:,}; take larger robots or shorter slices, or "
                "timing.allow_coarse_dt=true, which resolves turns alone"
            )
        return _round_up(needed)

    def check_for(self, resolution: Resolution) -> None:
        """ConfigError where substeps do not resolve what happens in them, unless that is allowed."""
        if not self.allow_coarse_dt:
            check_substeps(resolution, self.slice_seconds, self.substeps(resolution))

    def is_coarse(self, resolution: Resolution) -> bool:
        """Whether there are fewer than are needed."""
        return self.substeps(resolution) < self._for_contacts(resolution)

    def _for_contacts(self, resolution: Resolution) -> int:
        """As `needed`; where no number is enough, as many as one can count."""
        try:
            return self.needed(resolution)
        except ConfigError:
            return 2**31


def _round_up(count: int) -> int:
    """To 20, 30, 50, 100, 200 and so on."""
    scale = 100
    while scale < count:
        scale *= 10
    return next((number for number in (scale // 5, 3 * scale // 10, scale // 2) if number >= count), scale)
