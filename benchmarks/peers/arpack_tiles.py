"""The largest eigenpairs of a kernel by ARPACK, of the whole matrix in memory; prints its processor seconds and the largest as JSON."""

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scipy.sparse.linalg import eigsh

from workers.sharded.tiles import TileSet

if __name__ == "__main__":
    whole = TileSet.load(Path(sys.argv[1])).whole()
    began = time.process_time()
    values = eigsh(whole, k=int(sys.argv[2]), tol=float(sys.argv[3]))[0]
    print(json.dumps({"seconds": time.process_time() - began, "largest": float(values[-1])}))
