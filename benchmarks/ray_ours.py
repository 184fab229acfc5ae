"""Tiles by this package's ranks, processes of a pool or actors of Ray, as the first word says; or calls of nothing."""

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.ray_calls import WORKERS, Seen, tell
from workers import files
from workers.sharded.making import make_share
from workers.sharded.pool import Call, Event, Pool
from workers.sharded.process_pool import ProcessPool
from workers.sharded.ranks import context_of, run_ranks
from workers.sharded.ray_cluster import ray_cluster
from workers.sharded.ray_pool import RayPool


class Timed:
    """A pool, and how long each of its calls takes as it sees them."""

    def __init__(self, pool: Pool) -> None:
        self.pool, self.given, self.seen = pool, dict[int, float](), dict[int, float]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.pool, name)

    def give(self, worker: int, index: int, function: str, arguments: str) -> None:
        """Note the time."""
        self.given[index] = time.perf_counter()
        self.pool.give(worker, index, function, arguments)

    def wait(self, seconds: float) -> list[Event]:
        """Note the time of answers."""
        events, now = self.pool.wait(seconds), time.perf_counter()
        self.seen |= {event.index: now - self.given[event.index] for event in events if event.kind == "done"}
        return events


def run(pool: Pool, function: str, calls: list[Call]) -> Seen:
    """Seconds from each call to its answer, and the answer; a worker has one call at a time."""
    timed = Timed(pool)
    results = dict(Pool.run(timed, f"benchmarks.ray_calls:{function}", calls, in_flight=1, helps_from=1))
    return [(timed.seen[index], results[index]) for index in range(len(calls))]


@contextlib.contextmanager
def pool_of(kind: str) -> Iterator[Pool]:
    """Its workers are there."""
    with contextlib.ExitStack() as stack:
        if kind == "actors":
            stack.enter_context(ray_cluster(cpus_per_node=WORKERS))
        pool = stack.enter_context((RayPool if kind == "actors" else ProcessPool)(WORKERS))
        while not pool.workers() or not all(pool.workers().values()):
            run(pool, "nothing", [Call({})] * WORKERS)
        yield pool


def main(kind: str, order: dict[str, Any]) -> None:
    """What is asked for."""
    if kind == "ranks":
        import torch  # noqa: F401  (as in a task, of which ranks begin as copies)

        about = files.read(Path(order["order"]))
        ready = time.monotonic()
        shares = {"shares": order["shares"], "memory_gib": about["memory_gib"]}
        status = run_ranks(context_of(about, "cpu"), make_share, shares, ranks_per_node=WORKERS)
        tell(ready, [])
        sys.exit(status)
    with pool_of(kind) as pool:
        ready = time.monotonic()
        if order["calls"]:
            tell(ready, [pair for _ in range(order["calls"]) for pair in run(pool, "nothing", [Call({})])])
            return
        pairs = [(number, pair) for number, share in enumerate(order["shares"]) for pair in share]
        tell(ready, run(pool, "tile", [Call({"order": order["order"], "row": i, "column": j}, number) for number, (i, j) in pairs]))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
