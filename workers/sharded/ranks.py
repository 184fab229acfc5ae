"""Ranks of a task that do one thing: what they are told stands in a file, and what they refuse comes back as the error it is."""

import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from workers import errors, files
from workers.context import Context
from workers.errors import EigensweepError
from workers.execute import classify
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


def run_ranks(context: Context, work: Work, order: Mapping[str, Any], *, ranks_per_node: int, rank_gib: float | None = None) -> int:
    """Do `work(context, order, rank, number of ranks)` in ranks on every node, with an order of plain values, and wait.

    The exit status of a rank that failed, or 0. What a rank says of a model, its data, the disk or a want of memory is raised here: no
    other launch would mend that. `rank_gib`: all that a rank may have, on CPUs: above it an allocation fails (MemoryError). At the
    warning the ranks' `context.stopping` turns true. `work` stands in a module that calls `as_rank(work)` when it is run. One rank is
    this process, without a limit of its own.
    """
    if len(context.nodes) * ranks_per_node == 1:
        work(context, dict(order), 0, 1)
        return 0
    path = publish_order(context, {**order, "rank_gib": rank_gib})
    status = context.launch([sys.executable, "-P", "-m", work.__module__, str(path)], ranks_per_node, env=_ENVIRONMENT)
    for name in files.names(context.folder):
        if name.startswith(f"{path.stem}-failure-"):
            raise _error(files.read(context.folder / name))
    return status


def as_rank(work: Work) -> None:
    """Do what `run_ranks` has asked for, as RANK, WORLD_SIZE and the file of the order on the command line say, on one core."""
    import torch

    torch.set_num_threads(1)
    path, rank, num_ranks = Path(sys.argv[1]), int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    order = files.read(path)
    context = context_of(order, _device(order["context"]["device"]))
    signal.signal(signal.SIGUSR2, lambda number, frame: context.stop.set())
    _limit(order["rank_gib"], context.device)
    try:
        work(context, order, rank, num_ranks)
    except Exception as error:
        if told := _told(error, f"rank {rank} of {num_ranks} on {os.uname().nodename}", order["rank_gib"]):
            files.publish(path.with_name(f"{path.stem}-failure-{rank}.json"), files.encode(told))
        raise


def _limit(rank_gib: float | None, device: str) -> None:
    """Not on GPUs: what CUDA reserves without using it would count."""
    from workers.sharded.pool_worker import set_up

    if rank_gib is not None and device == "cpu":
        set_up(sys.path, int(rank_gib * 2**30))


def _told(error: Exception, who: str, rank_gib: float | None) -> dict[str, Any]:
    """What the task is to raise for an error of a rank; nothing for one that may be but the death of another rank, or of its node."""
    outcome = classify(error, progressed=False, told_to_stop=False)
    if isinstance(error, EigensweepError):
        return {"class": type(error).__name__, "message": str(error)}
    if outcome == "host_oom":
        share = f" above its share, {rank_gib:.2f} GiB" if rank_gib is not None else ""
        return {"class": "MemoryError", "message": f"{who} found no memory{share}; give more resources.memory_gib, or fewer resources.cpus"}
    if outcome == "cuda_oom":
        return {"class": "RuntimeError", "message": f"{who}: {error}"}
    if isinstance(error, OSError) and not isinstance(error, ConnectionError | TimeoutError):
        return {"class": "OSError", "errno": error.errno, "message": f"{who}: {error}"}
    return {}


def _error(told: Mapping[str, Any]) -> Exception:
    """As it was raised in a rank."""
    if told["class"] == "OSError":
        return OSError(told["errno"], told["message"])
    own: type[Exception] = getattr(errors, told["class"], RuntimeError)
    return MemoryError(told["message"]) if told["class"] == "MemoryError" else own(told["message"])


def _device(device: str) -> str:
    """A GPU of its own for each rank of a node."""
    return f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" else device
