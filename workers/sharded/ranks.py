"""Ranks of a task that do one thing: what they are told stands in a file, and what they refuse comes back as the error it is."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from workers import errors, files
from workers.context import Context
from workers.errors import EigensweepError
from workers.taskdir import Task

# one core a rank: more cores are more ranks
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def publish_order(context: Context, order: Mapping[str, Any]) -> Path:
    """Write what processes of this task are to do, plain values, to a file of its own in the attempt's folder."""
    number = sum(name.startswith("order-") and name.count("-") == 1 for name in files.names(context.folder))
    path = context.folder / f"order-{number}.json"
    about = {"root": str(context.root), "task": context.task.to_plain(), "attempt": context.attempt, "device": context.device}
    files.publish(path, files.encode({"context": about, **order}))
    return path


def context_of(order: Mapping[str, Any], device: str) -> Context:
    """The task's context in one of its processes."""
    about = order["context"]
    return Context(root=Path(about["root"]), task=Task(**about["task"]), attempt=about["attempt"], device=device)


def run_ranks(context: Context, command: Sequence[str], order: Mapping[str, Any], *, ranks_per_node: int) -> int:
    """Run `command` with the file of an order (plain values) on every node, and wait; the exit status of a rank that failed, or 0.

    An error of ours that a rank raises is raised here: no other launch would mend what is wrong with a model, its data or the disk.
    """
    path = publish_order(context, order)
    status = context.launch([*command, str(path)], ranks_per_node, env=_ENVIRONMENT)
    for name in files.names(context.folder):
        if name.startswith(f"{path.stem}-failure-"):
            told = files.read(context.folder / name)
            raise getattr(errors, told["class"])(told["message"])
    return status


def as_rank(work: Callable[[Context, dict[str, Any], int, int], None], path: Path) -> None:
    """Do `work(context, order, rank, number of ranks)` as RANK and WORLD_SIZE say, with the order in a file, on one core."""
    import torch

    torch.set_num_threads(1)
    order, rank = files.read(path), int(os.environ["RANK"])
    context = context_of(order, _device(order["context"]["device"]))
    try:
        work(context, order, rank, int(os.environ["WORLD_SIZE"]))
    except EigensweepError as error:
        told = {"class": type(error).__name__, "message": str(error)}
        files.publish(path.with_name(f"{path.stem}-failure-{rank}.json"), files.encode(told))
        raise


def _device(device: str) -> str:
    """A GPU of its own for each rank of a node."""
    return f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" else device
