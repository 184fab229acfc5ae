"""A kernel whose tiles are written to a folder."""

from pathlib import Path

import numpy as np

from workers import files
from workers.sharded.panels import Panels
from workers.sharded.tiles import TileFacts, TileSet, sums_of, tile_name


def written(folder: Path, kernel: np.ndarray, panel_rows: int) -> TileSet:
    panels, facts = Panels(len(kernel), panel_rows), []
    for pair in panels.pairs():
        rows, columns = (panels.rows(panel) for panel in pair)
        tile = kernel[rows.start : rows.stop, columns.start : columns.stop]
        np.save(folder / tile_name(pair), tile)
        known = {"sha256": files.sha256(folder / tile_name(pair)), "seconds": 0.0, "peak_bytes": 0}
        facts.append(TileFacts(row=pair[0], column=pair[1], **known, **sums_of(pair, tile)))
    return TileSet.of(panels, str(kernel.dtype), folder, facts)


def symmetric(size: int, dtype: str = "float64") -> np.ndarray:
    factor = np.random.default_rng(0).standard_normal((size, size + 2))
    return (factor @ factor.T).astype(dtype)
