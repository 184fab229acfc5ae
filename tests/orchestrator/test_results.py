"""Results are typed tables of one sweep's tasks, the same before and after compaction, and of one code unless asked otherwise."""

import time
import warnings
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
import store_fakes as fakes
from polars.testing import assert_frame_equal
from store_fakes import commit, fake_sweeps, retract, write_sweep  # noqa: F401

from orchestrator import dataset
from orchestrator import ledger as ledgers
from orchestrator.collect import compact
from orchestrator.results import load
from orchestrator.store import Store
from workers import files, taskdir
from workers.errors import ConfigError, Garbled, StoreError, UnknownName


def now(store: Store) -> int | None:
    return compact(store, ledgers.read(store.root))


POINTS = [{"width": 16 * 2 ** (i // 2), "rate": 0.5, "seed": i % 2} for i in range(6)]


@pytest.fixture
def keys(store: Store) -> list[str]:
    keys = write_sweep(store, "w1", POINTS)
    for key in keys[:4]:
        commit(store, key, ["w1"])
    other = write_sweep(store, "w2", [{"width": 1, "rate": 0.5, "seed": 9}])
    commit(store, other[0], ["w2"])
    return keys


def sorted_rows(frame: pl.LazyFrame) -> list[tuple]:
    found = frame.collect()
    return sorted(found.select(sorted(found.columns)).rows(), key=repr)


def test_scalars_have_typed_axes_and_only_this_sweeps_tasks(store: Store, keys: list[str]) -> None:
    frame = load("w1", store.root).scalars()
    assert isinstance(frame, pl.LazyFrame)
    schema = frame.collect_schema()
    assert (schema["width"], schema["rate"], schema["seed"]) == (pl.Int64, pl.Float64, pl.Int64)
    assert {"key", "step", "name", "value", "workload", "status", "code"} <= set(schema)
    found = frame.filter(pl.col("width") == 32, pl.col("seed") == 1, pl.col("step") == 2).collect()
    assert found["key"].to_list() == [keys[3]]
    assert found["value"].to_list() == [fakes.make_commit(keys[3]).rows["scalars"]["value"][2]]
    assert set(frame.collect()["key"]) == set(keys[:4])


@pytest.mark.parametrize("table", ["scalars", "tasks", "attempts"])
def test_a_table_is_the_same_from_commits_from_the_dataset_and_from_both(table: str, store: Store, keys: list[str]) -> None:
    def rows() -> list[tuple]:
        return sorted_rows(load("w1", store.root).table(table))

    before = rows()
    now(store)
    assert rows() == before
    for key in keys[4:]:
        commit(store, key, ["w1"])
    mixed = rows()
    assert len(mixed) > len(before)
    now(store)
    assert rows() == mixed


def test_results_hold_what_they_were_when_loaded(store: Store, keys: list[str]) -> None:
    now(store)
    results = load("w1", store.root)
    before = sorted_rows(results.scalars())
    commit(store, keys[4], ["w1"])
    retract(store, keys[0])
    now(store)
    assert sorted_rows(results.scalars()) == before


def test_what_was_retracted_is_gone_at_once_and_its_successor_counts(store: Store, keys: list[str]) -> None:
    now(store)
    retract(store, keys[0], keys[1])
    commit(store, keys[1], ["w1"], generation=1, rows={"scalars": {"step": [0], "name": ["new"], "value": [7.0]}})
    for _ in range(2):
        frame = load("w1", store.root).scalars().collect()
        assert set(frame["key"]) == set(keys[1:4])
        assert frame.filter(pl.col("key") == keys[1])["name"].to_list() == ["new"]
        now(store)


def test_a_nan_stays_a_nan_and_diverged_is_a_status(store: Store, keys: list[str]) -> None:
    rows = {"scalars": {"step": [0], "name": ["loss"], "value": [float("nan")]}}
    commit(store, keys[4], ["w1"], status="diverged", rows=rows)
    for _ in range(2):
        found = load("w1", store.root).scalars().filter(pl.col("status") == "diverged").collect()
        assert len(found) == 1
        assert found["value"].is_nan().all()
        now(store)


def test_an_empty_sweep_has_empty_tables_with_their_columns(store: Store) -> None:
    write_sweep(store, "w1", POINTS)
    results = load("w1", store.root)
    for table in ("scalars", "spectra", "tasks", "attempts"):
        frame = results.table(table).collect()
        assert len(frame) == 0
        assert {"key", "width"} <= set(frame.columns)
    assert len(results.tasks(wide=True).collect()) == 0


def test_results_of_different_code_are_not_mixed_unless_asked(store: Store, keys: list[str]) -> None:
    commit(store, keys[4], ["w1"], code="0ther")
    with pytest.raises(StoreError, match=r"2 different code fingerprints: c0de \(4 tasks\), 0ther \(1 tasks\).*mixed_code=True"):
        load("w1", store.root)
    assert load("w1", store.root, mixed_code=True).codes == {"c0de": 4, "0ther": 1}


def test_wide_tasks_have_the_last_value_of_each_scalar(store: Store, keys: list[str]) -> None:
    wide = load("w1", store.root).tasks(wide=True).collect()
    row = wide.filter(pl.col("key") == keys[2]).to_dicts()[0]
    assert row["loss"] == fakes.make_commit(keys[2]).rows["scalars"]["value"][-1]
    assert (row["width"], row["seed"], row["peak_memory_mib"], row["host"]) == (32, 0, 30.5, "node")


def test_an_axis_named_like_a_column_stands_beside_it(store: Store) -> None:
    (key,) = write_sweep(store, "w1", [{"seconds": 3.0, "step": 5}])
    commit(store, key, ["w1"])
    results = load("w1", store.root)
    assert results.scalars().collect()["step_axis"].unique().to_list() == [5]
    assert results.tasks().collect()["seconds_axis"].to_list() == [3.0]
    assert results.task(step=5).key == key


def test_an_axis_that_does_not_reach_an_input_is_null_there(store: Store) -> None:
    inner = fakes.key_of("train")
    keys = write_sweep(store, "w1", [{"width": 1, "snapshot": 2}], more={"keys": [inner], "points": [{"width": 1}], "workloads": ["train"]})
    commit(store, keys[0], ["w1"])
    commit(store, inner, ["w1"], workload="train")
    results = load("w1", store.root)
    frame = results.scalars().filter(pl.col("workload") == "train").collect()
    assert frame["width"].unique().to_list() == [1]
    assert frame["snapshot"].null_count() == len(frame)
    assert results.task(width=1).key == keys[0]
    assert results.task(workload="train", width=1).key == inner


def test_failed_attempts_show_while_their_batch_is_open_and_after(store: Store, keys: list[str]) -> None:
    end = {"event": "end", "key": keys[5], "attempt": "a-0-0-1", "class": "user_error", "seconds": 1.0, "message": "boom", "error": None}
    folder = taskdir.batch_dir(store.root, "w1-open")
    folder.mkdir()
    (folder / "attempts.jsonl").write_bytes(files.json.dumps(end).encode() + b'\n{"event":"st')
    ledgers.append(
        store.root, ledgers.read(store.root), {"kind": "submission", "token": "w1-open", "sweep": "w1", "code": "c0de", "keys": [keys[5]]}
    )
    assert "user_error" in load("w1", store.root).attempts().collect()["class"].to_list()
    ledgers.append(store.root, ledgers.read(store.root), {"kind": "closed", "token": "w1-open", "sweep": "w1", "outcomes": {}})
    for _ in range(2):
        classes = load("w1", store.root).attempts().collect()["class"].to_list()
        assert sorted(classes) == ["completed"] * 4 + ["user_error"]
        now(store)


def test_pandas_duckdb_and_pyarrow_read_the_same_files(store: Store, keys: list[str]) -> None:
    now(store)
    results = load("w1", store.root)
    (scalars,), (axes,) = results.files("scalars"), results.files("axes")
    expected = sorted(results.scalars().select("value").collect()["value"])
    query = f"select value, width from '{scalars}' join '{axes}' using (key) order by value"
    found = duckdb.sql(query).fetchall()
    assert [value for value, _ in found] == expected
    frame = pd.read_parquet(scalars).merge(pd.read_parquet(axes), on="key")
    assert sorted(frame["value"]) == expected
    assert pq.read_table(scalars).num_rows == 20


def test_observables_are_there_before_and_after_compaction(store: Store) -> None:
    (key,) = write_sweep(store, "s1", [{"index": 0}], workload="spectrum")
    commit(store, key, ["s1"], workload="spectrum", rows=fakes.spectrum_rows([1.0, 1.0]))
    before = load("s1", store.root).scalars().sort("name").collect()
    assert "effective_rank" in before["name"].to_list()
    assert before.filter(pl.col("name") == "decay_exponent")["value"].is_nan().all()  # two eigenvalues have no decay to fit
    now(store)
    assert_frame_equal(load("s1", store.root).scalars().sort("name").collect(), before, check_column_order=False)
    assert load("s1", store.root).spectra().collect()["index_axis"].to_list() == [0, 0]


def test_a_garbled_commit_is_named_and_left_out(store: Store, keys: list[str]) -> None:
    path = taskdir.commit_path(store.root, keys[1])
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.warns(UserWarning, match=f"left out: .*{keys[1]}.json is truncated"):
        assert keys[1] not in set(load("w1", store.root).scalars().collect()["key"])
    now(store)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = load("w1", store.root)
    assert list(results.garbled) == [keys[1]]


def test_a_garbled_part_is_an_error_that_names_it(store: Store, keys: list[str]) -> None:
    now(store)
    (part,) = load("w1", store.root).files("scalars")
    part.write_bytes(part.read_bytes()[:-9])
    with pytest.raises(Garbled, match=part.name):
        load("w1", store.root).scalars()


def test_a_garbled_dataset_manifest_is_passed_over(store: Store, keys: list[str]) -> None:
    now(store)
    before = sorted_rows(load("w1", store.root).scalars())
    commit(store, keys[4], ["w1"])
    now(store)
    dataset.manifest_path(store, 2).write_text("{")
    assert set(before) <= set(sorted_rows(load("w1", store.root).scalars()))


def test_an_unknown_table_is_named_and_a_workloads_own_has_a_short_name(store: Store, keys: list[str]) -> None:
    commit(store, keys[4], ["w1"], rows={"tracks": {"x": [1.0, 2.0]}})
    with pytest.raises(UnknownName, match="no table 'scalar'.*did you mean 'scalars'.*noop.tracks"):
        load("w1", store.root).table("scalar")
    assert load("w1", store.root).table("tracks").collect()["x"].to_list() == [1.0, 2.0]
    now(store)
    assert load("w1", store.root).table("noop.tracks").collect()["width"].to_list() == [64, 64]


# -- one task ---------------------------------------------------------------------------------------------------------


def test_a_task_is_found_by_its_axes_and_gives_rows_settings_and_files(store: Store, keys: list[str]) -> None:
    payload = fakes.save_file(store, keys[4], "a", "notes.txt", b"hello")
    commit(store, keys[4], ["w1"], attempt="a", files=[payload])
    task = load("w1", store.root).task(width=64, seed=0)
    assert task.key == keys[4]
    assert task.settings == fakes.make_commit(keys[4]).settings
    assert task.rows()["value"].to_list() == fakes.make_commit(keys[4]).rows["scalars"]["value"]
    assert task.file("notes.txt").read_text() == "hello"
    assert load("w1", store.root).task(key=keys[4][:8]).key == keys[4]
    with pytest.raises(UnknownName, match="saved no file 'note.txt'; did you mean 'notes.txt'"):
        task.file("note.txt")


def test_a_task_that_is_not_one_is_an_error_with_the_candidates(store: Store, keys: list[str]) -> None:
    results = load("w1", store.root)
    with pytest.raises(UnknownName, match=r"2 tasks of sweep 'w1' at width=16; .*width=16, rate=0.5, seed=0; width=16, rate=0.5, seed=1"):
        results.task(width=16)
    with pytest.raises(UnknownName, match=r"no task of sweep 'w1' at width=17; .*width=16"):
        results.task(width=17)
    with pytest.raises(UnknownName, match="no axis 'widht'; did you mean 'width'"):
        results.task(widht=16)
    with pytest.raises(UnknownName, match="no tasks of workload 'train'.*It has noop"):
        results.task(workload="train")
    with pytest.raises(StoreError, match=f"task {keys[5]} .* has no result yet; see `eigensweep status w1`"):
        results.task(width=64, seed=1)


def test_the_spectrum_of_a_task_is_what_observables_take(store: Store) -> None:
    (key,) = write_sweep(store, "s1", [{"index": 0}], workload="spectrum")
    commit(store, key, ["s1"], workload="spectrum", rows=fakes.spectrum_rows([3.0, 1.0]))
    spectrum = load("s1", store.root).task(index=0).spectrum()
    assert spectrum.eigenvalues_K.tolist() == [1.0, 3.0]
    assert spectrum.num_rows == 2


def test_a_task_without_spectrum_or_network_says_so(store: Store, keys: list[str]) -> None:
    task = load("w1", store.root).task(width=16, seed=0)
    with pytest.raises(ConfigError, match="has no spectrum; choose one with workload='spectrum'"):
        task.spectrum()
    with pytest.raises(ConfigError, match="trained no network"):
        task.model()


class Trained:
    """A workload that gives the snapshot's path for the network."""

    def load_snapshot(self, path: Path) -> str:
        return path.name

    @classmethod
    def from_plain(cls, settings: dict) -> "Trained":
        return cls()


def test_the_network_of_a_task_is_its_own_or_that_of_its_input(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from workers import plugins

    monkeypatch.setattr(plugins, "load", lambda group, name: Trained if name == "train" else object)
    train, gram = fakes.key_of("train"), fakes.key_of("gram")
    snapshots = [fakes.save_file(store, train, "a", f"snapshot-{step}.safetensors", b"") for step in (0, 9, 10)]
    commit(store, train, attempt="a", workload="train", files=snapshots)
    write_sweep(store, "g1", [{"index": 0}], workload="gram")
    key = store.manifest("g1")["keys"][0]
    commit(store, key, ["g1"], workload="gram", inputs={"train": train})
    task = load("g1", store.root).task(index=0)
    assert gram != key
    assert (task.model(), task.model("init"), task.model(9)) == (
        "snapshot-10.safetensors",
        "snapshot-0.safetensors",
        "snapshot-9.safetensors",
    )
    assert task.input("train").key == train
    with pytest.raises(UnknownName, match="kept no network of step 5; it kept 0, 9, 10"):
        task.model(step=5)
    with pytest.raises(UnknownName, match="no input 'trian'; did you mean 'train'"):
        task.input("trian")


def test_ten_thousand_tasks_load_fast(store: Store) -> None:
    keys = write_sweep(store, "w1", [{"width": i, "seed": i % 4} for i in range(10_000)])
    fakes.bulk_commit(store, keys, "w1")

    def seconds() -> float:
        start = time.perf_counter()
        assert len(load("w1", store.root).scalars().collect()) == 40_000
        return time.perf_counter() - start

    fresh = seconds()
    now(store)
    compacted = min(seconds() for _ in range(4))
    print({"not compacted": fresh, "compacted": compacted})
    assert fresh < 3.0
    assert compacted < 0.2
