"""Turns of directors: by an angle in a plane, by a vector in space."""

import math
from typing import TYPE_CHECKING

from workers.swarm.sums import dot, squared

if TYPE_CHECKING:
    from torch import Tensor

# D dimensions, first; S substeps; R = 1 turn about z in a plane, 3 in space


class Heading:
    """Directors (D, ...) that turn again and again; in a plane their angle is kept, so that they stay of length 1."""

    def __init__(self, directors: "Tensor") -> None:
        self.directors = directors
        self.angle = angles(directors) if len(directors) == 2 else None

    def turn(self, turns: "Tensor") -> "Tensor":
        """The directors after turns (R, ...)."""
        import torch

        if self.angle is None:
            self.directors = turned(self.directors, turns)
        else:
            self.angle = self.angle + turns[0]
            self.directors = torch.stack([self.angle.cos(), self.angle.sin()])
        return self.directors


def angles(directors: "Tensor") -> "Tensor":
    """Of directors (2, ...) from the x axis; not atan2, of which torch rounds the last numbers of a tensor otherwise than the rest."""
    import torch

    x, y = directors
    half = (y / (x.abs() + 1.0)).atan().mul_(2.0)
    return torch.where(x < 0.0, torch.copysign(half.new_tensor(math.pi), y) - half, half)


def path(start: "Tensor", turns: "Tensor") -> "Tensor":
    """Directors (S + 1, D, ...) at the ends of the substeps, from `start` (D, ...) by `turns` (S, R, ...)."""
    import torch

    if len(start) == 3:
        found = [start]
        for turn in turns:
            found.append(turned(found[-1], turn))
        return torch.stack(found)
    along = turns.new_empty(len(turns) + 1, *start.shape[1:])
    along[0] = angles(start)
    # faster than cumsum along the first axis, and in a fixed order
    for number, turn in enumerate(turns):
        torch.add(along[number], turn[0], out=along[number + 1])
    directors = along.new_empty(len(along), *start.shape)
    torch.cos(along, out=directors[:, 0])
    torch.sin(along, out=directors[:, 1])
    return directors


def turned(directors: "Tensor", turns: "Tensor") -> "Tensor":
    """Directors (3, ...) after a rotation by the vectors `turns` (3, ...), exactly (Rodrigues)."""
    import torch

    angle = squared(turns).sqrt_()
    aside = torch.linalg.cross(turns, directors, dim=0)
    along = dot(turns, directors)
    cosine = angle.cos()
    # sin(a) / a and (1 - cos(a)) / a^2, whose limits are 1 and 1/2
    first, second = torch.sinc(angle / math.pi), 0.5 * torch.sinc(0.5 * angle / math.pi).square()
    found: Tensor = cosine * directors + first * aside + second * along * turns
    return found / squared(found).sqrt_()


def variance(decay: float, num_dimensions: int) -> float:
    """Of each component of a turn after which directors have decayed by exp(-decay (D - 1) / 2).

    In space of turns by normal vectors of variance s: (1 + 2 (1 - s) exp(-s / 2)) / 3, exactly; at most 3, where that is least.
    """
    if num_dimensions == 2:
        return decay
    low, high = 0.0, 3.0 if decay > 0.0 else 0.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        # differences from 1, so that small decays keep their digits
        left = 2.0 / 3.0 * (math.expm1(-0.5 * middle) - middle * math.exp(-0.5 * middle))
        low, high = (middle, high) if left > math.expm1(-decay) else (low, middle)
    return 0.5 * (low + high)


def on_sphere(circle: "Tensor", heights: "Tensor") -> "Tensor":
    """Points (3, ...) of the unit sphere, from points (2, ...) of the circle and heights."""
    import torch

    return torch.cat([circle * (1.0 - heights.square()).clamp(min=0.0).sqrt(), heights[None]])


def trapezoid(values: "Tensor") -> "Tensor":
    """Of the first axis: the sum of the means of neighbours, in a fixed order."""
    found = (values[0] + values[-1]).mul_(0.5)
    for value in values[1:-1]:
        found += value
    return found
