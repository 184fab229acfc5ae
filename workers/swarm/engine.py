"""Overdamped Brownian motion of self-propelled particles: policies, environments and agents of all of them in one step."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from workers.swarm import noise
from workers.swarm.contacts import CUTOFF, Pairs, Rod, rod_distance, rod_forces
from workers.swarm.friction import BOLTZMANN, Friction

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    # positions (D, M, N) -> forces (D, M, N) in pN
    Field = Callable[[Tensor], Tensor]
    Some = Callable[[Tensor], Tensor]

# P policies (each with physics of its own), E environments, N agents; D dimensions; S substeps; M environments that move by substeps


# a Brownian bridge leaves a ball of so many deviations of its length's diffusion less than once in 10^9
WANDER = 3.7


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """The physics of one policy's agents: radius (um), friction, temperature (K), and the depth of WCA as a temperature (K)."""

    radius: float
    friction: Friction
    temperature: float
    contact_temperature: float


@dataclass(slots=True)
class State:
    """Positions (D, P, E, N) in um, not folded into a box; directors (D, P, E, N); angles (P, E) of rods, where there are any.

    `memory`: what tasks and observables remember, tensors (P, ...) by name.
    """

    positions: "Tensor"
    directors: "Tensor"
    rods: "Tensor | None" = None
    memory: "dict[str, Tensor]" = field(default_factory=dict)


class Engine:
    """Moves agents by slices of time in which their actions hold: forces along the director (pN) and torques (pN um) about the z axis.

    dr = (f e + F) / gamma dt + sqrt(2 D dt) xi; in a plane dtheta = M / gamma_r dt + sqrt(2 D_r dt) zeta, in space
    de = (omega x e) dt + sqrt(2 D_r dt) zeta x e on the sphere. F are contacts, by WCA as of spheres of the particles' volume, and
    `fields`. A director is taken as the mean of the two ends of a substep. In a plane its angle is exact in law at each end; and where
    nothing can be touched in a slice, the diffusion of a round particle's centre is one draw; other environments move by substeps, with
    a Brownian bridge of the same draw. Numbers of an agent follow from its policy's seed, its environment's and its own number and the
    slice alone. In a periodic `box` (um) agents are near each other's nearest images.
    """

    def __init__(
        self,
        bodies: "Sequence[Body]",
        seeds: "Sequence[int]",
        *,
        num_environments: int,
        num_agents: int,
        slice_seconds: float,
        num_substeps: int,
        num_dimensions: int = 2,
        box: float | None = None,
        rod: Rod | None = None,
        fields: "Sequence[Field]" = (),
        device: str = "cpu",
        dtype: "torch.dtype | None" = None,
    ) -> None:
        import torch

        self.dtype, self.num_dimensions, self.rod, self.fields = dtype or torch.float32, num_dimensions, rod, tuple(fields)
        self.num_substeps, self.slice_seconds, self.step_seconds = num_substeps, slice_seconds, slice_seconds / num_substeps

        def per_policy(values: "list[float]") -> "Tensor":
            return torch.tensor(values, dtype=torch.float64).to(device, self.dtype)[:, None, None]

        diffusion = [body.friction.diffusion(body.temperature) for body in bodies]
        self.along = per_policy([body.friction.along for body in bodies])
        self.across = per_policy([body.friction.across for body in bodies])
        self.rotation = per_policy([body.friction.rotation for body in bodies])
        self.is_round = all(body.friction.along == body.friction.across for body in bodies)
        spread = [2.0 * one[2] * self.step_seconds for one in diffusion]
        self.turn = per_policy([math.sqrt(one if num_dimensions == 2 else _spread_in_space(one)) for one in spread])
        self.move_along = per_policy([math.sqrt(2.0 * one[0] * self.step_seconds) for one in diffusion])
        self.move_across = per_policy([math.sqrt(2.0 * one[1] * self.step_seconds) for one in diffusion])
        self.wander = per_policy([WANDER * math.sqrt(2.0 * max(one[:2]) * slice_seconds) for one in diffusion])
        self.radius = per_policy([body.radius for body in bodies])
        self.depth = per_policy([BOLTZMANN * body.contact_temperature for body in bodies])
        self.pairs = Pairs(num_agents, box, device, self.dtype)
        if rod is not None:
            self.levers = torch.tensor(rod.levers(), dtype=self.dtype, device=device)
            energies = [BOLTZMANN * body.temperature for body in bodies]
            self.rod_turn = per_policy([math.sqrt(2.0 * rod.diffusion(energy) * self.step_seconds) for energy in energies])[..., 0]
        keys = torch.tensor(list(seeds), dtype=torch.int64, device=device)
        self.keys = {stream: noise.particle_keys(keys, num_environments, num_agents, stream) for stream in noise.STREAMS}
        self.shape = (len(bodies), num_environments, num_agents)
        self.slices = 0
        self.num_by_substeps = 0

    def start(self, radius: float) -> State:
        """Uniform in a disc (in space a ball) about the origin, with directors anywhere."""
        import torch

        u, v, w, z = noise.uniforms(self.keys[noise.STARTS], 0, 4, self.dtype)
        angle, facing = 2.0 * math.pi * v, 2.0 * math.pi * w
        distance = radius * u ** (1.0 / self.num_dimensions)
        positions, directors = (torch.stack([one.cos(), one.sin()]) for one in (angle, facing))
        if self.num_dimensions == 3:
            heights = noise.uniforms(self.keys[noise.STARTS], 1, 1, self.dtype)[0]
            positions, directors = _on_sphere(positions, 2.0 * z - 1.0), _on_sphere(directors, 2.0 * heights - 1.0)
        rods = None if self.rod is None else torch.full(self.shape[:2], self.rod.start_angle, dtype=self.dtype, device=u.device)
        return State(distance * positions, directors, rods)

    def advance(self, state: State, forces: "Tensor", torques: "Tensor") -> None:
        """One slice, in place, with forces and torques (P, E, N) of the agents."""
        speed, rate = forces / self.along, torques / self.rotation
        directors = self._directors(state.directors, rate)
        length = speed * self.step_seconds
        if self.is_round:
            moves = noise.normals(self.keys[noise.MOVES], self.slices, self.num_dimensions, self.dtype)
            moves *= self.move_along * math.sqrt(self.num_substeps)
            whole = moves
        else:
            moves = self._body_noise(self.keys[noise.MOVES], directors)
            whole = moves.sum(0)
        ahead = _trapezoid(directors).mul_(length).add_(whole)
        by_substeps, near = self._by_substeps(state, speed, whole)
        if len(by_substeps):
            # of what is there for all environments, that of these: (..., M, N) of (..., P, E, N)
            def some(values: "Tensor") -> "Tensor":
                return values.expand(*values.shape[:-3], *self.shape).flatten(-3, -2)[..., by_substeps, :]

            steps = self._bridge(some(self.keys[noise.BRIDGES]), some(self.move_along), some(moves)) if self.is_round else some(moves)
            own = some(directors)
            rods = None if state.rods is None else state.rods.flatten()[by_substeps]
            moved, turned = self._with_forces(some(state.positions), steps + _means(own).mul_(some(length)), own, rods, near, some)
            ahead.flatten(1, 2)[:, by_substeps] = moved
        if state.rods is not None:
            turns = noise.normals(self.keys[noise.RODS][..., 0], self.slices, 1, self.dtype)[0]
            state.rods = state.rods + self.rod_turn * math.sqrt(self.num_substeps) * turns
            if len(by_substeps):
                state.rods.flatten()[by_substeps] += turned
        state.positions = state.positions + ahead
        state.directors = directors[-1]
        self.slices += 1
        self.num_by_substeps += len(by_substeps)

    # -- directors and diffusion --------------------------------------------------------------------------------------------

    def _directors(self, start: "Tensor", rate: "Tensor") -> "Tensor":
        """At the ends of the substeps (S + 1, D, P, E, N)."""
        import torch

        if self.num_dimensions == 2:
            turns = noise.normals(self.keys[noise.TURNS], self.slices, self.num_substeps, self.dtype)
            turns.mul_(self.turn).add_(rate * self.step_seconds)
            angles = turns.new_empty(len(turns) + 1, *self.shape)
            torch.atan2(start[1], start[0], out=angles[0])
            # faster than cumsum along the first axis
            for number, turn in enumerate(turns):
                torch.add(angles[number], turn, out=angles[number + 1])
            directors = angles.new_empty(len(angles), 2, *self.shape)
            torch.cos(angles, out=directors[:, 0])
            torch.sin(angles, out=directors[:, 1])
            return directors
        drawn = self._by_dimension(self.keys[noise.TURNS])
        found = [start]
        for turns in drawn.mul_(self.turn):
            turns[2] += rate * self.step_seconds
            found.append(_turned(found[-1], turns))
        return torch.stack(found)

    def _body_noise(self, keys: "Tensor", directors: "Tensor") -> "Tensor":
        """Diffusion (S, D, ...) of unlike strength along the directors at the beginnings of the substeps and across them."""
        drawn, ahead = self._by_dimension(keys), directors[:-1]
        return self.move_across * drawn + (self.move_along - self.move_across) * (drawn * ahead).sum(1, keepdim=True) * ahead

    def _bridge(self, keys: "Tensor", strength: "Tensor", moves: "Tensor") -> "Tensor":
        """Diffusion (S, D, M, N) whose sum is `moves`."""
        drawn = self._by_dimension(keys).mul_(strength)
        return drawn.add_((moves - drawn.sum(0)) / self.num_substeps)

    def _by_dimension(self, keys: "Tensor") -> "Tensor":
        """Normal numbers (S, D, ...) of this slice for each key (...)."""
        count = self.num_substeps
        return noise.normals(keys, self.slices, self.num_dimensions * count, self.dtype).view(count, self.num_dimensions, *keys.shape)

    # -- forces -----------------------------------------------------------------------------------------------------------------

    def _by_substeps(self, state: State, speed: "Tensor", moves: "Tensor") -> "tuple[Tensor, Tensor]":
        """Numbers (M,) of the environments, of all policies in a row, in which a force may act within this slice; pairs (M, ...) near.

        An agent comes as far as it swims and diffuses in the slice, and wanders from that way.
        """
        import torch

        reach = moves.square().sum(0).sqrt_().add_(speed.abs() * self.slice_seconds + self.radius + self.wander)
        near = self.pairs.near(state.positions, reach)
        forced = near.any(-1)
        if self.rod is not None and state.rods is not None:
            distance = rod_distance(state.positions, state.rods, self.rod.length).amin(-1)
            # the rod turns itself, by less than an agent moves at its tip
            forced |= distance < 2.0 * reach.amax(-1) + self.rod.bead_radius
        if self.fields:
            forced.fill_(True)
        numbers = torch.nonzero(forced.flatten())[:, 0]
        return numbers, near.flatten(0, 1)[numbers]

    def _with_forces(
        self, start: "Tensor", steps: "Tensor", directors: "Tensor", rods: "Tensor | None", near: "Tensor", some: "Some"
    ) -> "tuple[Tensor, Tensor | float]":
        """How far agents (D, M, N) come from `start` in `steps` (S, D, M, N) under forces, and by how much they turn their rods (M,)."""
        seconds, positions = self.step_seconds, start
        turned: Tensor | float = 0.0
        listed, depth, radius = self.pairs.listed(near), some(self.depth), some(self.radius)
        of_pairs = (2.0 * radius / CUTOFF).square().flatten()[listed[0]], depth.flatten()[listed[0]]
        depth, radius = depth[:, :1], radius[:, :1]
        across, extra = seconds / some(self.across), seconds / some(self.along) - seconds / some(self.across)
        for number, step in enumerate(steps):
            forces = self.pairs.forces(positions.flatten(1), listed, *of_pairs).view_as(positions)
            if self.rod is not None and rods is not None:
                rod_sigma2 = ((radius + self.rod.bead_radius) / CUTOFF).square()
                pushed, torque = rod_forces(positions, rods + turned, self.levers, rod_sigma2, depth)
                forces, turned = forces + pushed, turned + torque * (seconds / self.rod.friction)
            for one in self.fields:
                forces = forces + one(positions)
            push = across * forces
            if not self.is_round:
                ahead = directors[number]
                push += extra * (forces * ahead).sum(0) * ahead
            positions = positions + step + push
        return positions - start, turned


def _spread_in_space(decay: float) -> float:
    """The variance of each component of a turn after which directors have decayed by exp(-decay), exactly; at most 3, where that is least.

    Of turns by normal vectors of variance s: (1 + 2 (1 - s) exp(-s / 2)) / 3.
    """
    low, high = 0.0, 3.0 if decay > 0.0 else 0.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        # differences from 1, so that small decays keep their digits
        left = 2.0 / 3.0 * (math.expm1(-0.5 * middle) - middle * math.exp(-0.5 * middle))
        low, high = (middle, high) if left > math.expm1(-decay) else (low, middle)
    return 0.5 * (low + high)


def _on_sphere(circle: "Tensor", heights: "Tensor") -> "Tensor":
    """Points (3, ...) of the unit sphere, from points (2, ...) of the circle and heights."""
    import torch

    return torch.cat([circle * (1.0 - heights.square()).clamp(min=0.0).sqrt(), heights[None]])


def _turned(directors: "Tensor", turns: "Tensor") -> "Tensor":
    """Directors (3, ...) after a rotation by the vectors `turns` (3, ...), exactly (Rodrigues)."""
    import torch

    square = turns.square().sum(0)
    angle = square.sqrt()
    aside = torch.linalg.cross(turns, directors, dim=0)
    along = (turns * directors).sum(0)
    cosine = angle.cos()
    # sin(a) / a and (1 - cos(a)) / a^2, whose limits are 1 and 1/2
    first, second = torch.sinc(angle / math.pi), 0.5 * torch.sinc(0.5 * angle / math.pi).square()
    found: Tensor = cosine * directors + first * aside + second * along * turns
    return found / found.square().sum(0).sqrt()


def _trapezoid(values: "Tensor") -> "Tensor":
    """Of the first axis: the sum of the means of neighbours."""
    return values.sum(0).sub_(values[0], alpha=0.5).sub_(values[-1], alpha=0.5)


def _means(values: "Tensor") -> "Tensor":
    """Of neighbours along the first axis."""
    return (values[:-1] + values[1:]).mul_(0.5)
