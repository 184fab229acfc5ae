"""Deletes what nothing needs any more: old dataset parts, forgotten temporary files, folders of attempts that came too late."""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator import dataset
from orchestrator import ledger as ledgers
from orchestrator.ledger import Ledger
from orchestrator.store import Store
from workers import files, taskdir
from workers.errors import Garbled

NUM_KEPT_MANIFESTS = 5
# younger than this, a file without an owner may have one on another host: unknown means alive
ORPHAN_SECONDS = 24 * 3600.0


@dataclass(slots=True)
class Collected:
    """What was deleted, or with `dry_run` would be: kind -> number and MiB."""

    dry_run: bool
    deleted: dict[str, str] = field(default_factory=dict)
    num_files: int = 0
    num_bytes: int = 0


def gc(store: Store, *, dry_run: bool = False) -> Collected:
    """Delete what nothing refers to: never a commit, a committed attempt, or what the last manifests name."""
    found = Collected(dry_run)
    ledger = ledgers.read(store.root)
    kinds = {
        "dataset manifests and parts before the last 5": _old_parts(store),
        "temporary files older than a day": _temporaries(store, ledger),
        "folders of attempts that another attempt's commit made needless": _late_attempts(store, ledger),
        "batches that were never submitted": _orphan_batches(store),
    }
    for kind, paths in kinds.items():
        _delete(found, kind, list(paths))
    return found


def _delete(found: Collected, kind: str, paths: list[Path]) -> None:
    num_files = num_bytes = 0
    for path in paths:
        for file in _files_below(path):
            with contextlib.suppress(FileNotFoundError):
                num_bytes += file.lstat().st_size
                num_files += 1
        if not found.dry_run:
            _remove(path)
    if paths:
        found.deleted[kind] = f"{num_files:,} files, {num_bytes / 2**20:,.1f} MiB"
    found.num_files += num_files
    found.num_bytes += num_bytes


def _files_below(path: Path) -> Iterator[Path]:
    if path.is_symlink() or not path.is_dir():
        yield path
    else:
        for child in path.iterdir():
            yield from _files_below(child)


def _remove(path: Path) -> None:
    # another gc, or the owner, may have been first
    with contextlib.suppress(FileNotFoundError):
        if path.is_symlink() or not path.is_dir():
            files.ops.unlink(path)
            return
        for child in path.iterdir():
            _remove(child)
        files.ops.rmdir(path)


# -- what nothing needs -----------------------------------------------------------------------------------------------


def _old_parts(store: Store) -> Iterator[Path]:
    """Manifests before the last ones (first: no reader begins with one whose parts go), then parts that no kept one names."""
    numbers = dataset.numbers(store)
    kept = [number for number in numbers if _part_names(store, number) is not None][-NUM_KEPT_MANIFESTS:]
    old = [number for number in numbers if kept and number < kept[0]]
    named = {name for number in kept for name in _part_names(store, number) or ()}
    once_named = {name for number in old for name in _part_names(store, number) or ()}
    yield from (dataset.manifest_path(store, number) for number in old)
    home = dataset.folder(store)
    for path in sorted(home.glob("**/part-*.parquet")):
        name = str(path.relative_to(home))
        # one that no manifest ever named may be of a compaction that goes on
        if name not in named and (name in once_named or _is_orphan(path)):
            yield path


def _part_names(store: Store, number: int) -> set[str] | None:
    try:
        return {part["file"] for part in dataset.read_manifest(store, number).all_parts()}
    except (FileNotFoundError, Garbled):
        return None


def _temporaries(store: Store, ledger: Ledger) -> Iterator[Path]:
    """Hidden siblings that a kill left behind; those of a batch at work are its job's."""
    at_work = {str(taskdir.batch_dir(store.root, entry["token"])) for entry in ledger.batches.values()}
    for folder, folders, names in os.walk(store.root):
        if folder in at_work:
            folders.clear()
            continue
        hidden = [Path(folder) / name for name in [*folders, *names] if name.startswith(".")]
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (path for path in hidden if _is_orphan(path))


def _is_orphan(path: Path) -> bool:
    try:
        return time.time() - path.lstat().st_mtime > ORPHAN_SECONDS
    except FileNotFoundError:
        return False


def _late_attempts(store: Store, ledger: Ledger) -> Iterator[Path]:
    """Folders of attempts beside the committed one, where no open batch may still be at work in them."""
    for bucket in files.names(store.root / "tasks"):
        for name in files.names(store.root / "tasks" / bucket):
            yield from _beside(store, ledger, name)


def _beside(store: Store, ledger: Ledger, name: str) -> Iterator[Path]:
    try:
        committed = taskdir.read_commit(store.root, name).attempt
    except (FileNotFoundError, Garbled):
        return  # not committed: its checkpoints and parts are what the next attempt goes on from
    folder = taskdir.task_dir(store.root, name) / "attempts"
    for attempt in files.names(folder):
        if attempt != committed and not any(attempt.startswith(f"{token.replace('/', '.')}-") for token in ledger.batches):
            yield folder / attempt


def _orphan_batches(store: Store) -> Iterator[Path]:
    """Batches of drivers that died, or lost a race, before their ledger entry."""
    found = [path for name in files.names(store.root / "batches") if _is_orphan(path := store.root / "batches" / name)]
    if not found:
        return
    submitted = set()
    for name in files.names(store.root / "ledger"):
        entry = files.read(store.root / "ledger" / name)
        if entry["kind"] == "submission":
            submitted.add(entry["token"])
    yield from (path for path in found if path.name not in submitted and not (path / "receipt.json").exists())
