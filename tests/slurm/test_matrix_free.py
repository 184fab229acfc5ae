"""A spectrum without its kernel over two nodes: one command, and the loss of a rank costs the products since the last checkpoint."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from orchestrator import verbs
from tests.slurm.cluster import Cluster, wait_until
from tests.slurm.drivers import here
from tests.slurm.scene import Scene
from workers import entk, taskdir
from workers.snapshots import probe_batch
from workers.workloads.matrix_free_spectrum import MatrixFreeSpectrum

SWEEP = ("workload=matrix_free_spectrum", "site=slurm_dev", "name=k", "resources.nodes=2", "resources.train.nodes=1")
SETTINGS = ("data=digits", "model=cnn", "model.width=4", "num_steps=20", "num_evaluations=2", "probe_size=200", "dtype=float64")


@pytest.fixture
def scene(cluster: Cluster, shared: Path) -> Iterator[Scene]:
    """A store that the nodes see."""
    with Scene(cluster=cluster, folder=shared) as scene:
        yield scene


def attempts(scene: Scene) -> Path:
    (key,) = scene.keys("k", "matrix_free_spectrum")
    return taskdir.task_dir(scene.root, scene.ledger.name_of(key)) / "attempts"


def eigenvalues(scene: Scene) -> np.ndarray:
    with here(scene):
        found: np.ndarray = verbs.load("k", scene.root).spectra().collect().sort("index")["eigenvalue"].to_numpy()
    return found


def exact(scene: Scene) -> np.ndarray:
    """Of the whole kernel of the network that was trained."""
    (key,) = scene.keys("k", "matrix_free_spectrum")
    commit = taskdir.read_commit(scene.root, scene.ledger.name_of(key))
    workload = MatrixFreeSpectrum.from_plain(commit.settings)
    train = taskdir.read_commit(scene.root, commit.inputs["train"])
    module = workload.train.load_snapshot(taskdir.payload_path(scene.root, train, "snapshot-20.safetensors")).double()
    inputs_N, *_ = probe_batch(workload.train, workload.probe_size, "cpu", torch.float64)
    found: np.ndarray = torch.linalg.eigvalsh(entk.gram(module, inputs_N)).numpy()
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_nodes_go_on_after_a_rank_was_killed(scene: Scene) -> None:
    words = (*SWEEP, *SETTINGS, "num_eigenvalues=60", "checkpoint_every_seconds=0", "resources.walltime_minutes=10")
    scene.submit(*words, without="resources.memory_gib")
    scene.drive()
    wait_until(lambda: list(attempts(scene).glob("*/checkpoint-*.json")), 240, "there is a checkpoint")
    listed = scene.cluster.exec("squeue", "--noheader", f"--jobs={scene.job_id('k')}", "--format=%N").strip()
    node = scene.cluster.exec("scontrol", "show", "hostnames", listed).split()[1]
    pids = scene.cluster.on(node, "pgrep", "-f", "[-]m workers.sharded.matrix_free ", check=False).split()
    assert pids, "nothing is left to kill"
    scene.cluster.on(node, "kill", "-9", *pids)
    assert scene.wait_until_settled("k", 480) == {"completed": 2}
    assert len(list(attempts(scene).glob("*/resumed-*.json"))) >= 1
    expected = exact(scene)
    np.testing.assert_allclose(eigenvalues(scene), expected[-60:], rtol=0, atol=1e-10 * expected[-1])
