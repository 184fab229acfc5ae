"""Scrub names every file that is garbled or missing, with the cure; gc deletes only what nothing needs."""

import os
import time
from pathlib import Path

import pytest
import store_fakes as fakes
from batches import noop
from store_fakes import commit, fake_sweeps, retract, write_sweep  # noqa: F401

from orchestrator import batches, code, dataset
from orchestrator import ledger as ledgers
from orchestrator.collect import compact
from orchestrator.gc import NUM_KEPT_MANIFESTS, gc
from orchestrator.results import load
from orchestrator.scrub import scrub
from orchestrator.store import Store
from workers import files, taskdir


@pytest.fixture
def keys(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A store with something of everything."""
    source = tmp_path / "source" / "workers" / "files.py"
    source.parent.mkdir(parents=True)
    source.write_text("# source\n" * 20)
    monkeypatch.setattr(code, "live_path", lambda: tmp_path / "source")
    keys = write_sweep(store, "w1", [{"width": i} for i in range(4)])
    for key in keys[:2]:
        commit(store, key, ["w1"])
    payload = fakes.save_file(store, keys[2], "a", "model.safetensors", b"x" * 1000)
    commit(store, keys[2], ["w1"], attempt="a", files=[payload])
    fakes.close_batch(store, "w1-0", [keys[3]], [], {})
    batches.write(store.root, "w1-1", {"token": "w1-1"}, [[noop(1)], [noop(2)]])
    files.make_dirs(store.root / "batches" / "w1-1" / "1")
    files.publish(store.root / "batches" / "w1-1" / "1" / "receipt.json", files.encode({"host": "n1", "time": "1970-01-01 00:00:00"}))
    code.freeze(store)
    compact(store, ledgers.read(store.root))
    return keys


def age(path: Path) -> None:
    old = time.time() - 2 * 24 * 3600
    os.utime(path, (old, old))


def test_a_whole_store_has_no_problems_and_progress_is_told(store: Store, keys: list[str]) -> None:
    told: list[tuple[int, int]] = []
    found = scrub(store, lambda done, total: told.append((done, total)))
    assert found.problems == []
    assert told[-1][0] == told[-1][1] > 0
    assert found.num_files > len(keys)


@pytest.mark.parametrize(
    ("pattern", "cure"),
    [
        ("store.json", "init"),
        ("sweeps/w1/manifest-000001.json", "submit w1 again"),
        ("sweeps/w1/committed-000001.json", "finds the commits again"),
        ("ledger/00000001.json", "backup"),
        ("batches/w1-0/tasks.json", "backup"),
        ("batches/w1-1/tasks.jsonl", "backup"),
        ("batches/w1-1/1/receipt.json", "backup"),
        ("code/*/fingerprint.json", "freezes the source anew"),
        ("code/*/workers/files.py", "freezes the source anew"),
        ("commits/*/*.json", "retract"),
        ("tasks/*/*/attempts/a/model.safetensors", "retract"),
        ("dataset/MANIFEST-1.json", "writes the dataset anew"),
        ("dataset/scalars/part-*.parquet", "writes all anew"),
    ],
)
@pytest.mark.parametrize("change", ["truncated", "changed", "missing"])
def test_what_is_garbled_or_missing_is_named_with_its_cure(pattern: str, cure: str, change: str, store: Store, keys: list[str]) -> None:
    path = sorted(store.root.glob(pattern))[0]
    data = path.read_bytes()
    if change == "missing":
        path.unlink()
    else:
        path.write_bytes(data[: len(data) // 2] if change == "truncated" else data[:60] + bytes([data[60] ^ 1]) + data[61:])
    if change == "missing" and pattern.startswith(("sweeps", "batches", "dataset/MANIFEST")):
        return  # nothing else names these
    problems = {one.path: one for one in scrub(store).problems}
    found = problems[str(path.relative_to(store.root))]
    assert cure in found.cure
    assert ("missing" in found.problem) == (change == "missing")


def test_a_gap_in_the_ledger_is_named(store: Store, keys: list[str]) -> None:
    (store.root / "ledger" / "00000001.json").unlink()
    assert [one.path for one in scrub(store).problems] == ["ledger/00000001.json"]


def test_a_garbled_commit_that_was_retracted_needs_nothing(store: Store, keys: list[str]) -> None:
    taskdir.commit_path(store.root, keys[0]).write_text("{")
    retract(store, keys[0])
    (found,) = scrub(store).problems
    assert "nothing to do" in found.cure


# -- gc ---------------------------------------------------------------------------------------------------------------


def test_gc_of_a_store_in_use_deletes_nothing(store: Store, keys: list[str]) -> None:
    before = fakes.tree(store.root)
    found = gc(store)
    assert (found.num_files, found.num_bytes, found.deleted) == (0, 0, {})
    assert fakes.tree(store.root) == before


def test_gc_keeps_the_last_manifests_and_their_parts(store: Store, keys: list[str]) -> None:
    for generation in range(1, 8):
        retract(store, taskdir.commit_name(keys[0], generation - 1))
        commit(store, keys[0], ["w1"], generation=generation)
        compact(store, ledgers.read(store.root))
    before, trial = fakes.tree(store.root), gc(store, dry_run=True)
    assert trial.num_bytes > 0
    assert fakes.tree(store.root) == before
    found = gc(store)
    assert found.num_bytes == trial.num_bytes
    assert len(dataset.numbers(store)) == NUM_KEPT_MANIFESTS
    named = {p["file"] for n in dataset.numbers(store) for p in dataset.read_manifest(store, n).all_parts()}
    assert {name for name in fakes.tree(store.root / "dataset") if name.endswith(".parquet")} == named
    assert scrub(store).problems == []
    assert len(load("w1", store.root).tasks().collect()) == 3


def test_gc_deletes_what_a_kill_left_once_it_is_a_day_old(store: Store, keys: list[str]) -> None:
    left = [
        taskdir.commit_path(store.root, keys[0]).parent / ".x.json.1-ab",
        store.root / "dataset" / "scalars" / "part-0123.parquet",
        store.root / "ledger" / ".00000009.json.1-ab",
    ]
    for path in left:
        path.write_text("left")
    folder = store.root / "code" / ".snap.1-ab"
    folder.mkdir()
    (folder / "a.py").write_text("")
    assert gc(store).num_files == 0
    for path in [*left, folder]:
        age(path)
    assert gc(store).num_files == 4
    assert not any(path.exists() for path in [*left, folder])


def test_gc_deletes_late_attempts_but_never_the_committed_or_a_running_one(store: Store, keys: list[str]) -> None:
    ledger = ledgers.read(store.root)
    ledgers.append(store.root, ledger, {"kind": "submission", "token": "w1-open", "sweep": "w1", "code": "c", "keys": []})
    for attempt in ("late-0-0-1", "w1-open-3-0-1"):
        fakes.save_file(store, keys[2], attempt, "part", b"y" * 500)
    fakes.save_file(store, keys[3], "late-0-0-1", "checkpoint", b"z")
    found = gc(store)
    attempts = taskdir.task_dir(store.root, keys[2]) / "attempts"
    assert found.num_bytes == 500
    assert sorted(os.listdir(attempts)) == ["a", "w1-open-3-0-1"]
    assert taskdir.attempt_dir(store.root, keys[3], "late-0-0-1").is_dir()


def test_gc_deletes_a_batch_that_was_never_submitted(store: Store, keys: list[str]) -> None:
    for name in ("w1-lost", "w1-0"):
        (store.root / "batches" / name).mkdir(exist_ok=True)
    (store.root / "batches" / "w1-lost" / "tasks.json").write_text("{}")
    gc(store)
    assert (store.root / "batches" / "w1-lost").exists()
    for name in ("w1-lost", "w1-0"):
        age(store.root / "batches" / name)
    gc(store)
    assert "w1-lost" not in files.names(store.root / "batches")
