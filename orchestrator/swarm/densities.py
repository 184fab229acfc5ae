"""Densities of numbers that agents have over time, one a training, so that the band is that of trainings and not of frames."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    Array = np.ndarray[Any, Any]

__all__ = ["density", "of_groups"]

_BINS = 400


def density(values_M: "Array", grid: tuple[float, float], bandwidth: float) -> "tuple[Array, Array]":
    """Places and densities there of a Gaussian kernel; what it would lay beyond the ends of `grid` is folded back."""
    import numpy as np
    from scipy.ndimage import gaussian_filter1d

    counts, edges = np.histogram(values_M, bins=_BINS, range=grid)
    step = (grid[1] - grid[0]) / _BINS
    smooth = gaussian_filter1d(counts.astype(float), bandwidth / step, mode="reflect")
    return (edges[1:] + edges[:-1]) / 2, smooth / (max(len(values_M), 1) * step)


def of_groups(frame: "pl.DataFrame", y: str, by: str, grid: tuple[float, float], bandwidth: float, key: str = "key") -> "pl.DataFrame":
    """Columns `by`, x, value, low, high: mean density of the tasks of a group, and a standard error on both sides (NaN of one task)."""
    import numpy as np
    import polars as pl

    parts = []
    for (value,), group in sorted(frame.drop_nulls(y).partition_by([by], as_dict=True).items()):
        each = [density(part[y].to_numpy(), grid, bandwidth) for part in group.partition_by(key)]
        curves = np.stack([own for _, own in each])
        middle = curves.mean(axis=0)
        error = curves.std(axis=0, ddof=1) / np.sqrt(len(curves)) if len(curves) > 1 else np.full(len(middle), np.nan)
        parts.append(
            pl.DataFrame({by: [value] * len(middle), "x": each[0][0], "value": middle, "low": middle - error, "high": middle + error})
        )
    empty = pl.DataFrame(schema={by: frame.schema[by], **dict.fromkeys(("x", "value", "low", "high"), pl.Float64)})
    return pl.concat([empty, *parts], how="vertical_relaxed")
