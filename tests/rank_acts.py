"""What ranks of a task do in tests: `order["do"]` names it."""

import errno
import time
from typing import Any

from workers.context import Context


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
    """One of the errors below, or none."""
    if "error" in order:
        raise ERRORS[order["error"]]


ERRORS = {
    "full": OSError(errno.ENOSPC, "No space left on device", "tile.npy"),
    "cuda": RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
    "memory": MemoryError(),
    "peer": RuntimeError("Connection closed by peer [127.0.0.1]:1"),
    "import": ModuleNotFoundError("No module named 'polars'"),
    "pipe": BrokenPipeError(errno.EPIPE, "Broken pipe"),
}
