"""A kernel in tiles, and its eigenvalues, by one attempt each: `sharded_run.py STORE RANKS IMAGES WIDTH [ENGINE]`.

Prints the seconds of each part as JSON, of the clock and of all processors, and the memory of the largest process so far.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from workers.data.fashion_mnist import FashionMnist
from workers.execute import execute
from workers.models.cnn import Cnn
from workers.taskdir import Task
from workers.workload import Workload
from workers.workloads.tiled_gram import TiledGram
from workers.workloads.tiled_spectrum import TiledSpectrum
from workers.workloads.train import Train

RANK_GIB = 1.5
NUM_EIGENVECTORS = 100


def gram_of(images: int, width: int) -> TiledGram:
    """The kernel: of a CNN after a short training."""
    model = Cnn(width=width, depth=2, input_pooling=2)
    return TiledGram(train=Train(data=FashionMnist(), model=model, num_steps=50, train_size=2000), probe_size=images)


def task_of(workload: Workload, ranks: int, memory_gib: float | None = None) -> Task:
    """A task under a key of its name; its inputs are found under theirs."""
    return Task(
        key=workload.plugin_name().ljust(26, "0"),
        workload=workload.plugin_name(),
        version=workload.version,
        settings=workload.to_plain(),
        inputs={name: task_of(value, ranks).key for name, value in workload.inputs().items()},
        resources={"cpus": ranks, "memory_gib": memory_gib or RANK_GIB * ranks + 1.0},
    )


def run(root: Path, workload: Workload, ranks: int, memory_gib: float | None = None) -> dict[str, float]:
    """One attempt at a task."""
    before, began = _cpu(), time.perf_counter()
    execute(root, task_of(workload, ranks, memory_gib), attempt="first", code="benchmark", reraise=True)
    return {"seconds": time.perf_counter() - began, "cpu_seconds": _cpu() - before, "peak_gib": _peak_gib()}


def _cpu() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _peak_gib() -> float:
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF)) / 2**20


def main(store: str, ranks: str, images: str, width: str, engine: str = "") -> None:
    """What is asked for. One process that finds all eigenvalues may take the memory that it needs."""
    import torch

    torch.set_num_threads(1)
    gram = gram_of(int(images), int(width))
    parts = {"kernel": run(Path(store), gram, int(ranks))}
    if engine:
        spectrum = TiledSpectrum(gram=gram, num_eigenvalues=None, num_eigenvectors=NUM_EIGENVECTORS, engine=engine)
        needed_gib = 5 * 8 * gram.num_rows() ** 2 / 2**30 + 2
        parts["eigenvalues"] = run(Path(store), spectrum, int(ranks), needed_gib if int(ranks) == 1 else None)
    print("\n" + json.dumps(parts))


if __name__ == "__main__":
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))
    main(*sys.argv[1:])
