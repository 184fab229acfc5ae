"""Sums in a fixed order: torch orders those of a reduction by where in memory the numbers stand, and so by who else is in the batch."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

# D dimensions, first


def total(values: "Tensor") -> "Tensor":
    """Over the first axis (at least one entry), half on half."""
    while (count := len(values)) > 1:
        half = count // 2
        folded = values[:half] + values[half : 2 * half]
        if count % 2:
            folded[0].add_(values[-1])
        values = folded
    return values[0]


def dot(first: "Sequence[Tensor] | Tensor", second: "Sequence[Tensor] | Tensor") -> "Tensor":
    """Of vectors (D, ...)."""
    found = first[0] * second[0]
    for own, other in zip(first[1:], second[1:], strict=True):
        found += own * other
    return found


def squared(vectors: "Tensor") -> "Tensor":
    """Squares of the lengths of vectors (D, ...)."""
    found = vectors[0].square()
    for values in vectors[1:]:
        found += values.square()
    return found


def inner_mean(values: "Tensor") -> "Tensor":
    """Over the last axis, (P,) of (P, M): each row is summed by itself."""
    return values.contiguous().mean(-1)
