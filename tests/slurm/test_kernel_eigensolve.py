"""Eigenvalues of a kernel over several nodes of one job: all by ScaLAPACK, some by Lanczos, and a kill in the middle of either."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from orchestrator import verbs
from tests.slurm.cluster import wait_until
from tests.slurm.drivers import here
from tests.slurm.scene import Scene
from tests.slurm.test_kernel_spectrum import (  # noqa: F401
    SMALL,
    assert_eigenvalues,
    assert_freed,
    attempts,
    nodes,
    processes,
    requeue,
    scene,
    tiles_of,
)
from workers import files, taskdir

SWEEP = ("sweep=kernel_spectrum", "site=slurm_dev", "name=k", "resources.walltime_minutes=10", *SMALL)
# 2,500 rows in fifteen tiles
KERNEL = ("model.width=8", "gram.probe_size=250", "gram.panel_rows=500")
# what runs on each node, by engine
RANKS = {"scalapack": "workers.sharded.scalapack_rank", "lanczos": "workers.sharded.answers"}
ALL, SOME = "num_eigenvalues=null", "num_eigenvalues=100"


def begin(scene: Scene, engine: str, num_nodes: int) -> None:  # noqa: F811
    """Submit the sweep, and have somebody tick."""
    asked = (ALL if engine == "scalapack" else SOME, f"engine={engine}", f"resources.nodes={num_nodes}")
    scene.submit(*SWEEP, *KERNEL, *asked, without="resources.memory_gib")
    scene.drive()


def spectrum_attempts(scene: Scene) -> list[Path]:  # noqa: F811
    (key,) = scene.keys("k", "tiled_spectrum")
    folder = taskdir.task_dir(scene.root, scene.ledger.name_of(key)) / "attempts"
    return [folder / name for name in files.names(folder)]


def log_of_the_spectrum(scene: Scene) -> str:  # noqa: F811
    with here(scene):
        (key,) = scene.keys("k", "tiled_spectrum")
        return "\n".join(verbs.logs("k", key, scene.root))


def assert_done(scene: Scene, engine: str) -> None:  # noqa: F811
    """The eigenvalues are those of the tiles, whose maker was started once, and the nodes are free."""
    assert scene.wait_until_settled("k", 900) == {"completed": 3}, log_of_the_spectrum(scene)
    tiles = tiles_of(scene)
    assert_eigenvalues(scene, tiles)
    assert len(files.names(attempts(scene))) == 1
    assert f"engine {engine}: " in log_of_the_spectrum(scene)
    assert_freed(scene)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("engine", "num_nodes"), [("scalapack", 2), ("scalapack", 3), ("lanczos", 3)])
def test_eigenvalues_over_nodes(scene: Scene, engine: str, num_nodes: int) -> None:  # noqa: F811
    begin(scene, engine, num_nodes)
    assert_done(scene, engine)
    with here(scene):
        scalars = verbs.load("k", scene.root).scalars().collect()
    found = dict(zip(scalars["name"], scalars["value"]))
    assert found["residual_norm"] < 1e-9 and found["orthogonality"] < 1e-9 and np.isfinite(found["noise_floor"])


# -- kills --------------------------------------------------------------------------------------------------------------


def kill_a_rank(scene: Scene, module: str) -> None:  # noqa: F811
    node = nodes(scene)[-1]
    scene.cluster.on(node, "kill", "-9", *processes(scene, node, module), check=False)


def cut_a_node(scene: Scene, module: str) -> None:  # noqa: F811
    scene.cluster.kill_node(nodes(scene)[-1])


def requeue_it(scene: Scene, module: str) -> None:  # noqa: F811
    requeue(scene)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("engine", ["scalapack", "lanczos"])
@pytest.mark.parametrize("kill", [kill_a_rank, cut_a_node, requeue_it])
def test_a_kill_in_the_eigensolve_is_made_good(scene: Scene, engine: str, kill: Callable[[Scene, str], None]) -> None:  # noqa: F811
    begin(scene, engine, 3)
    wait_until(lambda: spectrum_attempts(scene), 600, "the eigensolve begins")
    wait_until(lambda: processes(scene, nodes(scene)[-1], RANKS[engine]), 240, f"a rank of {engine} on another node")
    kill(scene, RANKS[engine])
    assert_done(scene, engine)
    assert len(spectrum_attempts(scene)) > 1, "it was over before the kill"
