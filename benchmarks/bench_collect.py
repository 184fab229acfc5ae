"""Collecting and compacting 10,000 tasks with 4 rows each, the size of the dataset, loading it, and the inodes of a packed task."""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import stores
from measure import (
    EIGENSWEEP,
    HERE,
    REPOSITORY,
    Bars,
    Ran,
    heading,
    interleave,
    median_of,
    own_seconds,
    parser,
    run,
    say,
    scratch,
    short,
    spread,
    table,
)

NAME, NUM_TASKS, NUM_ROWS = "collected", 10_000, 40_000
GRID = ["workload=benchmarks.four_rows", "width=range(16,116)", "num_samples=range(100,1100,100)", "seed=range(0,10)"]


def uncompacted(root: Path) -> None:
    """A sweep of 10,000 tasks that its job has just finished: nobody has ticked since."""
    run([EIGENSWEEP, "init", "--root", root])
    run([EIGENSWEEP, "submit", "--detach", "launcher=benchmarks.held", *GRID, f"name={NAME}", "--root", root], cwd=REPOSITORY)
    (token,) = os.listdir(root / "batches")
    stores.run_by_hand(root, token, sys.executable)


def tick(source: Path, parent: Path) -> Ran:
    """`eigensweep tick` on a copy: closes the batch, settles the sweep and compacts."""
    with scratch(parent) as folder:
        return run([EIGENSWEEP, "tick", "--root", stores.copied(source, folder / "store")], cwd=REPOSITORY)


def compact(source: Path, parent: Path) -> Ran:
    """`compact` alone on a copy, in a fresh process; its own seconds are those after its imports."""
    with scratch(parent) as folder:
        return run([sys.executable, HERE / "compact_store.py", stores.copied(source, folder / "store")], cwd=REPOSITORY)


def load(root: Path) -> Ran:
    """The scalars in a fresh process; every row must be there."""
    ran = run([sys.executable, HERE / "load_scalars.py", root, NAME], cwd=REPOSITORY)
    rows = json.loads(ran.output.strip().splitlines()[-1])["rows"]
    if rows != NUM_ROWS:
        raise RuntimeError(f"{rows} rows of {NUM_ROWS}")
    return ran


def sizes(root: Path) -> list[tuple[str, int, int]]:
    """(table, rows, bytes) of the dataset, from the files themselves."""
    import pyarrow.parquet as pq

    found = []
    for folder in sorted(path for path in (root / "dataset").iterdir() if path.is_dir()):
        parts = list(folder.rglob("*.parquet"))
        found.append((folder.name, sum(pq.read_metadata(p).num_rows for p in parts), sum(p.stat().st_size for p in parts)))
    return found


def readers(root: Path) -> dict[str, Callable[[], int]]:
    """Row counts of the scalars by each library that a user may prefer."""
    import duckdb
    import pandas
    import polars
    import pyarrow.parquet as pq

    import eigensweep as es

    paths = [str(path) for path in es.load(NAME, root).files("scalars")]
    return {
        "polars": lambda: len(polars.read_parquet(paths)),
        "pyarrow": lambda: sum(pq.read_table(path, partitioning=None).num_rows for path in paths),
        "pandas": lambda: sum(len(pandas.read_parquet(path, partitioning=None)) for path in paths),
        "duckdb": lambda: int(duckdb.sql(f"select count(value) from read_parquet({paths})").fetchall()[0][0]),
    }


def inodes(root: Path) -> int:
    """Files and folders of a store, without its frozen code, which all sweeps share."""
    found = {os.stat(root).st_ino}
    for folder, folders, names in os.walk(root):
        if Path(folder) == root:
            folders.remove("code")
        found |= {os.lstat(os.path.join(folder, name)).st_ino for name in [*folders, *names]}
    return len(found)


def measure(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Everything, on copies of one store."""
    fresh, compacted = folder / "fresh", folder / "compacted"
    say("running 10,000 tasks")
    uncompacted(fresh)
    run([EIGENSWEEP, "tick", "--root", stores.copied(fresh, compacted)], cwd=REPOSITORY)
    cases = {
        "tick": partial(tick, fresh, folder),
        "compact": partial(compact, fresh, folder),
        "compacted": partial(load, compacted),
        "uncompacted": partial(load, fresh),
    }
    return {
        **interleave(cases, asked.repetitions),
        "sizes": sizes(compacted),
        "counts": {name: count() for name, count in readers(compacted).items()},
        "inodes": {"before compaction": inodes(fresh), "after": inodes(compacted)},
    }


def show(found: dict[str, Any], *, check: bool) -> int:
    """Tables and bars."""
    loads = {name: [own_seconds(ran.output) for ran in found[name]] for name in ("compacted", "uncompacted")}
    table(
        ["what", "median (range)"],
        [
            ["eigensweep tick: close the batch, settle, compact; whole command", spread([ran.seconds for ran in found["tick"]])],
            ["  its processor time", spread([ran.cpu_seconds for ran in found["tick"]])],
            ["collect and compact alone, after import", spread([own_seconds(ran.output) for ran in found["compact"]])],
            *([f"load scalars into polars, {name}, after import", spread(values)] for name, values in loads.items()),
        ],
    )
    num_rows, num_bytes = (sum(row[i] for row in found["sizes"]) for i in (1, 2))
    everything = [*found["sizes"], ("all", num_rows, num_bytes), ("all, per row that a task yielded", NUM_ROWS, num_bytes)]
    table(
        ["table", "rows", "bytes", "bytes a row"], [[name, f"{rows:,}", f"{size:,}", short(size / rows)] for name, rows, size in everything]
    )
    table(["scalars read by", "rows"], [[name, f"{count:,}"] for name, count in found["counts"].items()])
    table(["inodes a task", ""], [[when, short(count / NUM_TASKS)] for when, count in found["inodes"].items()])
    scalars = next(size / rows for name, rows, size in found["sizes"] if name == "scalars")
    bars = Bars()
    bars.below("collect and compact: tick, whole command", median_of(found["tick"]), 2.0, "s")
    bars.below("dataset, all tables, a row of any table", num_bytes / num_rows, 20, "B")
    bars.below("dataset, scalars alone", scalars, 20, "B")
    bars.below("load, compacted", statistics.median(loads["compacted"]), 0.1, "s")
    bars.below("load, not yet compacted", statistics.median(loads["uncompacted"]), 1.5, "s")
    bars.at_most("inodes a task, once its sweep is finished", found["inodes"]["after"] / NUM_TASKS, 2.0, "")
    bars.at_least("readers that agree on the rows", sum(count == NUM_ROWS for count in found["counts"].values()), len(found["counts"]), "")
    return bars.show(check=check)


def main() -> int:
    """Measure and show; 1 where a bar is missed."""
    asked = parser(__doc__ or "", repetitions=7).parse_args()
    heading("Collect, compact and load 10,000 tasks of 4 rows", asked.folder, ["polars", "pyarrow", "pandas", "duckdb"])
    stores.import_from_repository()
    with scratch(asked.folder) as folder:
        return show(measure(asked, folder), check=not asked.no_check)


if __name__ == "__main__":
    sys.exit(main())
