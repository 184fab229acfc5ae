"""How far training has moved the weights (Chizat, Oyallon and Bach 2019)."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from workers.errors import ConfigError
from workers.kernel_data import float64
from workers.spectrum_data import ratio

if TYPE_CHECKING:
    from workers.kernel_data import Kernel


def relative_weight_change(start: "Mapping[str, Kernel]", end: "Mapping[str, Kernel]") -> float:
    """||theta_T - theta_0|| / ||theta_0|| over all tensors of two sets of weights by name (`dict(module.named_parameters())`)."""
    if start.keys() != end.keys():
        raise ConfigError(
            f"the two sets of weights must have equal names; only one has {', '.join(sorted(start.keys() ^ end.keys()))}: "
            "take both from one architecture"
        )
    moved = sum(float(((float64(end[name]) - float64(start[name])) ** 2).sum()) for name in start)
    size = sum(float((float64(start[name]) ** 2).sum()) for name in start)
    return math.sqrt(ratio(moved, size))
