"""Brownian motion of self-propelled particles: policies, environments and agents of all of them in one step."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from workers.errors import ConfigError
from workers.swarm import noise, starts
from workers.swarm.contacts import Rod
from workers.swarm.field import Field
from workers.swarm.friction import BOLTZMANN, Friction
from workers.swarm.langevin import Langevin
from workers.swarm.overdamped import Overdamped
from workers.swarm.surroundings import Surroundings
from workers.swarm.walls import Wall

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# P policies (each with physics of its own), E environments, N agents; D dimensions; S substeps
# R = 1 turn about z in a plane, 3 in space

DYNAMICS: "dict[str, Callable[[Engine], Overdamped | Langevin]]" = {"overdamped": Overdamped, "langevin": Langevin}
# pN s^2 / um^4: 997 kg / m^3
WATER_DENSITY = 9.97e-10


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """The physics of one policy's agents: radius (um), friction, temperature (K), and the depth of WCA as a temperature (K).

    `aspect`: of a spheroid, length along the director over width; flows and contacts of Gay and Berne ask for it. `mass` (pN s^2 / um)
    and moment of `inertia` (pN um s^2), of Langevin dynamics alone; None: of a ball of water.
    """

    radius: float
    friction: Friction
    temperature: float
    contact_temperature: float
    aspect: float = 1.0
    mass: float | None = None
    inertia: float | None = None

    @property
    def is_round(self) -> bool:
        """Whether it moves through the fluid as easily along its director as across it."""
        return self.friction.along == self.friction.across

    @property
    def depth(self) -> float:
        """Of WCA (pN um)."""
        return BOLTZMANN * self.contact_temperature

    def masses(self) -> tuple[float, float]:
        """Mass, and moment of inertia about any axis."""
        mass = WATER_DENSITY * 4.0 / 3.0 * math.pi * self.radius**3 if self.mass is None else self.mass
        return mass, 0.4 * mass * self.radius**2 if self.inertia is None else self.inertia


@dataclass(slots=True)
class State:
    """Positions (D, P, E, N) in um, not folded into a box; directors (D, P, E, N); angles (P, E) of rods, if any, in double precision.

    Of Langevin dynamics also velocities (D, P, E, N) in um / s and spins (R, P, E, N) in 1 / s. `memory`: what tasks and observables
    remember, tensors (P, ...) by name.
    """

    positions: "Tensor"
    directors: "Tensor"
    rods: "Tensor | None" = None
    velocities: "Tensor | None" = None
    spins: "Tensor | None" = None
    memory: "dict[str, Tensor]" = field(default_factory=dict)


class Engine:
    """Moves agents by slices of time in which their actions hold: forces along the director (pN) and torques (pN um) about the z axis.

    dr = ((f e + F) / gamma + u) dt + sqrt(2 D dt) xi; in a plane dtheta = (M / gamma_r + w) dt + sqrt(2 D_r dt) zeta, in space
    de = (omega x e) dt + sqrt(2 D_r dt) zeta x e on the sphere. F are contacts, by WCA as of spheres of the particles' volume or, between
    spheroids, by Gay and Berne, with torques; walls; and `fields`, which may also be flows u that turn agents at the rate w. A director is
    taken as the mean of the two ends of a substep. In a plane its angle is exact in law at each end; and where nothing can be touched in
    a slice, the diffusion of a round particle's centre is one draw; other environments move by substeps, with a Brownian bridge of the
    same draw. With `dynamics="langevin"` agents have inertia (see `workers/swarm/langevin.py`). In a periodic `box` (um) agents are near
    each other's nearest images.

    Numbers of an agent follow from its policy's seed, its environment's and its own number and the slice alone, and are the same to the
    last bit in any batch on one thread of a CPU.
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
        walls: "Sequence[Wall]" = (),
        contact: str = "wca",
        dynamics: str = "overdamped",
        device: str = "cpu",
        dtype: "torch.dtype | None" = None,
    ) -> None:
        import torch

        if dynamics not in DYNAMICS:
            raise ConfigError(f"dynamics must be one of {', '.join(DYNAMICS)}, got {dynamics!r}")
        self.dtype, self.device, self.num_dimensions, self.rod = dtype or torch.float32, device, num_dimensions, rod
        self.num_substeps, self.slice_seconds, self.step_seconds = num_substeps, slice_seconds, slice_seconds / num_substeps
        self.bodies, self.dynamics = tuple(bodies), dynamics
        self.surroundings = Surroundings(
            self.bodies,
            num_agents,
            num_dimensions=num_dimensions,
            seconds=self.step_seconds if dynamics == "overdamped" else 1.0,
            box=box,
            rod=rod,
            walls_given=walls,
            acting=fields,
            contact=contact,
            per_policy=self.per_policy,
        )
        self.along, self.across, self.rotation = (
            self.per_policy([getattr(body.friction, name) for body in self.bodies]) for name in ("along", "across", "rotation")
        )
        self.radius, self.is_round = self.surroundings.radius, self.surroundings.is_round
        self.box, self.levers = box, self.surroundings.levers
        keys = torch.tensor(list(seeds), dtype=torch.int64, device=device)
        self.keys = {stream: noise.particle_keys(keys, num_environments, num_agents, stream) for stream in noise.STREAMS}
        self.shape = (len(self.bodies), num_environments, num_agents)
        self.slices = 0
        self.num_by_substeps = 0
        self.set_temperatures([body.temperature for body in self.bodies])

    def set_temperatures(self, kelvin_P: "Sequence[float]") -> None:
        """From the next slice on, of each policy's fluid (K), and so of its rods; nothing else changes."""
        if len(kelvin_P) != len(self.bodies) or not all(math.isfinite(kelvin) and kelvin >= 0.0 for kelvin in kelvin_P):
            raise ConfigError(f"temperatures must be {len(self.bodies)} numbers of at least 0 K, one a policy, got {list(kelvin_P)}")
        self.bodies = tuple(replace(body, temperature=float(kelvin)) for body, kelvin in zip(self.bodies, kelvin_P))
        if self.rod is not None:
            rods = [2.0 * self.rod.diffusion(BOLTZMANN * body.temperature) * self.slice_seconds for body in self.bodies]
            self.rod_turn = self.per_policy([math.sqrt(one) for one in rods])[..., 0]
        self.motion = DYNAMICS[self.dynamics](self)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return self.slices * self.slice_seconds

    def start(self, radius: float) -> State:
        """Uniform in a disc (in space a ball) about the origin, with directors anywhere; no agent overlaps another, a rod or a wall.

        Agents that do are placed anew; ConfigError where there is no room for them. None stands behind a wall, as seen from the origin.
        """
        return self.motion.begun(starts.drawn(self, radius))

    def start_at(self, positions: "Tensor", directors: "Tensor") -> State:
        """At positions (um) with directors, both (D, P, E, N), or (D, N) for all environments; ConfigError where agents overlap."""
        return self.motion.begun(starts.given(self, positions, directors))

    def advance(self, state: State, forces: "Tensor", torques: "Tensor") -> None:
        """One slice, in place, with forces and torques (P, E, N) of the agents."""
        self.num_by_substeps += self.motion.advance(state, forces / self.along, torques / self.rotation, self._rod_turns(state))
        self.slices += 1

    def by_dimension(self, keys: "Tensor", num_rows: int) -> "Tensor":
        """Normal numbers (S, rows, ...) of this slice for each key (...)."""
        count = self.num_substeps
        return noise.normals(keys, self.slices, num_rows * count, self.dtype).view(count, num_rows, *keys.shape)

    def per_policy(self, values: "Sequence[float]") -> "Tensor":
        """One number for each policy (P, 1, 1)."""
        import torch

        return torch.tensor(values, dtype=torch.float64).to(self.device, self.dtype)[:, None, None]

    def _rod_turns(self, state: State) -> "Tensor | None":
        """Of rods (P, E) in the slice, by noise."""
        if state.rods is None:
            return None
        return self.rod_turn * noise.normals(self.keys[noise.RODS][..., 0], self.slices, 1, self.dtype)[0]
