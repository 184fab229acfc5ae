"""All that moves agents besides themselves: one another, a rod, walls, and fields; where it acts at all, and how strongly."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from workers.errors import ConfigError
from workers.swarm import flow, gay_berne, walls
from workers.swarm.contacts import CUTOFF, Pairs, Rod, of_pairs, rod_distance, rod_forces, strength_of
from workers.swarm.field import Field
from workers.swarm.friction import semi_axes
from workers.swarm.sums import dot, squared

if TYPE_CHECKING:
    from torch import Tensor

    from workers.swarm.engine import Body

# P policies, E environments, N agents; D dimensions; M environments that move by substeps; K pairs
# R = 1 torque or rate about z in a plane, 3 in space

CONTACTS = ("wca", "gay_berne")
# of a radius: agents are thought to come at least so far in a slice, so that those that are pushed are seldom looked for anew
PUSHED = 0.2
# um: pairs count as touching when they are so near it, for positions are rounded
MARGIN = 5e-4
# substeps in which nobody asks again whether none touch, once some did
PATIENCE = 20


@dataclass(slots=True)
class Motion:
    """How far agents are moved (D, M, N) by forces and flows in a time, and turned (R, M, N), and rods (M,); None: not at all."""

    moved: "Tensor"
    turned: "Tensor | None" = None
    rods: "Tensor | None" = None


class Chosen:
    """Takes of what there is for all environments (..., P, E, N) that of M `numbers` of them, of all policies in a row; None: all."""

    def __init__(self, numbers: "Tensor | None", shape: tuple[int, int, int]) -> None:
        self.numbers, self.shape = numbers, shape

    def __call__(self, values: "Tensor") -> "Tensor":
        """(..., M, N), and (M, 1) of what is one for a policy (P, 1, 1), or (1, 1) where there is one policy."""
        if values.shape[-2] < self.shape[1]:
            if len(values) == 1 and values.dim() == 3:
                return values[0]
            values = values.expand(*values.shape[:-3], *self.shape[:2], values.shape[-1])
        rows = values.flatten(-3, -2)
        return rows if self.numbers is None else rows[..., self.numbers, :]


@dataclass(frozen=True, slots=True)
class Mobility:
    """How contacts act on agents, each over policies (P, 1, 1) or environments (M, 1), and how far that moves them in a time.

    `across`, `extra` (what there is more of along the director) and `rotation`: of a force and a torque. `sigma`: of pairs, squared for
    WCA. `depth`: of the potentials. `elongation`: of Jeffery's equation.
    """

    across: "Tensor"
    extra: "Tensor"
    rotation: "Tensor"
    sigma: "Tensor"
    rod_sigma2: "Tensor"
    wall_sigma2: "Tensor"
    depth: "Tensor"
    elongation: "Tensor"

    def of(self, chosen: Chosen) -> "Mobility":
        """That of some environments."""
        return Mobility(*(chosen(getattr(self, one.name)) for one in fields(self)))


class Surroundings:
    """Contacts, walls and fields of agents of `bodies`, and how they move these in `seconds`."""

    def __init__(
        self,
        bodies: "Sequence[Body]",
        num_agents: int,
        *,
        num_dimensions: int,
        seconds: float,
        box: float | None,
        rod: Rod | None,
        walls_given: "Sequence[walls.Wall]",
        acting: Sequence[Field],
        contact: str,
        per_policy: "Callable[[Sequence[float]], Tensor]",
    ) -> None:
        import torch

        self.fields = tuple(field for field in acting if _acts(field, num_dimensions))
        _check(bodies, num_dimensions, rod, self.fields, contact)
        self.rod, self.contact, self.num_rates = rod, contact, 1 if num_dimensions == 2 else 3
        self.seconds = seconds
        self.is_round = all(body.is_round for body in bodies)
        self.radius = per_policy([body.radius for body in bodies])
        axes = [semi_axes(body.radius, body.aspect) for body in bodies]
        self.chi = flow.elongation(bodies[0].aspect)
        # of Gay and Berne, the length of the potential itself
        self.width = per_policy([2.0 * across / CUTOFF for across, _ in axes])
        self.extent = per_policy([max(pair) for pair in axes]) if contact == "gay_berne" else self.radius
        bead = 0.0 if rod is None else rod.bead_radius
        self.mobility = Mobility(
            across=per_policy([seconds / body.friction.across for body in bodies]),
            extra=per_policy([seconds / body.friction.along - seconds / body.friction.across for body in bodies]),
            rotation=per_policy([seconds / body.friction.rotation for body in bodies]),
            sigma=self.width if contact == "gay_berne" else per_policy([(2.0 * body.radius / CUTOFF) ** 2 for body in bodies]),
            rod_sigma2=per_policy([((body.radius + bead) / CUTOFF) ** 2 for body in bodies]),
            wall_sigma2=per_policy([(body.radius / CUTOFF) ** 2 for body in bodies]),
            depth=per_policy([body.depth for body in bodies]),
            elongation=per_policy([flow.elongation(body.aspect) for body in bodies]),
        )
        device, dtype = str(self.radius.device), self.radius.dtype
        self.pairs = Pairs(num_agents, box, device, dtype)
        self.walls = walls.made(walls_given, num_dimensions, device, dtype) if walls_given else None
        # whether directors turn otherwise than by their own noise and torque
        self.turns = contact == "gay_berne" or any(_flows(field, num_dimensions) for field in self.fields)
        self.levers = None if rod is None else torch.tensor(rod.levers(), dtype=dtype, device=device)

    def near(self, positions: "Tensor", rods: "Tensor | None", rod_turns: "Tensor | None", reach: "Tensor") -> "tuple[Tensor, Tensor]":
        """Which environments (P, E) a contact may act in, and which pairs (P, E, K) may meet, where agents go as far as `reach`.

        Positions (D, P, E, N), `reach` (P, E, N) of the middle of an agent; `rod_turns` (P, E) of rods by themselves.
        """
        ends = reach + self.extent
        pairs = self.pairs.near(positions, ends)
        forced = pairs.any(-1)
        if self.rod is not None and rods is not None and rod_turns is not None:
            # pushed, the rod turns by less than an agent moves at its tip
            margin = 2.0 * ends.amax(-1) + rod_turns.abs() * (0.5 * self.rod.length) + self.rod.bead_radius
            forced |= rod_distance(positions, rods, self.rod.length).amin(-1) < margin
        if self.walls is not None:
            forced |= (self.walls.distance(positions) < reach + self.radius).any(-1)
        return forced, pairs

    def overlaps(self, positions: "Tensor", directors: "Tensor", rods: "Tensor | None", policies: "Tensor") -> "tuple[Tensor, Tensor]":
        """Which pairs (M, K) repel each other, and which agents (M, N) touch a rod or a wall or are hidden by one from the origin.

        For positions and directors (D, M, N) of agents in environments of `policies` (M,), with rods (M,).
        """
        import torch

        apart, radius = self.pairs.apart(positions), self.radius[policies, 0]
        if self.contact == "gay_berne":
            first, second = directors[..., self.pairs.first], directors[..., self.pairs.second]
            pairs = squared(apart) < gay_berne.touching(apart, first, second, self.width[policies, 0], self.chi).square()
        else:
            pairs = squared(apart) < (2.0 * radius).square()
        pairs &= self.pairs.is_pair
        others = torch.zeros_like(positions[0], dtype=torch.bool)
        if self.rod is not None and rods is not None:
            others |= rod_distance(positions, rods, self.rod.length) < radius + self.rod.bead_radius
        if self.walls is not None:
            others |= (self.walls.distance(positions) < radius) | self.walls.hides(positions)
        return pairs, others


class Around:
    """The surroundings of M environments for the time of a slice.

    For positions (D, M, N) at its beginning, the pairs `near` (M, K) that may meet, and `reach` (M, N), how far agents go.
    """

    def __init__(self, all_: Surroundings, positions: "Tensor", near: "Tensor", reach: "Tensor", chosen: Chosen) -> None:
        self.all, self.mobility = all_, all_.mobility.of(chosen)
        self.ends, self.farthest = reach + chosen(all_.extent), reach * (1.0 / math.sqrt(len(positions)))
        self._list(positions, near)

    def follow(self, positions: "Tensor") -> None:
        """Look anew for pairs that may meet, where an agent has been pushed further than it was thought to go."""
        if bool(((positions - self.listed_at).abs_() > self.farthest).any()):
            self._list(positions, self.all.pairs.near(positions, self.ends))

    def _list(self, positions: "Tensor", near: "Tensor") -> None:
        self.listed_at = self.clear_at = positions
        self.clear, self.patience = 0.0, 0
        listed, num_agents = self.all.pairs.listed(near), self.all.pairs.num_agents
        environments, size = listed.agents // num_agents, near.shape[0] * num_agents
        self.num_pairs = len(environments)
        self.places = listed.rows(len(positions), size)
        own = self.mobility
        sigma, depth = _of_environments(own.sigma, environments), _of_environments(own.depth, environments)
        self.of_pairs: tuple[Tensor, ...] = of_pairs(sigma, depth) if self.all.contact == "wca" else (sigma, depth)
        self.turning_places = listed.rows(self.all.num_rates, size) if self.all.contact == "gay_berne" else self.places

    def motion(self, positions: "Tensor", directors: "Tensor", rods: "Tensor | None") -> Motion:
        """Of agents at `positions` with `directors` (D, M, N) and rods (M,)."""
        forces, torques, rod_torques = self._contacts(positions, directors, rods)
        for field in self.all.fields:
            if (pushed := field.force(positions)) is not None:
                forces = pushed if forces is None else forces + pushed
        moved = _zeros(positions) if forces is None else self._mobile(forces, directors)
        turned = None if torques is None else torques * self.mobility.rotation
        if (fluid := flow.carried(self.all.fields, positions)) is not None:
            moved = moved + fluid[0] * self.all.seconds
            own = flow.turning(fluid[1], directors, self.mobility.elongation) * self.all.seconds
            turned = own if turned is None else turned + own
        rods_turned = None if rod_torques is None or self.all.rod is None else rod_torques * (self.all.seconds / self.all.rod.friction)
        return Motion(moved, turned, rods_turned)

    def _mobile(self, forces: "Tensor", directors: "Tensor") -> "Tensor":
        """How far forces move agents, with unlike friction along the directors and across them."""
        found = self.mobility.across * forces
        return found if self.all.is_round else found.add_(self.mobility.extra * dot(forces, directors) * directors)

    def _contacts(
        self, positions: "Tensor", directors: "Tensor", rods: "Tensor | None"
    ) -> "tuple[Tensor | None, Tensor | None, Tensor | None]":
        """Forces (D, M, N) and torques (R, M, N) on agents, and torques (M,) on rods; None where there are none."""
        forces, torques, rod_torques, own = None, None, None, self.mobility
        if self.num_pairs and not self._is_clear(positions):
            forces, torques = self._pairs(positions, directors)
        if self.all.rod is not None and self.all.levers is not None and rods is not None:
            pushed, rod_torques = rod_forces(positions, rods, self.all.levers, own.rod_sigma2, own.depth)
            forces = pushed if forces is None else forces + pushed
        if self.all.walls is not None:
            pushed = self.all.walls.forces(positions, own.wall_sigma2, own.depth)
            forces = pushed if forces is None else forces + pushed
        return forces, torques, rod_torques

    def _is_clear(self, positions: "Tensor") -> bool:
        """Whether it is certain that no listed pair touches, so that all their forces are 0: they were apart, and came less far since.

        Whatever is said, the forces are the same.
        """
        if self.all.contact != "wca":
            return False
        if self.clear > 0.0 and float((positions - self.clear_at).abs_().max()) < self.clear:
            return True
        self.patience -= 1
        if self.patience > 0:
            return False
        agents, partners = self.places
        apart = self.all.pairs.images(_at(positions, agents) - _at(positions, partners))
        gap = float((squared(apart).sqrt_() - self.of_pairs[2].sqrt()).min())
        # both may have come towards each other, by so much in each direction
        self.clear_at, self.clear = positions, (0.5 * gap - MARGIN) / math.sqrt(len(positions))
        self.patience = 0 if self.clear > 0.0 else PATIENCE
        return self.clear > 0.0

    def _pairs(self, positions: "Tensor", directors: "Tensor") -> "tuple[Tensor, Tensor | None]":
        import torch

        agents, partners = self.places
        apart = self.all.pairs.images(_at(positions, agents) - _at(positions, partners))
        if self.all.contact == "wca":
            pushes = (apart * strength_of(squared(apart), *self.of_pairs)).view(-1)
            forces = torch.zeros_like(positions)
            forces.view(-1).index_add_(0, agents, pushes).index_add_(0, partners, pushes, alpha=-1)
            return forces, None
        facing, (sigma, depth, *_) = (_at(directors, agents), _at(directors, partners)), self.of_pairs
        pushes, *turns = gay_berne.forces(apart, *facing, sigma, depth, self.all.chi)
        forces, torques = torch.zeros_like(positions), torch.zeros_like(positions[: self.all.num_rates])
        for number, own in enumerate((pushes, -pushes)):
            forces.view(-1).index_add_(0, self.places[number], own.reshape(-1))
            torques.view(-1).index_add_(0, self.turning_places[number], turns[number].reshape(-1))
        return forces, torques


def _of_environments(values: "Tensor", environments: "Tensor") -> "Tensor":
    """Of values (M, 1), or (1, 1) for all, those (K,) of environments (K,)."""
    return values[0] if len(values) == 1 else values[environments, 0]


def _at(values: "Tensor", places: "Tensor") -> "Tensor":
    """Of values (D, M, N) those (D, K) at `places` (D K,)."""
    return values.reshape(-1).index_select(0, places).view(len(values), -1)


def _acts(field: Field, num_dimensions: int) -> bool:
    """Whether a field does anything."""
    return field.force(_origin(num_dimensions)) is not None or _flows(field, num_dimensions)


def _flows(field: Field, num_dimensions: int) -> bool:
    return flow.carried([field], _origin(num_dimensions)) is not None


def _origin(num_dimensions: int) -> "Tensor":
    import torch

    return torch.zeros(num_dimensions, 1, 1)


def _zeros(like: "Tensor") -> "Tensor":
    import torch

    return torch.zeros_like(like)


def _check(bodies: "Sequence[Body]", num_dimensions: int, rod: Rod | None, acting: Sequence[Field], contact: str) -> None:
    """ConfigError for what does not go together."""
    if num_dimensions not in (2, 3):
        raise ConfigError(f"num_dimensions must be 2 or 3, got {num_dimensions}")
    if contact not in CONTACTS:
        raise ConfigError(f"contact must be one of {', '.join(CONTACTS)}, got {contact!r}")
    if rod is not None and num_dimensions == 3:
        raise ConfigError("a rod turns in a plane; take num_dimensions=2, or no rod")
    if len({body.is_round for body in bodies}) > 1:
        raise ConfigError(
            "an engine holds spheres or spheroids, got policies of both: a policy's numbers would depend on who else is there; "
            "take an engine for each"
        )
    flat = [body for body in bodies if not body.is_round and body.aspect == 1.0]
    if flat and (contact == "gay_berne" or acting):
        raise ConfigError(f"{flat[0]} has the friction of a spheroid, so that its aspect must be given too; Body(..., aspect=...)")
    aspects = sorted({body.aspect for body in bodies})
    if contact == "gay_berne" and len(aspects) > 1:
        raise ConfigError(f"contact=gay_berne needs one aspect ratio for all, got {', '.join(map(str, aspects))}; take an engine for each")
