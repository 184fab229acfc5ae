"""Share of activations that have switched since the start of training (Chizat, Oyallon and Bach 2019)."""

from typing import TYPE_CHECKING

from workers.errors import ConfigError
from workers.kernel_data import float64

if TYPE_CHECKING:
    from workers.kernel_data import Kernel


def sign_changes(start: "Kernel", end: "Kernel") -> float:
    """Share of units' pre-activations, in equally shaped arrays, that are above 0 in one and not in the other; 0 is not above 0."""
    before, after = float64(start), float64(end)
    if before.shape != after.shape:
        raise ConfigError(f"activations must have equal shapes, got {before.shape} and {after.shape}; take both on the same inputs")
    return float(((before > 0.0) != (after > 0.0)).mean())
