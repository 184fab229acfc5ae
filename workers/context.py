"""What a running task sees: its inputs, its clock, its checkpoints, its files and its log."""

import contextlib
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workers import files, taskdir
from workers.errors import Garbled, Interrupted
from workers.taskdir import Commit, Payload, Task
from workers.workload import Row, Rows

NUM_KEPT_CHECKPOINTS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A state to go on from: `tensors` by name, and the plain values of `meta`."""

    step: int
    tensors: Mapping[str, Any]
    meta: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Input:
    """A committed input of a task."""

    root: Path
    commit: Commit

    def file(self, name: str) -> Path:
        """Path of a file that the input saved; KeyError with the names there are."""
        return taskdir.payload_path(self.root, self.commit, name)

    def rows(self, table: str = "scalars") -> Mapping[str, Any]:
        """Columns of one of its tables."""
        return taskdir.read_rows(self.root, self.commit, table)

    @property
    def file_names(self) -> list[str]:
        """Names of the files that it saved."""
        return [payload.name for payload in self.commit.files]


@dataclass(slots=True, kw_only=True)
class Context:
    """Handed to `Workload.run`; also made by hand in a notebook, where only `root` and `task` matter.

    `deadline` is on this process's monotonic clock. `report` sends progress to the job. `nodes`: hosts of the job where the task asks
    for several, this one first; else this one alone.
    """

    root: Path
    task: Task
    attempt: str
    device: str = "cpu"
    deadline: float = float("inf")
    stop: threading.Event = field(default_factory=threading.Event)
    report: Callable[[dict[str, Any]], None] = lambda message: None
    nodes: tuple[str, ...] = field(default_factory=lambda: (os.uname().nodename,))
    rows: dict[str, taskdir.Columns] = field(default_factory=dict)
    resumed_at: int | None = None
    checkpointed_at: int | None = None
    _payloads: dict[str, Payload] = field(default_factory=dict)

    # -- inputs, clock, log ---------------------------------------------------------------------------------------

    def input(self, name: str) -> Input:
        """The commit of the input in the field `name`."""
        return Input(self.root, taskdir.read_commit(self.root, self.task.inputs[name]))

    def time_left(self) -> float:
        """Seconds until this attempt is stopped."""
        return self.deadline - time.monotonic()

    @property
    def stopping(self) -> bool:
        """Whether the warning has come: write a checkpoint now and raise Interrupted (`stop_here` does both)."""
        return self.stop.is_set()

    def log(self, message: str) -> None:
        """One line in the task's log, which `eigensweep logs` shows."""
        print(message, file=sys.stdout, flush=True)

    def progress(self, done: int, total: int, words: str = "") -> None:
        """How far the task is, for the progress display, and in its own words; a total of 0: that is not known, and the words alone say."""
        self.report({"progress": [done, total], "words": words})

    def micro_batch(self, size: int) -> int:
        """How much of a batch of `size` to compute at once: less after each time that a GPU's memory was full.

        For workloads that declare `halves_batches`, whose numbers do not depend on it but for rounding.
        """
        return math.ceil(size / (1 << self.task.halvings))

    # -- nodes ----------------------------------------------------------------------------------------------------

    def launch(self, argv: Sequence[str], ranks_per_node: int = 1, env: Mapping[str, str] | None = None) -> int:
        """Run a command (no shell reads it) as so many ranks on each of `nodes`, and wait; its exit status, 0 where all ranks succeed.

        Across nodes srun starts it, on one node this process. Each rank finds RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and
        MASTER_PORT in its environment, as torch.distributed expects::

            status = context.launch([sys.executable, "-m", "my_package.ddp", str(context.folder)], ranks_per_node=2)

            # my_package/ddp.py
            torch.distributed.init_process_group("gloo")    # or "nccl"; reads the environment
            rank = torch.distributed.get_rank()

        At the warning the ranks get SIGUSR2, ignored unless they handle it; what is left of them ends with the task.
        """
        from workers.launch import launch

        return launch(argv, self.nodes, ranks_per_node=ranks_per_node, env=env, stopping=lambda: self.stopping)

    # -- rows -----------------------------------------------------------------------------------------------------

    def add(self, row: Row | Rows) -> None:
        """Keep a row for the commit; the runner calls it for what `run` yields."""
        if isinstance(row, Row):
            columns = self.rows.setdefault("scalars", {"step": [], "name": [], "value": []})
            columns["step"].append(int(row.step))
            columns["name"].append(row.name)
            columns["value"].append(float(row.value))
            return
        lists = {name: list(getattr(values, "tolist", lambda v=values: v)()) for name, values in row.columns.items()}
        if len({len(values) for values in lists.values()}) > 1:
            raise ValueError(f"columns of {row.table} differ in length: { {n: len(v) for n, v in lists.items()} }")
        columns = self.rows.setdefault(row.table, {name: [] for name in lists})
        if set(columns) != set(lists):
            raise ValueError(f"rows of {row.table} have columns {sorted(lists)}, earlier ones {sorted(columns)}")
        for name, values in lists.items():
            columns[name].extend(values)

    # -- files ----------------------------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        """This attempt's own folder, claimed at first use."""
        path = taskdir.attempt_dir(self.root, self.task.commit_name, self.attempt)
        if not path.is_dir():
            files.make_dirs(path.parent)
            files.claim_dir(path)
        return path

    @contextlib.contextmanager
    def file(self, name: str, facts: Mapping[str, Any] | None = None) -> Iterator[Path]:
        """A path to write to; on a clean exit the file `name` is published, verified and listed in the commit.

        It is a part: it survives a kill, and a later attempt finds it with `adopt`, and what was told of it, `facts` (plain values),
        with `facts_of`. A rank of the task publishes its own parts, which the task takes over with `adopt`.
        """
        with files.replacing(self.folder / name) as temporary:
            yield temporary
            payload = Payload(name=name, size=temporary.stat().st_size, sha256=files.sha256(temporary))
        with files.replacing(self.folder / f"{name}.part.json") as mark:
            mark.write_bytes(files.encode({"name": name, "size": payload.size, "sha256": payload.sha256, "facts": dict(facts or {})}))
        self._payloads[name] = payload

    def adopt(self, name: str) -> Path | None:
        """The file `name` if this or an earlier attempt published it whole, hard-linked into this attempt; else None."""
        if name in self._payloads:
            return self.folder / name
        own = _part(self.folder, name)
        if own is not None:  # of another rank of this attempt: nobody else has written here
            self._payloads[name] = own
            return self.folder / name
        for attempt in self._earlier_attempts():
            payload = _verified_part(attempt, name)
            if payload is not None:
                files.link(attempt / name, self.folder / name)
                files.link(attempt / f"{name}.part.json", self.folder / f"{name}.part.json")
                files.ops.sync_dir(self.folder)
                self._payloads[name] = payload
                return self.folder / name
        return None

    def facts_of(self, name: str) -> dict[str, Any]:
        """What was told of a published file of this attempt."""
        facts: dict[str, Any] = files.read(self.folder / f"{name}.part.json")["facts"]
        return facts

    def payloads(self) -> list[Payload]:
        """The files that the commit will name."""
        return [self._payloads[name] for name in sorted(self._payloads)]

    def _earlier_attempts(self) -> list[Path]:
        folder = taskdir.task_dir(self.root, self.task.commit_name) / "attempts"
        return [folder / name for name in files.names(folder) if name != self.attempt]

    # -- checkpoints ----------------------------------------------------------------------------------------------

    def checkpoint(self, step: int, tensors: Mapping[str, Any], **meta: Any) -> None:
        """Publish a state to go on from, with the rows so far and the names of the files saved; the last two are kept."""
        name = f"checkpoint-{step:012d}"
        digest = _save_tensors(self.folder / f"{name}.safetensors", tensors) if tensors else ""
        body = {"step": step, "sha256": digest, "meta": meta, "rows": self.rows, "files": sorted(self._payloads)}
        with files.replacing(self.folder / f"{name}.json") as temporary:
            temporary.write_bytes(files.encode(body))
        self.checkpointed_at = step
        self.report({"checkpoint": step})
        for old in [n for n in files.names(self.folder) if n.startswith("checkpoint-") and n.endswith(".json")][:-NUM_KEPT_CHECKPOINTS]:
            files.ops.unlink(self.folder / old)
            with contextlib.suppress(FileNotFoundError):
                files.ops.unlink((self.folder / old).with_suffix(".safetensors"))

    def stop_here(self, step: int, tensors: Mapping[str, Any], **meta: Any) -> None:
        """Write a checkpoint and leave the task to a later attempt; it goes on from here."""
        self.checkpoint(step, tensors, **meta)
        raise Interrupted(f"stopped at step {step} after a checkpoint")

    def restore(self, at_most: int | None = None) -> Checkpoint | None:
        """The newest valid checkpoint of any attempt (of a step up to `at_most`), with rows and files taken over; None: there is none."""
        found = []
        for attempt in self._earlier_attempts():
            marks = [n for n in files.names(attempt) if n.startswith("checkpoint-") and n.endswith(".json")]
            found += [(mark, attempt) for mark in marks if at_most is None or taskdir.checkpoint_step(mark) <= at_most]
        for mark, attempt in sorted(found, key=lambda pair: pair[0], reverse=True):
            checkpoint = self._valid_checkpoint(attempt / mark)
            if checkpoint is not None:
                self.resumed_at = checkpoint.step
                return checkpoint
        return None

    def _valid_checkpoint(self, mark: Path) -> Checkpoint | None:
        data = mark.with_suffix(".safetensors")
        try:
            body = files.read(mark)
            if body["sha256"] and files.sha256(data) != body["sha256"]:
                return None
            if any(self.adopt(name) is None for name in body["files"]):
                return None
            # inside: an attempt thought dead may remove its old checkpoints at any time
            tensors = _load_tensors(data) if body["sha256"] else {}
        except (FileNotFoundError, Garbled):
            return None
        self.rows = body["rows"]
        return Checkpoint(step=body["step"], tensors=tensors, meta=body["meta"])


def _save_tensors(path: Path, tensors: Mapping[str, Any]) -> str:
    """Publish tensors; the SHA-256 of their file."""
    from safetensors.torch import save_file

    with files.replacing(path) as temporary:
        save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, temporary)
        return files.sha256(temporary)


def _load_tensors(path: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(path))


def _part(attempt: Path, name: str) -> Payload | None:
    """A part as its mark names it."""
    try:
        body = files.read(attempt / f"{name}.part.json")
    except (FileNotFoundError, Garbled):
        return None
    return Payload(name=body["name"], size=body["size"], sha256=body["sha256"])


def _verified_part(attempt: Path, name: str) -> Payload | None:
    """A part whose file is what its mark says."""
    payload = _part(attempt, name)
    try:
        return payload if payload is not None and files.sha256(attempt / name) == payload.sha256 else None
    except FileNotFoundError:
        return None
