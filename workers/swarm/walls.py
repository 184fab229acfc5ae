"""Walls that repel agents as a particle of radius 0 at their nearest point does: segments in a plane, planes across an axis in space."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from workers.errors import ConfigError
from workers.swarm.contacts import strength
from workers.swarm.sums import squared, total

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# D dimensions, first; W walls; N agents


@dataclass(frozen=True, slots=True)
class Segment:
    """A wall in a plane from one point to another (um)."""

    start: tuple[float, float]
    end: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Plane:
    """A wall in space: all points whose coordinate number `axis` (0, 1 or 2) is `position` (um)."""

    axis: int
    position: float


Wall = Segment | Plane


def rectangle(width: float, height: float, centre: tuple[float, float] = (0.0, 0.0)) -> tuple[Segment, ...]:
    """Four walls about `centre`, anticlockwise from the lowest."""
    (x, y), right, up = centre, 0.5 * width, 0.5 * height
    corners = [(x - right, y - up), (x + right, y - up), (x + right, y + up), (x - right, y + up)]
    return tuple(Segment(start, end) for start, end in zip(corners, corners[1:] + corners[:1]))


def cuboid(width: float, depth: float, height: float) -> tuple[Plane, ...]:
    """Six walls about the origin."""
    return tuple(Plane(axis, side * 0.5 * size) for axis, size in enumerate((width, depth, height)) for side in (-1.0, 1.0))


class Walls(Protocol):
    """Walls as an engine needs them, for positions (D, ..., N)."""

    def distance(self, positions: "Tensor") -> "Tensor":
        """From the nearest of them (..., N)."""

    def forces(self, positions: "Tensor", sigma2: "Tensor", depth: "Tensor") -> "Tensor":
        """On the agents (D, ..., N), for squares of WCA's length and energies that spread over (..., N)."""

    def hides(self, positions: "Tensor") -> "Tensor":
        """Whether one stands between the origin and an agent (..., N)."""


def made(walls: Sequence[Wall], num_dimensions: int, device: str, dtype: "torch.dtype") -> Walls:
    """Walls of one kind, which fits the number of dimensions; ConfigError for others, and for a segment without length."""
    segments, planes = [one for one in walls if isinstance(one, Segment)], [one for one in walls if isinstance(one, Plane)]
    fitting = segments if num_dimensions == 2 else planes
    if len(fitting) < len(walls):
        raise ConfigError(
            f"walls in {num_dimensions} dimensions must be {'Segment' if num_dimensions == 2 else 'Plane'}, got {list(walls)}; "
            "take rectangle(width, height) in a plane and cuboid(width, depth, height) in space"
        )
    for segment in segments:
        if segment.start == segment.end:
            raise ConfigError(f"a wall must have a length, got one from {segment.start} to {segment.end}; give two points")
    for plane in planes:
        if plane.axis not in (0, 1, 2):
            raise ConfigError(f"the axis of a wall must be 0, 1 or 2, got {plane.axis}")
    return _Segments(segments, device, dtype) if num_dimensions == 2 else _Planes(planes)


class _Segments:
    """In a plane."""

    def __init__(self, segments: Sequence[Segment], device: str, dtype: "torch.dtype") -> None:
        import torch

        points = torch.tensor([[one.start, one.end] for one in segments], dtype=torch.float64)
        starts, spans = points[:, 0].T, (points[:, 1] - points[:, 0]).T
        self.starts_DW, self.spans_DW = (values.to(device, dtype) for values in (starts, spans))
        self.shares_DW = (spans / squared(spans)).to(device, dtype)

    def distance(self, positions: "Tensor") -> "Tensor":
        found: Tensor = squared(self._apart(positions)).amin(0).sqrt()
        return found

    def forces(self, positions: "Tensor", sigma2: "Tensor", depth: "Tensor") -> "Tensor":
        apart = self._apart(positions)
        return total((apart * strength(squared(apart), sigma2, depth)).movedim(1, 0))

    def hides(self, positions: "Tensor") -> "Tensor":
        """Where the way from the origin to the agent and the wall cut each other."""
        (x, y), (a, b), (u, v) = (self._spread(values, positions) for values in (positions[:, None], self.starts_DW, self.spans_DW))
        across = x * v - y * u
        # origin + s (x, y) = start + t span
        s, t = (a * v - b * u) / across, (a * y - b * x) / across
        cut: Tensor = (s > 0.0) & (s < 1.0) & (t >= 0.0) & (t <= 1.0)
        return cut.any(0)

    def _apart(self, positions: "Tensor") -> "Tensor":
        """From the nearest point of each to the agents (D, W, ..., N)."""
        starts, spans, shares = (self._spread(values, positions) for values in (self.starts_DW, self.spans_DW, self.shares_DW))
        from_start = positions[:, None] - starts
        x, y = from_start * shares
        found: Tensor = from_start - (x + y).clamp_(0.0, 1.0) * spans
        return found

    @staticmethod
    def _spread(values_DW: "Tensor", positions: "Tensor") -> "Tensor":
        return values_DW if values_DW.dim() > 2 else values_DW.view(*values_DW.shape, *[1] * (positions.dim() - 1))


class _Planes:
    """In space, each across an axis."""

    def __init__(self, planes: Sequence[Plane]) -> None:
        self.planes = list(planes)

    def distance(self, positions: "Tensor") -> "Tensor":
        import torch

        return torch.stack([(positions[one.axis] - one.position).abs() for one in self.planes]).amin(0)

    def forces(self, positions: "Tensor", sigma2: "Tensor", depth: "Tensor") -> "Tensor":
        import torch

        found = torch.zeros_like(positions)
        for one in self.planes:
            apart = positions[one.axis] - one.position
            found[one.axis].add_(apart * strength(apart.square(), sigma2, depth))
        return found

    def hides(self, positions: "Tensor") -> "Tensor":
        import torch

        return torch.stack([positions[one.axis] * _sign(one.position) > abs(one.position) for one in self.planes]).any(0)


def _sign(value: float) -> float:
    return -1.0 if value < 0.0 else 1.0
