"""Finds and follows what a task wrote, also where many tasks share a job's log."""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator import ledger as ledgers
from orchestrator import where
from orchestrator.batches import Batch
from orchestrator.store import Store
from orchestrator.watch import Watch
from workers import files
from workers.taskdir import batch_dir

POLL_SECONDS = 0.2


def logs(name: str, prefix: str, store: Store, follow: bool = False) -> Iterator[str]:
    """The lines of every attempt of a task, oldest first, with its traceback; `follow` waits for more while it runs."""
    watch = Watch.of(store)
    sweep = watch.sweep(name)
    index = where.find_key(sweep, prefix)
    key = sweep.keys[index]
    yield f"task {key}  {where.describe(sweep, index)}"
    tokens = _tokens(store.root, key)
    found = [(token, event) for token in tokens for event in _attempts(store.root, token, key)]
    for token in tokens:
        for event in (event for one, event in found if one == token):
            yield f"-- attempt {event['attempt']}: {event.get('class') or _unended(watch, token, event)}"
            yield from _lines(watch, token, event, follow and event is found[-1][1])
            yield from _end(event)
        yield from _of_job_without_attempts(watch, token)
    if not found:
        state = watch.states(name).states[index]
        yield f"no attempt yet; the task is {state}. See `eigensweep status {name}`"


def _tokens(root: Path, key: str) -> list[str]:
    """Of all jobs that were ever to run the task, oldest first."""
    found = []
    for name in files.names(root / "ledger"):
        # most entries are of other tasks, and need not be parsed
        if key.encode() in (root / "ledger" / name).read_bytes():
            entry = files.read(root / "ledger" / name)
            if entry["kind"] == "submission":
                found += [token for token, job in ledgers.jobs_of(entry).items() if key in job["keys"]]
    return found


def _attempts(root: Path, token: str, key: str) -> list[dict[str, Any]]:
    """The events of the task's attempts in a batch, in the order of their start; that of one without an end has no class."""
    batch = Batch(root, token).refresh()
    unended = [start for _, start in batch.lost if start["key"] == key] + ([batch.started[key]] if key in batch.started else [])
    return sorted([*batch.ended.get(key, []), *unended], key=lambda event: event.get("time", 0.0))


def _of_job_without_attempts(watch: Watch, token: str) -> Iterator[str]:
    """What a job itself printed that ended before it began any task."""
    batch = Batch(watch.store.root, token).refresh()
    if token in watch.ledger.batches or batch.started or batch.ended or batch.lost:
        return
    base, _, element = token.partition("/")
    with contextlib.suppress(FileNotFoundError):
        lines = (batch_dir(watch.store.root, base) / (f"log-{element}" if element else "log")).read_text(errors="replace").splitlines()
        yield f"-- job {token}: ended before it began any task"
        yield from lines


def _lines(watch: Watch, token: str, event: dict[str, Any], follow: bool) -> Iterator[str]:
    if not event.get("log"):
        return
    name, offset = event["log"]
    with (batch_dir(watch.store.root, token) / name).open("rb") as log:
        log.seek(offset)
        end = event.get("log_end")
        yield from log.read(-1 if end is None else end - offset).decode(errors="replace").splitlines()
        if not follow or end is not None:
            return
        while _runs(watch, token, event):
            line = log.readline()
            if line:
                yield line.decode(errors="replace").rstrip("\n")
            else:
                time.sleep(POLL_SECONDS)
        ended = Batch(watch.store.root, token).refresh().ended.get(event["key"])
        if ended:
            yield from log.read(max(0, ended[-1].get("log_end", 0) - log.tell())).decode(errors="replace").splitlines()


def _runs(watch: Watch, token: str, event: dict[str, Any]) -> bool:
    """Whether the attempt has not ended; also false once its batch is closed, for a killed job leaves no word."""
    if token not in watch.refresh().ledger.batches:
        return False
    batch = watch.batch(token)
    return batch.started.get(event["key"], {}).get("attempt") == event["attempt"] and not batch.over


def _unended(watch: Watch, token: str, event: dict[str, Any]) -> str:
    return "running" if _runs(watch, token, event) else "ended with its job"


def _end(event: dict[str, Any]) -> Iterator[str]:
    error = event.get("error") or {}
    if error.get("traceback"):
        yield from str(error["traceback"]).rstrip().splitlines()
    if event.get("class"):
        yield json.dumps(
            {name: event[name] for name in ("class", "message", "seconds", "peak_memory_mib") if event.get(name) not in (None, "")}
        )
