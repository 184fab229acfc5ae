"""The tiles of a kernel by several processes: each publishes those of its share as parts of the task, which a later attempt adopts."""

import math
import os
import resource
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from workers import errors, files
from workers.context import Context
from workers.errors import Diverged, EigensweepError, Interrupted
from workers.sharded.panels import Pair, Panels
from workers.sharded.tiles import INDEX, TileFacts, TileSet, sums_of, tile_name
from workers.taskdir import Task

if TYPE_CHECKING:
    from workers.entk import KernelTiles

# launches of ranks for what is missing, as long as each adds some
MOST_LAUNCHES = 4
LOOK_SECONDS = 0.5


class Tiled(Protocol):
    """A workload whose kernel is made in tiles."""

    def kernel_tiles(self, context: Context, memory_gib: float) -> "AbstractContextManager[KernelTiles]":
        """The engine for its model and probe set, on the context's device."""


def make_tiles(context: Context, panels: Panels, dtype: str, *, ranks_per_node: int, memory_gib: float) -> TileSet:
    """All tiles of the task's kernel, those adopted that an earlier attempt has left; also published as the index `tiles.json`.

    Ranks that die are started again for what is missing, while each launch adds tiles. `memory_gib`: of the engine of one rank.
    """
    _adopt(context, panels)
    for launch in range(MOST_LAUNCHES):
        missing = [pair for pair in panels.pairs() if context.adopt(tile_name(pair)) is None]
        if not missing:
            break
        _launch(context, panels, missing, ranks_per_node, memory_gib, launch)
    return _published(context, panels, dtype)


def _adopt(context: Context, panels: Panels) -> None:
    found = sum(context.adopt(tile_name(pair)) is not None for pair in panels.pairs())
    if found:
        context.log(f"{found} of {sum(1 for _ in panels.pairs())} tiles were published by an earlier attempt")


def _launch(context: Context, panels: Panels, missing: Sequence[Pair], ranks_per_node: int, memory_gib: float, launch: int) -> None:
    """Run ranks until all have ended, and watch the folder for what they publish."""
    num_ranks = len(context.nodes) * ranks_per_node
    shares = panels.shares(num_ranks, missing)
    order = {
        "launch": launch,
        "root": str(context.root),
        "task": context.task.to_plain(),
        "attempt": context.attempt,
        "device": context.device,
        "memory_gib": memory_gib,
        "shares": shares,
    }
    path = context.folder / f"order-{launch}.json"
    files.publish(path, files.encode(order))
    total, ended = sum(1 for _ in panels.pairs()), threading.Event()
    watch = threading.Thread(target=_watch, args=(context, [tile_name(pair) for pair in missing], total, ended), daemon=True)
    watch.start()
    try:
        status = context.launch([sys.executable, "-P", "-m", "workers.sharded.making", str(path)], ranks_per_node, env=_ENVIRONMENT)
    finally:
        ended.set()
        watch.join()
    _raise_what_ranks_raised(context, launch)
    left = [pair for pair in missing if context.adopt(tile_name(pair)) is None]
    if left and context.stopping:
        raise Interrupted(f"stopped with {total - len(left)} of {total} tiles published; the next attempt goes on from them")
    if left and (len(left) == len(missing) or launch == MOST_LAUNCHES - 1):
        raise RuntimeError(f"ranks ended with status {status} and {len(left)} of {total} tiles missing; their log says why")
    if left:
        context.log(f"ranks ended with status {status}; starting them again for {len(left)} tiles")


# one core a rank: more threads are more ranks
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def _failure(context: Context, launch: int, rank: int) -> Path:
    return context.folder / f"failure-{launch}-{rank}.json"


def _raise_what_ranks_raised(context: Context, launch: int) -> None:
    """A rank says itself what is wrong with model, data or disk: no other launch mends that."""
    for name in files.names(context.folder):
        if name.startswith(f"failure-{launch}-"):
            told = files.read(context.folder / name)
            raise getattr(errors, told["class"])(told["message"])


def _watch(context: Context, names: Sequence[str], total: int, ended: threading.Event) -> None:
    """Tell how many tiles there are, until the ranks have ended."""
    marks = {f"{name}.part.json" for name in names}
    while not ended.wait(LOOK_SECONDS):
        context.progress(total - len(names) + len(marks.intersection(files.names(context.folder))), total)


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


def run_share(order: dict[str, Any], rank: int) -> None:
    """What one rank does: its tiles, each published when it is there."""
    context = Context(root=Path(order["root"]), task=Task(**order["task"]), attempt=order["attempt"], device=_device(order["device"]))
    pairs: list[Pair] = [(i, j) for i, j in order["shares"][rank]]
    try:
        for pair, tile, seconds in _computed(context, pairs, order["memory_gib"]):
            _publish(context, pair, tile, seconds)
    except EigensweepError as error:
        told = {"class": type(error).__name__, "message": str(error)}
        files.publish(_failure(context, order["launch"], rank), files.encode(told))
        raise


def _computed(context: Context, pairs: Sequence[Pair], memory_gib: float) -> "Iterator[tuple[Pair, Any, float]]":
    """Tiles (NumPy arrays), and the seconds of a core that each took."""
    from workers.execute import rebuild

    if not pairs:
        return
    workload: Any = rebuild(context.task)
    with workload.kernel_tiles(context, memory_gib) as tiles:
        for pair in pairs:
            begun = time.process_time()
            tile = tiles.tile(*pair)
            yield pair, tile.cpu().numpy(), time.process_time() - begun


def _publish(context: Context, pair: Pair, tile: Any, seconds: float) -> None:
    import numpy as np

    facts = {**sums_of(pair, tile), "seconds": seconds, "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}
    if not math.isfinite(facts["squares"]):
        raise Diverged(f"the kernel of panels {pair[0]} and {pair[1]} has numbers that are not finite; the network diverged")
    with context.file(tile_name(pair), facts=facts) as path, path.open("wb") as file:
        np.save(file, tile)


def _device(device: str) -> str:
    """A GPU of its own for each rank of a node."""
    return f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" else device


def main(argv: list[str]) -> None:
    """Run the share of this process, told by RANK, of the order in the file `argv[0]`."""
    import torch

    torch.set_num_threads(1)
    run_share(files.read(Path(argv[0])), int(os.environ["RANK"]))


if __name__ == "__main__":
    main(sys.argv[1:])
