"""Batches as they are written by a driver and read back, run by run."""

import json
from pathlib import Path

import pytest

from orchestrator import batches
from orchestrator import ledger as ledgers
from orchestrator.batches import Batch
from orchestrator.doubts import Doubts
from orchestrator.ledger import Ledger
from tests.batches import key, noop
from workers import files, taskdir
from workers.journal import read_batch

BODY = {"token": "w-1", "sweep": "w", "code": "c"}


def record(batch: Batch, run: int, *events: dict[str, object]) -> None:
    folder = batches.run_dir(batch.folder, run)
    files.make_dirs(folder)
    with (folder / "attempts.jsonl").open("a") as log:
        log.writelines(json.dumps(event) + "\n" for event in events)


def receipt(batch: Batch, run: int) -> None:
    files.make_dirs(batch.folder)
    assert files.publish(batch.folder / batches.receipt_name(run), files.encode({"host": f"n{run}"}))


def start(name: str, attempt: str = "a") -> dict[str, object]:
    return {"event": "start", "key": name, "attempt": attempt}


@pytest.mark.parametrize("num_jobs", [1, 3])
def test_each_job_reads_its_own_tasks(tmp_path: Path, num_jobs: int) -> None:
    jobs = [[noop(10 * job + number) for number in range(3)] for job in range(num_jobs)]
    batches.write(tmp_path, "w-1", BODY, jobs)
    for number, job in enumerate(jobs):
        body, tasks = read_batch(tmp_path, f"w-1/{number}" if num_jobs > 1 else "w-1")
        assert (tasks, body["sweep"]) == (job, "w")


def test_a_submission_that_lost_its_race_leaves_nothing(tmp_path: Path) -> None:
    batches.write(tmp_path, "w-1", BODY, [[noop(1)], [noop(2)]])
    batches.remove(tmp_path, "w-1")
    assert files.names(tmp_path / "batches") == []


def test_only_elements_that_began_have_a_folder(tmp_path: Path) -> None:
    batches.write(tmp_path, "w-1", BODY, [[noop(number)] for number in range(12)])
    batches.write(tmp_path, "w-2", BODY, [[noop(1)]])
    for element in (11, 2):
        receipt(Batch(tmp_path, f"w-1/{element}"), 0)
    assert list(taskdir.batch_tokens(tmp_path)) == ["w-1/2", "w-1/11", "w-2"]


def test_a_requeued_job_begins_anew_and_what_it_had_left_is_lost(tmp_path: Path) -> None:
    batch = Batch(tmp_path, "w-1")
    receipt(batch, 0)
    record(batch, 0, start("a"), {"event": "end", "key": "a", "class": "completed"}, start("b"), {"event": "over", "reason": "warned"})
    assert (batch.refresh().run, batch.over, list(batch.started)) == (0, "warned", ["b"])
    receipt(batch, 1)
    record(batch, 1, start("b", "a1"))
    batch.refresh()
    assert (batch.run, batch.over, batch.receipt["host"]) == (1, "", "n1")
    assert [(run, event["key"]) for run, event in batch.lost] == [(0, "b")]
    assert (batch.started["b"]["attempt"], list(batch.ended)) == ("a1", ["a"])


def test_events_that_are_there_before_the_receipt_are_read_once(tmp_path: Path) -> None:
    batch = Batch(tmp_path, "w-1")
    record(batch, 0, start("a"), {"event": "end", "key": "a", "class": "killed"})
    batch.refresh()
    receipt(batch, 0)
    assert len(batch.refresh().refresh().ended["a"]) == 1


def test_the_newest_progress_counts_with_its_words_until_the_job_begins_anew(tmp_path: Path) -> None:
    batch = Batch(tmp_path, "w-1")
    receipt(batch, 0)
    told = [{"event": "progress", "key": "a", "done": done, "total": 9} for done in (1, 2)]
    record(batch, 0, start("a"), told[0], told[1] | {"words": "2 of 9 tiles"}, {"event": "progress", "key": "b", "done": 3, "total": 4})
    assert batch.refresh().progress == {"a": (2, 9, "2 of 9 tiles"), "b": (3, 4, "")}
    receipt(batch, 1)
    assert batch.refresh().progress == {}


@pytest.mark.parametrize("runs", [0, 1, 2])
def test_a_fence_takes_the_place_of_the_next_run_s_receipt(tmp_path: Path, runs: int) -> None:
    batch = Batch(tmp_path, "w-1")
    for run in range(runs):
        receipt(batch, run)
    assert batch.refresh().fence()
    assert not files.publish(batch.folder / batches.receipt_name(runs), b"a job that comes too late")
    other = Batch(tmp_path, "w-1").refresh()
    assert (other.is_fenced, other.run) == (True, runs - 1)


def test_a_job_that_was_quicker_than_the_fence_is_alive(tmp_path: Path) -> None:
    batch = Batch(tmp_path, "w-1").refresh()
    receipt(batch, 0)
    assert not batch.fence()
    assert not batch.is_fenced


def test_of_many_fenced_at_once_those_that_had_begun_are_alive(tmp_path: Path) -> None:
    many = [Batch(tmp_path, f"w-1/{number}").refresh() for number in range(40)]
    begun = many[::7]
    for batch in begun:
        receipt(batch, 0)
    batches.fence(many)
    assert [batch for batch in many if not batch.is_fenced] == begun


def test_a_fold_knows_which_tasks_of_open_jobs_were_told_to_end() -> None:
    ledger = Ledger()
    ledger.apply(1, {"kind": "submission", "token": "w-1", "sweep": "w", "jobs": [["a", "b"], ["c"], ["d"]]})
    ledger.apply(2, {"kind": "cancellation", "sweep": "w", "keys": ["a", "c", "e"]})
    ledger.apply(3, {"kind": "cancellation", "sweep": "other", "keys": ["d"]})
    for one in (ledger, Ledger.from_body(files.plain(ledger.to_body()))):
        assert {token: batch.get("told") for token, batch in one.batches.items()} == {"w-1/0": ["a"], "w-1/1": ["c"], "w-1/2": None}


def test_a_fold_with_open_arrays_reads_back_and_writes_each_submission_once() -> None:
    ledger = Ledger()
    for token, jobs in (("w-1", [["a"], ["b"]]), ("w-2", [["c"]])):
        ledger.apply(ledger.number + 1, {"kind": "submission", "token": token, "sweep": "w", "launcher": {"name": "x"}, "jobs": jobs})
    body = files.plain(ledger.to_body())
    assert Ledger.from_body(body) == ledger
    assert len(body["batches"]) == 2
    assert {token: entry["keys"] for token, entry in ledger.batches.items()} == {"w-1/0": ["a"], "w-1/1": ["b"], "w-2": ["c"]}


def test_entries_from_before_there_were_arrays_are_understood() -> None:
    ledger = Ledger()
    ledger.apply(1, {"kind": "submission", "token": "w-1", "sweep": "w", "keys": [key(1)]})
    assert ledger.batches["w-1"]["keys"] == [key(1)]
    ledger.apply(2, {"kind": "closed", "token": "w-1", "sweep": "w", "outcomes": {key(1): {"class": "killed"}}, "pause": "full"})
    assert (ledger.batches, ledger.paused) == ({}, {"w": "full"})
    assert ledger.outcomes == {key(1): [{"class": "killed", "number": 2}]}
    assert ledgers.spread({"w-1": {"keys": []}}) == {"w-1": {"keys": []}}


def test_a_doubt_needs_time_and_an_unchanged_mark_and_outlives_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    now = [100.0]
    monkeypatch.setattr("orchestrator.doubts.time.clock_gettime", lambda clock: now[0])
    doubts = Doubts.of(tmp_path)
    assert not doubts.is_confirmed("t", "no record", 30.0)
    assert doubts.unsettled == {"t"}
    doubts.save()
    now[0] += 31
    assert Doubts.of(tmp_path).is_confirmed("t", "no record", 30.0)
    assert not Doubts.of(tmp_path).is_confirmed("t", "a heartbeat", 30.0), "it lives"
    assert not Doubts.of(tmp_path / "another store").is_confirmed("t", "no record", 30.0)
    doubts.forget("t")
    doubts.save()
    assert Doubts.of(tmp_path).seen == {}
