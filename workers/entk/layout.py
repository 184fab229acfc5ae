"""Where the samples of a batch stand in a tensor inside the network: found by what one sample's cotangents touch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# b samples of a batch; axis of size k1 * b * k2


@dataclass(frozen=True, slots=True)
class Layout:
    """Axis `axis` of a tensor runs over (`outer`, b, `inner`), b samples in the middle."""

    axis: int
    outer: int
    inner: int

    def samples_first(self, tensor: Tensor, *, lead: int = 0) -> Tensor:
        """The tensor with axes (*lead, b, ..., outer, inner, ...), the split axis at its place; `lead` axes stay in front."""
        axis = self.axis + lead
        if self.outer == 1 and self.inner == 1:
            return tensor.movedim(axis, lead).unsqueeze(axis + 1).unsqueeze(axis + 1)
        split: Tensor = tensor.unflatten(axis, (self.outer, -1, self.inner))
        return split.movedim(axis + 1, lead)


def find_layout(touched: Sequence[Tensor]) -> Layout | None:
    """The layout in which the i-th boolean tensor touches only sample i; None: there is none, or nothing is touched at all."""
    num_samples = len(touched)
    for axis, size in enumerate(touched[0].shape):
        if size % num_samples == 0:
            others = [a for a in range(touched[0].dim()) if a != axis]
            lines = [one.any(dim=others) if others else one for one in touched]
            for inner in _divisors(size // num_samples):
                if _owned(lines, inner):
                    return Layout(axis, size // num_samples // inner, inner)
    return None


def _owned(lines: Sequence[Tensor], inner: int) -> bool:
    """Whether the i-th line is nonzero only where sample i stands, and all but one are nonzero somewhere."""
    owner = torch.arange(len(lines[0]), device=lines[0].device) // inner % len(lines)
    strays = [bool((line & (owner != index)).any()) for index, line in enumerate(lines)]
    return not any(strays) and sum(bool(line.any()) for line in lines) >= len(lines) - 1


def _divisors(number: int) -> Iterator[int]:
    """Largest first: samples that stand together are the common case."""
    return (divisor for divisor in range(number, 0, -1) if number % divisor == 0)
