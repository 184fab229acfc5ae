"""A store with commits made by hand, and a sweep that needs neither Hydra nor a grid."""

import hashlib
import json
import sys
import types
from base64 import b32encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator import ledger as ledgers
from orchestrator.store import Store
from workers import files, taskdir
from workers.taskdir import Commit, Payload


def key_of(*content: Any) -> str:
    """A task key: 26 characters of lower-case base32."""
    return b32encode(hashlib.blake2b(repr(content).encode(), digest_size=16).digest()).decode().lower()[:26]


@dataclass(frozen=True)
class FakeAxis:
    """One axis of the fake sweep."""

    name: str
    path: str
    type: str
    values: Sequence[Any]


@dataclass(frozen=True)
class FakeSweep:
    """The part of a sweep that the dataset needs."""

    name: str
    target: str
    axes: list[FakeAxis]
    keys: list[str]
    points: list[dict[str, Any]]
    workloads: list[str]

    def __len__(self) -> int:
        return len(self.keys)

    def axis_values(self, i: int) -> dict[str, Any]:
        return self.points[i]

    def workload(self, i: int) -> str:
        return self.workloads[i]

    def is_target(self, i: int) -> bool:
        return self.workloads[i] == self.target

    @classmethod
    def from_body(cls, body: dict[str, Any]) -> "FakeSweep":
        return cls(**{**body, "axes": [FakeAxis(**axis) for axis in body["axes"]]})


@pytest.fixture(autouse=True)
def fake_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake stands in the place of orchestrator.sweep."""
    module = types.ModuleType("orchestrator.sweep")
    module.Sweep = FakeSweep  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "orchestrator.sweep", module)
    import orchestrator

    monkeypatch.setattr(orchestrator, "sweep", module, raising=False)


def write_sweep(
    store: Store,
    name: str,
    points: list[dict[str, Any]],
    revision: int = 1,
    workload: str = "noop",
    more: dict[str, list[Any]] | None = None,
) -> list[str]:
    """A sweep over the points (all axes at the root); its keys in order. `more`: further keys, points and workloads, of inputs."""
    keys = [key_of(workload, point) for point in points]
    axes = [dict(name=axis, path=f"{axis}", type=type(value).__name__, values=[]) for axis, value in points[0].items()]
    body = {"name": name, "target": workload, "axes": axes, "keys": keys, "points": points, "workloads": [workload] * len(keys)}
    for field, extra in (more or {}).items():
        body[field] = [*body[field], *extra]  # type: ignore[misc]
    assert store.write_manifest(name, revision, body)
    return body["keys"]  # type: ignore[return-value]


def make_commit(key: str, generation: int = 0, **changes: Any) -> Commit:
    """A commit of a noop task with three scalars."""
    number = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest(), "big")
    rows = {"scalars": {"step": [0, 1, 2, 3], "name": ["loss"] * 4, "value": [number / 7 + i for i in range(4)]}}
    plain: dict[str, Any] = dict(
        key=key, generation=generation, attempt=f"w1-0123456789ab-{number % 10_000}-{generation}-{number % 2**24:06x}",
        workload="noop", version=1,
        settings={"index": number % 10_000, "seconds": 0.0, "fail": "none"}, inputs={}, content={}, status="ok", rows=rows, files=[],
        code="c0de", host="node", device="cpu", started=1.7e9 + number % 240_000 / 1000, seconds=number % 1000 / 1e4, peak_memory_mib=30.5,
    )  # fmt: skip
    return Commit(**(plain | changes))


def commit(store: Store, key: str, sweeps: Sequence[str] = (), generation: int = 0, **changes: Any) -> Commit:
    """Publish such a commit with its hints."""
    made = make_commit(key, generation, **changes)
    assert taskdir.write_commit(store.root, made)
    taskdir.write_hints(store.root, taskdir.commit_name(key, generation), list(sweeps))
    return made


def bulk_commit(store: Store, keys: Sequence[str], sweep: str) -> None:
    """Many commits at once, not synced."""
    for bucket in {key[:2] for key in keys}:
        (store.root / "commits" / bucket).mkdir(parents=True, exist_ok=True)
    for key in keys:
        taskdir.commit_path(store.root, key).write_bytes(make_commit(key).encode())
        taskdir.hint_path(store.root, sweep, key).touch()


def save_file(store: Store, key: str, attempt: str, name: str, data: bytes) -> Payload:
    """A payload in the folder of an attempt."""
    folder = taskdir.attempt_dir(store.root, key, attempt)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    return Payload(name=name, size=len(data), sha256=files.sha256(folder / name))


def retract(store: Store, *names: str) -> ledgers.Ledger:
    """Take commits back."""
    ledger = ledgers.read(store.root)
    assert ledgers.append(store.root, ledger, {"kind": "retraction", "commits": list(names), "reason": "test"})
    return ledger


def close_batch(store: Store, token: str, keys: Sequence[str], events: Sequence[dict[str, Any]], outcomes: dict[str, Any]) -> None:
    """A batch whose job is over, with what it wrote."""
    folder = taskdir.batch_dir(store.root, token)
    folder.mkdir(parents=True)
    (folder / "attempts.jsonl").write_text("".join(json.dumps(event, separators=(",", ":")) + "\n" for event in events))
    (folder / "tasks.json").write_bytes(files.encode({"token": token}))
    ledger = ledgers.read(store.root)
    submission = {"kind": "submission", "token": token, "sweep": "w1", "code": "c0de", "keys": list(keys)}
    assert ledgers.append(store.root, ledger, submission)
    assert ledgers.append(store.root, ledger, {"kind": "closed", "token": token, "sweep": "w1", "outcomes": outcomes})


def spectrum_rows(eigenvalues: Sequence[float], num_outputs: int = 1) -> dict[str, Any]:
    """Rows of a spectrum task of a whole kernel."""
    n = len(eigenvalues)
    facts = {"noise_floor": 0.0, "num_units": n // num_outputs, "num_outputs": num_outputs, "num_rows": n}
    return {
        "scalars": {"step": [0] * 4, "name": list(facts), "value": [float(value) for value in facts.values()]},
        "spectra": {"step": [0] * n, "index": list(range(n)), "eigenvalue": sorted(map(float, eigenvalues)), "weight": [1.0 / n] * n},
    }


def tree(root: Path) -> set[str]:
    """All files below a folder."""
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
