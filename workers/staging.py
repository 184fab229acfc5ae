"""Copies of a batch's data files on the disk of the node, made once and shared by all jobs there; `python -P -m workers.staging`."""

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from workers import files
from workers.errors import EigensweepError
from workers.settings import Settings

if TYPE_CHECKING:
    from workers.taskdir import Task
    from workers.workload import Data

STAGED = "EIGENSWEEP_STAGED"  # the file that says which copies there are
MIN_FREE_BYTES = 2**30
POLL_SECONDS = 0.2
_BLOCK_BYTES = 2**22


class StagingError(EigensweepError):
    """Scratch that cannot be used; the tasks read the originals."""


def local(path: Path) -> Path:
    """The copy of a data file on this node's disk where the job has made one, else the file itself: data sets open files through this."""
    mapping = os.environ.get(STAGED)
    copy = _read_mapping(mapping).get(str(path)) if mapping else None
    return Path(copy) if copy is not None and os.path.exists(copy) else path


@functools.cache
def _read_mapping(path: str) -> dict[str, str]:
    try:
        mapping: dict[str, str] = json.loads(Path(path).read_text())
    except (OSError, ValueError):
        return {}
    return mapping


def run(root: Path, token: str, scratch: str, mapping: Path, go_on: Callable[[], bool]) -> bool:
    """Stage in a process of its own, which loads the workloads that the job need not load; False where it failed.

    `go_on` is asked now and then whether the job still wants to wait.
    """
    command = [sys.executable, "-P", "-m", "workers.staging", str(root), token, scratch, str(mapping)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                done = process.wait(POLL_SECONDS) == 0
                break
            if not go_on():
                process.kill()
    if done:
        os.environ[STAGED] = str(mapping)
    return done


def main(root: Path, token: str, scratch: str, mapping: Path) -> None:
    """Copy what the tasks of a batch read, and write down which copy stands for which file."""
    from workers.journal import read_batch

    os.umask(0o027)
    folder = scratch_folder(scratch)
    copies = {}
    for path in data_files(read_batch(root, token)[1]):
        if (copy := stage(path, folder)) is not None:
            copies[str(path)] = str(copy)
    mapping.write_text(json.dumps(copies))


def scratch_folder(scratch: str) -> Path:
    """The folder for copies in `scratch`, whose $VARIABLES are the node's; StagingError where it cannot serve."""
    base = os.path.expandvars(os.path.expanduser(scratch))
    if "$" in base or not os.path.isabs(base):
        raise StagingError(
            f"scratch {scratch!r} is {base!r} on {os.uname().nodename}: it must be an absolute path with variables that are set there"
        )
    folder = Path(base) / f"eigensweep-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise StagingError(f"scratch {base} on {os.uname().nodename} cannot be used ({error})") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise StagingError(f"{folder} on {os.uname().nodename} is another user's, or others may write to it; remove it")
    return folder


def data_files(tasks: "Sequence[Task]") -> list[Path]:
    """The files of the data sets in the settings of the tasks, each once."""
    from workers.execute import rebuild
    from workers.workload import Data

    found: dict[Path, None] = {}
    seen = set()
    for task in tasks:
        for data in _settings_within(rebuild(task), Data):
            if repr(data) not in seen:
                seen.add(repr(data))
                found.update(dict.fromkeys(Path(path) for path in data.files()))
    return list(found)


def _settings_within(settings: Settings, kind: "type[Data]") -> "Iterator[Data]":
    for field in fields(settings):
        value = getattr(settings, field.name)
        if isinstance(value, kind):
            yield value
        elif isinstance(value, Settings):
            yield from _settings_within(value, kind)


@dataclass(frozen=True, slots=True)
class _Copy:
    """A copy under the identity of its original: path, size and time of change; beside it the SHA-256 that it was verified with."""

    path: Path
    size: int

    @classmethod
    def of(cls, original: Path, folder: Path) -> "_Copy":
        status = original.stat()
        identity = hashlib.blake2b(f"{original}\n{status.st_size}\n{status.st_mtime_ns}".encode(), digest_size=16).hexdigest()
        return cls(folder / identity / original.name, status.st_size)

    @property
    def mark(self) -> Path:
        return self.path.with_name(f".{self.path.name}.sha256")

    @property
    def is_whole(self) -> bool:
        """Whether it was verified and has not been cut since; a purged scratch may have lost either."""
        return self.mark.exists() and self.path.exists() and self.path.stat().st_size == self.size


def stage(original: Path, folder: Path) -> Path | None:
    """The copy of a file, made where there is none; None, with a note, where there is no room. Jobs of one node wait for each other."""
    copy = _Copy.of(original, folder)
    copy.path.parent.mkdir(mode=0o700, exist_ok=True)
    with _locked(copy.path.parent / ".lock"):
        if copy.is_whole:
            return copy.path
        free = shutil.disk_usage(folder).free
        if free < copy.size + MIN_FREE_BYTES:
            room = f"{copy.size / 2**30:.2f} GiB, {free / 2**30:.2f} GiB are free in {folder}"
            _say(f"no room to stage {original} ({room}): it is read where it is")
            return None
        _make(original, copy)
    _say(f"staged {original} to {copy.path}")
    return copy.path


def _make(original: Path, copy: _Copy) -> None:
    aside = files.aside(copy.path)
    try:
        digest = _copy(original, aside)
        if files.sha256(aside) != digest:
            raise StagingError(f"the copy {aside} of {original} is not what was read; the disk of {os.uname().nodename} is at fault")
        os.replace(aside, copy.path)
        copy.mark.write_text(digest)
    except OSError as error:
        raise StagingError(f"{original} cannot be staged to {copy.path} ({error})") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            aside.unlink()


def _copy(original: Path, aside: Path) -> str:
    """Copy a file; the SHA-256 of what was read."""
    digest = hashlib.sha256()
    with original.open("rb") as source, aside.open("xb") as target:
        while block := source.read(_BLOCK_BYTES):
            digest.update(block)
            target.write(block)
        target.flush()
        os.fsync(target.fileno())
    return digest.hexdigest()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """`flock` is for the disk of one node only; a store has none."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4]))
    except EigensweepError as error:
        sys.exit(f"nothing is staged: {error}")
