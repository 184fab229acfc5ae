"""A kernel in tiles, and its eigenvalues, with the least memory that a plan accepts: ranks are held to their share, and complete.

This process has done other tasks before, as a warm child has: what its copies, the ranks, inherit of them is not of their share.
"""

import dataclasses
import re

import pytest
from task_runs import committed, last, task_of

from workers import taskdir
from workers.execute import execute
from workers.models.cnn import Cnn
from workers.models.mlp import Mlp
from workers.sharded.memory import up
from workers.sharded.scalapack import available
from workers.workload import Model, Resources
from workers.workloads.tiled_gram import TiledGram
from workers.workloads.tiled_spectrum import TiledSpectrum
from workers.workloads.train import Train

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
RANKS = 2


def gram(model: Model, **settings) -> TiledGram:
    return TiledGram(train=Train(model=model, num_steps=2, train_size=100), **settings)


def least(workload: TiledGram | TiledSpectrum) -> float:
    """GiB, for two ranks; a plan refuses less."""
    given = Resources(cpus=RANKS, memory_gib=1000.0)
    needed = up(workload.estimate(given).memory_gib)
    assert not workload.estimate(dataclasses.replace(given, memory_gib=needed)).obstacle
    assert workload.estimate(dataclasses.replace(given, memory_gib=needed - 0.02)).obstacle
    return needed


def complete(root, workload):
    task = dataclasses.replace(task_of(workload), resources={"cpus": RANKS, "memory_gib": least(workload)})
    execute(root, task, attempt="first", code="test", reraise=True)
    return taskdir.read_commit(root, task.commit_name)


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        (Mlp(width=64, depth=2), {"probe_size": 300, "panel_rows": 1500}),
        (Mlp(width=512, depth=2), {"probe_size": 64, "panel_rows": 320}),
        (Cnn(width=16), {"probe_size": 128, "panel_rows": 640}),
        (Cnn(width=16), {"probe_size": 64, "panel_rows": 320, "dtype": "float64"}),
        (Cnn(width=64), {"probe_size": 256, "panel_rows": 128, "outputs": "traced"}),
    ],
    ids=str,
)
def test_tiles_complete_with_the_least_memory_that_a_plan_accepts(tmp_path, model, settings):
    workload = gram(model, **settings)
    committed(tmp_path, workload.train)
    assert last(complete(tmp_path, workload))["num_tiles"] == 3


@pytest.mark.parametrize(
    ("engine", "count", "vectors"),
    [
        ("lanczos", 50, 50),
        pytest.param("scalapack", None, 50, marks=pytest.mark.skipif(bool(available()), reason=available())),
        pytest.param("scalapack", None, 600, marks=pytest.mark.skipif(bool(available()), reason=available())),
    ],
)
def test_eigenvalues_complete_with_the_least_memory_that_a_plan_accepts(tmp_path, capfd, engine, count, vectors):
    kernel = gram(Mlp(width=16), probe_size=200, panel_rows=500, dtype="float64")
    committed(tmp_path, kernel.train)
    execute(tmp_path, task_of(kernel), attempt="first", code="test", reraise=True)
    found = complete(tmp_path, TiledSpectrum(gram=kernel, num_eigenvalues=count, num_eigenvectors=vectors, engine=engine))
    assert len(taskdir.read_rows(tmp_path, found, "spectra")["eigenvalue"]) == (count or 2000)
    assert re.search(r"took [\d,]+ products of the kernel with a vector", capfd.readouterr().out)
