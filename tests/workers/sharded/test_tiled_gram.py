"""A kernel in tiles by several ranks: against the whole one, through kills, and refused with a reason."""

import dataclasses
import importlib.util
import os
import re
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from batches import PYTHONPATH, REPOSITORY
from safetensors.torch import load_file, save_file
from task_runs import committed, last, task_of

from workers import files, taskdir
from workers.execute import Ended, execute
from workers.models.mlp import Mlp
from workers.sharded.tiles import TileSet, tile_name
from workers.taskdir import Commit
from workers.workloads.gram import Gram
from workers.workloads.tiled_gram import TiledGram
from workers.workloads.train import Train

TRAIN = Train(model=Mlp(width=6, depth=2), num_steps=20, train_size=128)
TILED = TiledGram(train=TRAIN, probe_size=7, dtype="float64", panel_rows=25)  # panels of two images, the last of one
TWO_RANKS = {"cpus": 2, "memory_gib": 4.0}


def attempt(root: Path, workload: TiledGram = TILED, name: str = "first", resources: dict | None = None, **options) -> Ended:
    task = dataclasses.replace(task_of(workload), resources=resources or TWO_RANKS)
    return execute(root, task, attempt=name, code="test", **options)


def commit_of(root: Path, workload: TiledGram = TILED) -> Commit:
    return taskdir.read_commit(root, task_of(workload).commit_name)


def tiles_of(root: Path, workload: TiledGram = TILED) -> TileSet:
    return TileSet.load(taskdir.payload_path(root, commit_of(root, workload), "tiles.json"))


def marks(root: Path, name: str) -> dict[str, int]:
    """Published tile -> inode of its mark, of one attempt."""
    folder = taskdir.attempt_dir(root, task_of(TILED).commit_name, name)
    return {name: (folder / name).stat().st_ino for name in files.names(folder) if name.endswith(".npy.part.json")}


def whole(tiles: TileSet) -> np.ndarray:
    found = np.empty((tiles.num_rows, tiles.num_rows), tiles.dtype)
    for i, j in tiles.panels.pairs():
        rows, columns = (slice(panel.start, panel.stop) for panel in (tiles.panels.rows(i), tiles.panels.rows(j)))
        found[rows, columns] = tiles.tile(i, j)
        found[columns, rows] = tiles.tile(i, j).T
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("trained")
    committed(root, TRAIN)
    return root


@pytest.fixture
def root(trained, tmp_path):
    """A store of its own with the trained network in it."""
    return Path(shutil.copytree(trained, tmp_path / "store"))


@pytest.mark.parametrize("outputs", ["full", "traced"])
def test_tiles_are_the_kernel(root, outputs):
    workload = dataclasses.replace(TILED, outputs=outputs, panel_rows=25 if outputs == "full" else 2)
    attempt(root, workload, reraise=True)
    gram = committed(root, Gram(train=TRAIN, probe_size=7))
    kernel = np.load(taskdir.payload_path(root, gram, f"gram-{outputs}.npy"))
    tiles = tiles_of(root, workload)
    assert np.linalg.norm(whole(tiles) - kernel) <= 1e-13 * np.linalg.norm(kernel)
    assert tiles.frobenius == pytest.approx(np.linalg.norm(kernel), rel=1e-13)
    found, expected = last(commit_of(root, workload)), last(gram)
    assert found["num_tiles"] == 10 and found["num_rows"] == len(kernel)
    assert found["trace"] == pytest.approx(np.trace(kernel) / len(kernel), rel=1e-12)
    assert found["probe_loss"] == pytest.approx(expected["probe_loss"], rel=1e-12)
    names = [payload.name for payload in commit_of(root, workload).files]
    assert set(names) == {"probe.npz", "tiles.json", *(tile_name(pair) for pair in tiles.panels.pairs())}
    assert all(tiles.is_intact(pair) for pair in tiles.panels.pairs())


def test_ranks_that_die_are_started_again_for_what_is_missing(root, monkeypatch):
    monkeypatch.setenv("EIGENSWEEP_FAULT", "25")  # each dies at its 25th change of the file system, two or three tiles later
    attempt(root, reraise=True)
    folder = taskdir.attempt_dir(root, task_of(TILED).commit_name, "first")
    assert {"order-0.json", "order-1.json"} <= set(files.names(folder))
    assert last(commit_of(root))["num_tiles"] == 10


SRUN = """#!{python}
import os, subprocess, sys
words, ranks = sys.argv[sys.argv.index("--") + 1 :], []
for number in range(2):
    own = {{"SLURM_PROCID": str(number), "SLURM_LOCALID": "0"}} | ({{"PYTHONPATH": "{other}"}} if number else {{}})
    ranks.append(subprocess.Popen(words, env=os.environ | own))
sys.exit(max(rank.wait() for rank in ranks))
"""


def test_a_node_with_another_source_is_refused_and_the_tiles_are_kept(root, monkeypatch, tmp_path):
    other = shutil.copytree(REPOSITORY / "workers", tmp_path / "other" / "workers", ignore=shutil.ignore_patterns("__pycache__"))
    with (other / "errors.py").open("a") as source:
        source.write("# another version\n")
    with monkeypatch.context() as dying:
        dying.setenv("EIGENSWEEP_FAULT", "12")
        dying.setattr("workers.sharded.making.MOST_LAUNCHES", 1)
        attempt(root)
    before = marks(root, "first")
    assert 0 < len(before) < 10
    with monkeypatch.context() as mixed:
        (tmp_path / "bin").mkdir()
        srun = tmp_path / "bin" / "srun"
        srun.write_text(SRUN.format(python=sys.executable, other=other.parent))
        srun.chmod(0o755)
        mixed.setenv("PATH", f"{srun.parent}:{os.environ['PATH']}")
        mixed.setenv("PYTHONPATH", PYTHONPATH)
        ended = attempt(root, name="second", resources={"cpus": 1, "memory_gib": 4.0}, nodes=("n1", "n2"))
    assert ended.outcome == "user_error"
    assert re.match(rf"node \S+ has code \w+, not \w+ as {os.uname().nodename}: all nodes must have the same environment", ended.message)
    assert before.items() <= marks(root, "second").items()
    attempt(root, name="third", reraise=True)
    assert before.items() <= marks(root, "third").items()


def test_a_later_attempt_takes_over_the_tiles_there_are(root, monkeypatch):
    with monkeypatch.context() as dying:
        dying.setenv("EIGENSWEEP_FAULT", "12")
        dying.setattr("workers.sharded.making.MOST_LAUNCHES", 1)
        ended = attempt(root)
    assert "tiles are missing after 1 launches of the ranks" in ended.message
    assert ended.outcome == "killed"
    before = marks(root, "first")
    assert 0 < len(before) < 10
    attempt(root, name="second", reraise=True)
    tiles = tiles_of(root)
    assert before.items() <= marks(root, "second").items()  # hard links, not computed again
    gram = committed(root, Gram(train=TRAIN, probe_size=7))
    kernel = np.load(taskdir.payload_path(root, gram, "gram-full.npy"))
    assert np.linalg.norm(whole(tiles) - kernel) <= 1e-13 * np.linalg.norm(kernel)


def test_a_warned_task_says_how_far_it_has_come(root):
    stop = threading.Event()
    stop.set()
    ended = attempt(root, resources={"cpus": 1, "memory_gib": 4.0}, stop=stop)
    assert "stopped with 0 of 10 tiles published; the next attempt goes on from them" in str(ended)


def test_a_damaged_tile_of_an_earlier_attempt_is_computed_again(root):
    attempt(root, reraise=True)
    damaged = taskdir.attempt_dir(root, task_of(TILED).commit_name, "first")
    name = next(name for name in files.names(damaged) if name.endswith(".npy"))
    body = bytearray((damaged / name).read_bytes())
    body[-3] ^= 4
    (damaged / name).write_bytes(body)
    second = taskdir.attempt_dir(root, task_of(TILED).commit_name, "second")
    attempt(root, name="second")
    assert (second / name).read_bytes() != bytes(body)


def make_not_finite(root: Path) -> str:
    """A weight of the trained network, whose name is returned."""
    path = taskdir.payload_path(root, taskdir.read_commit(root, task_of(TRAIN).commit_name), "snapshot-20.safetensors")
    tensors = load_file(path)
    name = next(iter(tensors))
    tensors[name].view(-1)[0] = float("nan")
    path.unlink()
    save_file(tensors, path)
    return name


def test_a_network_that_is_not_finite_ends_with_its_name(root):
    name = make_not_finite(root)
    attempt(root)
    commit = commit_of(root)
    assert commit.status == "diverged" and "1 entries that are not finite" in commit.message and name in commit.message


def test_too_little_memory_is_said_before_a_rank_starts(root):
    ended = attempt(root, resources={"cpus": 4, "memory_gib": 1.5})
    said = r"resources\.memory_gib must be at least 2\.\d+ for 4 ranks of a node with tiles of 20 rows, got 1\.5; any of these would do"
    assert re.search(said, ended.message)


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed: make setup, or pip install '.[ray]'")
def test_tiles_by_actors_of_ray_are_the_same(root):
    by_ray = dataclasses.replace(TILED, ray=True)
    attempt(root, reraise=True)
    attempt(root, by_ray, reraise=True)  # here under a key of its own
    found, expected = (tiles_of(root, workload).facts for workload in (by_ray, TILED))
    assert {pair: facts.sha256 for pair, facts in found.items()} == {pair: facts.sha256 for pair, facts in expected.items()}
