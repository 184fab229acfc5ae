"""How many substeps a slice needs: from the turning of directors, from how far agents come in one, and from how stiff their contact is."""

import math
from dataclasses import dataclass

from workers.errors import ConfigError
from workers.swarm.contacts import CUTOFF, DEEPEST
from workers.swarm.flow import elongation
from workers.swarm.friction import BOLTZMANN, Friction, semi_axes

# D_r dt at most (D15)
TURN = 0.1
# of the smallest distance of contact over 2 (the radius of a sphere): the way in a substep at most, swum and diffused
WAY = 0.25
# k dt / gamma of what touches at most: above 1 a contact overshoots its balance, above 2 it blows up
RELAXATION = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """What sets the substeps: an agent's friction, radius (um) and swim speed (um / s), and two temperatures (K).

    `walls`: whether there are walls or a rod. `aspect`: of spheroids whose contact is that of Gay and Berne (`gay_berne`).
    """

    friction: Friction
    temperature: float
    radius: float
    speed: float
    contact_temperature: float
    walls: bool = False
    aspect: float = 1.0
    gay_berne: bool = False

    def longest(self) -> dict[str, float]:
        """The longest substep in seconds that each of the criteria allows."""
        along, across, rotation = self.friction.diffusion(self.temperature)
        return {
            "the turning of directors (D_r dt at most 0.1)": TURN / rotation if rotation > 0.0 else math.inf,
            "the way in a substep (at most a quarter of a radius)": self._way(max(along, across)),
            "the contact (k dt / gamma at most 1)": RELAXATION / self._rate(),
        }

    def _way(self, diffusion: float) -> float:
        """v dt + sqrt(2 D dt) = WAY a, with a half the least distance of contact, solved for sqrt(dt)."""
        way = WAY * (min(semi_axes(self.radius, self.aspect)) if self.gay_berne else self.radius)
        root = math.sqrt(2.0 * diffusion)
        if self.speed == 0.0:
            return way / root * (way / root) if root > 0.0 else math.inf
        # the smaller root without cancellation
        return (2.0 * way / (root + math.sqrt(2.0 * diffusion + 4.0 * self.speed * way))) ** 2

    def _rate(self) -> float:
        """The rate (1 / s) at which what touches comes to its balance: mobility times stiffness where the contact holds the swim force.

        Two agents that push each other, both by f = gamma v, come to rest where F(r) = f; near it their distance x obeys
        dx/dt = -(2 / gamma) k x with k = -F'(r), and a substep multiplies x by 1 - 2 k dt / gamma: at most 1 of that keeps it from
        overshooting. Against a wall it is k / gamma, of a contact half as wide. Without a swim force k is that at the cut-off.
        """
        friction, force = min(self.friction.along, self.friction.across), self.friction.along * self.speed
        depth, width, lever = BOLTZMANN * self.contact_temperature, 2.0 * self.radius / CUTOFF, 0.0
        if self.gay_berne:
            across, along = semi_axes(self.radius, self.aspect)
            # the depth of parallel spheroids, the deepest, is (1 - chi^2)^(-1/2) as large
            depth, width, lever = depth / math.sqrt(1.0 - elongation(self.aspect) ** 2), 2.0 * across / CUTOFF, abs(along - across)
        pair = 2.0 * (1.0 / friction + lever * lever / self.friction.rotation) * self._stiffness(force, depth, width)
        if not self.walls:
            return pair
        return max(pair, self._stiffness(force, BOLTZMANN * self.contact_temperature, self.radius / CUTOFF) / friction)

    def _stiffness(self, force: float, depth: float, width: float) -> float:
        """-F'(r) of WCA where F(r) is `force` (pN / um); ConfigError where no overlap that the contact knows holds it."""
        low, high = DEEPEST, CUTOFF
        if depth / width * _force(low) < force:
            raise ConfigError(
                f"the contact cannot hold the swim force of {force:.3g} pN: its largest force is {depth / width * _force(low):.3g} pN at "
                f"contact_temperature={self.contact_temperature:g} K; give a higher contact_temperature or a lower speed"
            )
        for _ in range(100):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if depth / width * _force(middle) > force else (low, middle)
        return depth / width**2 * (624.0 * low**-14 - 168.0 * low**-8)


def _force(distance: float) -> float:
    """Of WCA, for lengths and energies of 1."""
    return 48.0 * distance**-13 - 24.0 * distance**-7


def needed_substeps(resolution: Resolution, slice_seconds: float) -> int:
    """The fewest substeps of a slice that resolve what is given; at least 1."""
    return max(1, *(math.ceil(slice_seconds / seconds - 1e-9) for seconds in resolution.longest().values()))


def check_substeps(resolution: Resolution, slice_seconds: float, num_substeps: int, *, allow_coarse_dt: bool = False) -> bool:
    """Whether so many substeps resolve what is given; where they do not, ConfigError unless `allow_coarse_dt`."""
    needed = needed_substeps(resolution, slice_seconds)
    if num_substeps >= needed:
        return True
    if not allow_coarse_dt:
        why, seconds = min(resolution.longest().items(), key=lambda item: item[1])
        raise ConfigError(
            f"{num_substeps} substeps of {slice_seconds / num_substeps:.3g} s in a slice of {slice_seconds:g} s do not resolve {why}, "
            f"which needs {seconds:.3g} s for radius {resolution.radius:g} um at {resolution.temperature:g} K and "
            f"{resolution.speed:g} um/s; "
            f"take at least {needed} substeps, or allow_coarse_dt=true to run it as it is"
        )
    return False
