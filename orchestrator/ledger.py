"""The numbered log of a store: submissions, ends of batches, cancellations, resumes, retractions, compactions; and what they add up to."""

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workers import files
from workers.errors import Garbled
from workers.taskdir import commit_name

# class of an outcome that says nothing about the task itself
UNCHARGED = {"completed", "diverged", "superseded", "interrupted", "cancelled"}

# jobs of one host whose last signs of life are no further apart died together
SAME_FAILURE_SECONDS = 20.0


@dataclass(slots=True)
class Ledger:
    """The fold of all entries up to `number`.

    `sweeps`: name -> {revision, snapshot, code}. `batches`: the open ones, token -> what its submission entry says, with the `keys` of
    its own job, those among them that were `told` to end. `outcomes`: key -> how its attempts ended since its budget was last renewed;
    `num_failed` counts them all.
    `cancelled`: sweep -> keys, or None for all. `paused`: sweep -> reason. `resumed`: sweep -> the entry that last resumed it.
    `settled`: sweeps that have nothing left to submit. `slowest`: shape name -> seconds of the slowest completed attempt.
    `lost_hosts`: host -> for each time that it failed, when, and the keys that it then had at work. `spent`: sweep -> what its closed jobs
    have cost (`orchestrator.cost`).
    """

    number: int = 0
    sweeps: dict[str, dict[str, Any]] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    outcomes: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    num_failed: dict[str, int] = field(default_factory=dict)
    cancelled: dict[str, list[str] | None] = field(default_factory=dict)
    paused: dict[str, str] = field(default_factory=dict)
    resumed: dict[str, int] = field(default_factory=dict)
    settled: set[str] = field(default_factory=set)
    generations: dict[str, int] = field(default_factory=dict)
    retracted: set[str] = field(default_factory=set)
    manifest: int = 0
    slowest: dict[str, float] = field(default_factory=dict)
    lost_hosts: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    spent: dict[str, dict[str, float]] = field(default_factory=dict)

    def to_body(self) -> dict[str, Any]:
        """Plain values, kept in the manifest of a dataset so that reading begins there."""
        body = {name: sorted(value) if isinstance(value := getattr(self, name), set) else value for name in self.__slots__}
        return body | {"batches": _gathered(self.batches)}

    @classmethod
    def from_body(cls, body: dict[str, Any]) -> "Ledger":
        """The fold that `to_body` wrote; what a newer version has added to it is left out."""
        known = {name: value for name, value in body.items() if name in cls.__slots__}
        values: dict[str, Any] = {name: set(value) if name in ("settled", "retracted") else value for name, value in known.items()}
        return cls(**values | {"batches": spread(body["batches"])})

    def name_of(self, key: str) -> str:
        """Name of the commit that counts for a task."""
        return commit_name(key, self.generations.get(key, 0))

    def revision_of(self, sweep: str) -> int | None:
        """The active revision; a manifest with a higher number may be of a driver that died, or lost a race, before it was activated."""
        revision: int | None = self.sweeps.get(sweep, {}).get("revision")
        return revision

    def is_cancelled(self, sweep: str, key: str) -> bool:
        """Whether the user took this task out of the sweep's work."""
        if sweep not in self.cancelled:
            return False
        keys = self.cancelled[sweep]
        return keys is None or key in keys

    def apply(self, number: int, entry: dict[str, Any]) -> None:
        """Add one entry; an entry of a kind that this version does not know changes nothing."""
        getattr(self, f"_{entry['kind']}", lambda number, entry: None)(number, entry)
        self.number = number

    def _revision(self, number: int, entry: dict[str, Any]) -> None:
        name = entry["sweep"]
        self.sweeps[name] = {k: entry[k] for k in ("revision", "snapshot", "code")}
        self.cancelled.pop(name, None)
        self.paused.pop(name, None)
        self.settled.discard(name)
        self._renew(entry.get("retry", []))

    def _submission(self, number: int, entry: dict[str, Any]) -> None:
        self.batches.update(jobs_of(entry | {"number": number}))

    def _closed(self, number: int, entry: dict[str, Any]) -> None:
        for base in entry.get("refused", []):
            for token in [token for token in self.batches if token.partition("/")[0] == base]:
                del self.batches[token]
        cancelled: dict[str, list[str]] = {}
        for closing in closings(entry):
            batch = self.batches.pop(closing["token"], None)
            for key, outcomes in closing["outcomes"].items():
                self.outcomes.setdefault(key, []).extend(outcome | {"number": number} for outcome in outcomes)
                self.num_failed[key] = self.num_failed.get(key, 0) + sum(one["class"] not in UNCHARGED for one in outcomes)
            if batch and closing.get("pause"):
                self.paused[batch["sweep"]] = closing["pause"]
            if batch and closing.get("cancelled"):
                cancelled.setdefault(batch["sweep"], []).extend(closing["cancelled"])
            for measure, hours in closing.get("job", {}).get("hours", {}).items():
                spent = self.spent.setdefault(closing["sweep"], {})
                spent[measure] = spent.get(measure, 0.0) + hours
            for lost in closing.get("lost_hosts", []):
                self._lost_host(lost["host"], lost["time"], lost["keys"])
        for sweep, keys in cancelled.items():
            self._cancellation(number, {"sweep": sweep, "keys": keys})
        for shape, seconds in entry.get("slowest", {}).items():
            self.slowest[shape] = max(seconds, self.slowest.get(shape, 0.0))

    def bad_hosts(self) -> list[str]:
        """Hosts that failed twice or more, and not each time under one and the same task."""
        common = {host: set.intersection(*(set(one["keys"]) for one in times)) for host, times in self.lost_hosts.items()}
        return sorted(host for host, times in self.lost_hosts.items() if len(times) >= 2 and not common[host])

    def _lost_host(self, host: str, time: float, keys: list[str]) -> None:
        """A host that fails takes all its jobs with it, and each of them tells."""
        for one in self.lost_hosts.setdefault(host, []):
            if abs(one["time"] - time) <= SAME_FAILURE_SECONDS:
                one["keys"] = sorted({*one["keys"], *keys})
                return
        self.lost_hosts[host].append({"time": time, "keys": keys})

    def _pause(self, number: int, entry: dict[str, Any]) -> None:
        self.paused[entry["sweep"]] = entry["reason"]

    def _cancellation(self, number: int, entry: dict[str, Any]) -> None:
        name, keys = entry["sweep"], entry["keys"]
        earlier = self.cancelled.get(name, [])
        self.cancelled[name] = None if keys is None or earlier is None else sorted({*earlier, *keys})
        chosen = set(keys or [])
        for batch in self.batches.values():
            if batch["sweep"] == name and (told := [key for key in batch["keys"] if keys is None or key in chosen]):
                batch["told"] = sorted({*batch.get("told", []), *told})

    def _resume(self, number: int, entry: dict[str, Any]) -> None:
        name, keys = entry["sweep"], entry["keys"]
        self.resumed[name] = number
        self.sweeps[name] = self.sweeps[name] | {k: entry[k] for k in ("snapshot", "code")}
        self.paused.pop(name, None)
        self.settled.discard(name)
        self.lost_hosts.clear()  # who resumes has looked at them
        cancelled = self.cancelled.pop(name, [])
        if not entry["all"] and cancelled:
            left = sorted(set(cancelled) - set(keys))
            if left:
                self.cancelled[name] = left
        self._renew(keys)

    def _retraction(self, number: int, entry: dict[str, Any]) -> None:
        for name in entry["commits"]:
            key, _, generation = name.partition(".")
            self.retracted.add(name)
            self.generations[key] = max(self.generations.get(key, 0), int(generation or 0) + 1)
        self.settled.clear()
        for sweep in entry.get("sweeps", []):
            self.paused[sweep] = f"results were taken back; `eigensweep resume {sweep}` computes them again"

    def _settled(self, number: int, entry: dict[str, Any]) -> None:
        self.settled.add(entry["sweep"])

    def _compaction(self, number: int, entry: dict[str, Any]) -> None:
        self.manifest = entry["manifest"]

    def _renew(self, keys: list[str]) -> None:
        renewed = [key for key in keys if self.outcomes.pop(key, None)]
        if renewed:
            self.settled.clear()  # another sweep may wait for one of these


def jobs_of(entry: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """token -> what a submission entry says of each of its jobs: `BASE`, or `BASE/0`, `BASE/1` ... where it is an array."""
    shared = {name: value for name, value in entry.items() if name not in ("jobs", "keys")}
    jobs = entry.get("jobs") or [entry["keys"]]  # before there were arrays an entry had one job, its keys
    if len(jobs) == 1:
        return {entry["token"]: shared | {"keys": jobs[0]}}
    return {f"{entry['token']}/{number}": {**shared, "keys": keys} for number, keys in enumerate(jobs)}


def closings(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """What a `closed` entry says of each batch: its token, and how the attempts of its tasks ended, key -> outcomes."""
    if "batches" in entry:
        return list(entry["batches"])
    # before there were arrays an entry closed one batch, with one outcome a task
    return [entry | {"outcomes": {key: [outcome] for key, outcome in entry["outcomes"].items()}}] if "token" in entry else []


def _gathered(batches: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Open batches as their submissions, each written once: `open` holds the keys by token."""
    found: dict[str, dict[str, Any]] = {}
    for token, entry in batches.items():
        shared = found.setdefault(
            entry["token"], {name: value for name, value in entry.items() if name not in ("keys", "told")} | {"open": {}}
        )
        shared["open"][token] = entry["keys"]
        if "told" in entry:
            shared.setdefault("told", {})[token] = entry["told"]
    return list(found.values())


def spread(submissions: list[dict[str, Any]] | dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The open batches that `to_body` wrote, by token."""
    if isinstance(submissions, dict):  # as they were written before there were arrays
        return submissions
    found = {}
    for one in submissions:
        shared = {name: value for name, value in one.items() if name not in ("open", "told")}
        found.update({token: {**shared, "keys": keys} for token, keys in one["open"].items()})
        for token, keys in one.get("told", {}).items():
            found[token]["told"] = keys
    return found


def read(root: Path, upto: Ledger | None = None) -> Ledger:
    """The fold of the ledger: from `upto` (changed in place), else from the newest dataset manifest, else from the first entry.

    Raises Garbled where an entry cannot be trusted.
    """
    ledger = upto or _folded(root)
    last = max(files.names(root / "ledger"), default="0")
    for number in range(ledger.number + 1, int(last[:8]) + 1):
        # a listing made while others link may lack a name before one that it has, so names are not taken from it
        try:
            ledger.apply(number, files.read(root / "ledger" / f"{number:08d}.json"))
        except FileNotFoundError:
            break
    return ledger


def append(root: Path, ledger: Ledger, entry: dict[str, Any]) -> bool:
    """Link the entry under the next number and fold it in; False: another process was first, read again and decide again."""
    path = root / "ledger" / f"{ledger.number + 1:08d}.json"
    if not files.publish(path, files.encode(entry)):
        return False
    ledger.apply(ledger.number + 1, entry)
    return True


def _folded(root: Path) -> Ledger:
    manifests = [name for name in files.names(root / "dataset") if name.startswith("MANIFEST-")]
    for name in sorted(manifests, key=lambda n: int(n[9:-5]), reverse=True):
        # entries are never deleted, so an older fold, or none, only costs time
        with contextlib.suppress(FileNotFoundError, Garbled):
            return Ledger.from_body(files.read(root / "dataset" / name)["folded"])
    return Ledger()
