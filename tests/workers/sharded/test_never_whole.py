"""No process holds a whole kernel: neither a rank that makes tiles, nor one that finds eigenvalues, nor the task that waits for them."""

import dataclasses
import math

import numpy as np
import pytest
from task_runs import committed, last, task_of

from tests.workers.sharded.tiles_on_disk import symmetric, written
from workers import files, taskdir
from workers.data.fashion_mnist import FashionMnist
from workers.execute import execute
from workers.models.mlp import Mlp
from workers.sharded import scalapack
from workers.sharded.tiles import TileSet
from workers.workloads.tiled_gram import TiledGram
from workers.workloads.tiled_spectrum import TiledSpectrum
from workers.workloads.train import Train

NUM_ROWS, PANEL_ROWS = 12_000, 1500
KERNEL_BYTES = 8 * NUM_ROWS**2
RESOURCES = {"cpus": 2, "memory_gib": 6.0}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Small images, so that what a process holds beside its tiles is Python and torch."""
    generator = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "small.npz"
    counts = {"train": 128, "test": NUM_ROWS}
    images = {f"x_{split}": generator.integers(0, 256, (count, 6, 6), dtype=np.uint8) for split, count in counts.items()}
    labels = {f"y_{split}": np.arange(count, dtype=np.uint8) % 10 for split, count in counts.items()}
    np.savez(path, **images, **labels)
    return FashionMnist(path=str(path))


def run(root, workload):
    task = dataclasses.replace(task_of(workload), resources=RESOURCES)
    execute(root, task, attempt="first", code="test", reraise=True)
    return taskdir.read_commit(root, task.commit_name)


def peaks(root, commit):
    """Of the ranks of an attempt, as they told them at their end."""
    folder = taskdir.attempt_dir(root, commit.name, "first")
    told = [files.read(folder / name) for name in files.names(folder) if name.startswith("order-") and "-ended-" in name]
    return [one["peak_bytes"] for one in told]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_kernel_and_its_largest_eigenvalues(tmp_path, data):
    train = Train(data=data, model=Mlp(width=4, depth=2), num_steps=5, train_size=64)
    gram = TiledGram(train=train, probe_size=NUM_ROWS, outputs="traced", dtype="float64", panel_rows=PANEL_ROWS)
    committed(tmp_path, train)
    made = run(tmp_path, gram)
    tiles = TileSet.load(taskdir.payload_path(tmp_path, made, "tiles.json"))
    solved = run(tmp_path, TiledSpectrum(gram=gram, num_eigenvalues=3, num_eigenvectors=3, num_probes=4, engine="lanczos"))
    assert tiles.num_rows == NUM_ROWS and math.isfinite(last(solved)["residual_norm"])
    assert max(one.peak_bytes for one in tiles.facts.values()) < KERNEL_BYTES
    for commit in (made, solved):
        assert len(peaks(tmp_path, commit)) == 2
        assert max(peaks(tmp_path, commit)) < KERNEL_BYTES
        assert commit.peak_memory_mib * 2**20 < KERNEL_BYTES  # of the task, which waits for them


@pytest.mark.slow
def test_all_eigenvalues(tmp_path):
    if reason := scalapack.available():
        pytest.skip(f"no ScaLAPACK here: {reason}")
    tiles = written(tmp_path, symmetric(4096), 1024)
    found = scalapack.solve(tiles, ranks=4, folder=tmp_path / "solve")
    assert len(found.eigenvalues_R) == 4096
    assert found.memory_bytes < 8 * 4096**2
