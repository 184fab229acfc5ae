"""A kernel of 4096 rows in tiles on disk by two MPI ranks, beside torch on the whole matrix in memory: speed per core, and agreement.

Speed per core: rows by core second, which are seconds of clock times the cores that are held: those of the ranks, with what they wait for
each other, beside those of torch with as many threads as there are ranks, since cores share the speed of memory. torch on one thread, with
the other core idle, is shown too.
"""

import os

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

import argparse
import statistics
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy
import torch
from torch import Tensor

from benchmarks.measure import Bars, heading, interleave, parser, scratch, spread, table
from benchmarks.measure import run as measured
from workers.sharded import scalapack
from workers.sharded.panels import Panels
from workers.sharded.tiles import TileFacts, TileSet, tile_name

PANEL_ROWS = 1024
TORCH = """
import sys, time
import numpy, torch
threads = int(sys.argv[3])
torch.set_num_threads(threads)
kernel = torch.from_numpy(numpy.load(sys.argv[1]))
began = time.perf_counter()
getattr(torch.linalg, sys.argv[2])(kernel)
print(threads * (time.perf_counter() - began))
"""


def wishart(size: int) -> Tensor:
    """Of features without structure: no eigenvectors that divide and conquer could leave out."""
    features = torch.randn(size, 2 * size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return features @ features.T / (2 * size)


def in_tiles(kernel: Tensor, folder: Path) -> TileSet:
    """The tiles of a kernel; what certifies them is left out."""
    panels, facts = Panels(len(kernel), PANEL_ROWS), []
    for i, j in panels.pairs():
        rows, columns = panels.rows(i), panels.rows(j)
        numpy.save(folder / tile_name((i, j)), kernel[rows.start : rows.stop, columns.start : columns.stop].numpy())
        facts.append(TileFacts(row=i, column=j, sha256="", squares=0.0, trace=0.0, seconds=0.0, peak_bytes=0))
    return TileSet.of(panels, "float64", folder, facts)


def by_torch(kernel: Path, function: str, threads: int) -> float:
    """Core seconds of a function of torch.linalg in a process of its own."""
    threads_of = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    told = measured([sys.executable, "-c", TORCH, kernel, function, str(threads)], **threads_of)
    return float(told.output)


def by_ranks(tiles: TileSet, ranks: int, folder: Path, library: str, *, vectors: bool) -> float:
    """Core seconds of all ranks, reading of tiles and writing of vectors included."""
    os.environ["EIGENSWEEP_SCALAPACK"] = library
    return ranks * scalapack.solve(tiles, ranks=ranks, folder=folder, vectors=vectors).seconds


def compare(kernel: Path, tiles: TileSet, asked: argparse.Namespace, bars: Bars, *, vectors: bool) -> list[list[str]]:
    """The rows of one task."""
    function, task = ("eigh", "eigenvectors too") if vectors else ("eigvalsh", "eigenvalues")
    same, alone = f"torch, {asked.ranks} threads", "torch, one thread"
    cases = {same: partial(by_torch, kernel, function, asked.ranks), alone: partial(by_torch, kernel, function, 1)}
    libraries = {"Debian's": ""} | ({"MKL's": asked.mkl} if asked.mkl else {})
    for name, library in libraries.items():
        cases[f"{asked.ranks} ranks, {name}"] = partial(by_ranks, tiles, asked.ranks, tiles.folder / "solve", library, vectors=vectors)
    every = interleave(cases, asked.repetitions)
    found = {name: statistics.median(seconds) for name, seconds in every.items()}
    for name, library in libraries.items():
        ratio = found[same] / found[f"{asked.ranks} ranks, {name}"]
        bars.at_least(f"all {task}: speed per core of {name} over torch's", ratio, 1.0 if library else 0.7, "x")
    return [[f"all {task}", name, spread(every[name]), *(f"{found[peer] / found[name]:.2f} x" for peer in (same, alone))] for name in cases]


def main() -> int:
    """Measure and show; 1 where a bar is missed."""
    made = parser(__doc__ or "", repetitions=3)
    made.add_argument("--size", type=int, default=4096, help="rows of the kernel")
    made.add_argument("--ranks", type=int, default=2, help="MPI ranks, of one thread each")
    made.add_argument("--mkl", default="", help="folder of MKL's libraries, to measure its ScaLAPACK too: pip install mkl, then VENV/lib")
    asked = made.parse_args()
    if reason := scalapack.available():
        print(f"no ScaLAPACK: {reason}")
        return 1
    torch.set_num_threads(1)
    heading("Whole spectra by MPI ranks", asked.folder, ["torch", "numpy"])
    bars, rows, kernel = Bars(), [], wishart(asked.size)
    with scratch(asked.folder) as folder:
        tiles = in_tiles(kernel, folder)
        numpy.save(folder / "kernel.npy", kernel.numpy())
        for vectors in (True, False):
            rows += compare(folder / "kernel.npy", tiles, asked, bars, vectors=vectors)
        os.environ["EIGENSWEEP_SCALAPACK"] = ""
        found = torch.from_numpy(scalapack.solve(tiles, ranks=asked.ranks, folder=folder / "solve").eigenvalues_R)
    expected = torch.linalg.eigvalsh(kernel)
    table(["task", "solver", "core seconds", f"speed per core, of torch's on {asked.ranks}", "of torch's on one"], rows)
    bars.at_most("eigenvalues from tiles against the whole matrix, times 1e10", 1e10 * float((found / expected - 1).abs().max()), 1, "")
    return bars.show(check=not asked.no_check)


if __name__ == "__main__":
    sys.exit(main())
