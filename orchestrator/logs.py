"""Finds and follows what a task wrote, also where many tasks share a job's log, in every run of a job that was requeued."""

import json
import os
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from orchestrator import ledger as ledgers
from orchestrator import where
from orchestrator.batches import Batch
from orchestrator.store import Store
from orchestrator.watch import Watch
from workers import files
from workers.taskdir import batch_dir

Event = dict[str, Any]

POLL_SECONDS = 0.2
# a task that is between two attempts is looked for this often, among all batches
SEARCH_SECONDS = 2.0
# of a job's own log, where none of its tasks has begun
MOST_LINES = 40
# after an attempt that ended so, there is no other
_FINAL = ("completed", "diverged", "superseded", "user_error", "cancelled")


def logs(name: str, prefix: str, store: Store, follow: bool = False) -> Iterator[str]:
    """The lines of every attempt of a task, oldest first, with its traceback; `follow` goes on until the task has ended for good.

    Of a job that began none of its tasks, the last lines of its own log.
    """
    watch = Watch.of(store)
    sweep = watch.sweep(name)
    index = where.find_key(sweep, prefix)
    key = sweep.keys[index]
    yield f"task {key}  {where.describe(sweep, index)}"
    shown: set[str] = set()
    last = ""
    while True:
        # asked before the attempts are read: what ends in between is then still shown
        goes_on = follow and _may_go_on(watch.refresh(), name, index)
        new = [(token, event) for token, event in _attempts(watch, key) if (event or {"attempt": token})["attempt"] not in shown]
        for token, event in new:
            shown.add(event["attempt"] if event else token)
            last = (yield from _attempt(watch, token, event, follow)) if event else (yield from _job(watch, token))
        if last in _FINAL or not goes_on:
            break
        if not new:
            time.sleep(SEARCH_SECONDS)
    if not last:
        yield f"no attempt yet; the task is {watch.states(name).states[index]}. See `eigensweep status {name}`"


def _may_go_on(watch: Watch, name: str, index: int) -> bool:
    """Whether another attempt runs, waits, or is to be sent; a paused sweep sends none."""
    state = watch.states(name).states[index]
    return state in ("running", "queued") or (state == "pending" and name not in watch.ledger.paused)


# -- attempts -----------------------------------------------------------------------------------------------------------


def _attempts(watch: Watch, key: str) -> Iterator[tuple[str, Event | None]]:
    """(token, event) of each attempt in the order of its start; one without an end has no class. None: a job that began no task at all."""
    for token in _tokens(watch.store.root, key):
        batch = Batch(watch.store.root, token).refresh()
        lost = [start for _, start in batch.lost if start["key"] == key]
        events = [*batch.ended.get(key, []), *lost, *([batch.started[key]] if key in batch.started else [])]
        yield from ((token, event) for event in sorted(events, key=lambda event: event.get("time", 0.0)))
        if not (batch.started or batch.ended or batch.lost) and _job_log(watch.store.root, token).exists():
            yield token, None


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


def _attempt(watch: Watch, token: str, event: Event, follow: bool) -> Generator[str, None, str]:
    """What an attempt printed and how it ended; returns its class."""
    yield f"-- attempt {event['attempt']}: {event.get('class') or _unended(watch, token, event)}"
    ended = yield from _lines(watch, token, event, follow)
    yield from _end(ended)
    return str(ended.get("class", "unended"))


def _job(watch: Watch, token: str) -> Generator[str, None, str]:
    """The last lines of a job's own log, where it began no task."""
    path = _job_log(watch.store.root, token)
    is_open = token in watch.ledger.batches
    yield f"-- job {token}, {'which has begun no task yet' if is_open else 'ended before it began any task'}; the end of {path}"
    with path.open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - 200 * MOST_LINES))
        yield from log.read().decode(errors="replace").splitlines()[-MOST_LINES:]
    return "" if is_open else "never_started"


def _job_log(root: Path, token: str) -> Path:
    """Where a job itself writes: `log`, or `log-4` for an element of an array."""
    base, _, element = token.partition("/")
    return batch_dir(root, base) / (f"log-{element}" if element else "log")


def _lines(watch: Watch, token: str, event: Event, follow: bool) -> Generator[str, None, Event]:
    """What an attempt printed; returns its event, by then perhaps with its end."""
    if not event.get("log"):
        return event
    name, offset = event["log"]
    path = batch_dir(watch.store.root, token) / name
    if not path.exists():
        yield f"its log {path} is gone"
        return event
    with path.open("rb") as log:
        log.seek(offset)
        end = event.get("log_end")
        yield from log.read(-1 if end is None else end - offset).decode(errors="replace").splitlines()
        if not follow or end is not None:
            return event
        while _runs(watch, token, event):
            line = log.readline()
            if line:
                yield line.decode(errors="replace").rstrip("\n")
            else:
                time.sleep(POLL_SECONDS)
        told = Batch(watch.store.root, token).refresh().ended.get(event["key"], [])
        ended: Event = next((one for one in told if one["attempt"] == event["attempt"]), event)
        yield from log.read(max(0, ended.get("log_end", 0) - log.tell())).decode(errors="replace").splitlines()
        return ended


def _runs(watch: Watch, token: str, event: Event) -> bool:
    """Whether the attempt has not ended; false too once its run is over or its batch closed, for a killed job leaves no word."""
    if token not in watch.refresh().ledger.batches:
        return False
    batch = watch.batch(token)
    return batch.started.get(event["key"], {}).get("attempt") == event["attempt"] and not batch.over


def _unended(watch: Watch, token: str, event: Event) -> str:
    return "running" if _runs(watch, token, event) else "ended with its job"


def _end(event: Event) -> Iterator[str]:
    error = event.get("error") or {}
    if error.get("traceback"):
        yield from str(error["traceback"]).rstrip().splitlines()
    if event.get("class"):
        yield json.dumps(
            {name: event[name] for name in ("class", "message", "seconds", "peak_memory_mib") if event.get(name) not in (None, "")}
        )
