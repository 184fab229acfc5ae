"""After a crash at any file operation, in any order that a file system may keep, nothing promised is lost, doubled or half visible."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import store_fakes as fakes
from recorder import LyingOps, RecordingOps, crashes
from store_fakes import commit, fake_sweeps, write_sweep  # noqa: F401

from orchestrator import code, dataset
from orchestrator import ledger as ledgers
from orchestrator.collect import commit_names, compact
from orchestrator.results import load
from orchestrator.store import Store
from workers import files, taskdir


def recording(monkeypatch: pytest.MonkeyPatch, root: Path) -> RecordingOps:
    ops = RecordingOps(root)
    monkeypatch.setattr(files, "ops", ops)
    return ops


def every_crash(ops: RecordingOps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, list, str]]:
    monkeypatch.setattr(files, "ops", files.Ops())
    folder = tmp_path / "crashes"
    folder.mkdir()
    number = 0
    for found, promised, where in crashes(ops, folder):
        number += 1
        yield found, promised, where
        shutil.rmtree(found)
    assert number > 3


def visible(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in files.names(folder)}


def test_publish_shows_one_whole_file_and_never_another_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    root.mkdir()
    ops = recording(monkeypatch, root)
    for data in (b"first" * 100, b"second" * 100):
        won = files.publish(root / "name", data)
        ops.acknowledge((won, data))
    for found, promised, where in every_crash(ops, tmp_path, monkeypatch):
        assert visible(found) in ({}, {"name": b"first" * 100}), where
        if promised:
            assert promised[0] == (True, b"first" * 100)
            assert visible(found), where


def test_replacing_shows_the_old_or_the_new_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "name").write_bytes(b"0" * 500)
    ops = recording(monkeypatch, root)
    for number in (1, 2):
        with files.replacing(root / "name") as path:
            path.write_bytes(b"%d" % number * 500)
        ops.acknowledge(number)
    for found, promised, where in every_crash(ops, tmp_path, monkeypatch):
        least = max(promised, default=0)
        assert visible(found)["name"] in [b"%d" % n * 500 for n in (least, least + 1)], where


def test_a_commit_is_whole_or_absent_and_there_once_acknowledged(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = write_sweep(store, "w1", [{"width": i} for i in range(2)])
    ops = recording(monkeypatch, store.root)
    for key in keys:
        commit(store, key, ["w1"])
        ops.acknowledge(key)
        # a zombie's commit is refused and changes nothing
        assert not taskdir.write_commit(store.root, fakes.make_commit(key, attempt="zombie"))
        ops.acknowledge(key)
    for found, promised, where in every_crash(ops, tmp_path, monkeypatch):
        for key in keys:
            if taskdir.is_committed(found, key):
                assert taskdir.read_commit(found, key) == fakes.make_commit(key), where
            else:
                assert key not in promised, where


def test_a_revision_is_whole_or_absent_and_there_once_acknowledged(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ops = recording(monkeypatch, store.root)
    for revision in (1, 2):
        assert store.write_manifest("w1", revision, {"revision": revision, "keys": list(range(100))})
        ops.acknowledge(revision)
    for found, promised, where in every_crash(ops, tmp_path, monkeypatch):
        crashed = Store.open(found)
        assert set(promised) <= set(crashed.revisions("w1")), where
        for revision in crashed.revisions("w1"):
            assert crashed.manifest("w1", revision)["revision"] == revision, where


def test_the_ledger_has_no_gap_and_every_entry_that_was_won(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ops = recording(monkeypatch, store.root)
    ledger = ledgers.read(store.root)
    for number in (1, 2, 3):
        assert ledgers.append(store.root, ledger, {"kind": "retraction", "commits": [f"key{number}"], "reason": ""})
        ops.acknowledge(number)
    for found, promised, where in every_crash(ops, tmp_path, monkeypatch):
        read = ledgers.read(found)
        assert read.number >= max(promised, default=0), where
        assert read.retracted == {f"key{number}" for number in range(1, read.number + 1)}, where


def test_frozen_code_is_whole_or_absent(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    for name in ("workers/a.py", "workers/models/b.py", "eigensweep.py"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(f"# {name}\n" * 10)
    monkeypatch.setattr(code, "live_path", lambda: source)
    ops = recording(monkeypatch, store.root)
    frozen = code.freeze(store)
    ops.acknowledge(frozen.snapshot)
    for found, promised, where in every_crash(ops, tmp_path, monkeypatch):
        names = files.names(found / "code")
        assert set(promised) <= set(names), where
        for snapshot in names:
            for name, digest in code.fingerprint(Store.open(found), snapshot)["files"].items():
                assert files.sha256(found / "code" / snapshot / name) == digest, where


def test_compaction_loses_no_result_and_shows_none_twice(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = write_sweep(store, "w1", [{"width": i} for i in range(4)])
    for key in keys[:2]:
        commit(store, key, ["w1"])
    compact(store, ledgers.read(store.root))
    fakes.retract(store, keys[0])
    for key in keys[2:]:
        commit(store, key, ["w1"])
    ops = recording(monkeypatch, store.root)
    assert compact(store, ledgers.read(store.root)) == 2
    ops.acknowledge("compacted")
    expected = sorted(load("w1", store.root).scalars().select("key", "step", "value").collect().rows())
    assert {key for key, _, _ in expected} == set(keys[1:])
    for found, promised, where in every_crash(ops, tmp_path, monkeypatch):
        crashed = Store.open(found)
        assert dataset.newest(crashed).number >= (2 if promised else 1), where
        assert sorted(load("w1", found).scalars().select("key", "step", "value").collect().rows()) == expected, where
        compact(crashed, ledgers.read(found))
        assert sorted(commit_names(crashed, dataset.newest(crashed)).to_pylist()) == sorted(keys[1:]), where
        assert crashed.done("w1") == set(keys), where
        assert sorted(load("w1", found).scalars().select("key", "step", "value").collect().rows()) == expected, where
        assert compact(crashed, ledgers.read(found)) is None, where


@pytest.mark.parametrize("error", [FileExistsError, OSError])
def test_a_link_reported_as_failed_though_done_is_a_success(error: type[OSError], store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "ops", LyingOps(error))
    (key,) = write_sweep(store, "w1", [{"width": 0}])
    commit(store, key, ["w1"])
    assert not store.write_manifest("w1", 1, {})
    ledger = ledgers.read(store.root)
    assert ledgers.append(store.root, ledger, {"kind": "settled", "sweep": "w1"})
    assert compact(store, ledger) == 1
    assert ledgers.read(store.root).manifest == 1
    assert len(load("w1", store.root).scalars().collect()) == 4
    assert not [name for folder in ("ledger", "dataset", "sweeps/w1") for name in os.listdir(store.root / folder) if name.startswith(".")]


def test_the_recorder_finds_a_store_that_does_not_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    root.mkdir()
    ops = recording(monkeypatch, root)
    descriptor = os.open(root / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    files.ops.append(descriptor, b"a line\n")
    os.close(descriptor)
    ops.acknowledge("line")
    kept = [visible(found).get("log") for found, promised, _ in every_crash(ops, tmp_path, monkeypatch) if promised]
    assert set(kept) >= {b"a line\n", b"a l", b"", None}
