"""Compacts a store in a fresh process: `python compact_store.py ROOT`; prints seconds after import as JSON."""

import json
import sys
import time
from pathlib import Path

import polars  # noqa: F401
import pyarrow.parquet  # noqa: F401

from orchestrator import collect, ledger
from orchestrator.store import Store


def main(root: str) -> int:
    """Collect all that is new."""
    begun = time.perf_counter()
    number = collect.compact(Store(Path(root)), ledger.read(Path(root)))
    print(json.dumps({"seconds": time.perf_counter() - begun, "manifest": number}))
    return 0 if number else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
