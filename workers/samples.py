"""Inputs and targets of a training and a test split, of images, tokens or vectors, as every data set gives them."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workers.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from workers.reading.lazy import Lazy

    Indices = np.ndarray[Any, Any]
    Array = np.ndarray[Any, Any] | Lazy

# N samples; T tokens of a sequence; C outputs


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Samples:
    """Images (N, channels, H, W) with labels (N,); sequences of tokens (N, T) with the next ones (N, T); or vectors with values (N, C).

    Inputs are floating numbers, normalised, or tokens, which are whole ones. Targets are whole numbers in 0 .. num_outputs - 1, one for
    each unit of the loss (D2), or floating values (N, num_outputs). Arrays may be memory-mapped, or `workers.reading.lazy` ones,
    of which shape, dtype, length and entries at indices are there. `sample_name` and `unit_name`: what a
    sample and a unit are called, as in the rows `images_seen` and `tokens_seen`.
    """

    train_inputs: "Array"
    train_targets: "Array"
    test_inputs: "Array"
    test_targets: "Array"
    num_outputs: int
    sample_name: str = "images"
    unit_name: str = "images"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one sample: (channels, height, width), (T,), or (features,)."""
        return tuple(self.train_inputs.shape[1:])

    @property
    def has_tokens(self) -> bool:
        """Whether inputs are whole numbers."""
        return bool(self.train_inputs.dtype.kind in "iu")

    @property
    def units_per_sample(self) -> int:
        """Units of the loss in a sample: 1, or T tokens."""
        return math.prod(self.train_targets.shape[1:]) if self.train_targets.dtype.kind in "iu" else 1

    def counted(self) -> dict[str, int]:
        """What is counted of data that were seen, with how many there are in a sample (D7)."""
        return {self.sample_name: 1} | {self.unit_name: self.units_per_sample}

    def train(self, index_N: "Indices", device: str, dtype: "torch.dtype") -> "tuple[Tensor, Tensor]":
        """Inputs and targets of the chosen training samples on a device, floating ones in `dtype`, tokens of 8 or 16 bits in int32."""
        return _taken(self.train_inputs, self.train_targets, index_N, device, dtype)

    def test(self, index_N: "Indices", device: str, dtype: "torch.dtype") -> "tuple[Tensor, Tensor]":
        """The same of the test samples."""
        return _taken(self.test_inputs, self.test_targets, index_N, device, dtype)


def num_classes(labels_N: "Indices") -> int:
    """Of labels 0 .. num_classes - 1: the largest, plus one."""
    return int(labels_N.max()) + 1


def num_taken(name: str, size: int | None, available: int) -> int:
    """How many of the samples that there are; None: all. ConfigError where that is more."""
    if size is not None and size > available:
        raise ConfigError(f"{name} must be at most {available}, the samples of this data set, got {size}")
    return available if size is None else size


def _taken(inputs: "Array", targets: "Array", index_N: "Indices", device: str, dtype: "torch.dtype") -> "tuple[Tensor, Tensor]":
    import torch

    found = (torch.from_numpy(_signed(values[index_N])).to(device) for values in (inputs, targets))
    first, second = (values.to(dtype) if values.is_floating_point() else values for values in found)
    return first, second


def _signed(values: "Indices") -> "Indices":
    """Unsigned numbers in the next larger signed type that torch can look up, others as they are."""
    if values.dtype.kind != "u":
        return values
    return values.astype("int32" if values.dtype.itemsize <= 2 else "int64")
