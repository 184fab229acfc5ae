"""Rods that agents turn: revolutions per hour, and where agents stand in the rod's frame."""

# M positions; U, V bins along and across the rod

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    Array = np.ndarray[Any, Any]

__all__ = ["in_rod_frame", "occupation", "revolutions_per_hour"]

HOUR = 3600.0


def revolutions_per_hour(frames: "pl.DataFrame", key: str = "key", *, from_seconds: float = 0.0) -> "pl.DataFrame":
    """A row a task with a rod: `key`, revolutions_per_hour (positive counter-clockwise), of columns `key`, seconds, rod_angle (rad).

    Between two frames the rod is taken to turn by less than half a turn.
    """
    import numpy as np
    import polars as pl

    good = frames.filter(pl.col("rod_angle").is_finite() & (pl.col("seconds") >= from_seconds)).sort("seconds")
    rows = []
    for (one,), part in good.partition_by([key], as_dict=True, maintain_order=True).items():
        seconds = part["seconds"].to_numpy()
        if seconds[-1] > seconds[0]:
            angles = np.unwrap(part["rod_angle"].to_numpy())
            rows.append({key: one, "revolutions_per_hour": float(angles[-1] - angles[0]) / math.tau / (seconds[-1] - seconds[0]) * HOUR})
    return pl.DataFrame(rows, schema={key: frames.schema[key], "revolutions_per_hour": pl.Float64})


def in_rod_frame(
    positions: "pl.DataFrame", frames: "pl.DataFrame", key: str = "key", *, centre: tuple[float, float] = (0.0, 0.0)
) -> "pl.DataFrame":
    """`positions` with columns along and across (um): in the frame that turns with the rod about `centre`.

    Tasks whose rod turns clockwise are mirrored, so that agents push rods of all tasks the same way round.
    """
    import polars as pl

    turning = revolutions_per_hour(frames, key)
    mirror = pl.when(pl.col("revolutions_per_hour") < 0).then(-1.0).otherwise(1.0)
    angles = frames.filter(pl.col("rod_angle").is_finite()).select(key, "frame", "rod_angle")
    joined = positions.join(angles, on=[key, "frame"]).join(turning, on=key, how="left")
    x, y = pl.col("x") - centre[0], pl.col("y") - centre[1]
    cos, sin = pl.col("rod_angle").cos(), pl.col("rod_angle").sin()
    return joined.with_columns(along=x * cos + y * sin, across=mirror * (y * cos - x * sin)).drop("rod_angle", "revolutions_per_hour")


def occupation(
    placed: "pl.DataFrame", by: Sequence[str], half_width: float, num_bins: int = 48, key: str = "key"
) -> "dict[tuple[Any, ...], tuple[Array, Array]]":
    """Group -> edges (U + 1,) in um and shares (U, V) of the time that agents spend in each square of side 2 `half_width` / U.

    Each task counts alike; a rod has no front: the place turned by half a turn counts as the same. Shares of what is outside are lost.
    """
    import numpy as np

    edges = np.linspace(-half_width, half_width, num_bins + 1)
    found: dict[tuple[Any, ...], tuple[Array, Array]] = {}
    for values, group in placed.partition_by(list(by), as_dict=True, maintain_order=True).items():
        each = []
        for part in group.partition_by(key):
            counts, *_ = np.histogram2d(part["along"].to_numpy(), part["across"].to_numpy(), bins=(edges, edges))
            each.append((counts + counts[::-1, ::-1]) / (2 * len(part)))
        found[values] = (edges, np.mean(each, axis=0))
    return found
