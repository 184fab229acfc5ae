"""The largest eigenpairs of a kernel by block Lanczos from tiles on disk; prints its processor seconds and the largest as JSON."""

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from workers import entk
from workers.sharded.products import sharded
from workers.sharded.tiles import TileSet

if __name__ == "__main__":
    torch.set_num_threads(1)
    tiles = TileSet.load(Path(sys.argv[1]))
    began = time.process_time()
    with sharded(tiles, 0, 1, "cpu") as kernel:
        values = entk.spectrum(kernel, int(sys.argv[2]), tolerance=float(sys.argv[3])).eigenvalues
    print(json.dumps({"seconds": time.process_time() - began, "largest": float(values[-1])}))
