"""What a plan says of kernels in tiles, and refuses, before anything is written."""

import json
from collections import namedtuple
from pathlib import Path

import pytest

from orchestrator import show
from orchestrator.plan import plan
from orchestrator.store import Store
from workers.errors import ConfigError
from workers.workload import Resources
from workers.workloads.tiled_gram import TiledGram
from workers.workloads.tiled_spectrum import TiledSpectrum

WORDS = ("workload=tiled_spectrum", "name=k1", "launcher=local")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.init(tmp_path / "store")


def test_a_plan_shows_what_kernels_and_their_eigenvalues_take(store: Store) -> None:
    found = plan([*WORDS, "gram.probe_size=300", "resources.cpus=2"], store)
    assert found.large is not None
    gram, spectrum = found.large.rows
    assert (gram.workload, gram.what, gram.cpus) == ("tiled_gram", "3,000 rows in 3 tiles of float32", 2)
    assert 4 * (2560**2 + 2560 * 440 + 440**2) < gram.disk_bytes < 1.01 * 4 * (2560**2 + 2560 * 440 + 440**2)
    assert gram.memory_gib <= gram.asked_gib and spectrum.memory_gib <= spectrum.asked_gib  # memory follows the CPUs asked for
    assert spectrum.what == "the 100 largest of 3,000 eigenvalues: lanczos"
    text = show.plan(found, color=False)
    assert "tiled_gram: 3,000 rows in 3 tiles of float32" in text and "1 node x 2 CPUs" in text and "free where the store lies" in text
    assert json.loads(show.as_json(found))["large"]["rows"][0]["flops"] == pytest.approx(gram.flops)


def test_a_sweep_without_large_tasks_shows_none(store: Store) -> None:
    assert plan(["workload=noop", "name=n1"], store).large is None


def test_too_little_memory_is_refused_with_the_number_of_nodes_that_would_do(store: Store) -> None:
    kernel = TiledSpectrum(gram=TiledGram(probe_size=350, panel_rows=350), num_eigenvalues=None, engine="scalapack")
    enough = kernel.adapted(Resources(nodes=2, cpus=2)).memory_gib
    words = [*WORDS, "gram.probe_size=350", "gram.panel_rows=350", "num_eigenvalues=null", "engine=scalapack"]
    words += [f"resources.tiled_spectrum.memory_gib={enough}", "resources.tiled_spectrum.cpus=2"]
    with pytest.raises(
        ConfigError, match=r"tiled_spectrum cannot run: .*resources.nodes=2 of this memory would do.* launcher=slurm on sev"
    ):
        plan(words, store)
    assert not list((store.root / "sweeps").glob("*/manifest-*"))


def test_ranks_with_too_little_memory_for_their_tiles_are_told_what_would_do(store: Store) -> None:
    words = [*WORDS, "gram.probe_size=300", "resources.tiled_gram.cpus=4", "resources.tiled_gram.memory_gib=1.5"]
    with pytest.raises(
        ConfigError, match=r"must be at least 2.\d\d for 4 ranks .*, got 1.5; any of these would do: resources.memory_gib=2"
    ):
        plan(words, store)


def test_tiles_that_find_no_room_on_the_disk_are_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("orchestrator.demands.shutil.disk_usage", lambda path: usage(10**9, 10**9 - 10**6, 10**6))
    with pytest.raises(ConfigError, match=r"the files of 2 tasks need .* MiB of disk, and 977 KiB are free at .*: make room there"):
        plan([*WORDS, "gram.probe_size=300"], store)
