"""Freezes the source that a sweep runs, so that editing it while jobs wait changes nothing, and names it by its content."""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.store import Store
from workers import files
from workers.errors import ConfigError, StoreError

PACKAGES = ("workers", "orchestrator", "eigensweep.py", "conf")
# what of our own source can change a number; orchestration cannot
NUMERIC = ("workers",)
VERSIONED = ("torch", "numpy", "scipy", "tokenizers")
MAX_BYTES = 64 * 2**20
LIVE = "live"

_SKIPPED = {"__pycache__", "node_modules"}


@dataclass(frozen=True, slots=True)
class Frozen:
    """A snapshot of the source: its name, the fingerprint `code` of what determines numbers, and its folder."""

    snapshot: str
    code: str
    path: Path


@dataclass(frozen=True, slots=True)
class _Source:
    """One top-level package or module: its name in the snapshot, where it stands, and whether it is copied."""

    name: str
    path: Path
    numeric: bool
    copied: bool


def identify(store: Store, modules: Sequence[str] = ()) -> Frozen:
    """What `freeze` would give for the source as it stands now, without writing it.

    Raises ConfigError where a module is not found or its package holds more than source.
    """
    return _identified(store, {source: dict(_read(source)) for source in _sources(modules)})[0]


def freeze(store: Store, modules: Sequence[str] = (), *, live: bool = False) -> Frozen:
    """Copy our own source and the packages of the user's `modules` into the store, unless that very content is there.

    `live`: copy nothing; jobs run the source as it stands when they start. Raises ConfigError as `identify` does.
    """
    contents = {source: dict(_read(source)) for source in _sources(modules)}
    frozen, record = _identified(store, contents)
    if live:
        return Frozen(LIVE, frozen.code, live_path())
    if not (frozen.path / "fingerprint.json").exists():
        copied = {name: data for source, found in contents.items() if source.copied for name, data in found.items()}
        _publish(frozen.path, copied, record)
    return frozen


def path_of(store: Store, snapshot: str) -> Path:
    """A root for Python's path: a snapshot's folder, or the source as it stands now for LIVE."""
    return live_path() if snapshot == LIVE else store.code_path(snapshot)


def _identified(store: Store, contents: dict[_Source, dict[str, bytes]]) -> tuple[Frozen, dict[str, Any]]:
    """Names of the content, and what is recorded with it."""
    digests = {s.name: _digest(sorted((n, hashlib.sha256(d).hexdigest()) for n, d in found.items())) for s, found in contents.items()}
    versions = _versions()
    snapshot = _digest([sorted(digests.items()), versions])
    code = _digest([sorted((s.name, digests[s.name]) for s in contents if s.numeric), versions])
    record = {"snapshot": snapshot, "code": code, "packages": digests, "versions": versions}
    return Frozen(snapshot, code, store.code_path(snapshot)), record


def fingerprint(store: Store, snapshot: str) -> Any:
    """What is recorded of a snapshot: packages and versions, git commit, and every file with its SHA-256."""
    try:
        return files.read(store.code_path(snapshot) / "fingerprint.json")
    except FileNotFoundError:
        raise StoreError(
            f"the store has no frozen code {snapshot!r} in {store.root / 'code'}; `eigensweep resume` freezes it anew"
        ) from None


def live_path() -> Path:
    """The source as it stands now, a root for Python's path (`code=live`)."""
    return Path(__file__).resolve().parent.parent


# -- what is frozen ---------------------------------------------------------------------------------------------------


def _sources(modules: Sequence[str]) -> list[_Source]:
    root = live_path()
    found = [_Source(name, root / name, name in NUMERIC, True) for name in PACKAGES if (root / name).exists()]
    tops = {module.partition(".")[0] for module in modules} - {Path(name).stem for name in PACKAGES}
    return found + [_user_source(top) for top in sorted(tops)]


def _user_source(top: str) -> _Source:
    spec = importlib.util.find_spec(top)
    if spec is None:
        raise ConfigError(f"no module {top!r}: it must be importable from here (on PYTHONPATH or installed)")
    places = list(spec.submodule_search_locations or ()) or [spec.origin or ""]
    path = Path(places[0])
    if not path.exists():
        raise ConfigError(f"module {top!r} has no source on disk ({spec.origin}), so it cannot be frozen; use a package of files")
    return _Source(path.name if path.is_file() else top, path, True, not _is_installed(path))


def _is_installed(path: Path) -> bool:
    """Whether it lies where pip puts what it installs: jobs find it there too, so only its content is noted."""
    homes = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), sysconfig.get_path("stdlib")}
    return any(path.is_relative_to(home) for home in homes)


def _read(source: _Source) -> Iterator[tuple[str, bytes]]:
    """Every file of a source with its name in the snapshot."""
    if source.path.is_file():
        yield source.name, source.path.read_bytes()
        return
    total = 0
    for path in sorted(_walk(str(source.path))):
        total += os.path.getsize(path)
        if total > MAX_BYTES:
            raise ConfigError(
                f"package {source.name!r} at {source.path} holds more than {MAX_BYTES // 2**20} MiB, too much to freeze with each "
                "submission; keep data outside the package, or submit with code=live"
            )
        with open(path, "rb") as file:
            yield source.name + path[len(str(source.path)) :], file.read()


def _walk(folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name[0] == "." or entry.name in _SKIPPED or entry.name.endswith(".pyc"):
                continue
            if entry.is_dir():
                yield from _walk(entry.path)
            else:
                yield entry.path


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in VERSIONED:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def _digest(content: Any) -> str:
    return hashlib.blake2b(repr(content).encode(), digest_size=8).hexdigest()


# -- how it appears ---------------------------------------------------------------------------------------------------


def _publish(path: Path, contents: dict[str, bytes], record: dict[str, Any]) -> None:
    """Write the files aside and rename the folder into place: it is there whole or not at all."""
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    body = {**record, **_git(live_path()), "files": digests}
    temporary = files.aside(path)
    files.make_dirs(temporary)
    try:
        for name, data in [*contents.items(), ("fingerprint.json", files.encode(body))]:
            files.make_dirs((temporary / name).parent)
            files.ops.create(temporary / name, data)
        for folder, _, _ in os.walk(temporary):
            files.ops.sync_dir(Path(folder))
        files.ops.replace(temporary, path)
    except OSError:
        if not (path / "fingerprint.json").exists():
            raise
        # another driver froze the same source first
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    files.ops.sync_dir(path.parent)


def _git(folder: Path) -> dict[str, Any]:
    """The commit of the working tree and whether it has changes that are not in it; None where there is no git."""
    sha = _git_output(folder, "rev-parse", "HEAD")
    return {"git": sha, "dirty": None if sha is None else bool(_git_output(folder, "status", "--porcelain"))}


def _git_output(folder: Path, *command: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *command], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
