"""Ranks of a task that do one thing: what they are told stands in a file, and what they refuse comes back as the error it is."""

import contextlib
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from workers import errors, files
from workers.context import Context
from workers.errors import ConfigError, DiskFull, EigensweepError
from workers.execute import classify, peak_memory_mib
from workers.launch import fork
from workers.sharded.memory import BASE_GIB
from workers.sharded.pool_worker import set_up, used_bytes, versions
from workers.sharded.ray_node import mismatch
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


def run_ranks(
    context: Context,
    work: Work,
    order: Mapping[str, Any],
    *,
    ranks_per_node: int,
    rank_gib: float | None = None,
    first_gib: float | None = None,
) -> int:
    """Do `work(context, order, rank, number of ranks)` in ranks on every node, with an order of plain values, and wait.

    The exit status of a rank that failed, or 0. What a rank says of a model, its data, the disk, a want of memory or another version of
    the code is raised here: no other launch would mend that. `rank_gib`: all that a rank may have, on CPUs: above it an allocation fails
    (MemoryError); `first_gib`: the first rank, where that does more. At the warning the ranks' `context.stopping` turns true. One rank
    is this process, without a limit of its own; those of one machine without GPUs begin as copies of it; for others `work` stands in a
    module that calls `as_rank(work)` when it is run.
    """
    if len(context.nodes) * ranks_per_node == 1:
        work(context, dict(order), 0, 1)
        return 0
    limits = {"rank_gib": rank_gib, "first_gib": first_gib or rank_gib}
    path = publish_order(context, {**order, **limits, "versions": rank_versions()})
    if len(context.nodes) > 1 or context.device.startswith("cuda"):
        status = context.launch([sys.executable, "-P", "-m", work.__module__, str(path)], ranks_per_node, env=_ENVIRONMENT)
    else:
        inherited_gib = max(0.0, used_bytes() / 2**30 - BASE_GIB)
        act = functools.partial(_be_rank, work, path, num_ranks=ranks_per_node, inherited_gib=inherited_gib)
        status = fork(act, ranks_per_node, stopping=lambda: context.stopping)
    told = {name: files.read(context.folder / name) for name in files.names(context.folder) if name.startswith(f"{path.stem}-")}
    for name, one in told.items():
        if name.startswith(f"{path.stem}-failure-"):
            raise _error(one)
    if told:
        seconds, most = sum(one["cpu_seconds"] for one in told.values()), max(one["peak_bytes"] for one in told.values())
        context.log(f"{len(told)} ranks took {seconds:.1f} core-seconds; none held more than {most / 2**30:.2f} GiB")
    return status


def as_rank(work: Work) -> None:
    """Do what `run_ranks` has asked for, as RANK, WORLD_SIZE and the file of the order on the command line say."""
    _be_rank(work, Path(sys.argv[1]), int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))


def _be_rank(work: Work, path: Path, rank: int, num_ranks: int, inherited_gib: float = 0.0) -> None:
    """On one core. `inherited_gib`: of tasks that this process did before it was copied, which the copies share and do not pay for."""
    stop = threading.Event()
    signal.signal(signal.SIGUSR2, lambda number, frame: stop.set())  # before torch is loaded: the warning comes once
    order = files.read(path)
    limit = order["rank_gib" if rank else "first_gib"]
    try:
        _refuse_other_versions(order["versions"])
        context = context_of(order, _device(order["context"]["device"]))
        context.stop = stop
        _prepare(None if limit is None else limit + inherited_gib, context.device)
        work(context, order, rank, num_ranks)
        with contextlib.suppress(OSError, DiskFull):  # what counts is published
            files.publish(path.with_name(f"{path.stem}-ended-{rank}.json"), files.encode(_taken()))
    except Exception as error:
        if told := _told(error, f"rank {rank} of {num_ranks} on {os.uname().nodename}", limit):
            files.publish(path.with_name(f"{path.stem}-failure-{rank}.json"), files.encode(told))
        raise


def _refuse_other_versions(expected: dict[str, str]) -> None:
    if wrong := mismatch(expected, rank_versions()):
        raise ConfigError(
            f"node {wrong}: all nodes must have the same environment and source. What is published stays; "
            "once they are equal, `eigensweep resume` goes on from it"
        )


def _prepare(limit: float | None, device: str) -> None:
    """One thread, and the limit of memory; not on GPUs: what CUDA reserves without using it would count."""
    import torch

    torch.set_num_threads(1)
    if limit is not None and device == "cpu":
        set_up(sys.path, int(limit * 2**30))


def _taken() -> dict[str, float]:
    """What this process has taken: core-seconds, and the most resident memory."""
    return {"cpu_seconds": time.process_time(), "peak_bytes": peak_memory_mib() * 2**20}


def rank_versions() -> dict[str, str]:
    """Python, torch and the source of this package as they are here; and where that is."""
    try:
        return {**versions(), "torch": metadata.version("torch")}
    except metadata.PackageNotFoundError:
        return {**versions(), "torch": "none"}


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
    if isinstance(error, RuntimeError | ConnectionError | TimeoutError):
        return {}
    return {"class": "RuntimeError", "message": f"{who}: {type(error).__name__}: {error}"}


def _error(told: Mapping[str, Any]) -> Exception:
    """As it was raised in a rank."""
    if told["class"] == "OSError":
        return OSError(told["errno"], told["message"])
    own: type[Exception] = getattr(errors, told["class"], RuntimeError)
    return MemoryError(told["message"]) if told["class"] == "MemoryError" else own(told["message"])


def _device(device: str) -> str:
    """A GPU of its own for each rank of a node."""
    return f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" else device
