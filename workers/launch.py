"""Ranks of one task: a command on every node of its job by srun, or as processes of this machine, told who they are as torchrun does."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

POLL_SECONDS = 0.1
END_SECONDS = 5.0


def launch(
    argv: Sequence[str],
    nodes: Sequence[str],
    *,
    ranks_per_node: int = 1,
    env: Mapping[str, str] | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> int:
    """Run `argv` as `ranks_per_node` ranks on each node until all have ended; 0, or the exit status of one that failed.

    Each rank has RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT. When `stopping` turns true, each gets
    SIGUSR2, which it ignores unless it handles it.
    """
    _check(argv, ranks_per_node)
    num_ranks = len(nodes) * ranks_per_node
    environment = {
        **os.environ,
        **(env or {}),
        "WORLD_SIZE": str(num_ranks),
        "LOCAL_WORLD_SIZE": str(ranks_per_node),
        "MASTER_ADDR": nodes[0] if len(nodes) > 1 else "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
    }
    rank = [sys.executable, "-P", "-m", "workers.rank", *argv]
    if len(nodes) > 1:
        commands = [(_srun(len(nodes), ranks_per_node) + rank, environment)]
    else:
        commands = [(rank, {**environment, "RANK": str(n), "LOCAL_RANK": str(n)}) for n in range(num_ranks)]
    with _started(commands) as processes:
        return _wait(processes, stopping)


def _check(argv: Sequence[str], ranks_per_node: int) -> None:
    if isinstance(argv, str) or not argv or not all(isinstance(word, str) and "\0" not in word for word in argv):
        raise TypeError(
            f"launch takes a command as a list of texts, such as [sys.executable, 'train.py'] (no shell reads it), got {argv!r}"
        )
    if ranks_per_node < 1:
        raise ValueError(f"ranks_per_node must be at least 1, got {ranks_per_node}")


def _srun(num_nodes: int, ranks_per_node: int) -> list[str]:
    """The step shares CPUs, memory and GPUs of the batch script, which only waits for it; a rank that fails ends the others."""
    return [
        "srun",
        "--overlap",
        f"--nodes={num_nodes}",
        f"--ntasks={num_nodes * ranks_per_node}",
        f"--ntasks-per-node={ranks_per_node}",
        f"--cpus-per-task={max(1, _num_cpus() // ranks_per_node)}",
        "--overcommit",
        "--cpu-bind=none",
        "--kill-on-bad-exit=1",
        "--unbuffered",
        "--export=ALL",
        "--",
    ]


def _num_cpus() -> int:
    """Of each node, which is what the job's one task there was given."""
    return int(os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("SLURM_CPUS_ON_NODE") or 1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _started(commands: Sequence[tuple[list[str], dict[str, str]]]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The processes, none of which outlives this block. They stay in the task's process group, which dies with the task."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for command, environment in commands:
            processes.append(subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL))
        yield processes
    finally:
        _end(processes)


def _wait(processes: list[subprocess.Popen[bytes]], stopping: Callable[[], bool]) -> int:
    told = False
    while None in (statuses := [process.poll() for process in processes]):
        if failed := next(filter(None, statuses), 0):
            return failed
        if stopping() and not told:
            told = True
            for process in processes:
                process.send_signal(signal.SIGUSR2)
        time.sleep(POLL_SECONDS)
    return next(filter(None, statuses), 0)


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    """SIGTERM, which srun passes on as a kill, then SIGKILL."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + END_SECONDS
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
