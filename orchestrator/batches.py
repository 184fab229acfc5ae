"""Reads what a batch's job has written: its receipts, its attempts so far, and whether it is over; writes the batches of a submission."""

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workers import files
from workers.errors import Garbled
from workers.taskdir import Task, batch_dir, receipt_name, run_dir

Event = dict[str, Any]

# a job that says so will not run again; one that was warned, or that had itself requeued, may
FINAL = ("finished", "cancelled", "disk_full", "never_started")
_FENCES_AT_ONCE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierRun:
    """A run that another one has followed. `last_sign`: of life, by the clock of its host. `number`: the scheduler's; it also counts
    those that never began."""

    host: str
    last_sign: float
    number: int

    def cause(self, causes: Sequence[str]) -> str:
        """What the scheduler says of this run, among all; empty: nothing."""
        return causes[self.number] if self.number < len(causes) else ""


@dataclass(slots=True)
class Batch:
    """One batch as its files tell it; `refresh` reads only what is new.

    `run`: number of the job's newest run, -1 before the first; a requeued job runs again. `receipt`: what that run linked as its
    first act; `is_fenced`: no job will begin this batch, or go on with it, any more. `started`: key -> start event of a task that
    has not ended in it, `lost`: (run, start event) of those that earlier runs left unended. `ended`: key -> end events.
    `progress`: key -> (done, total, in its own words). `over`: why the newest run has ended by itself. `earlier_seconds`: how long the
    runs before it lasted. `earlier`: those runs.
    """

    root: Path
    token: str
    run: int = -1
    receipt: dict[str, Any] = field(default_factory=dict)
    started: dict[str, Event] = field(default_factory=dict)
    lost: list[tuple[int, Event]] = field(default_factory=list)
    ended: dict[str, list[Event]] = field(default_factory=dict)
    progress: dict[str, tuple[int, int, str]] = field(default_factory=dict)
    over: str = ""
    is_fenced: bool = False
    earlier_seconds: float = 0.0
    earlier: list[EarlierRun] = field(default_factory=list)
    _last_time: float = 0.0
    _offset: int = 0

    @property
    def folder(self) -> Path:
        """Where its files stand."""
        return batch_dir(self.root, self.token)

    @property
    def is_over(self) -> bool:
        """Whether its job has said that it will not run again."""
        return self.over in FINAL

    @property
    def seconds(self) -> float:
        """From the newest run's start to its last word so far, by the clock of its host."""
        begun: float = self.receipt.get("began", self.receipt.get("time", self._last_time))
        return max(0.0, self._last_time - begun)

    @property
    def host(self) -> str:
        """Where the newest run is or was, by the name that its scheduler knows; empty before the first."""
        return str(self.receipt.get("slurm", {}).get("node") or self.receipt.get("host", ""))

    @property
    def last_sign(self) -> float:
        """When the newest run last showed that it lives, by the clock of its host."""
        return max(self._last_time, float(self._heartbeat().get("time", 0.0)))

    def refresh(self) -> "Batch":
        """Read the receipts and events since the last call; a torn last line waits for its end."""
        self._read_events()
        while not self.is_fenced and (receipt := self._next_receipt()) is not None:
            self.is_fenced = "fenced" in receipt
            if not self.is_fenced:
                self._begin_run(receipt)
            self._read_events()
        return self

    def _next_receipt(self) -> Event | None:
        try:
            body: Event = files.read(self.folder / receipt_name(self.run + 1))
        except FileNotFoundError:
            return None
        return body

    def _begin_run(self, receipt: Event) -> None:
        if self.run >= 0:
            self._last_time = self.last_sign
            self.earlier_seconds += self.seconds
            number = self.receipt.get("slurm", {}).get("restart", self.run)
            self.earlier.append(EarlierRun(host=self.host, last_sign=self._last_time, number=number))
            self.lost += [(self.run, event) for event in self.started.values()]
            self.over, self._offset, self.started, self.progress = "", 0, {}, {}
        self.run, self.receipt = self.run + 1, receipt

    def _read_events(self) -> None:
        path = run_dir(self.folder, max(self.run, 0)) / "attempts.jsonl"
        with contextlib.suppress(FileNotFoundError), path.open("rb") as log:
            log.seek(self._offset)
            data = log.read()
            end = data.rfind(b"\n") + 1
            self._offset += end
            for line in data[:end].splitlines():
                self._apply(_parse(line))

    def _apply(self, event: Event) -> None:
        kind = event.get("event")
        self._last_time = event.get("time", self._last_time)
        if kind == "start":
            self.started[event["key"]] = event
        elif kind == "progress":
            self.progress[event["key"]] = (event["done"], event["total"], event.get("words", ""))
        elif kind == "end":
            start = self.started.pop(event["key"], {})
            self.ended.setdefault(event["key"], []).append({**start, **event})
        elif kind == "over":
            self.over = event["reason"]

    def heartbeat(self) -> int:
        """A counter that rises while the job lives; 0 before its first."""
        return int(self._heartbeat().get("count", 0))

    def _heartbeat(self) -> Event:
        try:
            body: Event = files.read(run_dir(self.folder, max(self.run, 0)) / "heartbeat.json")
        except (FileNotFoundError, Garbled):
            return {}
        return body

    def fence(self) -> bool:
        """Take the place of the next receipt, so that no job begins (or, requeued, goes on) any more; False: one has, after all."""
        if self.is_fenced:
            return True
        files.make_dirs(self.folder)
        self.is_fenced = files.publish(self.folder / receipt_name(self.run + 1), files.encode({"fenced": True}))
        return self.is_fenced


def fence(batches: Sequence[Batch]) -> None:
    """Fence all of them; many at once, since each waits for its disk."""
    if len(batches) < _FENCES_AT_ONCE:
        for batch in batches:
            batch.fence()
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(_FENCES_AT_ONCE) as pool:
        list(pool.map(Batch.fence, batches))


def write(root: Path, token: str, body: Event, jobs: Sequence[Sequence[Task]]) -> None:
    """The tasks of a submission's jobs, as `workers.journal.read_batch` reads them."""
    folder = batch_dir(root, token)
    files.make_dirs(folder)
    if len(jobs) == 1:
        body = body | {"tasks": [task.to_plain() for task in jobs[0]]}
    else:
        lines = [files.encode([task.to_plain() for task in job]) for job in jobs]
        files.publish(folder / "tasks.jsonl", b"".join(lines))
        offsets = [0]
        for line in lines[:-1]:
            offsets.append(offsets[-1] + len(line))
        body = body | {"offsets": offsets}
    files.publish(folder / "tasks.json", files.encode(body))


def remove(root: Path, token: str) -> None:
    """Take back a submission that lost the race for its ledger entry."""
    folder = batch_dir(root, token)
    for name in os.listdir(folder):
        files.ops.unlink(folder / name)
    files.ops.rmdir(folder)


def _parse(line: bytes) -> Event:
    # a job killed within a write leaves half a record with the next one behind it; what it said is found again from the commits
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}
