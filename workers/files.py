"""How every file of a store appears: whole or not at all, synced, and never over another's.

All changes go through `ops`, so that tests can number them, kill at them and replay them with unsynced data dropped.
"""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from workers.errors import DiskFull, Garbled

# The group may read a store, others may not. Folders below a store's root have its setgid bit from their parents.
FILE_MODE, FOLDER_MODE, ROOT_MODE, UMASK = 0o640, 0o750, 0o2750, 0o027

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_CHECK = b'{"check":"'
_BODY = b'","body":'


class Ops:
    """The primitive changes of a file system, one method each."""

    def create(self, path: Path, data: bytes) -> None:
        """A new file with `data`, synced; FileExistsError where the name is taken."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def sync(self, path: Path) -> None:
        """fsync of a file that a library has written."""
        _fsync(path, os.O_RDONLY)

    def sync_dir(self, path: Path) -> None:
        """fsync of a folder: its new names survive a power cut."""
        _fsync(path, os.O_RDONLY | os.O_DIRECTORY)

    def link(self, source: Path, target: Path) -> None:
        """A second name; FileExistsError where the target exists."""
        os.link(source, target)

    def replace(self, source: Path, target: Path) -> None:
        """Move over the target, atomically."""
        os.replace(source, target)

    def unlink(self, path: Path) -> None:
        """Remove a name."""
        os.unlink(path)

    def mkdir(self, path: Path) -> None:
        """A new folder; FileExistsError where the name is taken."""
        os.mkdir(path, FOLDER_MODE)

    def rmdir(self, path: Path) -> None:
        """Remove an empty folder."""
        os.rmdir(path)

    def touch(self, path: Path) -> None:
        """An empty file, not synced: a hint that can be made again."""
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, FILE_MODE))

    def append(self, descriptor: int, data: bytes) -> None:
        """One record at the end of a log that this process alone writes; not synced."""
        os.write(descriptor, data)


def _fsync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class KillingOps(Ops):
    """Numbers the changes of this process and kills it with SIGKILL right before (`N`) or right after (`N+`) the N-th.

    Chosen by EIGENSWEEP_FAULT, for tests and for a user's own trial of a file system.
    """

    def __init__(self, point: str) -> None:
        self._before = -1 if point.endswith("+") else int(point)
        self._after = int(point[:-1]) if point.endswith("+") else -1
        self._count = 0

    def __getattribute__(self, name: str) -> Any:
        attribute = object.__getattribute__(self, name)
        return attribute if name.startswith("_") else self._counted(attribute)

    def _counted(self, change: Callable[..., None]) -> Callable[..., None]:
        def run(*arguments: Any) -> None:
            self._count += 1
            if self._count == self._before:
                os.kill(os.getpid(), signal.SIGKILL)
            change(*arguments)
            if self._count == self._after:
                os.kill(os.getpid(), signal.SIGKILL)

        return run


ops: Ops = Ops()


def heed_fault() -> None:
    """Count changes from here on, where EIGENSWEEP_FAULT says so: what a process does that begins, or is the copy of another."""
    global ops
    if point := os.environ.get("EIGENSWEEP_FAULT"):
        ops = KillingOps(point)


heed_fault()


def aside(path: Path) -> Path:
    """A hidden sibling name that nobody else uses (not `tempfile`: its mode 0600 shuts out the group)."""
    return path.with_name(f".{path.name}.{os.getpid():x}-{secrets.token_hex(4)}")


def publish(path: Path, data: bytes) -> bool:
    """Link `data` into place under a name that must be unique; False: somebody else's file stands there, ours is gone.

    EEXIST or an error after the link may hide a success (a retransmitted NFS request): the same inode as the file
    written aside means ours.
    """
    temporary = aside(path)
    with _naming_full_disk(path):
        try:
            ops.create(temporary, data)
            mine = link(temporary, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                ops.unlink(temporary)
        ops.sync_dir(path.parent)
    return mine


def link(source: Path, target: Path) -> bool:
    """Give `source` the second name `target`; False where another file has it. Other failures raise."""
    try:
        ops.link(source, target)
    except OSError as error:
        if same_file(source, target):
            return True
        if isinstance(error, FileExistsError):
            return False
        raise
    return True


def same_file(one: Path, other: Path) -> bool:
    """Whether two names are one inode; False where either is absent."""
    try:
        return os.path.samestat(os.stat(one), os.stat(other))
    except OSError:
        return False


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A hidden sibling to write to; on a clean exit it is synced and replaces `path`, else it is removed.

    For files with one owner. A library writes to the path given, or `path.open("wb")` does.
    """
    temporary = aside(path)
    with _naming_full_disk(path):
        try:
            yield temporary
            _keep_from_others(temporary)
            ops.sync(temporary)
            ops.replace(temporary, path)
            ops.sync_dir(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


def set_umask() -> None:
    """Have all that this process creates, also through libraries, be for its user and the group's eyes; for our own commands only.

    A caller of the Python API keeps the umask it has: there every file of a store is made with its mode, and a stricter umask counts.
    """
    os.umask(UMASK)


def opener(path: str, flags: int) -> int:
    """For `open(..., opener=opener)`: a file that this creates has the mode of a store's."""
    return os.open(path, flags, FILE_MODE)


def _keep_from_others(path: Path) -> None:
    # a library has created it, with whatever the umask of the process lets through
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if mode & ~FILE_MODE:
        os.chmod(path, mode & FILE_MODE)


@contextlib.contextmanager
def _naming_full_disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise DiskFull(
                f"no room left to write {path} ({os.strerror(error.errno or 0)}); nothing is lost: free space or raise the quota, "
                "then run `eigensweep resume`"
            ) from error
        raise


def make_dirs(path: Path) -> None:
    """Make a folder and its parents, each synced into the folder above; an existing one is fine."""
    if path.is_dir():
        return
    make_dirs(path.parent)
    with _naming_full_disk(path):
        with contextlib.suppress(FileExistsError):
            ops.mkdir(path)
        ops.sync_dir(path.parent)


def claim_dir(path: Path) -> bool:
    """Make a folder that must be new; False where it exists."""
    with _naming_full_disk(path):
        try:
            ops.mkdir(path)
        except FileExistsError:
            return False
        ops.sync_dir(path.parent)
    return True


def names(folder: Path) -> list[str]:
    """Published names in a folder, sorted; none where the folder does not exist yet."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.name[0] != ".")
    except FileNotFoundError:
        return []


def encode(body: Any) -> bytes:
    """A JSON document that carries the checksum of its own body and that any JSON reader reads."""
    text = json.dumps(body, separators=(",", ":")).encode()
    return _CHECK + _checksum(text) + _BODY + text + b"}\n"


def decode(data: bytes, path: Path) -> Any:
    """The body of a document; raises Garbled where it is truncated or was changed."""
    start = len(_CHECK) + 32
    text = data[start + len(_BODY) : -2]
    if not data.endswith(b"}\n") or data[len(_CHECK) : start] != _checksum(text):
        raise Garbled(f"{path} is truncated or was changed ({len(data)} bytes); run `eigensweep scrub` to see what it held and what to do")
    return json.loads(text)


def plain(body: Any) -> Any:
    """The body as `read` gives it back: tuples are lists, keys are texts."""
    return json.loads(json.dumps(body))


def read(path: Path) -> Any:
    """The body of the document at `path`; FileNotFoundError where there is none, Garbled where it cannot be trusted."""
    return decode(path.read_bytes(), path)


def _checksum(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=16).hexdigest().encode()


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
