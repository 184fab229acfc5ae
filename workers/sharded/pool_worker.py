"""One worker of a pool: does calls one after another and keeps what it has loaded; `python -P -m workers.sharded.pool_worker`.

It reads lines of JSON from one pipe and writes them to another. When the first one is closed, its pool is gone, and so is it, at once.
"""

import contextlib
import faulthandler
import functools
import hashlib
import importlib
import json
import os
import platform
import queue
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from workers.execute import flushed_output, peak_memory_mib
from workers.processes import die_with


def main(reading: int, writing: int, parent: int) -> int:
    """Serve the pool that holds the other ends of the pipes; `parent`: the process to die with, 0: its pipe alone tells."""
    if parent:
        die_with(parent)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # sent to the whole job; the pool decides what they mean
    with os.fdopen(reading, encoding="utf-8") as orders, os.fdopen(writing, "w", encoding="utf-8") as answers:
        _Worker(answers).serve(iter(orders.readline, ""))
    return 0


class _Worker:
    """A thread reads orders, so that a closed pipe and an order to drop calls are noticed in the middle of a call."""

    def __init__(self, answers: Any) -> None:
        self.answers = answers
        self.calls: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.writing = threading.Lock()

    def serve(self, orders: Any) -> None:
        set_up(**json.loads(next(orders)))
        threading.Thread(target=self._listen, args=(orders,), daemon=True).start()
        self._say({"ready": True})
        while True:
            call = self.calls.get()
            with flushed_output():
                answer = do(call["function"], call["arguments"])
            self._say({"index": call["index"], "peak_mib": peak_memory_mib(), **answer})

    def _listen(self, orders: Any) -> None:
        for line in orders:
            order = json.loads(line)
            if "drop" in order:
                self._drop()
            else:
                self.calls.put(order)
        os._exit(0)

    def _drop(self) -> None:
        dropped = []
        with contextlib.suppress(queue.Empty):
            while True:
                dropped.append(self.calls.get_nowait()["index"])
        self._say({"dropped": dropped})

    def _say(self, answer: Mapping[str, Any]) -> None:
        with self.writing, contextlib.suppress(BrokenPipeError):
            self.answers.write(json.dumps(answer) + "\n")
            self.answers.flush()


def set_up(path: list[str], data_bytes: int | None = None) -> None:
    """Look for modules where the pool does, and take on the limit of memory: RLIMIT_DATA, all but mapped files.

    What is reserved now without being in use, the stacks of threads, is not counted.
    """
    sys.path[:] = path
    if data_bytes is not None:
        limit = data_bytes + max(0, _status_bytes("VmData") - used_bytes())
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def used_bytes() -> int:
    """Resident memory of this process that is no mapped file."""
    return _status_bytes("RssAnon")


def _status_bytes(name: str) -> int:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(status[name].split()[0])


def import_path() -> list[str]:
    """Where this process looks for modules, as another process can use it."""
    return [entry or os.getcwd() for entry in sys.path]


def do(function: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """{"result": a plain value} of a function, or {"error": its exception}."""
    try:
        result = _function(function)(**arguments)
        try:
            json.dumps(result)
        except (TypeError, ValueError) as error:
            raise TypeError(f"{function} must return plain values (numbers, texts, lists, mappings): {error}") from None
        return {"result": result}
    except (Exception, SystemExit) as error:
        return {"error": _record(error)}


@functools.cache
def _function(function: str) -> Callable[..., Any]:
    module, _, name = function.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def _record(error: BaseException) -> dict[str, Any]:
    cls = type(error)
    return {
        "type": f"{cls.__module__}.{cls.__qualname__}".removeprefix("builtins."),
        "message": str(error),
        "errno": error.errno if isinstance(error, OSError) else None,
        "traceback": "".join(traceback.format_exception(error)),
        "host": os.uname().nodename,
    }


def versions() -> dict[str, str]:
    """What must be equal on all nodes, Python and the source of this package; and where that is."""
    folder = Path(__file__).parent.parent
    return {"python": platform.python_version(), "code": _digest(folder), "folder": str(folder), "host": os.uname().nodename}


@functools.cache
def _digest(folder: Path) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
