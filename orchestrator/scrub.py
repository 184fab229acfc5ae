"""Verifies every file of a store against its checksum, and says of each that fails what to do."""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator import dataset
from orchestrator.ledger import Ledger
from orchestrator.store import Store
from workers import files, taskdir
from workers.errors import Garbled
from workers.taskdir import Commit

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Finding:
    """A file that is garbled or missing, and the cure."""

    path: str
    problem: str
    cure: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}; {self.cure}"


@dataclass(slots=True)
class Scrubbed:
    """What was looked at, and what is wrong."""

    num_files: int = 0
    num_bytes: int = 0
    problems: list[Finding] = field(default_factory=list)
    next: str = "eigensweep status"


def scrub(store: Store, progress: Progress | None = None) -> Scrubbed:
    """Read every document, commit, payload, frozen source and Parquet part; `progress(done, total)` counts the checks."""
    return _Scrub(store).run(progress or (lambda done, total: None))


@dataclass(slots=True)
class _Scrub:
    store: Store
    found: Scrubbed = field(default_factory=Scrubbed)
    retracted: frozenset[str] = frozenset()

    def run(self, progress: Progress) -> Scrubbed:
        checks = list(self._checks())
        for number, check in enumerate(checks):
            progress(number, len(checks))
            check()
        progress(len(checks), len(checks))
        return self.found

    def _checks(self) -> Iterator[Callable[[], Any]]:
        root, cure = self.store.root, "restore it from a backup: no other file holds what it said"
        yield lambda: self._document(root / "store.json", "make a new store with `eigensweep init` and move the folders there")
        yield self._ledger
        for name in files.names(root / "sweeps"):
            for path in self._documents(root / "sweeps" / name):
                again = "remove it: the next `eigensweep tick` finds the commits again"
                yield partial(self._document, path, again if path.name.startswith("committed-") else f"remove it and submit {name} again")
        for token in files.names(root / "batches"):
            for folder, _, _ in os.walk(root / "batches" / token):  # elements of an array and runs have folders of their own
                for path in self._documents(Path(folder)):
                    yield partial(self._document, path, cure)
            if (lines := root / "batches" / token / "tasks.jsonl").exists():
                yield partial(self._lines, lines, cure)
        for path in self._documents(root / "differences"):
            yield partial(self._document, path, "remove it: it said that a second attempt gave other rows")
        for snapshot in files.names(root / "code"):
            yield partial(self._code, snapshot)
        there = set(self.store.commit_names())
        told = set[str]().union(*(self.store.done(name) for name in files.names(root / "sweeps")))
        for name in sorted(there | {name for name in told if not name.endswith(".diverged")}):
            yield partial(self._commit, name)
        yield from self._dataset()

    @staticmethod
    def _documents(folder: Path) -> list[Path]:
        return [folder / name for name in files.names(folder) if name.endswith(".json")]

    def _say(self, path: Path, problem: str, cure: str) -> None:
        self.found.problems.append(Finding(str(path.relative_to(self.store.root)), problem, cure))

    def _document(self, path: Path, cure: str) -> Any:
        """The body of a document; None (and a finding) where it is missing or garbled."""
        try:
            data = path.read_bytes()
            self.found.num_files += 1
            self.found.num_bytes += len(data)
            return files.decode(data, path)
        except FileNotFoundError:
            self._say(path, "is missing", cure)
        except (Garbled, ValueError):
            self._say(path, "is truncated or was changed", cure)
        return None

    def _lines(self, path: Path, cure: str) -> None:
        """The tasks of an array's jobs, a document a line; tasks.json beside it says where each begins."""
        data = path.read_bytes()
        self.found.num_files += 1
        self.found.num_bytes += len(data)
        lines = data.splitlines(keepends=True)
        with contextlib.suppress(FileNotFoundError, Garbled, KeyError):
            missing = len(files.read(path.with_name("tasks.json"))["offsets"]) - len(lines)
            lines += [b""] * missing
        for number, line in enumerate(lines, 1):
            try:
                files.decode(line, path)
            except (Garbled, ValueError):
                return self._say(path, f"is truncated or was changed in line {number}", cure)
        return None

    def _ledger(self) -> None:
        numbers = [int(name[:-5]) for name in files.names(self.store.root / "ledger") if name.endswith(".json")]
        ledger = Ledger()
        for number in range(1, max(numbers, default=0) + 1):
            cure = "restore it from a backup; without it, the state before the newest dataset manifest cannot be told again"
            entry = self._document(self.store.root / "ledger" / f"{number:08d}.json", cure)
            if entry is not None and entry.get("kind") == "retraction":
                ledger.apply(number, entry)
        self.retracted = frozenset(ledger.retracted)

    def _code(self, snapshot: str) -> None:
        folder = self.store.code_path(snapshot)
        cure = f"remove the folder code/{snapshot}: the next `eigensweep submit` or `resume` freezes the source anew"
        body = self._document(folder / "fingerprint.json", cure)
        for name, sha256 in (body or {"files": {}})["files"].items():
            self._content(folder / name, None, sha256, cure)

    def _commit(self, name: str) -> None:
        path = taskdir.commit_path(self.store.root, name)
        cure = f"`eigensweep retract SWEEP \"key='{name.partition('.')[0]}'\"`, then `eigensweep resume SWEEP` computes it again"
        if name in self.retracted:
            cure = "nothing to do: it was taken back"
        try:
            data = path.read_bytes()
            commit = taskdir.decode_commit(data, path)
        except FileNotFoundError:
            return self._say(path, "is missing", cure)
        except Garbled as error:
            return self._say(path, str(error).partition("; ")[0].removeprefix(f"{path} "), cure)
        except (ValueError, TypeError, KeyError) as error:
            return self._say(path, f"is no commit ({error})", cure)
        self.found.num_files += 1
        self.found.num_bytes += len(data)
        self._payloads(commit, cure)
        return None

    def _payloads(self, commit: Commit, cure: str) -> None:
        folder = taskdir.attempt_dir(self.store.root, commit.name, commit.attempt)
        for payload in commit.files:
            self._content(folder / payload.name, payload.size, payload.sha256, cure)

    def _content(self, path: Path, size: int | None, sha256: str, cure: str) -> None:
        try:
            actual = path.stat().st_size
            changed = (size is not None and actual != size) or files.sha256(path) != sha256
        except FileNotFoundError:
            return self._say(path, "is missing", cure)
        self.found.num_files += 1
        self.found.num_bytes += actual
        if changed:
            expected = f", {size:,} were written" if size is not None else ""
            self._say(path, f"is truncated or was changed ({actual:,} bytes{expected})", cure)
        return None

    def _dataset(self) -> Iterator[Callable[[], Any]]:
        """Manifests, and each part that they name once."""
        folder = dataset.folder(self.store)
        seen: set[str] = set()
        for number in reversed(dataset.numbers(self.store)):
            path = dataset.manifest_path(self.store, number)
            again = "remove it: the next `eigensweep tick` writes the dataset anew from the commits"
            body = self._document(path, again)
            if body is None:
                continue
            for part in dataset.read_manifest(self.store, number).all_parts():
                if part["file"] not in seen:
                    seen.add(part["file"])
                    cure = f"remove dataset/MANIFEST-*: the next `eigensweep tick` writes all anew from the commits ({number} names it)"
                    yield partial(self._content, folder / part["file"], part["bytes"], part["sha256"], cure)
