"""`submit sweep=kernel_spectrum` over three nodes: one command, and a kill in the middle costs no tile that is there."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from orchestrator import verbs
from tests.slurm.cluster import Cluster, wait_until
from tests.slurm.drivers import here
from tests.slurm.scene import Scene
from workers import files, taskdir
from workers.sharded.tiles import INDEX, TileSet

SMALL = ("data=digits", "model=cnn", "train_size=1400", "test_size=297", "num_steps=20", "num_evaluations=2", "gram.dtype=float64")
SWEEP = ("sweep=kernel_spectrum", "site=slurm_dev", "name=k", "resources.nodes=3", "resources.walltime_minutes=10", *SMALL)
# 55 tiles of about half a second each
LONG = ("model.width=64", "gram.probe_size=250", "gram.panel_rows=250")
NUM_TILES = 55
RANKS = 3
BEFORE_A_KILL = 6


@pytest.fixture
def scene(cluster: Cluster, shared: Path) -> Iterator[Scene]:
    """A store that the nodes see."""
    with Scene(cluster=cluster, folder=shared) as scene:
        yield scene


def begin(scene: Scene, *words: str) -> None:
    """Submit the sweep, and have somebody tick."""
    scene.submit(*SWEEP, *LONG, *words, without="resources.memory_gib")
    scene.drive()


# -- tiles --------------------------------------------------------------------------------------------------------------


def attempts(scene: Scene) -> Path:
    (key,) = scene.keys("k", "tiled_gram")
    return taskdir.task_dir(scene.root, scene.ledger.name_of(key)) / "attempts"


def published(scene: Scene) -> dict[str, int]:
    """Tile -> inode, of those that a later attempt could take over."""
    marks = attempts(scene).glob("*/tile-*.part.json")
    files_ = (mark.with_name(mark.name.removesuffix(".part.json")) for mark in marks)
    return {path.name: path.stat().st_ino for path in files_}


def made(scene: Scene) -> int:
    """Tiles that were ever computed to their end, those made twice counted twice: a file that was taken over is one inode."""
    return len({(path.name, path.stat().st_ino) for path in attempts(scene).glob("*/tile-*.npy")})


def wait_for_tiles(scene: Scene, number: int = BEFORE_A_KILL) -> dict[str, int]:
    """Until so many are published; which."""
    wait_until(lambda: len(published(scene)) >= number, 240, f"{number} tiles are published")
    found = published(scene)
    assert len(found) < NUM_TILES, "nothing is left to kill"
    return found


def tiles_of(scene: Scene) -> TileSet:
    (key,) = scene.keys("k", "tiled_gram")
    commit = taskdir.read_commit(scene.root, scene.ledger.name_of(key))
    return TileSet.load(taskdir.payload_path(scene.root, commit, INDEX))


def assert_all_went_well(scene: Scene, before: dict[str, int], most_twice: int = RANKS) -> None:
    """Once all is done: what was published before the kill is in the commit, and no more was made again than was in work."""
    assert scene.wait_until_settled("k", 600) == {"completed": 3}
    tiles = tiles_of(scene)
    kept = {path.name: path.stat().st_ino for path in (tiles.path(*pair) for pair in tiles.panels.pairs())}
    assert len(kept) == NUM_TILES
    assert {name: kept[name] for name in before} == before
    twice = made(scene) - NUM_TILES
    print(f"{len(before)} tiles before the kill, {twice} of {NUM_TILES} made twice; {attempts_of(scene)} attempts")
    assert twice <= most_twice
    assert_eigenvalues(scene, tiles)
    assert_freed(scene)


def attempts_of(scene: Scene) -> int:
    return len(files.names(attempts(scene)))


# -- results ------------------------------------------------------------------------------------------------------------


def assert_eigenvalues(scene: Scene, tiles: TileSet) -> None:
    """The dataset has the eigenvalues of these tiles."""
    with here(scene):
        dataset = verbs.load("k", scene.root)
        found = dataset.spectra().collect().sort("index")["eigenvalue"].to_numpy()
        scalars = dataset.scalars().collect()
    expected = np.linalg.eigvalsh(tiles.whole())
    np.testing.assert_allclose(found, expected[-len(found) :], atol=1e-10 * expected[-1])
    assert {"probe_loss", "noise_floor", "residual_norm"} < set(scalars["name"])


def leftovers(cluster: Cluster, node: str) -> str:
    return cluster.on(node, "pgrep", "-fl", "[w]orkers|[r]aylet|[g]cs_server|[r]ay::|[o]rted|[m]pirun", check=False).strip()


def assert_freed(scene: Scene) -> None:
    """No job is left, nor a process on any node."""
    cluster = scene.cluster
    wait_until(lambda: not cluster.exec("squeue", "--noheader"), 60, "the queue is empty")
    up = [node for node in ("n1", "n2", "n3", "n4") if "idle" in cluster.exec("sinfo", "-hN", "-p", "debug", "-n", node, "-o", "%T")]
    wait_until(lambda: not any(leftovers(cluster, node) for node in up), 30, "nothing runs on any node")


def test_one_command_from_the_network_to_the_eigenvalues(scene: Scene) -> None:
    """Training on one node, tiles and eigenvalues on three."""
    words = ("model.width=8", "gram.probe_size=24", "gram.panel_rows=60", "num_eigenvalues=20")
    scene.submit(*SWEEP, *words, without="resources.memory_gib")
    scene.drive()
    assert scene.wait_until_settled("k", 240) == {"completed": 3}
    assert_eigenvalues(scene, tiles_of(scene))
    assert_freed(scene)


@pytest.mark.slow
def test_status_says_how_many_tiles_are_there_and_how_fast_they_come(scene: Scene) -> None:
    begin(scene)
    words = re.compile(rf"^tiled_gram.* \d+ %: \d+ of {NUM_TILES} tiles, [\d.e+-]+ a second, about \d+ s left$")
    wait_until(lambda: any(map(words.match, scene.status("k")["running"])), 240, "status tells of tiles")
    scene.command("cancel", "k")


# -- kills --------------------------------------------------------------------------------------------------------------


def processes(scene: Scene, node: str, module: str) -> list[str]:
    """Ids, on the node, of those that run a module."""
    return scene.cluster.on(node, "pgrep", "-f", f"[-]m {module} ", check=False).split()


def nodes(scene: Scene) -> list[str]:
    """Of the job, the one with the task's own process first."""
    listed = scene.cluster.exec("squeue", "--noheader", f"--jobs={scene.job_id('k')}", "--format=%N").strip()
    return scene.cluster.exec("scontrol", "show", "hostnames", listed).split()


def kill_a_rank(scene: Scene) -> None:
    node = nodes(scene)[1]
    (pid,) = processes(scene, node, "workers.sharded.making")
    scene.cluster.on(node, "kill", "-9", pid)


def cut_a_node(scene: Scene) -> None:
    scene.cluster.kill_node(nodes(scene)[1])


def kill_the_task(scene: Scene) -> None:
    node = nodes(scene)[0]
    (pid,) = processes(scene, node, "workers.child")
    scene.cluster.on(node, "kill", "-9", pid)


def requeue(scene: Scene) -> None:
    scene.cluster.exec("scontrol", "requeue", scene.job_id("k"))


def cancel_and_resume(scene: Scene) -> None:
    scene.cluster.exec("scancel", scene.job_id("k"))
    wait_until(lambda: scene.counts("k").get("cancelled") == 1, 60, "it is known to be cancelled")
    scene.command("resume", "k", "--detach")


def kill_the_driver(scene: Scene) -> None:
    assert scene.driver is not None
    scene.driver.kill()
    scene.driver.wait()


KILLS = (kill_a_rank, cut_a_node, kill_the_task, requeue, cancel_and_resume, kill_the_driver)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kill", KILLS)
def test_a_kill_costs_the_tiles_in_work(scene: Scene, kill: Callable[[Scene], None]) -> None:
    begin(scene)
    before = wait_for_tiles(scene)
    kill(scene)
    assert_all_went_well(scene, before)
