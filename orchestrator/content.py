"""The content of a data set as one SHA-256, remembered by path, size and time of change."""

import contextlib
import hashlib
import json
import os
from pathlib import Path

from workers import files
from workers.errors import ConfigError
from workers.workload import Data


def data_content(data: Data) -> str:
    """Hex SHA-256 over the data set's files, in their order and with their names relative to their common folder.

    Raises ConfigError where the files are absent. Where they stand does not change it.
    """
    paths = [Path(path).absolute() for path in data.files()]
    base = Path(os.path.commonpath([path.parent for path in paths])) if paths else Path()
    total = hashlib.sha256()
    for path in paths:
        total.update(f"{path.relative_to(base).as_posix()}\0{_file_content(path, data)}\n".encode())
    return total.hexdigest()


def _file_content(path: Path, data: Data) -> str:
    try:
        status = path.stat()
        stamp = f"{path}\0{status.st_size}\0{status.st_mtime_ns}"
        note = _cache_dir() / hashlib.sha256(stamp.encode()).hexdigest()[:32]
        return _remembered(note, stamp) or _remember(note, stamp, files.sha256(path))
    except OSError as error:
        raise ConfigError(
            f"data set {data.plugin_name()}: cannot read {path} ({error.strerror}); see `data.` settings for its place"
        ) from error


def _cache_dir() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "eigensweep" / "content"


def _remembered(note: Path, stamp: str) -> str:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        body = json.loads(note.read_bytes())
        if body["stamp"] == stamp:
            return str(body["sha256"])
    return ""


def _remember(note: Path, stamp: str, digest: str) -> str:
    """Keep a digest for the next plan; a cache that cannot be written costs only time."""
    with contextlib.suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        temporary = files.aside(note)
        temporary.write_text(json.dumps({"stamp": stamp, "sha256": digest}))
        temporary.replace(note)
    return digest
