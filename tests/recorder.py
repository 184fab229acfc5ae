"""Records every change of a file system and rebuilds what a crash after any of them may leave, with unsynced data and names dropped."""

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workers.files import Ops

MODES = ("killed", "data_dropped", "names_dropped", "truncated", "delayed-0", "delayed-1", "delayed-2")


@dataclass(frozen=True)
class Change:
    """One primitive change, or an acknowledgement (`op` is "acknowledged", `data` what was promised)."""

    op: str
    path: str = ""
    target: str = ""
    data: Any = None


class RecordingOps(Ops):
    """Does each change and writes it down, with its data; only below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.start = Disk.of(root)
        self.log: list[Change] = []

    def acknowledge(self, what: Any) -> None:
        """From here on, `what` was promised to somebody."""
        self.log.append(Change("acknowledged", data=what))

    def _note(self, op: str, path: Path, target: Path | None = None, data: bytes = b"") -> None:
        names = ["" if one is None else str(one.relative_to(self.root)) for one in (path, target)]
        self.log.append(Change(op, names[0], names[1], data))

    def create(self, path: Path, data: bytes) -> None:
        super().create(path, data)
        self._note("write", path, data=data)
        self._note("sync", path)

    def sync(self, path: Path) -> None:
        super().sync(path)
        self._note("write", path, data=path.read_bytes())
        self._note("sync", path)

    def sync_dir(self, path: Path) -> None:
        super().sync_dir(path)
        self._note("sync_dir", path)

    def link(self, source: Path, target: Path) -> None:
        super().link(source, target)
        self._note("link", source, target)

    def replace(self, source: Path, target: Path) -> None:
        super().replace(source, target)
        self._note("replace", source, target)

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self._note("unlink", path)

    def mkdir(self, path: Path) -> None:
        super().mkdir(path)
        self._note("mkdir", path)

    def rmdir(self, path: Path) -> None:
        super().rmdir(path)
        self._note("unlink", path)

    def touch(self, path: Path) -> None:
        super().touch(path)
        self._note("append", path)

    def append(self, descriptor: int, data: bytes) -> None:
        super().append(descriptor, data)
        self._note("append", Path(os.readlink(f"/proc/self/fd/{descriptor}")), data=data)


class LyingOps(Ops):
    """Every link is made, and reported as failed: a retransmitted NFS request."""

    def __init__(self, error: type[OSError] = FileExistsError) -> None:
        self.error = error

    def link(self, source: Path, target: Path) -> None:
        super().link(source, target)
        raise self.error(5, "reported as failed")


# -- a disk that may crash --------------------------------------------------------------------------------------------


@dataclass(eq=False)
class File:
    """Data in memory, and how much of it was synced."""

    data: bytes = b""
    synced: bytes = b""


@dataclass(eq=False)
class Folder:
    """Names in memory, names on disk, and the changes between: each a list of (name, node or None) that happens whole."""

    names: dict[str, "File | Folder"] = field(default_factory=dict)
    durable: dict[str, "File | Folder"] = field(default_factory=dict)
    pending: list[list[tuple[str, "File | Folder | None"]]] = field(default_factory=list)

    def change(self, *changes: "tuple[str, File | Folder | None]") -> None:
        _apply(self.names, changes)
        self.pending.append(list(changes))

    def sync(self) -> None:
        self.durable = dict(self.names)
        self.pending.clear()


def _apply(names: dict[str, Any], changes: Any) -> None:
    for name, node in changes:
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


class Disk:
    """A file system of one folder."""

    def __init__(self) -> None:
        self.root = Folder()

    @classmethod
    def of(cls, path: Path) -> "Disk":
        """What stands at `path`, all of it synced."""
        disk = cls()
        disk.root = _read(path, {})
        return disk

    def apply(self, change: Change) -> None:
        """One change, in memory; syncs bring it to the disk."""
        if change.op == "acknowledged":
            return
        folder, name = self._at(change.path)
        if change.op in ("write", "append"):
            self._write(folder, name, change)
        elif change.op == "sync":
            file = folder.names[name]
            assert isinstance(file, File)
            file.synced = file.data
        elif change.op == "sync_dir":
            (folder.names[name] if name else folder).sync()  # type: ignore[union-attr]
        elif change.op == "mkdir":
            folder.change((name, Folder()))
        elif change.op == "unlink":
            folder.change((name, None))
        elif change.op == "link":
            target, new = self._at(change.target)
            target.change((new, folder.names[name]))
        elif change.op == "replace":
            target, new = self._at(change.target)
            assert target is folder, "the store renames within a folder only"
            folder.change((new, folder.names[name]), (name, None))

    def _write(self, folder: Folder, name: str, change: Change) -> None:
        if name not in folder.names:
            folder.change((name, File()))
        file = folder.names[name]
        assert isinstance(file, File)
        file.data = change.data if change.op == "write" else file.data + (change.data or b"")

    def _at(self, path: str) -> tuple[Folder, str]:
        *parents, name = ([] if path == "." else path.split("/")) or [""]
        folder = self.root
        for parent in parents:
            folder = folder.names[parent]  # type: ignore[assignment]
        return folder, name

    def crashed(self, mode: str) -> "Tree":
        """What is found after the crash."""
        return _crashed(self.root, mode, random.Random(mode), {})


def _read(path: Path, seen: dict[int, File]) -> Any:
    if path.is_file():
        data = path.read_bytes()
        return seen.setdefault(path.stat().st_ino, File(data, data))
    names = {child.name: _read(child, seen) for child in path.iterdir()}
    return Folder(names, dict(names))


Tree = dict[str, Any]


def _crashed(folder: Folder, mode: str, rng: random.Random, data: dict[int, bytes]) -> Tree:
    """Nested names; a file is its identity (the same for hard links) and its data."""
    found: Tree = {}
    for name, node in sorted(_surviving(folder, mode, rng).items()):
        if isinstance(node, Folder):
            found[name] = _crashed(node, mode, rng, data)
        else:
            found[name] = (id(node), data.setdefault(id(node), _surviving_data(node, mode, rng)))
    return found


def _write_out(tree: Tree, target: Path, places: dict[int, Path]) -> None:
    target.mkdir()
    for name, node in tree.items():
        path = target / name
        if isinstance(node, dict):
            _write_out(node, path, places)
        elif node[0] in places:
            os.link(places[node[0]], path)
        else:
            places[node[0]] = path
            path.write_bytes(node[1])


def _surviving(folder: Folder, mode: str, rng: random.Random) -> dict[str, Any]:
    if mode in ("killed", "data_dropped", "truncated"):
        return folder.names
    names = dict(folder.durable)
    if mode.startswith("delayed"):
        for changes in folder.pending:
            if rng.random() < 0.5:
                _apply(names, changes)
    return names


def _surviving_data(file: File, mode: str, rng: random.Random) -> bytes:
    if mode == "killed" or file.data == file.synced:
        return file.data
    if mode == "truncated":
        return file.data[: (len(file.synced) + len(file.data)) // 2]
    if mode.startswith("delayed"):
        return rng.choice([file.synced, file.data, file.data[: len(file.data) // 2]])
    return file.synced


def crashes(ops: RecordingOps, folder: Path) -> Iterator[tuple[Path, list[Any], str]]:
    """After each prefix of the record and in each mode: the tree found, what had been acknowledged, and a name for messages.

    A tree that an earlier crash left with the same promises is not given again.
    """
    disk, promised, seen = ops.start, [], set()
    for number, change in enumerate([None, *ops.log]):
        if change is not None:
            disk.apply(change)
            promised += [change.data] if change.op == "acknowledged" else []
        for mode in MODES:
            tree = disk.crashed(mode)
            if (repr(tree), len(promised)) in seen:
                continue
            seen.add((repr(tree), len(promised)))
            target = folder / f"{number}-{mode}"
            _write_out(tree, target, {})
            where = f"{mode} after {number} of {len(ops.log)} changes, the last {change and (change.op, change.path, change.target)}"
            yield target, list(promised), where
