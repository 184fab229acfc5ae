"""Finds and follows what a task wrote, also where many tasks share a job's log."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    found = _attempts(store.root, key)
    for token, event in found:
        yield f"-- attempt {event['attempt']}: {event.get('class', 'running')}"
        yield from _lines(watch, token, event, follow and event is found[-1][1])
        yield from _end(event)
    if not found:
        state = watch.states(name).states[index]
        yield f"no attempt yet; the task is {state}. See `eigensweep status {name}`"


def _attempts(root: Path, key: str) -> list[tuple[str, dict[str, Any]]]:
    """(token, event) of each attempt in the order of its start; an event of a running one has no class."""
    found = []
    for token in files.names(root / "batches"):
        log = batch_dir(root, token) / "attempts.jsonl"
        if not log.exists() or key.encode() not in log.read_bytes():
            continue
        batch = Batch(root, token).refresh()
        found += [(token, event) for event in batch.ended.get(key, [])]
        found += [(token, batch.started[key])] if key in batch.started else []
    return sorted(found, key=lambda pair: pair[1].get("time", 0.0))


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
        while _runs(watch, token, event["key"]):
            line = log.readline()
            if line:
                yield line.decode(errors="replace").rstrip("\n")
            else:
                time.sleep(POLL_SECONDS)
        ended = Batch(watch.store.root, token).refresh().ended.get(event["key"])
        if ended:
            yield from log.read(max(0, ended[-1].get("log_end", 0) - log.tell())).decode(errors="replace").splitlines()


def _runs(watch: Watch, token: str, key: str) -> bool:
    """Whether the task has not ended; also false once its batch is closed, for a killed job leaves no word."""
    return token in watch.refresh().ledger.batches and key in watch.batches[token].started and not watch.batches[token].over


def _end(event: dict[str, Any]) -> Iterator[str]:
    error = event.get("error") or {}
    if error.get("traceback"):
        yield from str(error["traceback"]).rstrip().splitlines()
    if event.get("class"):
        yield json.dumps(
            {name: event[name] for name in ("class", "message", "seconds", "peak_memory_mib") if event.get(name) not in (None, "")}
        )
