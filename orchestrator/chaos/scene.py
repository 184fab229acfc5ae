"""What the attempts of a store's tasks are at, as their jobs record it, read on while they run."""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workers import files
from workers.errors import Garbled

COMMITTED = frozenset(("completed", "diverged"))


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One attempt. `folder` is its batch's, `run` counts the job's restarts, `by` is the fault that struck it.

    Times are on this process's monotonic clock but `begun`, which is its node's.
    """

    name: str
    key: str
    folder: Path
    run: int
    log: str
    begun: float
    seen: float
    outcome: str = ""
    seconds: float | None = None
    message: str = ""
    by: str = ""
    struck: float | None = None

    @property
    def child(self) -> tuple[Path, int, str]:
        """The place where it ran, one task after another."""
        return self.folder, self.run, self.log

    @property
    def is_lost(self) -> bool:
        """Whether it ended without a commit of its own."""
        return self.outcome not in COMMITTED

    @property
    def lost_seconds(self) -> float:
        """What it had spent; for one that left no word, from when it was first seen until it was struck."""
        if self.seconds is not None:
            return self.seconds
        return max(0.0, self.struck - self.seen) if self.struck is not None else 0.0


@dataclass(slots=True)
class Scene:
    """All attempts of a store by name; `refresh` reads only what is new."""

    root: Path
    attempts: dict[str, Attempt] = field(default_factory=dict)
    _newest: dict[str, str] = field(default_factory=dict)
    _over: set[Path] = field(default_factory=set)
    _offsets: dict[Path, int] = field(default_factory=dict)

    def refresh(self) -> "Scene":
        """Read the records since the last call."""
        # not Path.glob, which fails where a driver that lost a race takes its submission back meanwhile
        for name, _, names in os.walk(self.root / "batches"):
            if "attempts.jsonl" in names:
                path = Path(name)
                is_rerun = path.name.startswith("run-")
                for event in self._new_events(path / "attempts.jsonl"):
                    self._apply(event, path.parent if is_rerun else path, int(path.name[4:]) if is_rerun else 0)
        return self

    def running(self) -> list[Attempt]:
        """Those that run as far as their records tell, and that no fault has struck."""
        found = []
        for name in self._newest.values():
            one = self.attempts[name]
            if not one.outcome and not one.by and self._file(one) not in self._over:
                found.append(one)
        return found

    def struck(self, by: str) -> list[Attempt]:
        """Those that a kind of fault has struck."""
        return [one for one in self.attempts.values() if one.by == by]

    def strike(self, attempts: list[Attempt], by: str) -> None:
        """Note what a fault has hit, if it hit them while they ran."""
        for one in attempts:
            one.by, one.struck = by, time.monotonic()

    def pass_on(self, by: str, outcome: str) -> None:
        """A blow that came when its target had just committed falls on the next task of that child, where that ended so."""
        for one in self.struck(by):
            if one.outcome in COMMITTED:
                after = [other for other in self.attempts.values() if other.child == one.child and other.begun > one.begun]
                following = min(after, key=lambda other: other.begun, default=None)
                if following is not None and following.outcome == outcome and not following.by:
                    following.by, following.struck, one.by = by, one.struck, ""

    def in_the_same_job(self, one: Attempt) -> list[Attempt]:
        """The running attempts of one job, this one among them."""
        return [other for other in self.running() if (other.folder, other.run) == (one.folder, one.run)]

    def receipt(self, one: Attempt) -> dict[str, Any]:
        """Who runs it; nothing where that cannot be read now, or where the job has been started again since."""
        with contextlib.suppress(FileNotFoundError, Garbled):
            if not (one.folder / f"receipt-{one.run + 1}.json").exists():
                body: dict[str, Any] = files.read(one.folder / (f"receipt-{one.run}.json" if one.run else "receipt.json"))
                return body
        return {}

    def _new_events(self, path: Path) -> Iterator[dict[str, Any]]:
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            file.seek(self._offsets.get(path, 0))
            data = file.read()
            end = data.rfind(b"\n") + 1
            self._offsets[path] = self._offsets.get(path, 0) + end
            for line in data[:end].splitlines():
                with contextlib.suppress(ValueError):  # half a line, left by a killed job
                    yield json.loads(line)

    def _apply(self, event: dict[str, Any], folder: Path, run: int) -> None:
        kind, name = event["event"], event.get("attempt", "")
        if kind == "start":
            log = Path(event["log"][0]).name
            now = time.monotonic()
            self.attempts[name] = Attempt(name=name, key=event["key"], folder=folder, run=run, log=log, begun=event["time"], seen=now)
            self._newest[event["key"]] = name
        elif kind == "end" and name in self.attempts:
            one = self.attempts[name]
            one.outcome, one.seconds, one.message = event["class"], event["seconds"], event.get("message") or ""
        elif kind == "over":
            self._over.add(folder / f"run-{run}" if run else folder)

    def _file(self, one: Attempt) -> Path:
        return one.folder / f"run-{one.run}" if one.run else one.folder
