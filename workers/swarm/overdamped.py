"""Overdamped Brownian motion: one draw a slice where nothing can be touched, substeps elsewhere."""

import math
from typing import TYPE_CHECKING

from workers.swarm import noise
from workers.swarm.sums import dot, squared, total
from workers.swarm.surroundings import PUSHED, Around, Chosen
from workers.swarm.turning import Heading, path, trapezoid, variance

if TYPE_CHECKING:
    from torch import Tensor

    from workers.swarm.engine import Engine, State

# P policies, E environments, N agents; D dimensions; S substeps; M environments that move by substeps
# R = 1 turn about z in a plane, 3 in space

# a Brownian bridge leaves a ball of so many deviations of its length's diffusion less than once in 10^9
WANDER = 3.7


class Overdamped:
    """Moves the agents of an engine, whose temperatures are those of when it was made."""

    def __init__(self, engine: "Engine") -> None:
        self.engine, self.surroundings = engine, engine.surroundings
        found, seconds = [body.friction.diffusion(body.temperature) for body in engine.bodies], engine.step_seconds
        self.turn = engine.per_policy([math.sqrt(variance(2.0 * one[2] * seconds, engine.num_dimensions)) for one in found])
        self.move_along = engine.per_policy([math.sqrt(2.0 * one[0] * seconds) for one in found])
        self.move_across = engine.per_policy([math.sqrt(2.0 * one[1] * seconds) for one in found])
        spread = [WANDER * math.sqrt(2.0 * max(one[:2]) * engine.slice_seconds) for one in found]
        self.wander = engine.per_policy([max(one, PUSHED * body.radius) for one, body in zip(spread, engine.bodies)])

    def begun(self, state: "State") -> "State":
        """The state as it is: nothing has inertia."""
        return state

    def advance(self, state: "State", speed: "Tensor", rate: "Tensor", rod_turns: "Tensor | None") -> int:
        """One slice, in place, at speeds and rates of turning (P, E, N), of rods (P, E) by themselves; environments moved by substeps."""
        turns = self.engine.by_dimension(self.engine.keys[noise.TURNS], self.surroundings.num_rates).mul_(self.turn)
        turns[:, -1].add_(rate * self.engine.step_seconds)
        rods = None
        if state.rods is not None and rod_turns is not None:
            rods = _Rods(state.rods, rod_turns, self.engine.num_substeps)
            state.rods = rods.end
        return self._everywhere(state, speed, turns, rods) if self.surroundings.fields else self._where_near(state, speed, turns, rods)

    def _where_near(self, state: "State", speed: "Tensor", turns: "Tensor", rods: "_Rods | None") -> int:
        """A slice in which only environments move by substeps in which something can be touched."""
        import torch

        engine, directors = self.engine, path(state.directors, turns)
        moves, whole = self._moves(directors)
        length = speed * engine.step_seconds
        ahead = trapezoid(directors).mul_(length).add_(whole)
        # an agent comes as far as it swims and diffuses in the slice, and wanders from that way
        reach = squared(whole).sqrt_().add_(speed.abs() * engine.slice_seconds + self.wander)
        forced, near = self.surroundings.near(state.positions, *_of(rods), reach)
        numbers, last = torch.nonzero(forced.flatten())[:, 0], directors[-1]
        if len(numbers):
            chosen = Chosen(numbers, engine.shape)
            start, own_rods = chosen(state.positions), None if rods is None else rods.of(chosen)
            around = Around(self.surroundings, start, near.flatten(0, 1)[numbers], chosen(reach), chosen)
            diffusion = chosen(moves)
            if engine.is_round:
                diffusion = self._bridge(chosen(engine.keys[noise.BRIDGES]), chosen(self.move_along), diffusion)
            if self.surroundings.turns:
                heading = Heading(chosen(state.directors))
                moved = self._turning(start, around, diffusion, heading, chosen(turns), chosen(length), own_rods, chosen)
                last = last.clone()
                last.flatten(1, 2)[:, numbers] = heading.directors
            else:
                moved = self._facing(start, around, diffusion, chosen(directors), chosen(length), own_rods, chosen)
            ahead.flatten(1, 2)[:, numbers] = moved
            if own_rods is not None and state.rods is not None:
                state.rods.flatten()[numbers] = own_rods.end
        state.positions, state.directors = state.positions + ahead, last
        return len(numbers)

    def _everywhere(self, state: "State", speed: "Tensor", turns: "Tensor", rods: "_Rods | None") -> int:
        """A slice in which all environments move by substeps."""
        engine, every = self.engine, Chosen(None, self.engine.shape)
        start, length = every(state.positions), every(speed * engine.step_seconds)
        diffusion = every(engine.by_dimension(engine.keys[noise.MOVES], engine.num_dimensions))
        if engine.is_round:
            diffusion = diffusion.mul_(every(self.move_along))
        # fields push agents further than that, and then they are looked for anew
        reach = speed.abs() * engine.slice_seconds + 2.0 * self.wander
        near = self.surroundings.near(state.positions, *_of(rods), reach)[1].flatten(0, 1)
        around = Around(self.surroundings, start, near, every(reach), every)
        own_rods = None if rods is None else rods.of(every)
        if self.surroundings.turns:
            heading = Heading(every(state.directors))
            moved = self._turning(start, around, diffusion, heading, every(turns), length, own_rods, every)
            state.directors = heading.directors.view_as(state.directors)
        else:
            directors = path(state.directors, turns)
            moved = self._facing(start, around, diffusion, every(directors), length, own_rods, every)
            state.directors = directors[-1]
        state.positions = state.positions + moved.view_as(state.positions)
        if own_rods is not None and state.rods is not None:
            state.rods = own_rods.end.view_as(state.rods)
        return len(near)

    def _facing(
        self,
        start: "Tensor",
        around: Around,
        diffusion: "Tensor",
        directors: "Tensor",
        length: "Tensor",
        rods: "_Rods | None",
        chosen: Chosen,
    ) -> "Tensor":
        """How far agents come (D, M, N) from `start` with directors (S + 1, D, M, N), which nothing that they meet turns.

        `diffusion` (S, D, M, N): of spheroids as normal numbers. `length` (M, N): how far they swim in a substep.
        """
        if not self.engine.is_round:
            diffusion = self._body_noise(diffusion.movedim(1, 0), directors[:-1].movedim(1, 0), chosen).movedim(1, 0)
        steps = (directors[:-1] + directors[1:]).mul_(0.5 * length).add_(diffusion)
        # the way from the start is summed by itself, so that far from the origin no digits are lost at each substep
        ahead, positions = None, start
        for number, step in enumerate(steps):
            if ahead is not None:
                positions = start + ahead
                around.follow(positions)
            motion = around.motion(positions, directors[number], None if rods is None else rods.at(number))
            ahead = motion.moved.add_(step) if ahead is None else motion.moved.add_(step).add_(ahead)
            if rods is not None:
                rods.push(motion.rods)
        assert ahead is not None
        return ahead

    def _turning(
        self,
        start: "Tensor",
        around: Around,
        diffusion: "Tensor",
        heading: Heading,
        turns: "Tensor",
        length: "Tensor",
        rods: "_Rods | None",
        chosen: Chosen,
    ) -> "Tensor":
        """The same where torques or flows turn the agents of `heading`, besides their own `turns` (S, R, M, N)."""
        ahead = start.new_zeros(start.shape)
        for number, (step, turn) in enumerate(zip(diffusion, turns)):
            positions, facing = start + ahead, heading.directors
            if number:
                around.follow(positions)
            motion = around.motion(positions, facing, None if rods is None else rods.at(number))
            following = heading.turn(turn if motion.turned is None else turn + motion.turned)
            own = step if self.engine.is_round else self._body_noise(step, facing, chosen)
            ahead = motion.moved.add_((facing + following).mul_(0.5 * length)).add_(own).add_(ahead)
            if rods is not None:
                rods.push(motion.rods)
        return ahead

    # -- diffusion ----------------------------------------------------------------------------------------------------------

    def _moves(self, directors: "Tensor") -> "tuple[Tensor, Tensor]":
        """Diffusion of the slice where no force acts, as it is drawn, and in all (D, P, E, N).

        Of spheres it is drawn in all (D, P, E, N), of spheroids as normal numbers (S, D, P, E, N) for directors (S + 1, D, P, E, N).
        """
        engine = self.engine
        if engine.is_round:
            moves = noise.normals(engine.keys[noise.MOVES], engine.slices, engine.num_dimensions, engine.dtype)
            moves.mul_(self.move_along * math.sqrt(engine.num_substeps))
            return moves, moves
        moves = engine.by_dimension(engine.keys[noise.MOVES], engine.num_dimensions)
        every = Chosen(None, engine.shape)
        one_row = moves.movedim(1, 0).flatten(-3, -2), directors[:-1].movedim(1, 0).flatten(-3, -2)
        return moves, total(self._body_noise(*one_row, every).movedim(1, 0)).view_as(moves[0])

    def _body_noise(self, drawn: "Tensor", directors: "Tensor", chosen: Chosen) -> "Tensor":
        """Diffusion (D, ..., M, N) in substeps of unlike strength along the directors and across them, of normal numbers `drawn`."""
        along, across = chosen(self.move_along), chosen(self.move_across)
        return across * drawn + (along - across) * dot(drawn, directors) * directors

    def _bridge(self, keys: "Tensor", strength: "Tensor", moves: "Tensor") -> "Tensor":
        """Diffusion (S, D, M, N) whose sum is `moves`."""
        drawn = self.engine.by_dimension(keys, self.engine.num_dimensions).mul_(strength)
        return drawn.add_((moves - total(drawn)) / self.engine.num_substeps)


class _Rods:
    """Rods at `angles` that turn by themselves by `turns` in a slice, evenly, and are pushed."""

    def __init__(self, angles: "Tensor", turns: "Tensor", num_substeps: int) -> None:
        self.angles, self.turns, self.num_substeps = angles, turns, num_substeps
        self.end = angles + turns

    def of(self, chosen: Chosen) -> "_Rods":
        """Those (M,) of some environments, of all (P, E)."""
        return _Rods(chosen(self.angles[..., None])[:, 0], chosen(self.turns[..., None])[:, 0], self.num_substeps)

    def at(self, number: int) -> "Tensor":
        """Angles at the beginning of a substep."""
        return self.angles + self.turns * (number / self.num_substeps)

    def push(self, pushed: "Tensor | None") -> None:
        """By what agents have turned them in a substep."""
        if pushed is not None:
            self.angles, self.end = self.angles + pushed, self.end + pushed


def _of(rods: "_Rods | None") -> "tuple[Tensor | None, Tensor | None]":
    return (None, None) if rods is None else (rods.angles, rods.turns)
