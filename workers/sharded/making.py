"""The tiles of a kernel by several processes: each publishes those of its share as parts of the task, which a later attempt adopts."""

import functools
import math
import resource
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers import files
from workers.context import Context
from workers.errors import Diverged, Interrupted, ProcessLost
from workers.sharded.panels import Pair, Panels
from workers.sharded.ranks import as_rank, context_of, publish_order, run_ranks
from workers.sharded.tiles import INDEX, TileFacts, TileSet, sums_of, tile_name
from workers.sharded.watching import watched

if TYPE_CHECKING:
    from workers.entk import KernelTiles

# launches of ranks for what is missing, as long as each adds some
MOST_LAUNCHES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Workforce:
    """Who computes: `ranks_per_node` processes of one core or GPU on each node of the task, `memory_gib` for the engine of each.

    `rank_gib`: all that a process may have; none: no limit. `ray`: as actors of a Ray, one of our own on these nodes, or that at
    `ray_address`; else as ranks that srun or the task starts.
    """

    ranks_per_node: int
    memory_gib: float
    rank_gib: float | None = None
    ray: bool = False
    ray_address: str | None = None


def make_tiles(context: Context, panels: Panels, dtype: str, workforce: Workforce) -> TileSet:
    """All tiles of the task's kernel, those adopted that an earlier attempt has left; also published as the index `tiles.json`.

    Ranks that die are started again for what is missing, while each launch adds tiles; actors that die are replaced.
    """
    total = sum(1 for _ in panels.pairs())
    missing = _missing(context, panels.pairs())
    if len(missing) < total:
        context.resumed_at = total - len(missing)
        context.log(f"{context.resumed_at} of {total} tiles were published by an earlier attempt")
    launches, before = 0, total + 1
    while missing and len(missing) < before and launches < MOST_LAUNCHES:
        launches, before = launches + 1, len(missing)
        with watched(context, [tile_name(pair) for pair in missing], total):
            status = (_by_ray if workforce.ray else _by_ranks)(context, panels, missing, workforce)
        missing = _missing(context, missing)
        if missing and context.stopping:
            raise Interrupted(f"stopped with {total - len(missing)} of {total} tiles published; the next attempt goes on from them")
        if missing:
            context.log(f"ranks ended with status {status} and {len(missing)} of {total} tiles missing")
    if missing:
        raise ProcessLost(f"{len(missing)} of {total} tiles are missing after {launches} launches of the ranks; the log says why")
    return _published(context, panels, dtype)


def _by_ranks(context: Context, panels: Panels, missing: Sequence[Pair], workforce: Workforce) -> int:
    """Each rank has its share; the exit status of one that failed, or 0."""
    shares = panels.shares(len(context.nodes) * workforce.ranks_per_node, missing)
    order = {"shares": shares, "memory_gib": workforce.memory_gib}
    return run_ranks(context, make_share, order, ranks_per_node=workforce.ranks_per_node, rank_gib=workforce.rank_gib)


def _by_ray(context: Context, panels: Panels, missing: Sequence[Pair], workforce: Workforce) -> int:
    """Each actor has the share that a rank would have; one that is done helps the others, and a lost one's share goes to those left."""
    from workers.sharded.pool import Call, Progress
    from workers.sharded.ray_cluster import ray_cluster
    from workers.sharded.ray_pool import RayPool

    order, ranks = str(publish_order(context, {"memory_gib": workforce.memory_gib})), workforce.ranks_per_node
    gpus = ranks if context.device.startswith("cuda") else 0
    nodes = context.nodes if len(context.nodes) > 1 else ()
    # what CUDA reserves without using it would count
    limit = None if gpus else workforce.rank_gib
    own_gib = None if limit is None else ranks * limit
    told: deque[Progress] = deque(maxlen=1)
    with ray_cluster(nodes, address=workforce.ray_address, cpus_per_node=ranks, gpus_per_node=gpus, memory_gib=own_gib) as cluster:
        context.log(f"Ray at {cluster.address} with {len(cluster.nodes)} nodes after {cluster.seconds:.1f} s")
        shares = panels.shares(len(cluster.nodes) * ranks, missing)
        calls = [Call({"order": order, "row": i, "column": j}, affinity) for affinity, share in enumerate(shares) for i, j in share]
        with RayPool(len(shares), gpus=1.0 if gpus else 0.0, memory_gib=limit) as pool:
            run = pool.run(
                "workers.sharded.making:make_tile",
                calls,
                helps_from=1,
                stopping=lambda: context.stopping,
                report=told.append,
                lost=lambda message: context.log(f"Ray: {message}"),
            )
            for _ in run:
                pass
    for progress in told:
        context.log(f"Ray: {progress}")
    return 0


def make_tile(order: str, row: int, column: int) -> None:
    """What an actor does for one tile; its engine stays for the next."""
    context, tiles, _ = _kept_engine(order)
    if context.adopt(tile_name((row, column))) is None:  # else its maker was lost before it could say so
        publish(context, tiles, (row, column))


@functools.lru_cache(maxsize=1)
def _kept_engine(path: str) -> "tuple[Context, KernelTiles, AbstractContextManager[KernelTiles]]":
    """The context and the engine of an order, for as long as this process lives; with what would close it."""
    import torch

    from workers.execute import rebuild

    torch.set_num_threads(1)
    order = files.read(Path(path))
    context = context_of(order, order["context"]["device"])
    workload: Any = rebuild(context.task)
    block = workload.kernel_tiles(context, order["memory_gib"])
    return context, block.__enter__(), block


def _missing(context: Context, pairs: "Iterator[Pair] | Sequence[Pair]") -> list[Pair]:
    """Tiles that neither this attempt nor an earlier one has published."""
    return [pair for pair in pairs if context.adopt(tile_name(pair)) is None]


def _published(context: Context, panels: Panels, dtype: str) -> TileSet:
    """The tiles that this attempt has, and their index as a part."""
    sha256 = {payload.name: payload.sha256 for payload in context.payloads()}
    facts = []
    for i, j in panels.pairs():
        told = context.facts_of(tile_name((i, j)))
        facts.append(TileFacts(row=i, column=j, sha256=sha256[tile_name((i, j))], **told))
    found = TileSet.of(panels, dtype, context.folder, facts)
    with context.file(INDEX) as path:
        found.save(path)
    return found


def make_share(context: Context, order: dict[str, Any], rank: int, num_ranks: int) -> None:
    """What one rank does: its tiles, each published when it is there."""
    from workers.execute import rebuild

    pairs: list[Pair] = [(i, j) for i, j in order["shares"][rank]]
    if not pairs:
        return
    workload: Any = rebuild(context.task)
    with workload.kernel_tiles(context, order["memory_gib"]) as tiles:
        for pair in pairs:
            if context.stopping:
                return
            publish(context, tiles, pair)


def publish(context: Context, tiles: "KernelTiles", pair: Pair) -> None:
    """Compute a tile and publish it as a part; Diverged where it is not finite."""
    import numpy as np

    begun = time.process_time()
    tile = tiles.tile(*pair).cpu().numpy()
    facts = {**sums_of(pair, tile), "seconds": time.process_time() - begun}
    if not math.isfinite(facts["squares"]):
        raise Diverged(f"the kernel of panels {pair[0]} and {pair[1]} has numbers that are not finite; the network diverged")
    facts["peak_bytes"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with context.file(tile_name(pair), facts=facts) as path, path.open("wb") as file:
        np.save(file, tile)


if __name__ == "__main__":
    as_rank(make_share)
