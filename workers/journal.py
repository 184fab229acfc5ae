"""The files of one batch as a run of its job writes them: receipt, attempts, heartbeat; and the orders to cancel that it reads."""

import contextlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workers import files, taskdir
from workers.errors import DiskFull, Garbled
from workers.processes import Process
from workers.taskdir import Task, receipt_name, run_dir


def read_batch(root: Path, token: str) -> tuple[dict[str, Any], list[Task]]:
    """The body of a submission's tasks.json, and the tasks of this batch; those of an array's element stand on a line of tasks.jsonl."""
    base, _, element = token.partition("/")
    folder = taskdir.batch_dir(root, base)
    body = files.read(folder / "tasks.json")
    if not element:
        return body, [Task(**plain) for plain in body["tasks"]]
    path = folder / "tasks.jsonl"
    with path.open("rb") as lines:
        lines.seek(body["offsets"][int(element)])
        return body, [Task(**plain) for plain in files.decode(lines.readline(), path)]


RESERVE_BYTES = 64 * 1024  # room for the last records of a job that has filled the disk
MAX_LOOKS, LOOK_SECONDS = 3, 1.0
_RESERVE = ".reserve"


@dataclass(slots=True)
class Journal:
    """What the job says about itself. Nothing here may stop it: on a full disk records wait until there is room.

    `folder`: of the batch. `run`: which run of the job this is; `is_superseded`: a later one has begun, or may not begin any more.
    `is_short_of_room`: the reserve is in use.
    """

    folder: Path
    run: int = 0
    is_superseded: bool = False
    is_short_of_room: bool = False
    heartbeats: int = 0
    _descriptor: int = -1
    _size: int = 0
    _unwritten: list[bytes] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)

    @property
    def run_folder(self) -> Path:
        """Where this run writes."""
        return run_dir(self.folder, self.run)

    def log_name(self, name: str) -> str:
        """A log of this run as its path from the batch's folder."""
        return str((self.run_folder / name).relative_to(self.folder))

    def link_receipt(self, token: str, slurm: Mapping[str, Any] | None = None) -> bool:
        """The job's first act; False: this batch is another job's, or nobody's any more, so there is nothing to do.

        A job that SLURM runs again links a further receipt: the newest must be its own, of an earlier run.
        """
        files.make_dirs(self.folder)
        for _ in range(MAX_LOOKS):
            newest = self._next_run()
            if newest is not None and not _goes_on(newest, slurm):
                return False
            if files.publish(self.folder / receipt_name(self.run), files.encode(self._receipt(token, slurm))):
                files.make_dirs(self.run_folder)
                return True
            time.sleep(LOOK_SECONDS)  # a receipt that cannot be seen yet stands there
        return False

    def _next_run(self) -> dict[str, Any] | None:
        """Set `run` to the first without a receipt; the one before it. Each is opened, for a listing may come from a stale cache."""
        newest: dict[str, Any] | None = None
        while True:
            try:
                newest = files.read(self.folder / receipt_name(self.run))
            except FileNotFoundError:
                return newest
            self.run += 1

    def _receipt(self, token: str, slurm: Mapping[str, Any] | None) -> dict[str, Any]:
        me = Process.of_pid(os.getpid())
        body = {"token": token, "job": str(me), "host": me.host, "boot": me.boot, "pid": me.pid, "pid_start": me.start, "time": time.time()}
        # a job of a scheduler is paid for from its first line of setup on
        return body | {"run": self.run} | ({"slurm": dict(slurm), "began": round(me.began, 2)} if slurm else {})

    def record(self, event: dict[str, Any]) -> None:
        """Keep a line for the attempts; `write` puts it into the file."""
        self._unwritten.append(json.dumps(event, separators=(",", ":")).encode() + b"\n")

    def write(self) -> bool:
        """Append what is kept, whole; False where there is no room for it even after the reserve is given up."""
        if not self._unwritten:
            return True
        try:
            if self._descriptor < 0:
                self._open()
            if self._append():
                return True
            self.is_short_of_room = True
            return self._give_up_reserve() and self._append()
        except OSError:
            return False

    def _open(self) -> None:
        with contextlib.suppress(OSError, DiskFull):
            files.ops.create(self.run_folder / _RESERVE, os.urandom(RESERVE_BYTES))
        self._descriptor = os.open(self.run_folder / "attempts.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, files.FILE_MODE)

    def _append(self) -> bool:
        data = b"".join(self._unwritten)
        with contextlib.suppress(OSError):
            files.ops.append(self._descriptor, data)
        if os.fstat(self._descriptor).st_size == self._size + len(data):
            self._size += len(data)
            self._unwritten.clear()
            return True
        os.ftruncate(self._descriptor, self._size)  # half a line would spoil the next one
        return False

    def _give_up_reserve(self) -> bool:
        try:
            files.ops.unlink(self.run_folder / _RESERVE)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """The attempts survive a power cut from here on."""
        self._give_up_reserve()
        with contextlib.suppress(OSError):
            if self._descriptor >= 0:
                os.fsync(self._descriptor)
                os.close(self._descriptor)
                self._descriptor = -1

    def beat(self, state: str, **counts: int) -> None:
        """Show that the job lives; the counter rises by one each time."""
        self.heartbeats += 1
        body = {"count": self.heartbeats, "time": time.time(), "state": state, **counts}
        with contextlib.suppress(OSError, DiskFull), files.replacing(self.run_folder / "heartbeat.json") as path:
            path.write_bytes(files.encode(body))

    def cancellations(self) -> list[set[str] | None]:
        """Orders to cancel that came since the last call: keys, or None for the whole batch."""
        there = files.names(self.folder)
        self.is_superseded = receipt_name(self.run + 1) in there
        new = [name for name in there if name.startswith("cancel-") and name not in self._seen]
        orders: list[set[str] | None] = []
        for name in new:
            with contextlib.suppress(Garbled, OSError):
                keys = files.read(self.folder / name)["keys"]
                orders.append(None if keys is None else set(keys))
                self._seen.add(name)
        return orders


def _goes_on(receipt: Mapping[str, Any], slurm: Mapping[str, Any] | None) -> bool:
    """Whether this is a later run of the very job that linked the receipt."""
    before = receipt.get("slurm")
    return bool(slurm and before and before["job_id"] == slurm["job_id"] and before["restart"] < slurm["restart"])
