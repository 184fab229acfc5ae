"""How far down its kernel's spectrum a training still learns (D10)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workers.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    Values = Sequence[float] | np.ndarray[Any, Any]

# T windows of a training, in order

NEIGHBOURS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """-log10 of `position`, the spectral position at the last `step` where the loss still fell at the rate that was asked for.

    `is_bound`: it still did so at the end of the training, so that the reach is at least this. NaN where it never did, or where the
    position there is not above 0 (the unbiased estimate of a gradient that is lost in noise).
    """

    reach: float
    step: float
    position: float
    is_bound: bool


def spectral_reach(steps_T: "Values", losses_T: "Values", positions_T: "Values", epsilon: float = 0.05) -> float:
    """reach_epsilon = -log10 chi_pos at the last window where -d ln L / d ln step >= epsilon; see `find_reach`."""
    return find_reach(steps_T, losses_T, positions_T, epsilon).reach


def find_reach(steps_T: "Values", losses_T: "Values", positions_T: "Values", epsilon: float = 0.05, neighbours: int = NEIGHBOURS) -> Reach:
    """The reach of one training, from its loss L and chi_pos (the unbiased estimate, of fixed N and probe) at increasing steps above 0.

    The rate at a window is the slope of the line through it and `neighbours` windows on either side (fewer at the ends), in logarithms,
    and its position the median of the same windows: a single one holds the noise of its batches. Windows that are not finite are left
    out. Raises ConfigError where fewer than three are left.
    """
    import numpy as np

    steps, losses, positions = (np.asarray(values, dtype=np.float64) for values in (steps_T, losses_T, positions_T))
    known = (steps > 0) & (losses > 0) & np.isfinite(steps) & np.isfinite(losses) & np.isfinite(positions)
    if known.sum() < 3 or (np.diff(steps[known]) <= 0).any():
        raise ConfigError(
            f"the reach of a training needs at least three windows at increasing steps above 0, with a loss above 0; got {known.sum()} of "
            f"{len(steps)}; take more windows a decade, or more steps"
        )
    x_T, y_T, positions = np.log(steps[known]), np.log(losses[known]), positions[known]
    near_T = [slice(max(0, at - neighbours), at + neighbours + 1) for at in range(len(x_T))]
    rates_T = np.array([-np.polyfit(x_T[near], y_T[near], 1)[0] for near in near_T])
    falling = np.flatnonzero(rates_T >= epsilon)
    if not len(falling):
        return Reach(reach=float("nan"), step=float("nan"), position=float("nan"), is_bound=False)
    last = int(falling[-1])
    position = float(np.median(positions[near_T[last]]))
    reach = -float(np.log10(position)) if position > 0 else float("nan")
    return Reach(reach=reach, step=float(np.exp(x_T[last])), position=position, is_bound=last == len(x_T) - 1)
