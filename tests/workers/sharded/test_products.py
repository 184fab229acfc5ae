"""Products of a tiled kernel by several ranks are those of the whole one."""

import sys

import numpy as np
import pytest

from tests.workers.sharded.tiles_on_disk import symmetric, written
from workers.launch import launch

PROGRAM = """
import json, os, sys
import numpy as np, torch
from pathlib import Path
from workers.sharded.products import sharded
from workers.sharded.tiles import TileSet

tiles = TileSet.load(Path(sys.argv[1]))
with sharded(tiles, int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), "cpu") as kernel:
    if kernel is not None:
        vectors = torch.from_numpy(np.load(sys.argv[2]))
        np.savez(sys.argv[3], block=(kernel @ vectors).numpy(), one=(kernel @ vectors[:, 0]).numpy(), count=kernel.num_products)
"""


@pytest.mark.parametrize(
    ("num_ranks", "panel_rows", "dtype", "allowed"), [(1, 30, "float32", 1e-6), (2, 9, "float64", 1e-14), (3, 30, "float32", 1e-6)]
)
def test_products_are_those_of_the_whole_kernel(tmp_path, num_ranks, panel_rows, dtype, allowed):
    kernel = symmetric(30, dtype)
    written(tmp_path, kernel, panel_rows).save(tmp_path / "tiles.json")
    vectors = np.random.default_rng(1).standard_normal((30, 4))
    np.save(tmp_path / "vectors.npy", vectors)
    arguments = [str(tmp_path / name) for name in ("tiles.json", "vectors.npy", "found.npz")]
    assert launch([sys.executable, "-c", PROGRAM, *arguments], ["here"], ranks_per_node=num_ranks) == 0
    exact = kernel.astype("float64") @ vectors
    with np.load(tmp_path / "found.npz") as found:
        assert np.linalg.norm(found["block"] - exact) <= allowed * np.linalg.norm(exact)
        assert np.linalg.norm(found["one"] - exact[:, 0]) <= allowed * np.linalg.norm(exact[:, 0])
        assert found["count"] == 5


def test_an_error_in_the_first_rank_ends_the_others(tmp_path):
    written(tmp_path, symmetric(30), 9).save(tmp_path / "tiles.json")
    failing = PROGRAM.replace("vectors = torch", "raise SystemExit(3)\n        vectors = torch")
    arguments = [str(tmp_path / name) for name in ("tiles.json", "vectors.npy", "found.npz")]
    assert launch([sys.executable, "-c", failing, *arguments], ["here"], ranks_per_node=3) == 3
