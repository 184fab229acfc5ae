"""Two sweeps at once, each with a Ray of its own on this machine: one is stopped and resumed, and nothing of either is left."""

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from batches import is_gone
from ray_here import needs_ray

from tests.faults.stage import Stage, wait_for
from workers import taskdir
from workers.errors import EigensweepError
from workers.sharded import ray_node

pytestmark = [needs_ray, pytest.mark.slow, pytest.mark.timeout(600)]

SECONDS = 300
WORDS = ("workload=noop", "launcher=ray", "launcher.slots=1", "progress=true", "seconds=6")


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """For the folders of these Rays."""
    with tempfile.TemporaryDirectory(prefix="k", dir="/tmp") as short:
        monkeypatch.setenv("EIGENSWEEP_RAY_DIR", short)
        yield Path(short)


def rays(stage: Stage) -> list[int]:
    """Processes that hold a Ray, and all below them."""
    holders = [pid for pid in stage.processes() if b"workers.sharded.ray_jobs" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return holders + [below for pid in holders for below in ray_node._descendants(pid)]


def has_begun(stage: Stage, name: str) -> bool:
    """Whether a task of the sweep has written a checkpoint."""
    folders = [taskdir.task_dir(stage.root, key) for key in keys_of(stage, name)]
    return any(list(folder.glob("attempts/*/checkpoint-*.json")) for folder in folders)


def keys_of(stage: Stage, name: str) -> list[str]:
    """None before it is submitted."""
    try:
        return list(stage.sweep(name).keys)
    except EigensweepError:
        return []


def test_one_of_two_sweeps_is_stopped_and_resumed_and_nothing_of_ray_is_left(stage: Stage, place: Path) -> None:
    first, second = (stage.start("submit", *WORDS, f"name={name}", f"index={axis}") for name, axis in (("a", "0,1"), ("b", "10,11")))
    wait_for(lambda: all(has_begun(stage, name) for name in ("a", "b")), "a checkpoint of a task of each", SECONDS)
    assert len(list(place.iterdir())) == 2, "a Ray for each"
    mine = rays(stage)
    os.killpg(first.pid, signal.SIGINT)
    output, _ = first.communicate(timeout=SECONDS)
    assert first.returncode == 130, output
    assert "eigensweep resume a" in output
    assert stage.status("a").counts == {"pending": 2}
    output, _ = second.communicate(timeout=SECONDS)
    assert second.returncode == 0, output
    assert stage.status("b").counts == {"completed": 2}
    assert stage.resume("a").counts == {"completed": 2}
    ends = [(event["class"], bool(event["resumed_at"])) for event in stage.events("end")]
    assert sorted(ends) == [("completed", False)] * 3 + [("completed", True), ("interrupted", False)]
    wait_for(lambda: not stage.processes() and not list(place.iterdir()), f"nothing to be left of {mine}", SECONDS)
    assert len(mine) > 10
    assert all(map(is_gone, mine))
