"""Reads what a batch's job has written: its receipt, its attempts so far, and whether it is over."""

import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workers import files
from workers.taskdir import batch_dir

Event = dict[str, Any]


@dataclass(slots=True)
class Batch:
    """One batch as its files tell it; `refresh` reads only what is new.

    `started`: key -> start event of a task that has not ended. `ended`: key -> end events. `progress`: key -> (done, total).
    """

    root: Path
    token: str
    started: dict[str, Event] = field(default_factory=dict)
    ended: dict[str, list[Event]] = field(default_factory=dict)
    progress: dict[str, tuple[int, int]] = field(default_factory=dict)
    over: str = ""
    _offset: int = 0

    @property
    def folder(self) -> Path:
        """Where its files stand."""
        return batch_dir(self.root, self.token)

    def receipt(self) -> dict[str, Any] | None:
        """What the job linked as its first act; None: it has not begun."""
        try:
            body: dict[str, Any] = files.read(self.folder / "receipt.json")
        except FileNotFoundError:
            return None
        return body

    def refresh(self) -> "Batch":
        """Read the events since the last call; a torn last line waits for its end."""
        with contextlib.suppress(FileNotFoundError), (self.folder / "attempts.jsonl").open("rb") as log:
            log.seek(self._offset)
            data = log.read()
            end = data.rfind(b"\n") + 1
            self._offset += end
            for line in data[:end].splitlines():
                self._apply(_parse(line))
        return self

    def _apply(self, event: Event) -> None:
        kind = event.get("event")
        if kind == "start":
            self.started[event["key"]] = event
        elif kind == "progress":
            self.progress[event["key"]] = (event["done"], event["total"])
        elif kind == "end":
            start = self.started.pop(event["key"], {})
            self.ended.setdefault(event["key"], []).append({**start, **event})
        elif kind == "over":
            self.over = event["reason"]

    def fence(self) -> bool:
        """Take the place of the receipt, so that a job which never began never will; False: it has begun after all."""
        return files.publish(self.folder / "receipt.json", files.encode({"fenced": True}))


def _parse(line: bytes) -> Event:
    # a job killed within a write leaves half a record with the next one behind it; what it said is found again from the commits
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}
