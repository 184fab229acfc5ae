"""Repulsion of equal spheroids by the potential of Gay and Berne (1981), cut off at its minimum and lifted to end at 0."""

from typing import TYPE_CHECKING

from workers.swarm.contacts import CUTOFF, DEEPEST
from workers.swarm.sums import dot, squared

if TYPE_CHECKING:
    from torch import Tensor

# D dimensions, first; K pairs; R = 1 torque about z in a plane, 3 in space


def energies(apart: "Tensor", first: "Tensor", second: "Tensor", sigma: "Tensor", depth: "Tensor", chi: float) -> "Tensor":
    """Of pairs (K,): the potential whose derivatives `forces` gives, with the same arguments."""
    distance, cosines = _cosines(apart, first, second, sigma)
    contact, share, *_ = _shape(*cosines, chi)
    height, _ = _profile((distance / sigma - contact) + 1.0)
    return depth * share * height


def forces(
    apart: "Tensor", first: "Tensor", second: "Tensor", sigma: "Tensor", depth: "Tensor", chi: float
) -> "tuple[Tensor, Tensor, Tensor]":
    """Force (D, K) on the first of each pair, and the torques (R, K) on both.

    `apart` (D, K) goes from the second to the first, whose directors are (D, K). U = eps f((r - s h^(-1/2)) / s + 1) with
    f(x) = 4 (x^-12 - x^-6) + 1 up to 2^(1/6), h = 1 - chi / 2 ((a + b)^2 / (1 + chi c) + (a - b)^2 / (1 - chi c)) and
    eps = depth (1 - chi^2 c^2)^(-1/2), where a and b are the cosines of the directors with `apart` and c that between them. These
    are the exponents mu = 2 and nu = 1 with equal wells for side by side and end to end. s (K,) is 2^(-1/6) times the width across
    the directors, and chi the spheroids' elongation.
    """
    distance, cosines = _cosines(apart, first, second, sigma)
    contact, share, by_a, by_b, by_c, share_by_c = _shape(*cosines, chi)
    height, slope = _profile((distance / sigma - contact) + 1.0)
    energy, steep = depth * share, depth * share * slope
    along = apart / distance
    (a, b, _), per_distance = cosines, steep / distance
    # of a and b by the position: (u - a r) / |r|
    push = -steep / sigma * along + per_distance * (by_a * (first - a * along) + by_b * (second - b * along))
    by_cosine = energy / share * share_by_c * height - steep * by_c
    on_first = _cross(first, steep * by_a * along - by_cosine * second)
    on_second = _cross(second, steep * by_b * along - by_cosine * first)
    return push, on_first, on_second


def reach(sigma: "Tensor", contact: "Tensor") -> "Tensor":
    """The distance at which spheroids touch, for their `contact` distance over s."""
    return sigma * (contact + (CUTOFF - 1.0))


def touching(apart: "Tensor", first: "Tensor", second: "Tensor", sigma: "Tensor", chi: float) -> "Tensor":
    """The distances (K,) below which pairs in these directions repel each other."""
    _, cosines = _cosines(apart, first, second, sigma)
    return reach(sigma, _shape(*cosines, chi)[0])


def _cosines(apart: "Tensor", first: "Tensor", second: "Tensor", sigma: "Tensor") -> "tuple[Tensor, tuple[Tensor, Tensor, Tensor]]":
    """Distances, and cosines of the directors with `apart` and with each other."""
    import torch

    distance = torch.maximum(squared(apart).sqrt(), 1e-3 * sigma)
    return distance, (dot(apart, first) / distance, dot(apart, second) / distance, dot(first, second))


def _shape(a: "Tensor", b: "Tensor", c: "Tensor", chi: float) -> "tuple[Tensor, ...]":
    """The contact distance over s and the depth's factor; derivatives of the first by a, b and c, and of the second by c."""
    plus, minus = (a + b) / (1.0 + chi * c), (a - b) / (1.0 - chi * c)
    h = 1.0 - 0.5 * chi * ((a + b) * plus + (a - b) * minus)
    contact = h.rsqrt()
    # d h^(-1/2) = -1/2 h^(-3/2) dh
    half = 0.5 * chi * contact / h
    share = (1.0 - (chi * c).square()).rsqrt()
    slope = chi * chi * c * share * share * share
    return contact, share, half * (plus + minus), half * (plus - minus), -0.5 * half * chi * (plus * plus - minus * minus), slope


def _profile(x: "Tensor") -> "tuple[Tensor, Tensor]":
    """f(x) and its derivative, which stays as it is where spheroids overlap more deeply than DEEPEST."""
    import torch

    near = x.clamp(min=DEEPEST)
    inverse = 1.0 / near
    sixth = inverse * inverse * inverse
    sixth = sixth * sixth
    slope = -24.0 * inverse * sixth * (2.0 * sixth - 1.0)
    height = 4.0 * sixth * (sixth - 1.0) + 1.0 + slope * (x - near)
    touches = x < CUTOFF
    return torch.where(touches, height, 0.0), torch.where(touches, slope, 0.0)


def _cross(first: "Tensor", second: "Tensor") -> "Tensor":
    """The vector product (3, K), or its component (1, K) across the plane."""
    import torch

    if len(first) == 3:
        found: Tensor = torch.linalg.cross(first, second, dim=0)
        return found
    return (first[0] * second[1] - first[1] * second[0])[None]
