"""Compaction: new commits become rows once, what was taken back goes, readers keep what they have, and nothing is trusted unseen."""

import json
import os
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import store_fakes as fakes
from store_fakes import commit, fake_sweeps, retract, write_sweep  # noqa: F401

from orchestrator import collect, dataset, gather
from orchestrator import ledger as ledgers
from orchestrator.collect import commit_names, compact
from orchestrator.store import Store
from workers import files, taskdir
from workers.errors import ConfigError, Garbled


def now(store: Store, **options: bool) -> int | None:
    return compact(store, ledgers.read(store.root), **options)


def rows(store: Store, table: str, number: int | None = None) -> list[dict]:
    manifest = dataset.newest(store) if number is None else dataset.read_manifest(store, number)
    parts = manifest.parts.get(table)
    return dataset.read(store, parts).to_pylist() if parts else []


@pytest.fixture
def keys(store: Store) -> list[str]:
    keys = write_sweep(store, "w1", [{"index": i, "seed": i % 2} for i in range(6)])
    for key in keys[:4]:
        commit(store, key, ["w1"])
    return keys


def test_every_commit_is_in_the_dataset_once_and_nothing_new_is_no_manifest(store: Store, keys: list[str]) -> None:
    assert now(store) == 1
    assert now(store) is None
    assert sorted(row["key"] for row in rows(store, "tasks")) == sorted(keys[:4])
    assert len(rows(store, "scalars")) == 16
    expected = fakes.make_commit(keys[0]).rows["scalars"]["value"]
    assert [row["value"] for row in rows(store, "scalars") if row["key"] == keys[0]] == expected
    commit(store, keys[4], ["w1"])
    assert now(store) == 2
    assert sorted(row["key"] for row in rows(store, "tasks")) == sorted(keys[:5])
    assert dataset.newest(store).num_commits == 5


def test_the_ledger_notes_the_compaction_and_begins_at_its_fold(store: Store, keys: list[str]) -> None:
    retract(store, keys[3])
    now(store)
    manifest = dataset.newest(store)
    assert ledgers.read(store.root).manifest == 1
    assert manifest.ledger_number == 1
    assert manifest.folded["retracted"] == [keys[3]]
    assert ledgers.Ledger.from_body(manifest.folded).generations == {keys[3]: 1}


def test_hints_are_folded_and_done_stays(store: Store, keys: list[str]) -> None:
    before = store.done("w1")
    now(store)
    assert store.hints("w1") == set()
    assert store.done("w1") == before == set(keys[:4])


def test_a_commit_whose_hint_was_lost_is_found_by_its_closed_batch_and_by_a_full_listing(store: Store, keys: list[str]) -> None:
    now(store)
    commit(store, keys[4])
    commit(store, keys[5])
    assert now(store) is None
    fakes.close_batch(store, "w1-0", [keys[4]], [], {})
    assert now(store) == 2
    assert now(store, full=True) == 3
    assert len(rows(store, "tasks")) == 6


def test_a_retracted_commit_drops_out_and_its_successor_comes_in(store: Store, keys: list[str]) -> None:
    now(store)
    retract(store, keys[0], keys[1])
    commit(store, keys[1], ["w1"], generation=1, status="diverged")
    assert now(store) == 2
    tasks = {row["key"]: row for row in rows(store, "tasks")}
    assert sorted(tasks) == sorted(keys[1:4])
    assert (tasks[keys[1]]["generation"], tasks[keys[1]]["status"]) == (1, "diverged")
    assert len(rows(store, "scalars")) == 12
    assert sorted(commit_names(store, dataset.newest(store)).to_pylist()) == sorted([f"{keys[1]}.1", *keys[2:4]])
    # the work was done, so what it cost stays
    assert len(rows(store, "attempts")) == 5
    assert now(store) is None


def test_a_late_commit_of_a_retracted_generation_never_comes_in(store: Store, keys: list[str]) -> None:
    retract(store, keys[5])
    commit(store, keys[5], ["w1"])
    now(store)
    assert keys[5] not in {row["key"] for row in rows(store, "tasks")}


def test_readers_of_an_earlier_manifest_keep_their_rows(store: Store, keys: list[str]) -> None:
    now(store)
    before = rows(store, "scalars", 1)
    retract(store, keys[0])
    commit(store, keys[4], ["w1"])
    now(store)
    assert rows(store, "scalars", 1) == before


def test_a_garbled_commit_is_named_left_out_and_not_folded_into_the_list(store: Store, keys: list[str]) -> None:
    path = taskdir.commit_path(store.root, keys[2])
    path.write_bytes(path.read_bytes().replace(b'"status":"ok"', b'"status":"OK"'))
    now(store)
    assert list(dataset.newest(store).garbled) == [keys[2]]
    assert "scrub" in dataset.newest(store).garbled[keys[2]]
    assert sorted(row["key"] for row in rows(store, "tasks")) == sorted([keys[0], keys[1], keys[3]])
    assert store.hints("w1") == {keys[2]}
    assert now(store) is None
    retract(store, keys[2])
    commit(store, keys[2], ["w1"], generation=1)
    assert now(store) == 2
    assert dataset.newest(store).garbled == {}


def test_a_garbled_newest_manifest_is_passed_over_and_everything_is_found_again(store: Store, keys: list[str]) -> None:
    now(store)
    commit(store, keys[4], ["w1"])
    now(store)
    dataset.manifest_path(store, 2).write_text("garbled")
    assert dataset.newest(store).number == 1
    assert now(store) == 3
    assert len(rows(store, "tasks")) == 5


def test_a_changed_or_missing_part_is_named_and_not_read(store: Store, keys: list[str]) -> None:
    now(store)
    part = dataset.paths(store, dataset.newest(store).parts["scalars"])[0]
    data = bytearray(part.read_bytes())
    data[30] ^= 1
    part.write_bytes(data)
    with pytest.raises(Garbled, match=f"{part.name} is truncated or was changed"):
        rows(store, "scalars")
    part.unlink()
    with pytest.raises(Garbled, match=f"{part.name} is missing"):
        rows(store, "scalars")


def test_the_loser_of_a_race_leaves_no_parts_and_the_winner_stays(store: Store, keys: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    publish = files.publish

    def late(path: Path, data: bytes) -> bool:
        if path.name.startswith("MANIFEST"):
            monkeypatch.setattr(files, "publish", publish)
            assert now(store) == 1
        return publish(path, data)

    monkeypatch.setattr(files, "publish", late)
    assert now(store) is None
    manifest = dataset.newest(store)
    parts = {name for name in fakes.tree(store.root / "dataset") if name.endswith(".parquet")}
    assert parts == {part["file"] for part in manifest.all_parts()}
    assert len(rows(store, "tasks")) == 4


def test_a_failure_on_the_way_leaves_no_parts(store: Store, keys: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise OSError("no")

    monkeypatch.setattr(collect, "_without_commit", fail)
    fakes.close_batch(store, "w1-0", [], [], {})
    with pytest.raises(OSError, match="no"):
        now(store)
    assert fakes.tree(store.root / "dataset") == set()


def test_a_lost_race_for_the_ledger_is_run_again(store: Store, keys: list[str]) -> None:
    stale = ledgers.read(store.root)
    retract(store, keys[5])
    assert compact(store, stale) == 1
    assert ledgers.read(store.root).manifest == 1
    assert stale.number == 2


def test_failed_attempts_come_from_closed_batches_once(store: Store, keys: list[str]) -> None:
    attempt = fakes.make_commit(keys[0]).attempt
    events = [
        {"event": "start", "key": keys[0], "attempt": attempt, "slot": 0, "time": 1.0},
        {"event": "start", "key": keys[4], "attempt": "a-0-0-1", "slot": 0, "time": 2.0},
        {"event": "progress", "key": keys[4], "done": 1, "total": 2},
        {
            "event": "end", "key": keys[4], "attempt": "a-0-0-1", "class": "user_error", "seconds": 1.5, "peak_memory_mib": 9.0,
            "message": "boom", "error": {"type": "ValueError", "fingerprint": "f1", "traceback": "..."}, "resumed_at": None, "time": 3.0,
        },
        {"event": "start", "key": keys[5], "attempt": "a-1-0-1", "slot": 0, "time": 4.0},
        {"event": "over", "reason": "finished"},
    ]  # fmt: skip
    fakes.close_batch(store, "w1-0", keys, events, {keys[5]: {"class": "host_oom", "attempt": "a-1-0-1", "message": "7 GiB"}})
    now(store)
    commit(store, keys[4], ["w1"])
    now(store)
    attempts = {row["attempt"]: row for row in rows(store, "attempts")}
    assert len(attempts) == len(rows(store, "attempts")) == 7
    assert attempts[attempt]["class"] == "completed"
    failed = attempts["a-0-0-1"]
    assert (failed["class"], failed["error_type"], failed["error_fingerprint"], failed["code"]) == (
        "user_error",
        "ValueError",
        "f1",
        "c0de",
    )
    assert failed["started"].timestamp() == 2.0
    assert (attempts["a-1-0-1"]["class"], attempts["a-1-0-1"]["message"]) == ("host_oom", "7 GiB")


def test_observables_are_rows_of_scalars_and_a_new_one_recomputes_no_task(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from workers import spectrum_data

    (key,) = write_sweep(store, "s1", [{"index": 0}], workload="spectrum")
    commit(store, key, ["s1"], workload="spectrum", rows=fakes.spectrum_rows([1.0, 1.0, 1.0, 1.0]))
    now(store)
    values = {row["name"]: row["value"] for row in rows(store, "scalars")}
    assert values["effective_rank"] == pytest.approx(4.0)
    assert values["num_rows"] == 4.0
    before = len(rows(store, "scalars"))
    monkeypatch.setattr(gather, "observables_fingerprint", lambda: "other")
    monkeypatch.setattr(spectrum_data, "observe", lambda spectrum: {"largest": float(spectrum.eigenvalues_K[-1])})
    assert now(store) == 2
    values = {row["name"]: row["value"] for row in rows(store, "scalars")}
    assert values["largest"] == 1.0
    assert "effective_rank" not in values
    assert len(rows(store, "scalars")) < before
    assert now(store) is None


def test_an_observable_that_fails_is_said_and_keeps_nothing_out(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from workers import spectrum_data

    def fail(spectrum: object) -> dict[str, float]:
        raise ZeroDivisionError("nothing there")

    monkeypatch.setattr(spectrum_data, "observe", fail)
    (key,) = write_sweep(store, "s1", [{"index": 0}], workload="spectrum")
    commit(store, key, ["s1"], workload="spectrum", rows=fakes.spectrum_rows([1.0, 2.0]))
    with pytest.warns(UserWarning, match="no observables of the spectrum.*ZeroDivisionError"):
        now(store)
    assert len(rows(store, "spectra")) == 2


def test_rows_in_a_payload_and_tables_of_a_workload_come_in(store: Store) -> None:
    import numpy as np

    first, second = write_sweep(store, "w1", [{"index": 0}, {"index": 1}], workload="mine")
    folder = taskdir.attempt_dir(store.root, first, "a")
    folder.mkdir(parents=True)
    np.savez(folder / "rows-tracks.npz", x=np.arange(3.0), t=np.arange(3))
    payload = taskdir.Payload(name="rows-tracks.npz", size=1, sha256="")
    commit(store, first, ["w1"], attempt="a", workload="mine", rows={}, files=[payload])
    commit(store, second, ["w1"], workload="mine", rows={"tracks": {"x": [1.0], "label": ["odd"]}})
    now(store)
    found = sorted(rows(store, "mine.tracks"), key=lambda row: (row["key"] == second, row["x"]))
    assert [row["x"] for row in found] == [0.0, 1.0, 2.0, 1.0]
    assert [row["label"] for row in found] == [None, None, None, "odd"]


def test_the_types_that_a_workload_declares_are_those_of_its_table(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from workers import plugins

    class Mine:
        tables = {"tracks": {"x": "float32", "label": "string"}}

    monkeypatch.setattr(plugins, "load", lambda group, name: Mine)
    (key,) = write_sweep(store, "w1", [{"index": 0}], workload="mine")
    commit(store, key, ["w1"], workload="mine", rows={"tracks": {"x": [1, 2]}})
    now(store)
    path = dataset.paths(store, dataset.newest(store).parts["mine.tracks"])[0]
    assert str(pq.read_schema(path).field("x").type) == "float"
    assert "label" in pq.read_schema(path).names
    (other,) = write_sweep(store, "w2", [{"index": 7}], workload="mine")
    commit(store, other, ["w2"], workload="mine", rows={"tracks": {"x": ["text"]}})
    with pytest.raises(ConfigError, match="column 'x' of table 'mine.tracks' must be float"):
        now(store)


def test_every_sweep_has_a_typed_axes_table_written_once_a_revision(store: Store, keys: list[str]) -> None:
    now(store)
    axes = dataset.newest(store).axes["w1"]
    table = pq.read_table(store.root / "dataset" / axes["file"])
    assert table.column_names == ["key", "workload", "is_target", "index", "seed"]
    assert [str(table.schema.field(name).type) for name in ("is_target", "seed")] == ["bool", "int64"]
    commit(store, keys[4], ["w1"])
    now(store)
    assert dataset.newest(store).axes["w1"] == axes
    body = store.manifest("w1")
    store.write_manifest("w1", 2, body)
    now(store)
    assert dataset.newest(store).axes["w1"]["revision"] == 2


def test_many_small_parts_become_one_and_old_files_stay(store: Store) -> None:
    keys = write_sweep(store, "w1", [{"index": i} for i in range(20)])
    for key in keys:
        commit(store, key, ["w1"])
        now(store)
    manifest = dataset.newest(store)
    assert manifest.number == 20
    assert len(manifest.parts["scalars"]) <= 2 * dataset.MERGED_AT_ONCE
    assert sorted(row["key"] for row in rows(store, "tasks")) == sorted(keys)
    assert len(rows(store, "scalars", 3)) == 12


def test_units_are_in_the_schema(store: Store, keys: list[str]) -> None:
    now(store)
    found = pq.read_schema(dataset.paths(store, dataset.newest(store).parts["attempts"])[0])
    assert found.field("seconds").metadata[b"unit"] == b"s"
    assert found.field("peak_memory_mib").metadata[b"unit"] == b"MiB"


def test_ten_thousand_tasks_of_four_rows_take_two_seconds_and_twenty_bytes_a_row(store: Store) -> None:
    keys = write_sweep(store, "w1", [{"index": i} for i in range(10_000)])
    fakes.bulk_commit(store, keys, "w1")
    start = time.perf_counter()
    now(store)
    seconds = time.perf_counter() - start
    manifest = dataset.newest(store)
    num_bytes = sum(part["bytes"] for part in manifest.all_parts())
    num_rows = sum(part["rows"] for part in manifest.all_parts())
    sizes = {table: sum(part["bytes"] for part in parts) for table, parts in manifest.parts.items()}
    print(json.dumps({"seconds": seconds, "bytes": num_bytes, "rows": num_rows, "bytes_a_row": num_bytes / num_rows, **sizes}))
    assert len(rows(store, "scalars")) == 40_000
    assert num_bytes / num_rows < 20
    assert seconds < 2 * float(os.environ.get("SLOW", "2")), seconds
