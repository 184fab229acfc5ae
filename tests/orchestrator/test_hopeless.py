"""What could never run is refused before anything is written, by submit and by resume: no Ray, a Ray that is deaf, no memory, no disk."""

import importlib.util
import os
import socket
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest
from batches import PYTHONPATH

from orchestrator import submit
from orchestrator.launchers.ray import Ray
from orchestrator.plan import plan
from orchestrator.status import Status
from orchestrator.store import Store
from orchestrator.watch import Watch
from workers import files, taskdir
from workers.errors import ConfigError
from workers.sharded.tiles import tile_name

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed: make setup, or pip install '.[ray]'")
KERNEL = ("workload=tiled_gram", "name=k1", "launcher=local", "probe_size=300", "panel_rows=1000")
MIB = 2**20


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.init(tmp_path / "store")


def written(store: Store) -> list[str]:
    """What stands in the store of sweeps, entries and batches."""
    return [str(path) for name in ("sweeps", "ledger", "batches", "code") for path in (store.root / name).rglob("*") if path.is_file()]


# -- Ray ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def mute() -> Iterator[int]:
    """A port at which somebody listens who never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@needs_ray
def test_a_ray_that_nobody_is_at_is_refused_before_anything_is_written(store: Store) -> None:
    with pytest.raises(ConfigError, match=r"no Ray answers at '127\.0\.0\.1:1' \(Connection refused\); `ray status --address") as error:
        submit.submit(["workload=noop", "name=n", "launcher=ray", "launcher.address=127.0.0.1:1"], store)
    assert error.value.exit_code == 2
    assert not written(store)


@needs_ray
def test_a_ray_that_does_not_answer_is_refused_when_its_time_is_over(store: Store, mute: int) -> None:
    words = ["workload=noop", "name=n", "launcher=ray", f"launcher.address=127.0.0.1:{mute}", "launcher.answer_seconds=2"]
    with pytest.raises(ConfigError, match=rf"the Ray at 127\.0\.0\.1:{mute} gives no answer within 2 s; nothing was submitted"):
        submit.submit(words, store)
    assert not written(store)


@needs_ray
def test_resume_refuses_a_ray_that_nobody_is_at_any_more(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as there:
        there.setattr(submit, "tick", lambda *arguments: None)
        there.setattr(Ray, "check_jobs", lambda *arguments, submitting: "")
        submit.submit(["workload=noop", "name=n", "launcher=ray", "launcher.address=127.0.0.1:1"], store, detach=True)
    before = written(store)
    with pytest.raises(ConfigError, match=r"no Ray answers at '127\.0\.0\.1:1'"):
        submit.resume("n", store, detach=True)
    assert written(store) == before


@needs_ray
def test_a_plan_asks_no_ray_and_says_so(store: Store) -> None:
    found = plan(["workload=noop", "name=n", "launcher=ray", "launcher.address=127.0.0.1:1"], store)
    assert found.unchecked == "whether the Ray at 127.0.0.1:1 answers and has room is found out by submit"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("plan", "workload=noop", "name=n", "launcher=ray"), "launcher=ray cannot be used: Ray is not installed here: pip install 'eigen"),
        (("submit", "workload=noop", "name=n", "launcher=ray"), "launcher=ray cannot be used: Ray is not installed here: pip install 'eig"),
        (("submit", *KERNEL, "ray=true"), "tiled_gram cannot run: gram.ray=true asks for Ray: Ray is not installed here: pip install 'eig"),
    ],
)
def test_without_ray_it_is_said_what_to_install(store: Store, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['ray'] = None\n")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "orchestrator", *words, "--root", str(store.root)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), PYTHONPATH))},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stdout
    assert message in done.stderr
    assert not written(store)


# -- memory, disk, data -------------------------------------------------------------------------------------------------


def free(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """So many bytes are free on the disk of the store."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("orchestrator.demands.shutil.disk_usage", lambda path: usage(10**12, 10**12 - count, count))


@pytest.fixture
def waiting(store: Store, monkeypatch: pytest.MonkeyPatch) -> Status:
    """A kernel of six tiles that is submitted, and none of whose tasks has been sent."""
    with monkeypatch.context() as idle:
        idle.setattr(submit, "tick", lambda *arguments: None)
        return submit.submit(KERNEL, store, detach=True)


def test_resume_refuses_what_finds_no_room_on_the_disk(store: Store, waiting: Status, monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, MIB)
    before = written(store)
    with pytest.raises(ConfigError, match=r"the files of 1 tasks need 22\.\d MiB of disk, and 1 MiB are free at .*: make room there"):
        submit.resume("k1", store, detach=True)
    assert written(store) == before


def test_resume_refuses_what_finds_no_memory(store: Store, waiting: Status, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.workloads.tiled_gram.COPIES_OF_A_TILE", 3000)
    before = written(store)
    with pytest.raises(ConfigError, match=r"tiled_gram cannot run: resources\.memory_gib must be at least .*; any of these would do"):
        submit.resume("k1", store, detach=True)
    assert written(store) == before


def test_what_earlier_attempts_have_published_needs_no_room_again(store: Store, waiting: Status, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = Watch.of(store).sweep("k1")
    (index,) = [index for index in range(len(sweep.keys)) if sweep.workload(index) == "tiled_gram"]
    attempt = taskdir.attempt_dir(store.root, sweep.task(index).commit_name, "a-1")
    files.make_dirs(attempt)
    for pair in ((0, 0), (0, 1), (1, 1)):  # of 22.9 MiB in six tiles
        (attempt / tile_name(pair)).write_bytes(bytes(4 * MIB))
        (attempt / f"{tile_name(pair)}.part.json").touch()
    (attempt / tile_name((0, 2))).write_bytes(bytes(4 * MIB))  # not published
    free(monkeypatch, MIB)
    with pytest.raises(ConfigError, match=r"need 10\.\d MiB of disk, and 1 MiB are free"):
        plan(KERNEL, store)
    free(monkeypatch, 11 * MIB)
    assert plan(KERNEL, store).large is not None


def test_more_probe_images_than_the_test_set_has_are_refused_by_the_plan(store: Store) -> None:
    with pytest.raises(ConfigError, match="probe_size must be at most 359, the test samples of this data set, got 400"):
        plan(["workload=tiled_gram", "name=k2", "probe_size=400"], store)
