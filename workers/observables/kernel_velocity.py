"""Speed at which a kernel turns during training (Fort et al. 2020)."""

from typing import TYPE_CHECKING

from workers.errors import ConfigError
from workers.observables.kernel_distance import kernel_distance

if TYPE_CHECKING:
    from workers.kernel_data import Kernel


def kernel_velocity(reference_RR: "Kernel", kernel_RR: "Kernel", num_steps: float) -> float:
    """The kernel distance over the steps (or the time) between the two; ConfigError where these are not above 0."""
    if not num_steps > 0:
        raise ConfigError(f"kernel_velocity needs num_steps above 0, got {num_steps}; give the steps between the two kernels")
    return kernel_distance(reference_RR, kernel_RR) / num_steps
