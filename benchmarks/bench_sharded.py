"""Kernels in tiles: ranks beside one process, from the trained network to its spectrum, and the largest eigenvalues beside ARPACK.

A CNN on Fashion-MNIST, its full kernel in single precision. Every process has one thread; each case is a command of its own, whose start
counts, in a store of its own. `--all` goes on to all eigenvalues, 100 eigenvectors and the entropy (some twenty minutes).
"""

import os

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

import argparse
import json
import shutil
import statistics
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks import sharded_run
from benchmarks.measure import PEERS, Bars, heading, interleave, parser, say, scratch, short, spread, table
from benchmarks.measure import run as measured
from workers import taskdir
from workers.execute import execute

TOLERANCE = 1e-6
WHOLE = "one process, whole kernel in memory"


@dataclass(frozen=True, slots=True)
class Ran:
    """A command: wall seconds, processor seconds of all its processes, the largest memory of one, and the seconds of its parts."""

    seconds: float
    cpu_seconds: float
    peak_gib: float
    parts: dict[str, dict[str, float]]

    def __str__(self) -> str:
        told = ", ".join(f"{name} {short(one['seconds'])} s and {short(one['cpu_seconds'])} s" for name, one in self.parts.items())
        return f"{short(self.seconds)} s, {short(self.cpu_seconds)} s of processor, {self.peak_gib:.2f} GiB ({told})"


def run(trained: Path, folder: Path, asked: argparse.Namespace, ranks: int, engine: str = "") -> Ran:
    """In a store that has the trained network alone."""
    root = folder / f"store-{time.monotonic_ns()}"
    shutil.copytree(trained, root)
    try:
        command = [sys.executable, sharded_run.__file__, root, str(ranks), str(asked.images), str(asked.width), engine]
        ended = measured([word for word in command if word])
    finally:
        shutil.rmtree(root)
    parts = json.loads(ended.output.splitlines()[-1])
    return Ran(ended.seconds, ended.cpu_seconds, max(one["peak_gib"] for one in parts.values()), parts)


def compare(cases: dict[str, "partial[Ran]"], repetitions: int, what: str) -> dict[str, Ran]:
    """Show all; the run of median time of each."""
    found = interleave(cases, repetitions)
    rows = []
    for name, runs in found.items():
        peak = max(ran.peak_gib for ran in runs)
        rows.append([name, spread([ran.seconds for ran in runs]), spread([ran.cpu_seconds for ran in runs]), f"{peak:.2f} GiB"])
    table([what, "wall", "processor", "largest process"], rows)
    return {name: sorted(runs, key=lambda ran: ran.seconds)[len(runs) // 2] for name, runs in found.items()}


def rate(found: dict[int, Ran], what: str, bars: Bars) -> None:
    """Ranks beside one."""
    one, two, four = found[1], found[2], found[4]
    bars.at_least(f"{what}, 2 ranks: speed over one", one.seconds / two.seconds, 1.7, "x")
    bars.at_most(f"{what}, 4 ranks: processor time over that of one", four.cpu_seconds / one.cpu_seconds, 1.3, "x")
    bars.at_most(f"{what}, 4 ranks: memory of the largest", four.peak_gib, sharded_run.RANK_GIB, "GiB")


def end_to_end(trained: Path, folder: Path, index: str, asked: argparse.Namespace, bars: Bars) -> None:
    """To all eigenvalues; beside our own engine for one process, in double precision, and LAPACK in single precision."""
    names = {n: f"{n} MPI rank" + "s" * (n > 1) for n in (1, 2, 4)}
    what = f"kernel, all {asked.images * 10:,} eigenvalues, {sharded_run.NUM_EIGENVECTORS} vectors, entropy"
    runs = compare({name: partial(run, trained, folder, asked, n, "scalapack") for n, name in names.items()}, asked.all, what)
    runs |= compare({WHOLE: partial(run, trained, folder, asked, 1, "whole")}, 1, what)
    for name, ran in runs.items():
        say(f"{name}: {ran}")
    rate({n: runs[name] for n, name in names.items()}, "end to end", bars)
    alone, ours = runs[WHOLE], runs[names[4]]
    bars.at_most("end to end, 4 ranks: processor time over that of one process", ours.cpu_seconds / alone.cpu_seconds, 1.3, "x")
    lapack = largest(index, "whole_tiles.py")[0] + alone.cpu_seconds - alone.parts["eigenvalues"]["cpu_seconds"]
    table(
        ["the same, but eigenvalues by LAPACK in single precision, vectors by Lanczos", "4 ranks' processor time over it"],
        [[f"{short(lapack)} s of processor", f"{ours.cpu_seconds / lapack:.2f} x"]],
    )


def largest(index: str, script: str) -> tuple[float, float]:
    """Processor seconds of a solver with one thread for the largest eigenpairs, and the largest eigenvalue."""
    told = json.loads(measured([sys.executable, PEERS / script, index, str(sharded_run.NUM_EIGENVECTORS), str(TOLERANCE)]).output)
    return told["seconds"], told["largest"]


def beside_arpack(index: str, repetitions: int, bars: Bars) -> None:
    """The largest eigenpairs alone."""
    scripts = ("lanczos_tiles.py", "arpack_tiles.py")
    found = interleave({name: partial(largest, index, name) for name in scripts}, repetitions)
    ours, theirs = (statistics.median(seconds for seconds, _ in found[name]) for name in scripts)
    differs = found[scripts[0]][0][1] / found[scripts[1]][0][1] - 1
    table(
        [f"{sharded_run.NUM_EIGENVECTORS} largest eigenpairs", "processor", "largest differs"],
        [["block Lanczos from the files of the tiles", f"{short(ours)} s", f"{differs:.1e}"],
         ["ARPACK, whole matrix in memory", f"{short(theirs)} s", "0"]],
    )  # fmt: skip
    bars.at_least(f"{sharded_run.NUM_EIGENVECTORS} largest: ARPACK's time over ours", theirs / ours, 3.0, "x")


def main() -> int:
    made = parser(__doc__.splitlines()[0], 3)
    made.add_argument("--images", type=int, default=2048, help="of the probe set; ten rows each")
    made.add_argument("--width", type=int, default=16, help="filters of the CNN")
    made.add_argument(
        "--all", type=int, nargs="?", const=1, default=0, metavar="REPETITIONS", help="all eigenvalues, too, 12 minutes and 7 more for each"
    )
    asked = made.parse_args()
    heading(__doc__.splitlines()[0], asked.folder, ["torch", "numpy", "scipy"])
    torch.set_num_threads(1)
    bars, gram = Bars(), sharded_run.gram_of(asked.images, asked.width)
    with scratch(asked.folder) as folder:
        trained, kept = folder / "trained", folder / "kept"
        trained.mkdir()
        execute(trained, sharded_run.task_of(gram.train, 1), attempt="first", code="benchmark", reraise=True)
        ranks = {n: f"{gram.num_rows():,} rows, {n} rank" + "s" * (n > 1) for n in (1, 2, 4)}
        cases = {name: partial(run, trained, folder, asked, n) for n, name in ranks.items()}
        runs = compare(cases, asked.repetitions, "kernel in tiles")
        rate({n: runs[name] for n, name in ranks.items()}, "kernel", bars)
        shutil.copytree(trained, kept)
        sharded_run.run(kept, gram, 2)
        index = str(taskdir.payload_path(kept, taskdir.read_commit(kept, sharded_run.task_of(gram, 1).commit_name), "tiles.json"))
        beside_arpack(index, asked.repetitions, bars)
        if asked.all:
            end_to_end(trained, folder, index, asked, bars)
    return bars.show(check=not asked.no_check)


if __name__ == "__main__":
    sys.exit(main())
