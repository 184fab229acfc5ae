"""A kernel of 4096 rows in tiles on disk by two MPI ranks, beside torch on the whole matrix in memory: speed per core, and agreement.

Speed per core: rows by processor second, of all ranks together, with what they wait for each other. torch runs on one thread: alone, and
once on each core, as many at once as there are ranks, since cores share the speed of memory.
"""

import os

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

import argparse
import statistics
import subprocess
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy
import torch
from torch import Tensor

from benchmarks.measure import Bars, heading, interleave, parser, scratch, spread, table
from workers.sharded import scalapack
from workers.sharded.panels import Panels
from workers.sharded.tiles import TileFacts, TileSet, tile_name

PANEL_ROWS = 1024
TORCH = """
import sys, time
import numpy, torch
torch.set_num_threads(1)
kernel = torch.from_numpy(numpy.load(sys.argv[1]))
began = time.process_time()
getattr(torch.linalg, sys.argv[2])(kernel)
print(time.process_time() - began)
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


def by_torch(kernel: Path, processes: int, function: str) -> float:
    """Processor seconds of one of so many processes that run a function of torch.linalg at once, each on one thread."""
    command = [sys.executable, "-c", TORCH, kernel, function]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    return statistics.fmean(float(process.communicate()[0]) for process in running)


def by_ranks(tiles: TileSet, ranks: int, folder: Path, library: str, *, vectors: bool) -> float:
    """Processor seconds of all ranks, reading of tiles and writing of vectors included."""
    os.environ["EIGENSWEEP_SCALAPACK"] = library
    return scalapack.solve(tiles, ranks=ranks, folder=folder, vectors=vectors).cpu_seconds


def compare(kernel: Path, tiles: TileSet, asked: argparse.Namespace, bars: Bars, *, vectors: bool) -> list[list[str]]:
    """The rows of one task."""
    function, task = ("eigh", "eigenvectors too") if vectors else ("eigvalsh", "eigenvalues")
    alone, busy = "torch, one process", f"torch, {asked.ranks} processes at once"
    cases = {alone: partial(by_torch, kernel, 1, function), busy: partial(by_torch, kernel, asked.ranks, function)}
    solvers = {
        f"{asked.ranks} ranks, {name}": library for name, library in (("Debian's", ""), ("MKL's", asked.mkl)) if library or name != "MKL's"
    }
    for name, library in solvers.items():
        cases[name] = partial(by_ranks, tiles, asked.ranks, tiles.folder / "solve", library, vectors=vectors)
    every = interleave(cases, asked.repetitions)
    found = {name: statistics.median(seconds) for name, seconds in every.items()}
    for name, library in solvers.items():
        bars.at_least(f"all {task}: speed per core of {name}, all cores at work", found[busy] / found[name], 1.0 if library else 0.7, "x")
        bars.at_least(f"all {task}: speed per core of {name}, torch alone", found[alone] / found[name], 1.0 if library else 0.7, "x")
    return [[f"all {task}", name, spread(every[name]), *(f"{found[peer] / found[name]:.2f} x" for peer in (alone, busy))] for name in cases]


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
    table(["task", "solver", "processor seconds", "speed per core, of torch's alone", "of torch's, all cores at work"], rows)
    bars.at_most("eigenvalues from tiles against the whole matrix, times 1e10", 1e10 * float((found / expected - 1).abs().max()), 1, "")
    return bars.show(check=not asked.no_check)


if __name__ == "__main__":
    sys.exit(main())
