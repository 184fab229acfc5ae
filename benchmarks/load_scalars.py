"""Loads a sweep's scalars in a fresh process: `python load_scalars.py ROOT NAME`; prints seconds after import, and rows, as JSON."""

import json
import sys
import time

import polars  # noqa: F401
import pyarrow.parquet  # noqa: F401

import eigensweep as es
import orchestrator.results  # noqa: F401


def main(root: str, name: str) -> int:
    """Time `load` and the collected table together."""
    load = es.load
    begun = time.perf_counter()
    frame = load(name, root).scalars().collect()
    seconds = time.perf_counter() - begun
    print(json.dumps({"seconds": seconds, "rows": len(frame), "columns": frame.columns}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
