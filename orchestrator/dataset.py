"""The compacted dataset of a store: numbered manifests, each naming immutable Parquet parts, a folder a table."""

import contextlib
import functools
import os
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator import schema
from orchestrator.store import Store, numbered
from workers import files
from workers.errors import Garbled

if TYPE_CHECKING:
    import pyarrow as pa

Part = dict[str, Any]
Write = Callable[["pa.Table"], Part]

# a part up to this size is compared with its checksum when it is first read; `scrub` compares all
MAX_VERIFIED_BYTES = 64 * 2**20
# parts of one size class are merged once there are this many, so that a row is rewritten a logarithmic number of times
MERGED_AT_ONCE = 8
MAX_MERGED_BYTES = 512 * 2**20
_SMALL_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Manifest:
    """One version of the dataset; number 0 is the empty one.

    `parts`: table -> parts, `file` relative to `dataset/`. Parts with `derived` hold observables. `axes`: sweep -> part with its
    `revision`. `garbled`: commit -> what is wrong with it. `ledger_number`: the last entry that `folded` holds.
    """

    number: int = 0
    parts: dict[str, list[Part]] = field(default_factory=dict)
    axes: dict[str, Part] = field(default_factory=dict)
    retracted: list[str] = field(default_factory=list)
    garbled: dict[str, str] = field(default_factory=dict)
    observables: str = ""
    num_commits: int = 0
    ledger_number: int = 0
    folded: dict[str, Any] = field(default_factory=dict)

    def to_body(self) -> dict[str, Any]:
        """Plain values for the document."""
        return {name: getattr(self, name) for name in self.__slots__}

    def all_parts(self) -> list[Part]:
        """Every part that it names."""
        return [part for parts in self.parts.values() for part in parts] + list(self.axes.values())


def folder(store: Store) -> Path:
    """Where manifests and parts stand."""
    return store.root / "dataset"


def manifest_path(store: Store, number: int) -> Path:
    """Where the manifest of that number stands."""
    return folder(store) / f"MANIFEST-{number}.json"


def numbers(store: Store) -> list[int]:
    """Numbers of all manifests, valid or not, ascending."""
    return numbered(folder(store), "MANIFEST-")


def newest(store: Store) -> Manifest:
    """The newest manifest that can be trusted; the empty one where there is none."""
    for number in reversed(numbers(store)):
        with contextlib.suppress(FileNotFoundError, Garbled):
            return read_manifest(store, number)
    return Manifest()


def read_manifest(store: Store, number: int) -> Manifest:
    """The manifest of that number; raises Garbled where it cannot be trusted. What a later version added to it is left out."""
    body = files.read(manifest_path(store, number))
    return Manifest(**{name: body[name] for name in Manifest.__slots__ if name in body})


def paths(store: Store, parts: Iterable[Part]) -> list[Path]:
    """Where the parts stand, each checked; raises Garbled for one that is missing or was changed."""
    return [_checked(str(folder(store) / part["file"]), part["bytes"], part["sha256"]) for part in parts]


def _checked(path: str, size: int, sha256: str) -> Path:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise Garbled(f"{path} is missing from the dataset; run `eigensweep scrub`, then `eigensweep tick` to write it anew") from None
    if status.st_size != size or (size <= MAX_VERIFIED_BYTES and _sha256(path, size, status.st_mtime_ns) != sha256):
        raise Garbled(
            f"{path} is truncated or was changed ({status.st_size} bytes, {size} were written); run `eigensweep scrub` to see what to do"
        )
    return Path(path)


@functools.lru_cache(maxsize=4096)
def _sha256(path: str, size: int, mtime_ns: int) -> str:
    return files.sha256(Path(path))


def read(store: Store, parts: Iterable[Part], columns: list[str] | None = None) -> "pa.Table":
    """The rows of the parts, of which there is at least one."""
    import pyarrow.parquet as pq

    return schema.unite([pq.read_table(path, columns=columns, partitioning=None) for path in paths(store, parts)])


def write_part(store: Store, table: str, rows: "pa.Table", subfolder: str | None = None) -> Part:
    """A new part of `table`, sorted, synced and under a name of its own; what the manifest says of it."""
    import pyarrow.parquet as pq

    home = folder(store) / (subfolder or table)
    files.make_dirs(home)
    path = home / f"part-{secrets.token_hex(8)}.parquet"
    rows = schema.in_order(rows).combine_chunks()
    with files.replacing(path) as temporary:
        pq.write_table(rows, temporary, **schema.write_options(table, rows.schema))
        size, sha256 = temporary.stat().st_size, files.sha256(temporary)
    return {"file": str(path.relative_to(folder(store))), "rows": rows.num_rows, "bytes": size, "sha256": sha256}


def discard(store: Store, parts: Iterable[Part]) -> None:
    """Remove parts that no manifest came to name."""
    for part in parts:
        with contextlib.suppress(FileNotFoundError):
            files.ops.unlink(folder(store) / part["file"])


def without(store: Store, parts: list[Part], keys: "pa.Array", write: Write) -> list[Part]:
    """The parts with the rows of `keys` left out; those without such rows are the same parts."""
    import pyarrow.compute as pc

    kept = []
    for part in parts:
        held = pc.is_in(read(store, [part], ["key"])["key"], value_set=keys)
        if not pc.any(held).as_py():
            kept.append(part)
            continue
        rows = read(store, [part]).filter(pc.invert(held))
        if rows.num_rows:
            kept.append({**write(rows), **_marks(part)})
    return kept


def merged(store: Store, parts: list[Part], write: Write) -> list[Part]:
    """The parts with the small ones put together where there are many of a size."""
    groups: dict[tuple[bool, int], list[Part]] = {}
    for part in parts:
        groups.setdefault((part.get("derived", False), _size_class(part["bytes"])), []).append(part)
    result = []
    for group in groups.values():
        if len(group) < MERGED_AT_ONCE or sum(part["bytes"] for part in group) > MAX_MERGED_BYTES:
            result += group
        else:
            result.append({**write(read(store, group)), **_marks(group[0])})
    return result


def _size_class(size: int) -> int:
    size_class = 0
    while size > _SMALL_BYTES:
        size //= MERGED_AT_ONCE
        size_class += 1
    return size_class


def _marks(part: Part) -> Part:
    return {"derived": True} if part.get("derived") else {}
