"""A kernel over three nodes whose tiles Ray's actors make: what is killed in the middle costs no tile that is there, and leaves nothing."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from ray_here import needs_ray

from tests.slurm.cluster import REPOSITORY, Cluster, wait_until
from tests.slurm.scene import Scene
from tests.slurm.test_kernel_spectrum import (
    LONG,
    NUM_TILES,
    SWEEP,
    assert_eigenvalues,
    attempts_of,
    cut_a_node,
    kill_the_task,
    made,
    nodes,
    published,
    tiles_of,
)

pytestmark = [needs_ray, pytest.mark.slow, pytest.mark.timeout(1500)]

NODES = ("n1", "n2", "n3", "n4")
SURVIVES = ("launcher.sbatch={no-kill: true}",)
BEFORE_A_KILL = 6
NEXT_RAY = "from workers.sharded.ray_node import clear_abandoned; clear_abandoned()"
# in flight at a kill: one tile for each actor
ACTORS = 3


@pytest.fixture
def scene(cluster: Cluster, shared: Path) -> Iterator[Scene]:
    """A store that the nodes see, none of which has a folder of Ray of an earlier test."""
    clear(cluster, NODES)
    with Scene(cluster=cluster, folder=shared) as scene:
        yield scene


def clear(cluster: Cluster, names: Sequence[str]) -> None:
    """What the next Ray on a node does with the folder of one whose keeper was killed."""
    for node in names:
        cluster.on(node, "env", f"PYTHONPATH={REPOSITORY}", sys.executable, "-P", "-c", NEXT_RAY)


def processes_on(cluster: Cluster, node: str) -> str:
    """Of Ray or of a task, and what these share of the memory."""
    found = cluster.on(node, "pgrep", "-fl", "[w]orkers|[r]aylet|[g]cs_server|[r]ay::|[r]ay_node", check=False)
    return (found + cluster.on(node, "sh", "-c", "ls -d /dev/shm/*ray* /dev/shm/plasma* 2>/dev/null", check=False)).strip()


def folders_on(cluster: Cluster, node: str) -> str:
    """Of Ray: tokens, sockets and logs."""
    return cluster.on(node, "sh", "-c", "ls -d /tmp/r[0-9]*_* 2>/dev/null", check=False).strip()


def pids(scene: Scene, node: str, pattern: str) -> list[str]:
    return scene.cluster.on(node, "pgrep", "-f", pattern, check=False).split()


def actor(scene: Scene) -> None:
    """SIGKILL to one on another node than the driver's."""
    node = nodes(scene)[1]
    (pid,) = pids(scene, node, "^ray::Actor")
    scene.cluster.on(node, "kill", "-9", pid)


def raylet(scene: Scene) -> None:
    """SIGKILL to that of another node."""
    _kill_a_raylet(scene, 2)


def first_raylet(scene: Scene) -> None:
    """SIGKILL to that of the driver's node, at which Ray ends the driver."""
    _kill_a_raylet(scene, 0)


def _kill_a_raylet(scene: Scene, number: int) -> None:
    node = nodes(scene)[number]
    (pid,) = pids(scene, node, "^[^ ]*raylet/raylet ")
    scene.cluster.on(node, "kill", "-9", pid)


@pytest.mark.parametrize(
    ("kill", "words", "most_attempts"),
    [(actor, (), 1), (raylet, (), 1), (first_raylet, (), 2), (kill_the_task, (), 2), (cut_a_node, (), 2), (cut_a_node, SURVIVES, 1)],
    ids=["an_actor", "a_raylet", "the_first_raylet", "the_driver", "power_of_a_node", "power_of_a_node_that_may_go"],
)
def test_what_is_killed_costs_the_tiles_in_work(scene: Scene, kill: Callable[[Scene], None], words: tuple[str, ...], most_attempts: int):
    scene.submit(*SWEEP, *LONG, "gram.ray=true", *words, without="resources.memory_gib")
    scene.drive()
    wait_until(lambda: len(published(scene)) >= BEFORE_A_KILL, 300, f"{BEFORE_A_KILL} tiles are published")
    before = published(scene)
    assert len(before) < NUM_TILES, "nothing is left to kill"
    kill(scene)
    assert scene.wait_until_settled("k", 900) == {"completed": 3}
    tiles = tiles_of(scene)
    kept = {path.name: path.stat().st_ino for path in (tiles.path(*pair) for pair in tiles.panels.pairs())}
    assert len(kept) == NUM_TILES
    assert {name: kept[name] for name in before} == before
    twice = made(scene) - NUM_TILES
    print(f"{len(before)} tiles before the kill, {twice} of {NUM_TILES} made twice; {attempts_of(scene)} attempts")
    assert twice <= ACTORS
    assert attempts_of(scene) <= most_attempts
    assert_eigenvalues(scene, tiles)
    assert_nothing_is_left(scene, ended_by_slurm=most_attempts > 1)


def assert_nothing_is_left(scene: Scene, *, ended_by_slurm: bool) -> None:
    """On any node that is up, once its jobs are over. A keeper that SLURM has ended with the job leaves a folder to the next Ray there."""
    cluster = scene.cluster
    wait_until(lambda: not cluster.exec("squeue", "--noheader"), 120, "the queue is empty")
    up = [node for node in NODES if "idle" in cluster.exec("sinfo", "-hN", "-p", "debug", "-n", node, "-o", "%T")]
    assert len(up) >= len(NODES) - 1
    wait_until(lambda: not any(processes_on(cluster, node) for node in up), 120, "no process is left on any node")
    if ended_by_slurm:
        clear(cluster, up)
    assert not {node: found for node in up if (found := folders_on(cluster, node))}
