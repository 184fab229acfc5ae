"""Repulsion by contact (Weeks, Chandler and Andersen): between agents, and with a rigid rod of beads."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.swarm.sums import squared, total

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# D dimensions, first; M environments; N agents; K pairs; B beads

# the potential 4 eps ((s/r)^12 - (s/r)^6) + eps ends at 2^(1/6) s, which is the sum of the two radii
CUTOFF = 2.0 ** (1.0 / 6.0)
# of s: where particles overlap more deeply, the force over the distance is that at this distance, which bounds it
DEEPEST = 0.6
# agents from which on all differences are faster than those of pairs alone
MANY = 32


def strength(square: "Tensor", sigma2: "Tensor", depth: "Tensor") -> "Tensor":
    """The repulsive force over the distance, for squared distances and squared s; energies in pN um give pN / um."""
    return strength_of(square, *of_pairs(sigma2, depth))


def of_pairs(sigma2: "Tensor", depth: "Tensor") -> "tuple[Tensor, Tensor, Tensor, Tensor]":
    """What `strength_of` wants to know of pairs that stay the same."""
    return sigma2, DEEPEST**2 * sigma2, CUTOFF**2 * sigma2, 24.0 / sigma2 * depth


def strength_of(square: "Tensor", sigma2: "Tensor", least: "Tensor", end: "Tensor", factor: "Tensor") -> "Tensor":
    """The same as `strength`."""
    import torch

    inverse = sigma2 / torch.maximum(square, least)
    sixth = (inverse * inverse).mul_(inverse)
    rise = (2.0 * sixth).sub_(1.0)
    return torch.where(square < end, inverse.mul_(sixth).mul_(rise).mul_(factor), 0.0)


@dataclass(frozen=True, slots=True)
class Listed:
    """Pairs in M environments: the numbers (K,) of `agents` and of their `partners` among M N in a row."""

    agents: "Tensor"
    partners: "Tensor"

    def rows(self, num_rows: int, size: int) -> "tuple[Tensor, Tensor]":
        """The same numbers (num_rows K,) in a tensor of so many rows of `size`."""
        import torch

        shifts = torch.arange(num_rows, device=self.agents.device)[:, None] * size
        return (self.agents + shifts).flatten(), (self.partners + shifts).flatten()


class Pairs:
    """Pairs of N agents, and lists of those that are near each other.

    Of few agents each pair stands once; from MANY on all N^2 stand in a row, of which `is_pair` (K,) tells those that count: the second
    number above the first. `first`, `second` (K,): numbers of agents.
    """

    def __init__(self, num_agents: int, box: float | None, device: str, dtype: "torch.dtype") -> None:
        import torch

        self.num_agents, self.box = num_agents, box
        self.is_square = num_agents >= MANY
        if self.is_square:
            numbers = torch.arange(num_agents, device=device)
            self.first, self.second = numbers.repeat_interleave(num_agents), numbers.repeat(num_agents)
        else:
            self.first, self.second = torch.triu_indices(num_agents, num_agents, offset=1, device=device)
            # differences of pairs are products with this matrix (N, K) of 1 and -1, which are exact
            numbers = torch.arange(len(self.first), device=device)
            self.signs = torch.zeros(num_agents, len(self.first), device=device, dtype=dtype)
            self.signs[self.first, numbers], self.signs[self.second, numbers] = 1.0, -1.0
            self.sums = self.signs.abs()
        self.is_pair = self.first < self.second

    def near(self, positions: "Tensor", reach: "Tensor") -> "Tensor":
        """Which pairs (..., K) of agents at `positions` (D, ..., N) are nearer than the sum of how far each reaches (..., N)."""
        square = self.apart(positions).square_()
        for values in square[1:]:
            square[0].add_(values)
        if not self.is_square:
            return square[0] < (reach @ self.sums).square_()
        ends = (reach[..., :, None] + reach[..., None, :]).square_().flatten(-2)
        return (square[0] < ends).logical_and_(self.is_pair)

    def apart(self, positions: "Tensor") -> "Tensor":
        """From the second to the first of each pair (D, ..., K), for positions (D, ..., N)."""
        if self.is_square:
            return self.images((positions[..., :, None] - positions[..., None, :]).flatten(-2))
        return self.images(positions @ self.signs)

    def listed(self, near: "Tensor") -> Listed:
        """Of `near` (M, K)."""
        import torch

        environment, number = torch.nonzero(near, as_tuple=True)
        return Listed(environment * self.num_agents + self.first[number], environment * self.num_agents + self.second[number])

    def images(self, apart: "Tensor") -> "Tensor":
        """By the nearest images in a periodic box."""
        return apart if self.box is None else apart.sub_((apart / self.box).round_().mul_(self.box))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rod:
    """A rigid rod of `num_beads` touching beads, `length` long (um), that turns about its fixed centre with `friction` (pN um s).

    `start_angle` is in rad: SwarmRL's scripts say 90 there, too.
    """

    length: float = 100.0
    num_beads: int = 59
    friction: float = 690.2407326
    start_angle: float = 90.0

    @property
    def bead_radius(self) -> float:
        """Half a bead's share of the length."""
        return 0.5 * self.length / self.num_beads

    def levers(self) -> list[float]:
        """Of the beads' centres."""
        step = self.length / self.num_beads
        return [step * (number - 0.5 * (self.num_beads - 1)) for number in range(self.num_beads)]

    def diffusion(self, energy: float) -> float:
        """Of its angle (1 / s), at an energy kT (pN um)."""
        return energy / self.friction


def rod_direction(angles: "Tensor", dtype: "torch.dtype") -> "Tensor":
    """Unit vectors (2, ...) of rods at `angles` (...), which are in double precision: they grow, and turn little at a time."""
    import torch

    return torch.stack([angles.cos(), angles.sin()]).to(dtype)


def rod_apart(positions: "Tensor", angles: "Tensor", levers: "Tensor") -> "Tensor":
    """From beads to agents (D, B, M, N), for positions (D, M, N), rods at `angles` (M,) about the origin and beads at `levers` (B,)."""
    beads = rod_direction(angles, positions.dtype)[:, None, :, None] * levers[:, None, None]
    return positions[:, None] - beads


def rod_forces(positions: "Tensor", angles: "Tensor", levers: "Tensor", sigma2: "Tensor", depth: "Tensor") -> "tuple[Tensor, Tensor]":
    """On the agents (D, M, N), and the torque (M,) on rods at `angles` (M,); sigma2 and depth (M, 1)."""
    apart = rod_apart(positions, angles, levers)
    x, y = apart * strength(squared(apart), sigma2, depth)
    cosine, sine = rod_direction(angles, positions.dtype)
    aside = x * sine[:, None] - y * cosine[:, None]
    torque = total(total(aside * levers[:, None, None]).movedim(-1, 0))
    return _both(total(x), total(y)), torque


def rod_distance(positions: "Tensor", angles: "Tensor", length: float) -> "Tensor":
    """Of agents (D, ..., N) from the line between the ends of rods at `angles` (...)."""
    (c, s), (x, y) = rod_direction(angles, positions.dtype)[..., None], positions
    along, aside = x * c + y * s, y * c - x * s
    square: Tensor = (along.abs() - 0.5 * length).clamp_(min=0.0).square_() + aside.square_()
    return square.sqrt_()


def _both(x: "Tensor", y: "Tensor") -> "Tensor":
    import torch

    return torch.stack([x, y])
