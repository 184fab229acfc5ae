"""How many substeps a slice needs: from how directors turn, from how far agents come, and from what their contacts do in one."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from workers.errors import ConfigError
from workers.swarm.contacts import CUTOFF, DEEPEST
from workers.swarm.flow import elongation
from workers.swarm.friction import BOLTZMANN, Friction, semi_axes

# D_r dt at most (D15)
TURN = 0.1
# the rate of a field (a spring's k / gamma, a flow's gradient) times dt at most
PACE = 0.1
# of the smallest distance of contact over 2 (the radius of a sphere): the way in a substep at most, swum and diffused
WAY = 0.25
# k dt / gamma of what touches at most: above 1 a contact overshoots its balance, above 2 it blows up
RELAXATION = 1.0
# deviations of a substep's diffusion by which what just touches comes to overlap in it, less than once in 10^6 substeps
RARE = 5.0
# the distance at most by which the contact throws it apart in the next substep, over the distance of contact
THROW = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """What sets the substeps: an agent's friction, radius (um) and swim speed (um / s), and two temperatures (K).

    `pace`: of the field that agents are in, 1 / s (`Field.pace`). `walls`: whether there are walls or a rod. `aspect`: of spheroids whose
    contact is that of Gay and Berne (`gay_berne`).
    """

    friction: Friction
    temperature: float
    radius: float
    speed: float
    contact_temperature: float
    pace: float = 0.0
    walls: bool = False
    aspect: float = 1.0
    gay_berne: bool = False

    def longest(self) -> dict[str, float]:
        """The longest substep in seconds that each of the criteria allows."""
        along, across, rotation = self.friction.diffusion(self.temperature)
        contacts = self._contacts(max(along, across))
        return {
            "the turning of directors (D_r dt at most 0.1)": TURN / rotation if rotation > 0.0 else math.inf,
            "the field (its rate times dt at most 0.1)": PACE / self.pace if self.pace > 0.0 else math.inf,
            "the way in a substep (at most a quarter of a radius)": self._way(max(along, across)),
            "the balance of a contact (k dt / gamma at most 1)": min(
                RELAXATION / (own.mobility * self._stiffness(own)) for own in contacts
            ),
            "the throw of a contact (at most half its distance)": min(_unthrown(own) for own in contacts),
        }

    def worst(self) -> str:
        """The criterion that allows the least."""
        longest = self.longest()
        return min(longest, key=lambda name: longest[name])

    def _way(self, diffusion: float) -> float:
        """v dt + sqrt(2 D dt) = WAY a, with a half the least distance of contact, solved for sqrt(dt)."""
        way = WAY * (min(semi_axes(self.radius, self.aspect)) if self.gay_berne else self.radius)
        root = math.sqrt(2.0 * diffusion)
        if self.speed == 0.0:
            return way / root * (way / root) if root > 0.0 else math.inf
        # the smaller root without cancellation
        return (2.0 * way / (root + math.sqrt(2.0 * diffusion + 4.0 * self.speed * way))) ** 2

    def _contacts(self, diffusion: float) -> "list[_Contact]":
        """Of two agents that swim at each other and, where there are any, of one that swims against a wall."""
        friction, depth = min(self.friction.along, self.friction.across), BOLTZMANN * self.contact_temperature
        mobility, width, deepest = 1.0 / friction, 2.0 * self.radius, depth
        if self.gay_berne:
            across, along = semi_axes(self.radius, self.aspect)
            # what it turns them comes to what it moves them; the depth is largest of parallel spheroids, by (1 - chi^2)^(-1/2)
            mobility += (along - across) ** 2 / self.friction.rotation
            width, deepest = 2.0 * across, depth / math.sqrt(1.0 - elongation(self.aspect) ** 2)
        found = [_Contact(2.0 * mobility, width, deepest, 2.0 * diffusion, 2.0 * self.speed)]
        return [*found, _Contact(1.0 / friction, self.radius, depth, diffusion, self.speed)] if self.walls else found

    def _stiffness(self, own: "_Contact") -> float:
        """-F'(r) of WCA (pN / um) where F(r) holds the swim force; ConfigError where no overlap that the contact knows does.

        Two agents that push each other, both by f = gamma v, come to rest where F(r) = f; near it their distance x obeys
        dx/dt = -(2 / gamma) k x with k = -F'(r), and a substep multiplies x by 1 - 2 k dt / gamma, which must not overshoot. Against a
        wall it is k / gamma, of a contact half as wide. Without a swim force k is that at the cut-off.
        """
        force = self.friction.along * self.speed
        if own.force(DEEPEST) < force:
            raise ConfigError(
                f"the contact cannot hold the swim force of {force:.3g} pN: its largest force is {own.force(DEEPEST):.3g} pN at "
                f"physics.contact_kelvin={self.contact_temperature:g}; take at least "
                f"{1.01 * self.contact_temperature * force / own.force(DEEPEST):.4g} K, or a lower speed"
            )
        low = _last(lambda distance: -own.force(distance) <= -force, DEEPEST, CUTOFF)
        return own.depth / own.sigma**2 * (624.0 * low**-14 - 168.0 * low**-8)


@dataclass(frozen=True, slots=True)
class _Contact:
    """Of two that touch at the distance `width`: the mobility, diffusion and speed of that distance, and the depth of WCA."""

    mobility: float
    width: float
    depth: float
    diffusion: float
    speed: float

    @property
    def sigma(self) -> float:
        return self.width / CUTOFF

    def force(self, distance: float) -> float:
        """At a distance over sigma."""
        near = max(distance, DEEPEST)
        return self.depth / self.sigma * (48.0 * near**-13 - 24.0 * near**-7)

    def thrown(self, seconds: float) -> float:
        """How far a substep throws apart what has come to overlap in the one before, but for once in 10^6."""
        overlap = self.speed * seconds + RARE * math.sqrt(2.0 * self.diffusion * seconds)
        return self.mobility * seconds * self.force((self.width - overlap) / self.sigma)


def _unthrown(own: _Contact) -> float:
    """The longest substep that throws nothing too far."""
    # without motion nothing overlaps; 10^9 s stand for ever
    exponent = _last(lambda exponent: own.thrown(10.0**exponent) <= THROW * own.width, -15.0, 9.0)
    return 10.0**exponent if exponent < 9.0 - 1e-6 else math.inf


def _last(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The largest value up to which something holds that holds at `low`."""
    for _ in range(100):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def needed_substeps(resolution: Resolution, slice_seconds: float, *, contacts: bool = True) -> int:
    """The fewest substeps of a slice that resolve what is given, at least 1; `contacts=False`: the turning of directors alone."""
    longest = list(resolution.longest().values())
    return max(1, *(math.ceil(slice_seconds / seconds - 1e-9) for seconds in (longest if contacts else [longest[0], math.inf])))


def check_substeps(resolution: Resolution, slice_seconds: float, num_substeps: int) -> None:
    """ConfigError where so many substeps do not resolve what is given."""
    needed = needed_substeps(resolution, slice_seconds)
    if num_substeps < needed:
        why = resolution.worst()
        raise ConfigError(
            f"{num_substeps} substeps of {slice_seconds / num_substeps:.3g} s in a slice of {slice_seconds:g} s do not resolve {why}, "
            f"which needs {resolution.longest()[why]:.3g} s for radius {resolution.radius:g} um at {resolution.temperature:g} K and "
            f"{resolution.speed:g} um/s; take at least {needed} substeps, or timing.allow_coarse_dt=true to run it as it is"
        )
