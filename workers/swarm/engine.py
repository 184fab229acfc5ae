"""Overdamped Brownian motion of self-propelled particles in a plane: policies, environments and agents of all of them in one step."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.swarm import noise
from workers.swarm.friction import BOLTZMANN, Friction

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    Some = Callable[[Tensor], Tensor]

# P policies (each with physics of its own), E environments, N agents; D = 2 dimensions, first; S substeps; M environments near contact

# WCA acts up to 2^(1/6) sigma, which is the sum of two radii
CUTOFF = 2.0 ** (1.0 / 6.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """The physics of one policy's agents: radius (um), friction, temperature (K), and the depth of WCA as a temperature (K)."""

    radius: float
    friction: Friction
    temperature: float
    contact_temperature: float


@dataclass(slots=True)
class State:
    """Positions (D, P, E, N) in um, not folded into a box, and the angles (P, E, N) of the directors."""

    positions: "Tensor"
    angles: "Tensor"


class Engine:
    """Moves agents by slices of time in which their actions hold: forces along the director (pN) and torques (pN um).

    dr = (f e + F) / gamma dt + sqrt(2 D dt) xi, dtheta = M / gamma_r dt + sqrt(2 D_r dt) zeta, contacts by WCA between agents. An agent's
    angle is exact in law at each of `num_substeps` in a slice, its director is taken as the mean of the two ends of a substep, and where
    nothing can be touched in a slice, the diffusion of its centre is one draw. Other environments (`near`) move by substeps, with a
    Brownian bridge of the same draw. Numbers of an agent follow from its policy's seed, its environment's and its own number and the
    slice alone.
    """

    def __init__(
        self,
        bodies: "list[Body]",
        seeds: "list[int]",
        *,
        num_environments: int,
        num_agents: int,
        slice_seconds: float,
        num_substeps: int,
        device: str = "cpu",
        dtype: "torch.dtype | None" = None,
    ) -> None:
        import torch

        self.dtype = dtype or torch.float32
        self.num_substeps, self.slice_seconds = num_substeps, slice_seconds
        self.step_seconds = slice_seconds / num_substeps

        def per_policy(values: list[float]) -> "Tensor":
            return torch.tensor(values, dtype=torch.float64).to(device, self.dtype)[:, None, None]

        diffusion = [body.friction.diffusion(body.temperature) for body in bodies]
        self.along = per_policy([body.friction.along for body in bodies])
        self.across = per_policy([body.friction.across for body in bodies])
        self.rotation = per_policy([body.friction.rotation for body in bodies])
        self.is_round = all(body.friction.along == body.friction.across for body in bodies)
        self.turn = per_policy([math.sqrt(2.0 * one[2] * self.step_seconds) for one in diffusion])
        self.move_along = per_policy([math.sqrt(2.0 * one[0] * self.step_seconds) for one in diffusion])
        self.move_across = per_policy([math.sqrt(2.0 * one[1] * self.step_seconds) for one in diffusion])
        self.reach = per_policy([noise.LARGEST * math.sqrt(4.0 * max(one[:2]) * slice_seconds) for one in diffusion])
        self.contact = per_policy([2.0 * body.radius for body in bodies])
        self.depth = per_policy([BOLTZMANN * body.contact_temperature for body in bodies])
        keys = torch.tensor(seeds, dtype=torch.int64, device=device)
        of = lambda stream: noise.particle_keys(keys, num_environments, num_agents, stream)  # noqa: E731
        self.turns, self.moves, self.bridges, self.starts = (of(one) for one in (noise.TURNS, noise.MOVES, noise.BRIDGES, noise.STARTS))
        first, second = torch.triu_indices(num_agents, num_agents, offset=1, device=device)
        self.first, self.second = first, second
        self.slices = 0
        self.num_near = 0

    def start(self, radius: float) -> State:
        """Uniform in a disc about the origin, with directors anywhere."""
        import torch

        u, v, w = noise.uniforms(self.starts, 0, 3, self.dtype)
        distance, angle = radius * u.sqrt(), 2.0 * math.pi * v
        return State(torch.stack([distance * angle.cos(), distance * angle.sin()]), 2.0 * math.pi * w)

    def advance(self, state: State, forces: "Tensor", torques: "Tensor") -> None:
        """One slice, in place, with forces and torques (P, E, N) of the agents."""
        import torch

        seconds = self.step_seconds
        speed, rate = forces / self.along, torques / self.rotation
        # angles (S + 1, P, E, N) at the ends of the substeps
        turns = noise.normals(self.turns, self.slices, self.num_substeps, self.dtype).mul_(self.turn).add_(rate * seconds)
        angles = torch.cat([state.angles[None], turns]).cumsum_(0)
        near, length = self._near(state, speed), speed * seconds
        cosines, sines = angles.cos(), angles.sin()
        if self.is_round:
            moves = noise.normals(self.moves, self.slices, 2, self.dtype).mul_(self.move_along * math.sqrt(self.num_substeps))
            ahead = torch.stack([_trapezoid(cosines), _trapezoid(sines)]).mul_(length).add_(moves)
        else:
            moves = self._body_noise(self.moves, self.move_along, self.move_across, cosines, sines)
            ahead = torch.stack([_trapezoid(cosines), _trapezoid(sines)]).mul_(length).add_(moves.sum(0))
        if len(near):
            # what stands for all environments, for those that are near: (..., M, N) of (..., P, E, N)
            def some(values: "Tensor") -> "Tensor":
                return values.expand(*values.shape[:-3], *state.angles.shape).flatten(-3, -2)[..., near, :]

            own = some(cosines), some(sines)
            steps = self._bridge(some(self.bridges), some(self.move_along), some(moves)) if self.is_round else some(moves)
            steps = steps + torch.stack([_means(one) for one in own], dim=1).mul_(some(length))
            ahead.flatten(1, 2)[:, near] = self._with_contacts(some(state.positions), steps, own, some)
        state.positions += ahead
        state.angles = angles[-1]
        self.slices += 1
        self.num_near += len(near)

    def _body_noise(self, keys: "Tensor", along: "Tensor", across: "Tensor", cosines: "Tensor", sines: "Tensor") -> "Tensor":
        """Diffusion (S, D, ...) of unlike strength along the directors at the beginnings of the substeps and across them."""
        import torch

        drawn = noise.normals(keys, self.slices, 2 * self.num_substeps, self.dtype)
        ahead, aside = drawn[: self.num_substeps] * along, drawn[self.num_substeps :] * across
        c, s = cosines[:-1], sines[:-1]
        return torch.stack([ahead * c - aside * s, ahead * s + aside * c], dim=1)

    def _bridge(self, keys: "Tensor", strength: "Tensor", moves: "Tensor") -> "Tensor":
        """Diffusion (S, D, M, N) whose sum is `moves`."""
        count = self.num_substeps
        drawn = noise.normals(keys, self.slices, 2 * count, self.dtype).view(count, 2, *keys.shape).mul_(strength)
        return drawn.add_((moves - drawn.sum(0)) / count)

    def _near(self, state: State, speed: "Tensor") -> "Tensor":
        """Numbers (M,) of the environments, of all policies in a row, in which two agents may touch within this slice."""
        import torch

        if not len(self.first):
            return self.first
        margin = self.contact + 2.0 * (speed.abs().amax(-1, keepdim=True) * self.slice_seconds + self.reach)
        x, y = state.positions
        apart = (x[..., self.first] - x[..., self.second]).square_() + (y[..., self.first] - y[..., self.second]).square_()
        return torch.nonzero((apart.amin(-1) < margin[..., 0].square()).flatten())[:, 0]

    def _with_contacts(self, positions: "Tensor", steps: "Tensor", directors: "tuple[Tensor, Tensor]", some: "Some") -> "Tensor":
        """How far (D, M, N) agents come from `positions` in `steps` (S, D, M, N) with contacts; directors' parts are (S + 1, M, N)."""
        start, seconds = positions, self.step_seconds
        sigma2, depth = (some(self.contact) / CUTOFF).square()[:, :1], some(self.depth)[:, :1]
        across, extra = seconds / some(self.across), seconds / some(self.along) - seconds / some(self.across)
        for number, step in enumerate(steps):
            forces = self._contact_forces(positions, sigma2, depth)
            push = across * forces
            if not self.is_round:
                c, s = (one[number] for one in directors)
                ahead = extra * (forces[0] * c + forces[1] * s)
                push[0] += ahead * c
                push[1] += ahead * s
            positions = positions + step + push
        return positions - start

    def _contact_forces(self, positions: "Tensor", sigma2: "Tensor", depth: "Tensor") -> "Tensor":
        """WCA forces (D, M, N) in pN of agents at positions (D, M, N)."""
        import torch

        apart = positions[..., self.first] - positions[..., self.second]
        square = apart.square().sum(0)
        # sixth power of sigma over the distance; where agents overlap deeply, that of a distance of 0.6 sigma bounds the force
        inverse = sigma2 / torch.maximum(square, 0.36 * sigma2)
        sixth = inverse * inverse * inverse
        strength = (24.0 * depth / sigma2) * inverse * sixth * (2.0 * sixth - 1.0)
        pushes = apart * torch.where(square < CUTOFF**2 * sigma2, strength, 0.0)
        found = torch.zeros_like(positions)
        found.index_add_(-1, self.first, pushes)
        return found.index_add_(-1, self.second, pushes, alpha=-1)


def _trapezoid(values: "Tensor") -> "Tensor":
    """Of the first axis: the sum of the means of neighbours."""
    return values.sum(0) - 0.5 * (values[0] + values[-1])


def _means(values: "Tensor") -> "Tensor":
    """Of neighbours along the first axis."""
    return 0.5 * (values[:-1] + values[1:])
