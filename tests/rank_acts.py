"""What ranks of a task do in tests: `order["do"]` names it; `python -P -m rank_acts ORDER`."""

import errno
import os
import time
from typing import Any

from workers.context import Context
from workers.sharded.ranks import as_rank


def fill(context: Context, order: dict[str, Any], rank: int, num_ranks: int) -> None:
    """The second rank takes two GiB; the first one waits for its own end."""
    import torch

    if rank == 0:
        wait_for_a_stop(context, {}, rank, num_ranks)
    torch.ones(2**28, dtype=torch.float64)


def wait_for_a_stop(context: Context, order: dict[str, Any], rank: int, num_ranks: int) -> None:
    """Says that it is there, and when it was warned."""
    (context.folder / f"there-{rank}").touch()
    while not context.stopping:
        time.sleep(0.01)
    (context.folder / f"stopped-{rank}").touch()


def raise_(context: Context, order: dict[str, Any], rank: int, num_ranks: int) -> None:
    """One of the errors below."""
    raise ERRORS[order["error"]]


ERRORS = {
    "full": OSError(errno.ENOSPC, "No space left on device", "tile.npy"),
    "cuda": RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
    "memory": MemoryError(),
    "peer": RuntimeError("Connection closed by peer [127.0.0.1]:1"),
    "pipe": BrokenPipeError(errno.EPIPE, "Broken pipe"),
}

if __name__ == "__main__":
    as_rank({"fill": fill, "wait": wait_for_a_stop}[os.environ["RANK_ACT"]])
