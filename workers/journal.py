"""The files of one batch as its job writes them: receipt, attempts, heartbeat; and the orders to cancel that it reads."""

import contextlib
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workers import files, taskdir
from workers.errors import DiskFull, Garbled
from workers.processes import Process
from workers.taskdir import Task


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
_RESERVE = ".reserve"


@dataclass(slots=True)
class Journal:
    """What the job says about itself. Nothing here may stop it: on a full disk records wait until there is room."""

    folder: Path
    heartbeats: int = 0
    _descriptor: int = -1
    _size: int = 0
    _unwritten: list[bytes] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)

    def link_receipt(self, token: str) -> bool:
        """The job's first act; False: another job has this batch, so this one has nothing to do."""
        me = Process.of_pid(os.getpid())
        body = {"token": token, "job": str(me), "host": me.host, "boot": me.boot, "pid": me.pid, "pid_start": me.start, "time": time.time()}
        return files.publish(self.folder / "receipt.json", files.encode(body))

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
            return self._append() or (self._give_up_reserve() and self._append())
        except OSError:
            return False

    def _open(self) -> None:
        with contextlib.suppress(OSError, DiskFull):
            files.ops.create(self.folder / _RESERVE, os.urandom(RESERVE_BYTES))
        self._descriptor = os.open(self.folder / "attempts.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)

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
            files.ops.unlink(self.folder / _RESERVE)
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
        with contextlib.suppress(OSError, DiskFull), files.replacing(self.folder / "heartbeat.json") as path:
            path.write_bytes(files.encode(body))

    def cancellations(self) -> list[set[str] | None]:
        """Orders to cancel that came since the last call: keys, or None for the whole batch."""
        new = [name for name in files.names(self.folder) if name.startswith("cancel-") and name not in self._seen]
        orders: list[set[str] | None] = []
        for name in new:
            with contextlib.suppress(Garbled, OSError):
                keys = files.read(self.folder / name)["keys"]
                orders.append(None if keys is None else set(keys))
                self._seen.add(name)
        return orders
