"""Tiles by Ray whose worker, node or driver is killed in the middle: they are finished, and none that was published is made again."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from batches import PYTHONPATH, is_gone, wait_for
from job_package.tiled import Tiled
from ray_here import held, needs_ray, ray_here  # noqa: F401
from task_runs import task_of

from workers import taskdir
from workers.execute import Ended, execute
from workers.sharded import ray_node, ray_pool

pytestmark = needs_ray
FREE, NUM_TILES = 3, 10

DRIVER = """
import json, os, sys
from pathlib import Path
from workers.execute import execute
from workers.taskdir import Task

def report(message):
    node = getattr(sys.modules.get("ray._private.worker"), "_global_node", None)
    if node is not None:
        (folder / "mine").write_text(node.raylet_socket_name)

root, folder, task, *nodes = sys.argv[1:]
root, folder = Path(root), Path(folder)
ended = execute(root, Task(**json.loads(task)), attempt="first", code="test", nodes=tuple(nodes), report=report)
print(ended.outcome, ended.message, flush=True)
"""

SRUN = """#!/bin/sh
while [ "$1" != "--" ]; do shift; done
shift
exec "$@"
"""


@dataclasses.dataclass
class Scene:
    """A store, and a folder in which each tile that was begun has left a file."""

    root: Path
    folder: Path

    def task(self, **settings: object) -> taskdir.Task:
        """Of one key, whatever its settings are."""
        tiled = Tiled(folder=str(self.folder), **settings)
        return dataclasses.replace(task_of(Tiled()), settings=tiled.to_plain())

    def attempt(self, name: str, **settings: object) -> Ended:
        """In this process, by two workers of the Ray that is there."""
        (self.folder / "go").touch()
        return execute(self.root, self.task(address=held().address, **settings), attempt=name, code="test")

    def driver(self, nodes: tuple[str, ...] = (), more: dict[str, str] | None = None, **settings: object) -> "subprocess.Popen[str]":
        """The first attempt, by another process."""
        task = json.dumps(self.task(free=FREE, **settings).to_plain())
        return subprocess.Popen(
            [sys.executable, "-P", "-c", DRIVER, str(self.root), str(self.folder), task, *nodes],
            env={**os.environ, "PYTHONPATH": PYTHONPATH, **(more or {})},
            stdout=subprocess.PIPE,
            text=True,
        )

    def begun(self) -> Counter[str]:
        """How often each tile was begun."""
        return Counter(path.name.rsplit("-", 1)[0] for path in self.folder.glob("begun-*"))

    def makers(self) -> set[int]:
        """Process ids of all that have begun a tile."""
        return {int(text) for path in self.folder.glob("begun-*") if (text := path.read_text())}

    def published(self) -> set[str]:
        """The tiles that attempts have published, by the beginnings of their names."""
        attempts = taskdir.task_dir(self.root, self.task().commit_name) / "attempts"
        names = [path.name.removesuffix(".npy.part.json") for path in attempts.glob("*/tile-*.npy.part.json")]
        return {"begun-" + "-".join(str(int(word)) for word in name.split("-")[1:]) for name in names}

    def wait_for_the_middle(self, driver: "subprocess.Popen[str]") -> set[str]:
        """Until two workers are at a tile; those that are published then."""

        def is_there() -> bool:
            assert driver.poll() is None, driver.communicate()
            return len(self.published()) == FREE and sum(self.begun().values()) == FREE + 2

        wait_for(is_there, "two workers in a tile", 120)
        return self.published()

    def is_whole(self) -> bool:
        """All tiles are in the commit."""
        return taskdir.read_commit(self.root, self.task().commit_name).rows["scalars"]["value"] == [NUM_TILES]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    for name in ("store", "folder"):
        (tmp_path / name).mkdir()
    return Scene(tmp_path / "store", tmp_path / "folder")


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """For the folders of Rays of our own."""
    with tempfile.TemporaryDirectory(prefix="k", dir="/tmp") as short:
        monkeypatch.setenv("EIGENSWEEP_RAY_DIR", short)
        yield Path(short)


@pytest.mark.usefixtures("ray_here")
def test_the_tile_of_a_killed_worker_is_made_by_another_and_no_other_twice(scene, capfd):
    ended = scene.attempt("first", deaths=2)
    assert ended.outcome == "completed", ended
    assert scene.is_whole()
    assert scene.begun().pop("begun-1-2") == 3
    assert sum(scene.begun().values()) == NUM_TILES + 2
    said = capfd.readouterr().out
    assert said.count("Ray: a worker was lost on") == 2 and "which is done elsewhere" in said
    assert "Ray: 10 of 10 calls" in said and "2 done again" in said


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_tiles_of_a_killed_driver_are_kept_and_its_workers_end(scene):
    driver = scene.driver(address=held().address)
    kept = scene.wait_for_the_middle(driver)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    wait_for(lambda: all(map(is_gone, scene.makers())), "its workers to end", 60)
    assert scene.published() == kept
    assert scene.attempt("second").outcome == "completed"
    assert scene.is_whole()
    assert all(scene.begun()[name] == 1 for name in kept)
    assert sum(scene.begun().values()) == NUM_TILES + 2


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_tiles_stay_where_a_node_of_other_code_is_refused(scene, monkeypatch):
    lost = scene.attempt("first", deaths=3)
    kept = scene.published()
    assert lost.outcome == "killed", "a later attempt may have better luck"
    assert "has ended 3 workers" in lost.message and "what is published is kept" in lost.message
    assert 0 < len(kept) < NUM_TILES
    with monkeypatch.context() as other:
        ours = ray_node.node_versions()
        other.setattr(ray_pool, "node_versions", lambda: {**ours, "python": "3.99.0", "host": "login"})
        refused = scene.attempt("second")
    assert "3.99.0 as login: all nodes must have the same environment and source; nothing was computed there" in refused.message
    assert os.uname().nodename in refused.message
    assert scene.published() == kept
    assert scene.attempt("third").outcome == "completed"
    assert scene.is_whole()
    assert all(scene.begun()[name] == 1 for name in kept)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
@pytest.mark.parametrize("whose", ["other", "own"])
def test_the_loss_of_a_raylet_costs_no_tile_that_was_published(scene, place, tmp_path, whose):
    srun = tmp_path / "srun"
    srun.write_text(SRUN)
    srun.chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    driver = scene.driver((os.uname().nodename, "localhost"), path, ranks=1)
    try:
        kept = scene.wait_for_the_middle(driver)
        before = scene.makers()
        mine = wait_for(lambda: (scene.folder / "mine").exists() and (scene.folder / "mine").read_text(), "the driver's own node")
        raylets = {Path(socket).parts[3]: pid for pid, socket in _raylets(place)}
        own = Path(mine).parts[3]
        (other,) = raylets.keys() - {own}
        os.kill(raylets[own if whose == "own" else other], signal.SIGKILL)
        wait_for(lambda: any(map(is_gone, before)), "its worker to end", 60)
        (scene.folder / "go").touch()
        said, _ = driver.communicate(timeout=180)
    finally:
        driver.kill()
        driver.wait()
    wait_for(lambda: not list(place.iterdir()), "nothing to be left", 60)
    if whose == "other":
        assert "completed" in said.split()
        assert sum(scene.begun().values()) == NUM_TILES + 1
    else:  # Ray ends a driver that has lost the first node
        assert driver.returncode != 0
        assert scene.attempt("second").outcome == "completed"
    assert scene.is_whole()
    assert all(scene.begun()[name] == 1 for name in kept)


def _raylets(place: Path) -> list[tuple[int, str]]:
    """Process ids of the raylets below a folder, with the names of their sockets."""
    found = []
    for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        sockets = [word.partition("=")[2] for word in words if word.startswith("--raylet_socket_name=")]
        if words[0].endswith("raylet/raylet") and sockets and sockets[0].startswith(f"{place}/"):
            found.append((pid, sockets[0]))
    return found
