"""Brownian motion with inertia (Langevin), by steps that are exact where no force changes and hold for any step over m / gamma."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from workers.errors import ConfigError
from workers.swarm import noise
from workers.swarm.friction import BOLTZMANN
from workers.swarm.sums import dot, squared
from workers.swarm.surroundings import PUSHED, Around, Chosen, Motion
from workers.swarm.turning import Heading, variance

if TYPE_CHECKING:
    from torch import Tensor

    from workers.swarm.engine import Engine, State

    Formula = Callable[..., Tensor]

# P policies, E environments, N agents; D dimensions; M = P E
# R = 1 turn about z in a plane, 3 in space

# Brownian motion of one dimension leaves a slice's deviation so many times less than once in 10^9
LEAVES = 6.6
# the step of the noise of velocities at the start, beyond any slice
BEGINNING = 2**32


@dataclass(frozen=True, slots=True)
class Step:
    """Of a velocity v that friction brings to w at last: x += coasted v + driven w + noise, v = kept v + before w + after w' + noise.

    w' is that of the new place (Allen 1980). `spread` is the deviation of the noise of x; that of v is `kick` times the same normal number
    and `own_kick` times another. Without friction this is the velocity form of Verlet, and with much of it Euler's step.
    """

    kept: float
    coasted: float
    driven: float
    before: float
    after: float
    spread: float
    kick: float
    own_kick: float

    @classmethod
    def of(cls, friction: float, mass: float, energy: float, seconds: float) -> "Step":
        """For an energy kT."""
        g, heat = friction * seconds / mass, energy / mass
        kept, c1 = math.exp(-g), -math.expm1(-g) / g
        # (1 - c1) / g, and (2 g - 3 + 4 exp(-g) - exp(-2 g)) / g^3, by their series where the differences lose their digits
        c2 = (1.0 - c1) / g if g > 1e-2 else 0.5 - g / 6 + g**2 / 24 - g**3 / 120
        cubic = (2 * g - 3 + 4 * kept - kept**2) / g**3 if g > 3e-2 else 2 / 3 - g / 2 + 7 * g**2 / 30 - g**3 / 12 + 31 * g**4 / 1260
        spread = math.sqrt(heat * g * cubic) * seconds
        kick = heat * seconds * math.expm1(-g) ** 2 / g / spread if energy > 0.0 else 0.0
        own_kick = math.sqrt(max(0.0, -heat * math.expm1(-2 * g) - kick**2))
        return cls(kept, c1 * seconds, c2 * g * seconds, (c1 - c2) * g, c2 * g, spread, kick, own_kick)


def moved(step: "_Steps", velocity: "Tensor", drive: "Tensor", drawn: "Tensor") -> "Tensor":
    """How far a substep leads."""
    found: Tensor = step.coasted * velocity + step.driven * drive + step.spread * drawn
    return found


def slowed(step: "_Steps", velocity: "Tensor", drive: "Tensor", next_drive: "Tensor", drawn: "Tensor", other: "Tensor") -> "Tensor":
    """The velocity after a substep."""
    found: Tensor = step.kept * velocity + step.before * drive + step.after * next_drive + step.kick * drawn + step.own_kick * other
    return found


class _Steps:
    """The numbers of `Step`, each as a tensor over policies (P, 1, 1) or environments (M, 1)."""

    kept: "Tensor"
    coasted: "Tensor"
    driven: "Tensor"
    before: "Tensor"
    after: "Tensor"
    spread: "Tensor"
    kick: "Tensor"
    own_kick: "Tensor"

    def __init__(self, values: "dict[str, Tensor]") -> None:
        self.__dict__ = values

    def of(self, chosen: Chosen) -> "_Steps":
        return _Steps({name: chosen(value) for name, value in self.__dict__.items()})


@dataclass(slots=True)
class _Moving:
    """Environments within a slice: velocities and `ahead`, the way since its start, (D, M, N), spins (R, M, N) and rods (M,)."""

    velocities: "Tensor"
    spins: "Tensor"
    ahead: "Tensor"
    heading: Heading
    rods: "Tensor | None"


class Langevin:
    """Moves the agents of an engine with their inertia, all by substeps; rods stay overdamped.

    The flow of a field is the velocity to which friction brings agents. A spheroid's velocity has unlike friction along its director at
    the beginning of a substep and across it; its spin has the same friction and moment of inertia about each axis.
    """

    def __init__(self, engine: "Engine") -> None:
        self.engine, self.surroundings = engine, engine.surroundings
        bodies, masses = engine.bodies, [body.masses() for body in engine.bodies]
        if not all(value > 0.0 for pair in masses for value in pair):
            raise ConfigError(
                f"mass and inertia must be above 0, got {masses}; leave them out for balls of water, or take overdamped motion"
            )
        energies = [BOLTZMANN * body.temperature for body in bodies]

        def steps(name: str, number: int) -> "list[Step]":
            return [
                Step.of(getattr(body.friction, name), mass[number], energy, engine.step_seconds)
                for body, mass, energy in zip(bodies, masses, energies)
            ]

        def tensors(found: "list[Step]") -> _Steps:
            return _Steps({one.name: engine.per_policy([getattr(step, one.name) for step in found]) for one in fields(Step)})

        turns = steps("rotation", 1)
        self.along, self.across, self.rotation = tensors(steps("along", 0)), tensors(steps("across", 0)), tensors(turns)
        # so that in space directors turn as slowly by steps of finite size as in law
        spread2 = [step.spread**2 for step in turns]
        self.turn = engine.per_policy([math.sqrt(variance(one, engine.num_dimensions) / one) if one > 0.0 else 1.0 for one in spread2])
        self.thermal, self.thermal_spin = (
            engine.per_policy([math.sqrt(energy / mass[number]) for energy, mass in zip(energies, masses)]) for number in (0, 1)
        )
        diffusion = [max(body.friction.diffusion(body.temperature)[:2]) for body in bodies]
        ways = [max(LEAVES * math.sqrt(2.0 * one * engine.slice_seconds), PUSHED * body.radius) for one, body in zip(diffusion, bodies)]
        self.way = engine.per_policy(ways)
        self.coast = engine.per_policy([mass[0] / min(body.friction.along, body.friction.across) for body, mass in zip(bodies, masses)])

    def begun(self, state: "State") -> "State":
        """The state with velocities and spins of equilibrium."""
        rows, rates = self.engine.num_dimensions, self.surroundings.num_rates
        drawn = noise.normals(self.engine.keys[noise.STARTS], BEGINNING + self.engine.slices, rows + rates, self.engine.dtype)
        return replace(state, velocities=self.thermal * drawn[:rows], spins=self.thermal_spin * drawn[rows:])

    def advance(self, state: "State", speed: "Tensor", rate: "Tensor", rod_turns: "Tensor | None") -> int:
        """One slice, in place, at speeds and rates (P, E, N) to which forces and torques would lead; how many environments it moved.

        A state without velocities begins at those of equilibrium.
        """
        if state.velocities is None or state.spins is None:
            begun = self.begun(state)
            state.velocities, state.spins = begun.velocities, begun.spins
        assert state.velocities is not None
        assert state.spins is not None
        every = Chosen(None, self.engine.shape)
        start, velocities, spins = every(state.positions), every(state.velocities), every(state.spins)
        reach = speed.abs() * self.engine.slice_seconds + self.way + squared(state.velocities).sqrt_() * self.coast
        _, near = self.surroundings.near(state.positions, state.rods, rod_turns, reach)
        around = Around(self.surroundings, start, near.flatten(0, 1), every(reach), every)
        rods = None if state.rods is None else state.rods.flatten()
        moving = _Moving(velocities, spins, start.new_zeros(start.shape), Heading(every(state.directors)), rods)
        self._substeps(moving, start, around, every(speed), every(rate), None if rod_turns is None else rod_turns.flatten())
        state.positions = state.positions + moving.ahead.view_as(state.positions)
        state.directors = moving.heading.directors.reshape(state.directors.shape)
        state.velocities, state.spins = moving.velocities.view_as(state.velocities), moving.spins.view_as(state.spins)
        state.rods = None if state.rods is None or moving.rods is None else moving.rods.view_as(state.rods)
        return len(near.flatten(0, 1))

    def _substeps(
        self, moving: _Moving, start: "Tensor", around: Around, speed: "Tensor", rate: "Tensor", rod_turns: "Tensor | None"
    ) -> None:
        """A slice, in place."""
        engine, every = self.engine, Chosen(None, self.engine.shape)
        rows, rates = engine.num_dimensions, self.surroundings.num_rates
        along, across, rotation, turn = self.along.of(every), self.across.of(every), self.rotation.of(every), every(self.turn)
        moves = every(engine.by_dimension(engine.keys[noise.MOVES], 2 * rows))
        turns = every(engine.by_dimension(engine.keys[noise.TURNS], 2 * rates))

        def driven() -> Motion:
            """What all together would bring agents to, as they are now."""
            motion = around.motion(start + moving.ahead, moving.heading.directors, moving.rods)
            motion.moved = motion.moved + speed * moving.heading.directors
            motion.turned = moving.spins.new_zeros(moving.spins.shape) if motion.turned is None else motion.turned
            motion.turned[-1].add_(rate)
            return motion

        def by_axes(formula: "Formula", facing: "Tensor", *vectors: "Tensor") -> "Tensor":
            found = formula(across, *vectors)
            if engine.is_round:
                return found
            own = [dot(vector, facing) for vector in vectors]
            return found + (formula(along, *own) - formula(across, *own)) * facing

        now = driven()
        for move, own_turn in zip(moves, turns):
            facing, spins = moving.heading.directors, moving.spins
            assert now.turned is not None
            moving.ahead = moving.ahead + by_axes(moved, facing, moving.velocities, now.moved, move[:rows])
            moving.heading.turn(turn * moved(rotation, spins, now.turned, own_turn[:rates]))
            if moving.rods is not None and rod_turns is not None:
                moving.rods = moving.rods + rod_turns / engine.num_substeps
                moving.rods = moving.rods if now.rods is None else moving.rods + now.rods * engine.step_seconds
            around.follow(start + moving.ahead)
            then = driven()
            assert then.turned is not None
            both = now.moved, then.moved
            moving.velocities = by_axes(slowed, facing, moving.velocities, *both, move[:rows], move[rows:])
            moving.spins = slowed(rotation, spins, now.turned, then.turned, own_turn[:rates], own_turn[rates:])
            now = then
