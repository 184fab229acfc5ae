"""Ranks of a task that do one thing: what they are told stands in a file, and what they refuse comes back as the error it is."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from workers import errors, files
from workers.context import Context
from workers.errors import EigensweepError
from workers.taskdir import Task

Work = Callable[[Context, dict[str, Any], int, int], None]

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


def run_ranks(context: Context, work: Work, order: Mapping[str, Any], *, ranks_per_node: int) -> int:
    """Do `work(context, order, rank, number of ranks)` in ranks on every node, with an order of plain values, and wait.

    The exit status of a rank that failed, or 0. An error of ours that a rank raises is raised here: no other launch would mend what is
    wrong with a model, its data or the disk. `work` stands in a module that calls `as_rank(work)` when it is run. One rank is this process.
    """
    if len(context.nodes) * ranks_per_node == 1:
        work(context, dict(order), 0, 1)
        return 0
    path = publish_order(context, order)
    status = context.launch([sys.executable, "-P", "-m", work.__module__, str(path)], ranks_per_node, env=_ENVIRONMENT)
    for name in files.names(context.folder):
        if name.startswith(f"{path.stem}-failure-"):
            told = files.read(context.folder / name)
            raise getattr(errors, told["class"])(told["message"])
    return status


def as_rank(work: Work) -> None:
    """Do what `run_ranks` has asked for, as RANK, WORLD_SIZE and the file of the order on the command line say, on one core."""
    import torch

    torch.set_num_threads(1)
    path, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    order = files.read(path)
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
