"""Kernels in tiles: ranks beside one process, the tiles' kernel beside the whole one, and the largest eigenvalues beside ARPACK.

A CNN on Fashion-MNIST, its full kernel in single precision. Every process has one thread; times of ranks include their start. Every run
is a task of its own in a store of its own. `--all` also finds all eigenvalues by four ranks beside one process (some ten minutes).
"""

import os

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

import json
import resource
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks.measure import PEERS, Bars, heading, interleave, parser, say, scratch, short, spread, table
from benchmarks.measure import run as measured
from workers import taskdir
from workers.data.fashion_mnist import FashionMnist
from workers.execute import execute
from workers.models.cnn import Cnn
from workers.taskdir import Task
from workers.workload import Workload
from workers.workloads.tiled_gram import TiledGram
from workers.workloads.tiled_spectrum import TiledSpectrum
from workers.workloads.train import Train

NUM_OUTPUTS = 10
RANK_GIB = 1.5
NUM_EIGENVALUES, TOLERANCE = 100, 1e-6


@dataclass(frozen=True, slots=True)
class Ran:
    """A task: wall seconds, processor seconds of all its ranks, and the largest memory of a rank."""

    seconds: float
    cpu_seconds: float
    peak_gib: float

    def __str__(self) -> str:
        return f"{short(self.seconds)} s, {short(self.cpu_seconds)} s of processor, {self.peak_gib:.2f} GiB"


def task_of(workload: Workload, ranks: int) -> Task:
    """A task under a key of its name; its inputs are found under theirs."""
    return Task(
        key=workload.plugin_name().ljust(26, "0"),
        workload=workload.plugin_name(),
        version=workload.version,
        settings=workload.to_plain(),
        inputs={name: task_of(value, ranks).key for name, value in workload.inputs().items()},
        resources={"cpus": ranks, "memory_gib": RANK_GIB * ranks + 1.0},
    )


def run(root: Path, workload: Workload, ranks: int) -> Ran:
    """One attempt at a task."""
    before, began = _cpu(), time.perf_counter()
    execute(root, task_of(workload, ranks), attempt="first", code="benchmark", reraise=True)
    return Ran(time.perf_counter() - began, _cpu() - before, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20)


def _cpu() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def in_a_copy(trained: Path, folder: Path, work: Callable[[Path], Ran]) -> Ran:
    """In a store that has the trained network alone."""
    root = folder / f"store-{time.monotonic_ns()}"
    shutil.copytree(trained, root)
    try:
        return work(root)
    finally:
        shutil.rmtree(root)


def largest(root: Path, gram: TiledGram, script: str) -> tuple[float, float]:
    """Processor seconds of a solver with one thread for the largest eigenpairs, and the largest eigenvalue."""
    index = taskdir.payload_path(root, taskdir.read_commit(root, task_of(gram, 1).commit_name), "tiles.json")
    command = [sys.executable, PEERS / script, index, str(NUM_EIGENVALUES), str(TOLERANCE)]
    told = json.loads(measured(command).output)
    return told["seconds"], told["largest"]


def all_eigenvalues(root: Path, gram: TiledGram, bars: Bars) -> None:
    """By four ranks, with the largest eigenvectors, beside LAPACK and Lanczos in one process that holds the whole kernel."""
    ours = run(root, TiledSpectrum(gram=gram, num_eigenvalues=None, num_eigenvectors=NUM_EIGENVALUES, engine="scalapack"), 4)
    theirs, _ = largest(root, gram, "whole_tiles.py")
    rows = [["4 ranks", str(ours)], ["one process, single precision too", f"{short(theirs)} s of processor"]]
    table([f"all eigenvalues of {gram.num_rows():,} rows, {NUM_EIGENVALUES} vectors", "took"], rows)
    bars.at_most("all eigenvalues by 4 ranks: processor time over that of one process", ours.cpu_seconds / theirs, 1.3, "x")
    bars.at_most("all eigenvalues by 4 ranks: memory of the largest", ours.peak_gib, RANK_GIB, "GiB")


def main() -> int:
    made = parser(__doc__.splitlines()[0], 3)
    made.add_argument("--images", type=int, default=2048, help="of the probe set; ten rows each")
    made.add_argument("--width", type=int, default=16, help="filters of the CNN")
    made.add_argument("--all", action="store_true", help="all eigenvalues, too")
    asked = made.parse_args()
    heading(__doc__.splitlines()[0], asked.folder, ["torch", "numpy", "scipy"])
    torch.set_num_threads(1)
    bars = Bars()
    train = Train(data=FashionMnist(), model=Cnn(width=asked.width, depth=2, input_pooling=2), num_steps=50, train_size=2000)
    gram = TiledGram(train=train, probe_size=asked.images)
    with scratch(asked.folder) as folder:
        trained = folder / "trained"
        trained.mkdir()
        execute(trained, task_of(train, 1), attempt="first", code="benchmark", reraise=True)
        found = interleave(
            {f"{n} ranks": lambda n=n: in_a_copy(trained, folder, lambda root: run(root, gram, n)) for n in (1, 2, 4)}, asked.repetitions
        )
        rows = []
        for name, runs in found.items():
            seconds, cpu = sorted(ran.seconds for ran in runs), sorted(ran.cpu_seconds for ran in runs)
            peak = max(ran.peak_gib for ran in runs)
            rows.append([f"{gram.num_rows():,} rows, {name}", spread(seconds), spread(cpu), f"{peak:.2f} GiB"])
        table(["kernel in tiles", "wall", "processor", "largest rank"], rows)
        one, two, four = (sorted(runs, key=lambda ran: ran.seconds)[len(runs) // 2] for runs in found.values())
        bars.at_least("2 ranks: speed over one", one.seconds / two.seconds, 1.7, "x")
        bars.at_most("4 ranks: processor time over that of one", four.cpu_seconds / one.cpu_seconds, 1.3, "x")
        bars.at_most("4 ranks: memory of the largest", four.peak_gib, RANK_GIB, "GiB")
        root = folder / "kept"
        shutil.copytree(trained, root)
        run(root, gram, 2)
        say("eigenvalues")
        cases = {name: lambda name=name: largest(root, gram, name) for name in ("lanczos_tiles.py", "arpack_tiles.py")}
        ours, theirs = (sorted(runs)[len(runs) // 2] for runs in interleave(cases, asked.repetitions).values())
        table(
            [f"{NUM_EIGENVALUES} largest eigenpairs", "processor", "largest differs"],
            [["block Lanczos from the files of the tiles, with certificate", f"{short(ours[0])} s", f"{ours[1] / theirs[1] - 1:.1e}"],
             ["ARPACK, whole matrix in memory", f"{short(theirs[0])} s", "0"]],
        )  # fmt: skip
        bars.at_least(f"{NUM_EIGENVALUES} largest: ARPACK's time over ours", theirs[0] / ours[0], 3.0, "x")
        if asked.all:
            all_eigenvalues(root, gram, bars)
    return bars.show(check=not asked.no_check)


if __name__ == "__main__":
    sys.exit(main())
