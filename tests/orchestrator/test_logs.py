"""What a task printed is found in whatever job and run it ran, and followed from one to the next; where it never began, its job speaks."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import eigensweep as es
from orchestrator import ledger as ledgers
from orchestrator import logs
from orchestrator.store import Store
from tests.protocol import scripted
from workers import files, taskdir


@pytest.fixture
def base(store: Store, monkeypatch: pytest.MonkeyPatch) -> str:
    """An array of two jobs of three tasks each, which do nothing by themselves."""
    monkeypatch.setattr(logs, "SEARCH_SECONDS", 0.02)
    monkeypatch.setattr(logs, "POLL_SECONDS", 0.01)
    scripted.JOBS.clear()
    es.submit(["workload=noop", "index=range(0,6)", "name=w1", "launcher=tests.protocol.scripted"], store.root, detach=True)
    (base,) = (store.root / "batches").iterdir()
    return base.name


def keys(store: Store, token: str) -> list[str]:
    return list(ledgers.read(store.root).batches[token]["keys"])


class Run:
    """One run of a job, which writes what a test says; `texts`: what its only slot prints, in order."""

    def __init__(self, store: Store, token: str, number: int) -> None:
        self.folder = taskdir.batch_dir(store.root, token)
        self.below = taskdir.run_dir(self.folder, number)
        self.below.mkdir(parents=True, exist_ok=True)
        self.attempt = f"{token.replace('/', '.')}-0-{100 * number}-abcde{number}"
        self.time = 1000.0 * number
        self.log = self.below / "log-0"
        self.log.touch()
        # as a job does: whoever reads it finds all of it
        receipt = {"token": token, "time": self.time, "host": f"n{number}"}
        assert files.publish(self.folder / taskdir.receipt_name(number), files.encode(receipt))

    def _write(self, event: dict[str, Any]) -> None:
        self.time += 1
        with (self.below / "attempts.jsonl").open("a") as file:
            file.write(json.dumps({"time": self.time, "attempt": self.attempt, **event}) + "\n")

    def start(self, key: str) -> "Run":
        name = str(self.log.relative_to(self.folder))
        self._write({"event": "start", "key": key, "log": [name, self.log.stat().st_size]})
        return self

    def say(self, text: str) -> "Run":
        with self.log.open("a") as file:
            file.write(text)
        return self

    def end(self, key: str, outcome: str, **more: Any) -> "Run":
        self._write({"event": "end", "key": key, "class": outcome, "seconds": 1.0, "log_end": self.log.stat().st_size, **more})
        return self


def shown(store: Store, key: str) -> list[str]:
    return list(logs.logs("w1", key, store))


def test_a_task_of_a_packed_array_element_shows_its_own_lines_only(store: Store, base: str) -> None:
    first, second, _ = keys(store, f"{base}/1")
    run = Run(store, f"{base}/1", 0)
    run.start(first).say("mine\n").end(first, "completed")
    run.attempt += "b"
    error = {"type": "ValueError", "traceback": "Traceback\nValueError: no"}
    run.start(second).say("not mine\n").end(second, "user_error", message="ValueError: no", error=error)
    assert shown(store, first)[2:-1] == ["mine"]
    lines = shown(store, second)
    assert lines[2:5] == ["not mine", "Traceback", "ValueError: no"]
    assert json.loads(lines[-1])["class"] == "user_error"


def test_a_task_of_a_job_that_was_requeued_shows_every_run(store: Store, base: str) -> None:
    key = keys(store, f"{base}/0")[0]
    Run(store, f"{base}/0", 0).start(key).say("first\n")
    Run(store, f"{base}/0", 1).start(key).say("second\n").end(key, "interrupted")
    Run(store, f"{base}/0", 2).start(key).say("third\n").end(key, "completed")
    lines = shown(store, key)
    assert [line for line in lines if line in ("first", "second", "third")] == ["first", "second", "third"]
    assert [line.rpartition(": ")[2] for line in lines if line.startswith("--")] == [
        "ended with its job",
        "interrupted",
        "completed",
    ]


def test_where_a_task_never_began_its_jobs_own_log_is_shown(store: Store, base: str) -> None:
    key = keys(store, f"{base}/1")[2]
    assert shown(store, key)[1:] == ["no attempt yet; the task is queued. See `eigensweep status w1`"]
    (store.root / "batches" / base / "log-1").write_text("".join(f"line {i}\n" for i in range(100)) + "ModuleNotFoundError: no torch\n")
    (store.root / "batches" / base / "log-0").write_text("another job\n")
    lines = shown(store, key)
    assert lines[1].startswith(f"-- job {base}/1, which has begun no task yet; the end of ")
    assert lines[-2:] == ["ModuleNotFoundError: no torch", "no attempt yet; the task is queued. See `eigensweep status w1`"]
    assert len(lines) == 3 + logs.MOST_LINES
    closing = {"token": f"{base}/1", "sweep": "w1", "outcomes": {}}
    assert ledgers.append(store.root, ledgers.read(store.root), {"kind": "closed", "batches": [closing]})
    lines = shown(store, key)
    assert lines[1].startswith(f"-- job {base}/1, ended before it began any task; the end of ")
    assert lines[-1] == "ModuleNotFoundError: no torch"


class Following:
    """`logs --follow` in a thread, whose lines can be waited for."""

    def __init__(self, store: Store, key: str) -> None:
        self.lines: list[str] = []
        self._more = threading.Condition()
        self._thread = threading.Thread(target=self._read, args=(logs.logs("w1", key, store, follow=True),), daemon=True)
        self._thread.start()

    def _read(self, lines: Iterator[str]) -> None:
        for line in lines:
            with self._more:
                self.lines.append(line)
                self._more.notify_all()

    def wait_for(self, text: str) -> None:
        with self._more:
            assert self._more.wait_for(lambda: any(text in line for line in self.lines), timeout=20), (text, self.lines)

    def end(self) -> list[str]:
        self._thread.join(20)
        assert not self._thread.is_alive(), self.lines
        return self.lines


def test_following_goes_on_across_a_requeue_to_the_last_line(store: Store, base: str) -> None:
    key = keys(store, f"{base}/0")[0]
    run = Run(store, f"{base}/0", 0).start(key)
    following = Following(store, key)
    run.say("one\n")
    following.wait_for("one")
    again = Run(store, f"{base}/0", 1)
    again.start(key)
    following.wait_for(again.attempt)
    again.say("two\n")
    following.wait_for("two")
    again.say("three\n").end(key, "completed")
    lines = following.end()
    assert [line for line in lines if line in ("one", "two", "three")] == ["one", "two", "three"]
    assert json.loads(lines[-1])["class"] == "completed"


def test_following_waits_for_a_task_that_is_queued_and_ends_with_an_error_though_its_job_goes_on(store: Store, base: str) -> None:
    key = keys(store, f"{base}/0")[0]
    following = Following(store, key)
    following.wait_for("task ")
    Run(store, f"{base}/0", 0).start(key).say("now\n").end(key, "user_error", message="no")
    assert "now" in following.end()


def test_what_a_task_writes_while_its_end_is_asked_for_is_shown(store: Store, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key = keys(store, f"{base}/0")[0]
    ask = logs._may_go_on

    def ask_once_it_ended(watch: Any, *args: Any) -> bool:
        Run(store, f"{base}/0", 0).start(key).say("now\n").end(key, "user_error", message="no")
        failed = {"class": "user_error", "attempt": f"{base}.0-0-0-abcde0", "message": "no", "code": "c", "token": f"{base}/0"}
        closing = {"token": f"{base}/0", "sweep": "w1", "outcomes": {key: [failed]}}
        ledger = ledgers.read(store.root)
        assert ledgers.append(store.root, ledger, {"kind": "pause", "sweep": "w1", "reason": "stopped"})
        assert ledgers.append(store.root, ledger, {"kind": "closed", "batches": [closing]})
        return ask(watch.refresh(), *args)

    monkeypatch.setattr(logs, "_may_go_on", ask_once_it_ended)
    assert "now" in list(logs.logs("w1", key, store, follow=True))


def test_following_ends_where_nothing_more_will_come(store: Store, base: str) -> None:
    key = keys(store, f"{base}/0")[0]
    run = Run(store, f"{base}/0", 0).start(key)
    following = Following(store, key)
    run.say("one\n")
    following.wait_for("one")
    killed = {"class": "killed", "attempt": run.attempt, "message": "m", "code": "c", "token": f"{base}/0"}
    ledger = ledgers.read(store.root)
    assert ledgers.append(store.root, ledger, {"kind": "pause", "sweep": "w1", "reason": "stopped"})
    closing = {"token": f"{base}/0", "sweep": "w1", "outcomes": {key: [killed]}}
    assert ledgers.append(store.root, ledger, {"kind": "closed", "batches": [closing]})
    following.end()


def test_a_log_that_is_gone_is_named(store: Store, base: str) -> None:
    key = keys(store, f"{base}/0")[0]
    run = Run(store, f"{base}/0", 0).start(key).end(key, "completed")
    run.log.unlink()
    assert shown(store, key)[2] == f"its log {Path(run.log)} is gone"
