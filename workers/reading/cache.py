"""Files that can be made again, such as tokens of a text, kept beside the user's other caches under the name of what they are made of."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from workers import files
from workers.errors import ConfigError


def made(name: str, make: Callable[[Path], None]) -> Path:
    """The file of a name, which `make` writes where it is not there yet.

    The name says what is in it (see `name_of`), so two processes that make it at once write the same, and the last to finish replaces
    the other's. ConfigError where the cache cannot be written.
    """
    path = _folder() / name
    if path.exists():
        return path
    try:
        files.make_dirs(path.parent)
    except OSError as error:
        raise _unwritable(path, error.strerror or str(error)) from error
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise _unwritable(path, "permission denied, or a file system that is read-only")
    with files.replacing(path) as aside:
        make(aside)
    return path


def name_of(*parts: str) -> str:
    """A name of 32 hexadecimal digits for what is made from these texts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "eigensweep" / "data"


def _unwritable(path: Path, why: str) -> ConfigError:
    return ConfigError(
        f"{path} cannot be written ({why}); prepared data are kept there: set XDG_CACHE_HOME to a folder that can be written, "
        "here and on the nodes"
    )
