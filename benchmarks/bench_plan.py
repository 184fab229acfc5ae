"""Planning 10,000 and 100,000 tasks of a grid with 3 axes, from the command to the linked manifest, beside Hydra's compose.

`eigensweep submit --detach launcher=benchmarks.held` does all that a submission does but start a job. Time to manifest: from the start of
the command to the moment when the file system saw the manifest linked (its ctime); the whole command, which ends later, stands beside it.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from measure import (
    EIGENSWEEP,
    PEERS,
    REPOSITORY,
    Bars,
    Ran,
    heading,
    interleave,
    median_of,
    own_seconds,
    parser,
    run,
    scratch,
    spread,
    table,
)
from measure import times as cells

SIZES = {10_000: 100, 100_000: 1000}
BARS = {10_000: 1.5, 100_000: 8.0}
COMPOSED = 50


def grid(num_tasks: int) -> list[str]:
    """Three axes whose product has `num_tasks` points."""
    return [
        "workload=noop",
        f"index=range(0,{SIZES[num_tasks]})",
        "seconds=0,0.5,1,1.5,2,2.5,3,3.5,4,4.5",
        "memory_mib=range(0,10)",
        "name=planned",
    ]


def plan(root: Path, num_tasks: int) -> Ran:
    """`eigensweep plan`, which writes nothing."""
    return run([EIGENSWEEP, "plan", *grid(num_tasks), "--root", root], cwd=REPOSITORY)


def submit(parent: Path, to_manifest: list[float], num_tasks: int) -> Ran:
    """A detached submission in a new store; adds the seconds until the manifest stood there."""
    with scratch(parent) as folder:
        root = folder / "store"
        run([EIGENSWEEP, "init", "--root", root])
        began = time.time()
        ran = run([EIGENSWEEP, "submit", "--detach", "launcher=benchmarks.held", *grid(num_tasks), "--root", root], cwd=REPOSITORY)
        manifests = list(root.glob("sweeps/planned/manifest-*.json"))
        to_manifest.append(os.stat(manifests[0]).st_ctime - began)
        return ran


def compose() -> Ran:
    """Some compositions by Hydra."""
    return run([sys.executable, PEERS / "hydra_compose.py", str(COMPOSED)])


def measure(asked: argparse.Namespace) -> tuple[dict[str, list[Ran]], dict[int, list[float]]]:
    """All cases, interleaved; and the times to the manifest by size."""
    to_manifest: dict[int, list[float]] = {size: [] for size in SIZES}
    with scratch(asked.folder) as folder:
        root = folder / "empty"
        run([EIGENSWEEP, "init", "--root", root])
        plan(root, 10_000)  # warms the caches
        cases: dict[str, Callable[[], Ran]] = {"compose": compose}
        for size in SIZES:
            cases[f"plan {size}"] = partial(plan, root, size)
            cases[f"submit {size}"] = partial(submit, folder, to_manifest[size], size)
        return interleave(cases, asked.repetitions), to_manifest


def show(found: dict[str, list[Ran]], to_manifest: dict[int, list[float]], *, check: bool) -> int:
    """Times and bars."""
    one = statistics.median(own_seconds(ran.output) / COMPOSED for ran in found["compose"])
    rows, bars = [], Bars()
    for size in SIZES:
        manifest = statistics.median(to_manifest[size])
        rows += [
            [f"{size:,}", "eigensweep plan, whole command", *cells(found[f"plan {size}"])],
            [f"{size:,}", "eigensweep submit, command to manifest", spread(to_manifest[size]), ""],
            [f"{size:,}", "eigensweep submit --detach, whole command", *cells(found[f"submit {size}"])],
            [f"{size:,}", f"Hydra's compose of each (from {COMPOSED} points)", f"{size * one:,.0f} s ({size * one / manifest:,.0f} x)", ""],
        ]
        bars.below(f"plan of {size:,} tasks", median_of(found[f"plan {size}"]), BARS[size], "s")
        bars.below(f"command to manifest, {size:,} tasks", manifest, BARS[size], "s")
    table(["tasks", "what", "wall, median (range)", "processor"], rows)
    return bars.show(check=check)


def main() -> int:
    """Measure and show; 1 where a bar is missed."""
    asked = parser(__doc__ or "", repetitions=5).parse_args()
    heading("Planning", asked.folder, ["hydra-core"])
    return show(*measure(asked), check=not asked.no_check)


if __name__ == "__main__":
    sys.exit(main())
