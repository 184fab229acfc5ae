"""All eigenvalues of a kernel by LAPACK, and the largest eigenpairs by Lanczos, of the whole matrix in one process; prints JSON."""

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from workers import entk
from workers.sharded.tiles import TileSet

if __name__ == "__main__":
    torch.set_num_threads(1)
    kernel = torch.from_numpy(TileSet.load(Path(sys.argv[1])).whole())
    began = time.process_time()
    values = torch.linalg.eigvalsh(kernel)
    entk.spectrum(kernel, int(sys.argv[2]), tolerance=float(sys.argv[3]))
    print(json.dumps({"seconds": time.process_time() - began, "largest": float(values[-1])}))
