"""What a batch's job says of its attempts, over all its runs: how those ended that committed nothing, and what each has cost."""

import functools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator import cost, schema
from workers import files
from workers.errors import Garbled
from workers.taskdir import Commit, batch_dir, job_path, receipt_name, run_dir

Row = dict[str, Any]
Event = dict[str, Any]

# what is known of an attempt beside what its commit says
COSTS = ("batch", "job_id", "cpu_hours", "gpu_hours", "node_hours", "energy_joules", "resumed_at", "checkpoint")
COMMITTED = ("completed", "diverged")
_OF_COMMITTED = ("attempt", "key", "class", "energy_joules", "resumed_at", "checkpoint")

_ATTEMPT = re.compile(r"(?P<base>.+-[0-9a-f]{12})(?:\.(?P<element>\d+))?-\d+-\d+-[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class Closed:
    """A batch that the ledger has closed: its submission, how its tasks' attempts ended (key -> outcomes), and its job's record."""

    entry: Mapping[str, Any] = field(default_factory=dict)
    outcomes: Mapping[str, list[Event]] = field(default_factory=dict)
    job: Mapping[str, Any] = field(default_factory=dict)

    @property
    def keys(self) -> list[str]:
        """Its tasks."""
        return list(self.entry.get("keys", []))


def token_of(attempt: str) -> str | None:
    """The batch that an attempt was part of, by its name; None: of none."""
    match = _ATTEMPT.fullmatch(attempt)
    return match and match["base"] + (f"/{match['element']}" if match["element"] else "")


# -- jobs ---------------------------------------------------------------------------------------------------------------


def job_row(token: str, closed: Closed, found: list[Row]) -> Row | None:
    """The row of a job that a scheduler was asked for, with the attempts `found` in it; None: of the embedded launchers, which nobody
    has to pay."""
    request, job = closed.entry.get("request") or {}, closed.job
    hours = cost.of_job(request, job.get("seconds", 0.0))
    if not hours or not job.get("seconds"):
        return None
    asked = {name: request.get(name) for name in ("nodes", "cpus", "gpus", "memory_gib", "slots")}
    # where the scheduler did not say it, the job itself may have measured what its attempts share
    measured = sum(row["energy_joules"] or 0.0 for row in found) or None
    return {
        **{name: job.get(name) for name in ("job_id", "reason", "seconds")},
        "energy_joules": job.get("energy_joules") or measured,
        **asked,
        **hours,
        "batch": token,
        "sweep": closed.entry.get("sweep"),
        "hosts": ",".join(job.get("nodes", [])),
        "limit_minutes": request.get("minutes"),
        "num_tasks": len(closed.keys),
    }


# -- attempts -----------------------------------------------------------------------------------------------------------


def rows(root: Path, token: str, entry: Mapping[str, Any], closed: Closed | None = None) -> list[Row]:
    """A row for each attempt that has ended; of a `closed` batch also for those that were left without an end.

    Of one that committed, the row has only what its commit does not say (COSTS).
    """
    folder = batch_dir(root, token)
    there = files.names(folder)
    runs = sorted(int(name[4:]) for name in there if name.startswith("run-") and name[4:].isdigit())
    of_all = {"batch": token, "job_id": _job_id(root, token, closed), "code": entry.get("code")}
    request = entry.get("request") or {}
    asked = functools.cache(lambda: _resources(folder))
    found: list[Row] = []
    energy = 0.0
    for run in [0, *runs]:
        told = _Run.read(folder, run)
        events = [*told.ended, *(told.left(closed) if closed is not None else ())]
        for event in events:
            needs = "cpus" not in event and not request.get("shape")
            paid = cost.of_attempt(event, request, asked().get(event["key"]) if needs else None)
            if event["class"] in COMMITTED:
                found.append({**of_all, **paid, **{name: event.get(name) for name in _OF_COMMITTED}})
            else:
                found.append({**_row({**of_all, **event}), **paid, "host": event.get("host") or told.host})
        energy += told.energy_joules
    _share_energy(found, (closed.job.get("energy_joules") if closed is not None else None) or energy)
    return found


@dataclass(slots=True)
class _Run:
    """What one run of a job has written down."""

    folder: Path
    number: int
    ended: list[Event] = field(default_factory=list)
    started: dict[str, Event] = field(default_factory=dict)
    last_time: float = 0.0
    energy_joules: float = 0.0
    _host: str | None = None

    @classmethod
    def read(cls, folder: Path, number: int) -> "_Run":
        run = cls(folder, number)
        for event in _events(run_dir(folder, number) / "attempts.jsonl"):
            run.last_time = event.get("time", run.last_time)
            if event["event"] == "over":
                run.energy_joules = event.get("energy_joules") or 0.0
            elif event["event"] == "start":
                run.started[event["attempt"]] = event
            elif event["event"] == "end":
                start = run.started.pop(event["attempt"], {})
                run.ended.append({**start, **event, "started": start.get("time")})
        return run

    def left(self, closed: Closed) -> Iterator[Event]:
        """Attempts that have begun and not ended, each with the cause that the ledger or the scheduler knows and its last sign of life."""
        earlier = closed.job.get("earlier", [])
        cause = earlier[self.number] if self.number < len(earlier) else closed.job.get("cause", "")
        for attempt, start in self.started.items():
            told = next((one for one in closed.outcomes.get(start["key"], []) if one.get("attempt") == attempt), {})
            seconds = max(0.0, self._last_sign() - start["time"]) if "time" in start else None
            yield {**start, "class": cause or "killed", "seconds": seconds, **told, "started": start.get("time")}

    def _last_sign(self) -> float:
        beat: float = _document(run_dir(self.folder, self.number) / "heartbeat.json").get("time", 0.0)
        return max(self.last_time, beat)

    @property
    def host(self) -> str | None:
        """Where it ran."""
        if self._host is None:
            self._host = str(_document(self.folder / receipt_name(self.number)).get("host", ""))
        return self._host or None


def _row(event: Event) -> Row:
    started, error = event.get("started"), event.get("error") or {}
    return {
        **{name: event.get(name) for name in schema.TABLES["attempts"]},
        "started": None if started is None else int(started * 1000),
        "error_type": error.get("type"),
        "error_fingerprint": error.get("fingerprint"),
    }


def _resources(folder: Path) -> dict[str, Mapping[str, Any]]:
    """What each task asked for, where neither its end record nor its submission says so."""
    return {task["key"]: task["resources"] for task in _document(folder / "tasks.json").get("tasks", [])}


def _share_energy(found: list[Row], joules: float) -> None:
    """The job's energy over the attempts that have none of their own, by the time and the slots that they had."""
    without = [row for row in found if row["energy_joules"] is None]
    left = joules - sum(row["energy_joules"] or 0.0 for row in found)
    weights = [row["node_hours"] or row["cpu_hours"] or 0.0 for row in without]
    if joules and left > 0 and sum(weights):
        for row, weight in zip(without, weights, strict=True):
            row["energy_joules"] = left * weight / sum(weights)


def _job_id(root: Path, token: str, closed: Closed | None) -> str | None:
    """The scheduler's name of the job: `123`, or `123_4` of an array; None for a process of this machine."""
    base, _, element = token.partition("/")
    number = str((closed.job if closed is not None else {}).get("job_id") or _document(job_path(root, base)).get("job_id", ""))
    if not number or ":" in number:
        return None
    return number if not element or "_" in number else f"{number}_{element}"


def _document(path: Path) -> dict[str, Any]:
    try:
        body: dict[str, Any] = files.read(path)
    except (FileNotFoundError, Garbled):
        return {}
    return body


def _events(path: Path) -> Iterable[Event]:
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        if line.startswith(b'{"event":"progress"'):
            continue
        try:
            event = json.loads(line)
        except ValueError:
            continue  # torn by a kill
        if isinstance(event, dict) and (event.get("event") == "over" or ("attempt" in event and "key" in event)):
            yield event


# -- what committed attempts have cost ------------------------------------------------------------------------------------


@dataclass(slots=True)
class Costs:
    """What attempts have cost, by name; a batch that was not added is read when one of its attempts is asked for.

    `batches`: token -> submission entry of the open ones.
    """

    root: Path
    batches: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    _rows: dict[str, Row] = field(default_factory=dict)
    _entries: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def add(self, token: str, entry: Mapping[str, Any], found: list[Row]) -> None:
        """Attempts of a batch."""
        self._entries[token] = entry
        self._rows.update((row["attempt"], row) for row in found)

    def of(self, commit: Commit) -> Row:
        """The columns COSTS of the attempt that made a commit; all None where it was part of no batch."""
        row = self._rows.get(commit.attempt) or self._read(commit)
        return {name: row.get(name) for name in COSTS}

    def _read(self, commit: Commit) -> Row:
        token = token_of(commit.attempt)
        if token is None:
            return {}
        if token not in self._entries:
            entry = self.batches.get(token) or _document(batch_dir(self.root, token.partition("/")[0]) / "tasks.json")
            self.add(token, entry, rows(self.root, token, entry) if entry else [])
        if commit.attempt in self._rows:
            return self._rows[commit.attempt]
        # it committed, and was killed before it said so
        return {"batch": token, **cost.of_attempt({"seconds": commit.seconds}, self._entries[token].get("request") or {})}
