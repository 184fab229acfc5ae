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


@dataclass(slots=True)
class Ledger:
    """The fold of all entries up to `number`.

    `sweeps`: name -> {revision, snapshot, code}. `batches`: the open ones, token -> submission entry. `outcomes`: key -> how its
    attempts ended since its budget was last renewed; `num_failed` counts them all. `cancelled`: sweep -> keys, or None for all.
    `paused`: sweep -> reason. `resumed`: sweep -> the entry that last resumed it. `settled`: sweeps that have nothing left to submit.
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

    def to_body(self) -> dict[str, Any]:
        """Plain values, kept in the manifest of a dataset so that reading begins there."""
        return {name: sorted(value) if isinstance(value := getattr(self, name), set) else value for name in self.__slots__}

    @classmethod
    def from_body(cls, body: dict[str, Any]) -> "Ledger":
        """The fold that `to_body` wrote."""
        values: dict[str, Any] = {name: set(value) if name in ("settled", "retracted") else value for name, value in body.items()}
        return cls(**values)

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
        self.batches[entry["token"]] = entry | {"number": number}

    def _closed(self, number: int, entry: dict[str, Any]) -> None:
        batch = self.batches.pop(entry["token"], None)
        for key, outcome in entry["outcomes"].items():
            self.outcomes.setdefault(key, []).append(outcome | {"number": number})
            self.num_failed[key] = self.num_failed.get(key, 0) + (outcome["class"] not in UNCHARGED)
        if batch and entry.get("pause"):
            self.paused[batch["sweep"]] = entry["pause"]

    def _pause(self, number: int, entry: dict[str, Any]) -> None:
        self.paused[entry["sweep"]] = entry["reason"]

    def _cancellation(self, number: int, entry: dict[str, Any]) -> None:
        name, keys = entry["sweep"], entry["keys"]
        earlier = self.cancelled.get(name, [])
        self.cancelled[name] = None if keys is None or earlier is None else sorted({*earlier, *keys})

    def _resume(self, number: int, entry: dict[str, Any]) -> None:
        name, keys = entry["sweep"], entry["keys"]
        self.resumed[name] = number
        self.sweeps[name] = self.sweeps[name] | {k: entry[k] for k in ("snapshot", "code")}
        self.paused.pop(name, None)
        self.settled.discard(name)
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
