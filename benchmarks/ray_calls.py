"""What workers do in the benchmark of Ray, whoever sends them the calls; and a driver that sees how long each call takes."""

import json
import queue
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

WORKERS = 2
Seen = list[tuple[float, Any]]


def nothing() -> None:
    """The smallest call."""


def tile(order: str, row: int, column: int) -> float:
    """Compute a tile and publish it, with the engine that this process has; wall seconds."""
    from workers.sharded.making import make_tile

    began = time.perf_counter()
    make_tile(order, row, column)
    return time.perf_counter() - began


def tile_anew(order: str, row: int, column: int) -> float:
    """The same, with an engine of its own, as a task that keeps nothing."""
    from workers.sharded import making

    began = time.perf_counter()
    making._kept_engine.cache_clear()
    making.make_tile(order, row, column)
    return time.perf_counter() - began


def drive(submit: Callable[..., Any], calls: Sequence[Mapping[str, Any]]) -> Seen:
    """Seconds from each call to its answer, and the answer; a worker has one call at a time. `submit` gives futures."""
    answers: queue.SimpleQueue[tuple[float, Any]] = queue.SimpleQueue()
    kept, seen = [], []

    def give(arguments: Mapping[str, Any]) -> None:
        began = time.perf_counter()
        future = submit(**arguments)
        kept.append(future)
        future.add_done_callback(lambda done: answers.put((began, done)))

    for arguments in calls[:WORKERS]:
        give(arguments)
    for number in range(len(calls)):
        began, done = answers.get()
        result = done.result()
        seen.append((time.perf_counter() - began, result))
        if number + WORKERS < len(calls):
            give(calls[number + WORKERS])
    return seen


def serve(submit: Callable[[Callable[..., Any]], Callable[..., Any]], order: Mapping[str, Any], make: Callable[..., float] = tile) -> None:
    """Do what a contender is asked for: tiles, or calls of nothing one after another. `submit(function)` takes its arguments."""
    drive(submit(nothing), [{}] * WORKERS)  # they are there
    ready = time.monotonic()
    if order["calls"]:
        send = submit(nothing)
        tell(ready, [pair for _ in range(order["calls"]) for pair in drive(send, [{}])])
    else:
        tell(ready, drive(submit(make), [{"order": order["order"], "row": i, "column": j} for i, j in order["pairs"]]))


def tell(ready: float, seen: Seen) -> None:
    """The last line of a contender: when its workers were there, when all was done, and each call as it was seen, from within also."""
    print(json.dumps({"ready": ready, "done": time.monotonic(), "seen": seen}), flush=True)


def asked() -> dict[str, Any]:
    """The order on the command line."""
    order: dict[str, Any] = json.loads(sys.argv[1])
    return order
