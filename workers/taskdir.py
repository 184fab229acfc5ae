"""The file protocol of a task: where its files stand in a store, its commit, and how both are read back."""

import contextlib
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from workers import files
from workers.errors import DiskFull, Garbled

INLINE_BYTES = 64 * 1024

Columns = dict[str, list[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One unit of work as it crosses the border to the nodes: plain values only.

    `alone`: nothing else runs beside it in its job. `halvings`: how often its micro-batch is to be halved. `gpu_type`: of a larger GPU
    than the launcher's, which the task was found to need.
    """

    key: str
    workload: str
    version: int
    settings: dict[str, Any]
    inputs: dict[str, str]
    content: dict[str, str] = field(default_factory=dict)
    resources: dict[str, Any] = field(default_factory=dict)
    sweeps: list[str] = field(default_factory=list)
    generation: int = 0
    alone: bool = False
    num_failed: int = 0
    halvings: int = 0
    gpu_type: str = ""

    @property
    def commit_name(self) -> str:
        """Name of the commit that this task publishes; each retraction begins a new generation."""
        return commit_name(self.key, self.generation)

    def to_plain(self) -> dict[str, Any]:
        """A JSON object that `Task(**plain)` reads back."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """A published file of an attempt."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """The one published result of a task.

    `rows`: table -> column -> values, inline; tables too large for that stand in the payload `rows-<table>.npz`.
    `status` is "ok" or "diverged". `generation` counts the retractions before it.
    """

    key: str
    generation: int
    attempt: str
    workload: str
    version: int
    settings: dict[str, Any]
    inputs: dict[str, str]
    content: dict[str, str]
    status: str
    rows: dict[str, Columns]
    files: list[Payload]
    code: str
    host: str
    device: str
    started: float
    seconds: float
    peak_memory_mib: float
    message: str = ""

    @property
    def name(self) -> str:
        """`KEY`, or `KEY.2` after two retractions."""
        return commit_name(self.key, self.generation)

    def encode(self) -> bytes:
        """The commit's file."""
        body = {name: getattr(self, name) for name in self.__slots__}  # `asdict` copies every row, 0.1 ms even where there are three
        body["files"] = [asdict(payload) for payload in self.files]
        return files.encode(body)


def commit_name(key: str, generation: int) -> str:
    """`KEY`, or `KEY.2` after two retractions: a retracted commit is never overwritten, the next has a name of its own."""
    return f"{key}.{generation}" if generation else key


def commit_path(root: Path, name: str) -> Path:
    """Where the commit `name` stands."""
    return Path(f"{root}/commits/{name[:2]}/{name}.json")


def task_dir(root: Path, name: str) -> Path:
    """Where payloads, parts and checkpoints for the commit `name` stand, a folder an attempt.

    A retraction begins an empty folder, so that nothing of a wrong result is adopted.
    """
    return root / "tasks" / name[:2] / name


def attempt_dir(root: Path, name: str, attempt: str) -> Path:
    """The folder of one attempt; it exists only where there is a payload, a part or a checkpoint."""
    return task_dir(root, name) / "attempts" / attempt


def batch_dir(root: Path, token: str) -> Path:
    """Where everything of one batch stands; an element of a job array, `BASE/3`, has a folder in that of its submission, `BASE`."""
    return root / "batches" / token


def batch_tokens(root: Path) -> Iterator[str]:
    """Every batch that has a folder: `BASE`, or `BASE/3` for those elements of a job array that have begun."""
    for base in files.names(root / "batches"):
        names = files.names(root / "batches" / base)
        if "tasks.jsonl" in names:
            yield from (f"{base}/{name}" for name in sorted((name for name in names if name.isdigit()), key=int))
        else:
            yield base


def receipt_name(run: int) -> str:
    """File of the receipt that a job links as the first act of its run number `run`."""
    return f"receipt-{run}.json" if run else "receipt.json"


def job_path(root: Path, base: str) -> Path:
    """Where the id that the scheduler gave to a submission is kept, once it is known."""
    return batch_dir(root, base) / "job.json"


def run_dir(folder: Path, run: int) -> Path:
    """Where a run of the batch at `folder` writes: a requeued job in a folder of its own, for the run before may still be alive."""
    return folder / f"run-{run}" if run else folder


def shape_name(workload: str, resources: Mapping[str, Any]) -> str:
    """Tasks of one name ask for the same and take about as long: `noop cpus=1 gpus=0 memory_gib=0.25 nodes=1 walltime_minutes=1`."""
    return " ".join([workload, *(f"{name}={resources[name]:g}" for name in sorted(resources))])


def has_progressed(root: Path, name: str, attempt: str) -> bool:
    """Whether an attempt on the commit `name` has left a checkpoint further on than all other attempts have."""
    folder = task_dir(root, name) / "attempts"
    steps = {one: max(map(checkpoint_step, files.names(folder / one)), default=-1) for one in files.names(folder)}
    mine = steps.pop(attempt, -1)
    return mine > max(steps.values(), default=-1)


def checkpoint_step(name: str) -> int:
    """The step of a checkpoint's mark, by its file name; -1: the file is none."""
    number = name.removeprefix("checkpoint-").removesuffix(".json")
    return int(number) if name.startswith("checkpoint-") and name.endswith(".json") and number.isdigit() else -1


def hint_path(root: Path, sweep: str, name: str) -> Path:
    """The file whose name says that the commit `name` of a sweep's task exists."""
    return Path(f"{root}/sweeps/{sweep}/done/{name}")


def make_commit_folders(root: Path, keys: Iterable[str]) -> None:
    """All folders that the commits of these tasks go to, synced once instead of one by one."""
    folder = root / "commits"
    missing = {key[:2] for key in keys} - set(files.names(folder))
    if missing:
        with contextlib.suppress(DiskFull):
            files.make_dirs(folder)
        for name in sorted(missing):
            with contextlib.suppress(OSError):
                files.ops.mkdir(folder / name)
        with contextlib.suppress(OSError):
            files.ops.sync_dir(folder)


def write_commit(root: Path, commit: Commit) -> bool:
    """Link the commit into place; False where another attempt's stands there (it is never overwritten)."""
    path = commit_path(root, commit.name)
    files.make_dirs(path.parent)
    return files.publish(path, commit.encode())


def write_hints(root: Path, name: str, sweeps: list[str], *, diverged: bool = False) -> None:
    """Mark the commit `name` as there in the sweeps; not synced, since tick makes them again from the commits.

    A hint is a second name of the commit's file, which costs no inode. A diverged commit has a second hint,
    `<name>.diverged`, made first: a kill between the two must not hide it.
    """
    for sweep in sweeps:
        with contextlib.suppress(OSError):
            if diverged:
                files.ops.touch(hint_path(root, sweep, f"{name}.diverged"))
            _link_hint(commit_path(root, name), hint_path(root, sweep, name))


def _link_hint(commit: Path, hint: Path) -> None:
    try:
        files.ops.link(commit, hint)
    except (FileExistsError, FileNotFoundError):
        return
    except OSError:  # a file system with few links to a file, or folders that are volumes of their own
        files.ops.touch(hint)


def write_difference(root: Path, name: str, attempt: str, difference: str) -> None:
    """Keep that an attempt which came too late has other rows than the commit `name`; nobody may be watching its batch any more."""
    with contextlib.suppress(OSError, DiskFull):
        files.make_dirs(root / "differences")
        files.publish(root / "differences" / f"{attempt}.json", files.encode({"commit": name, "difference": difference}))


def differences(root: Path) -> list[tuple[str, str]]:
    """(commit, how a later attempt differs from it) of all that there are."""
    found = []
    for file in files.names(root / "differences"):
        body = files.read(root / "differences" / file)
        found.append((body["commit"], body["difference"]))
    return found


def read_commit(root: Path, name: str) -> Commit:
    """The commit `name`; FileNotFoundError where there is none, Garbled where it cannot be trusted."""
    path = commit_path(root, name)
    return decode_commit(path.read_bytes(), path)


def decode_commit(data: bytes, path: Path) -> Commit:
    """A commit from its file's bytes."""
    body = files.decode(data, path)
    if commit_name(body["key"], body["generation"]) != path.stem:
        raise Garbled(f"{path} holds the commit of another task, {body['key']}; run `eigensweep scrub`")
    body["files"] = [Payload(**payload) for payload in body["files"]]
    return Commit(**body)


def is_committed(root: Path, name: str) -> bool:
    """Whether the commit `name` stands in place, asked by opening it (a stat may be answered from a stale cache)."""
    return bool(committed(root, (name,)))


def is_diverged(root: Path, name: str) -> bool:
    """Whether the commit `name` has no finite result; False also for one that cannot be trusted, which its readers will name."""
    try:
        return read_commit(root, name).status == "diverged"
    except Garbled:
        return False


def committed(root: Path, names: Iterable[str]) -> set[str]:
    """Those of many commit names that stand in place."""
    folder = f"{root}/commits/"
    found = set()
    for name in names:
        try:
            os.close(os.open(f"{folder}{name[:2]}/{name}.json", os.O_RDONLY))
        except FileNotFoundError:
            continue
        found.add(name)
    return found


def payload_path(root: Path, commit: Commit, name: str) -> Path:
    """Path of a payload that the commit names; KeyError with the names there are."""
    names = [payload.name for payload in commit.files]
    if name not in names:
        raise KeyError(f"task {commit.key} has no file {name!r}; it has {', '.join(names) or 'none'}")
    return attempt_dir(root, commit.name, commit.attempt) / name


def read_rows(root: Path, commit: Commit, table: str) -> Mapping[str, Any]:
    """Columns of one table of a commit, whether inline or in a payload; empty columns where it has no such rows."""
    if table in commit.rows:
        return commit.rows[table]
    name = f"rows-{table}.npz"
    if name not in [payload.name for payload in commit.files]:
        return {}
    import numpy as np

    path = payload_path(root, commit, name)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {column: arrays[column] for column in arrays.files}
    except (OSError, ValueError, EOFError) as error:
        raise Garbled(f"{path} cannot be read ({error}); run `eigensweep scrub`, then `retract` the task to compute it again") from error


def tables(commit: Commit) -> list[str]:
    """Names of the tables that a commit has rows for."""
    stored = [p.name[5:-4] for p in commit.files if p.name.startswith("rows-") and p.name.endswith(".npz")]
    return sorted({*commit.rows, *stored})


def compare(root: Path, ours: Commit, other: Commit, tolerance: float) -> str:
    """Where the rows of two commits of one task differ by more than the relative `tolerance`; empty: nowhere."""
    if ours.status != other.status:
        return f"status {ours.status} against {other.status}"
    if tables(ours) != tables(other):
        return f"tables {tables(ours)} against {tables(other)}"
    for table in tables(ours):
        mine, theirs = read_rows(root, ours, table), read_rows(root, other, table)
        for column in mine:
            difference = _first_difference(list(mine[column]), list(theirs.get(column, ())), tolerance)
            if difference:
                return f"{table}.{column} {difference}"
    return ""


def _first_difference(ours: list[Any], theirs: list[Any], tolerance: float) -> str:
    if len(ours) != len(theirs):
        return f"has {len(ours)} rows against {len(theirs)}"
    for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        if one == other or (one != one and other != other):
            continue
        close = isinstance(one, float) and isinstance(other, float) and math.isclose(one, other, rel_tol=tolerance, abs_tol=0.0)
        if not close:
            return f"row {index}: {one!r} against {other!r}"
    return ""
