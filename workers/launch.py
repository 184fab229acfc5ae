"""Ranks of one task: a command on every node of its job by srun, or as processes of this machine, told who they are as torchrun does."""

import contextlib
import functools
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from workers.files import heed_fault
from workers.processes import die_with

POLL_SECONDS = 0.1
END_SECONDS = 5.0
STILL = threading.Lock()


class _Rank(Protocol):
    """A rank, or the step of all: what is used of Popen."""

    def poll(self) -> int | None: ...
    def send_signal(self, sig: int, /) -> None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...
    def wait(self, timeout: float | None = None) -> int: ...


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
    environment = {**os.environ, **(env or {}), **_meeting(num_ranks, ranks_per_node, nodes[0] if len(nodes) > 1 else "127.0.0.1")}
    rank = [sys.executable, "-P", "-m", "workers.rank", *argv]
    if len(nodes) > 1:
        commands = [(_srun(len(nodes), ranks_per_node) + rank, environment)]
    else:
        commands = [(rank, {**environment, "RANK": str(n), "LOCAL_RANK": str(n)}) for n in range(num_ranks)]
    starts = [functools.partial(subprocess.Popen, command, env=given, stdin=subprocess.DEVNULL) for command, given in commands]
    with _started(starts) as processes:
        return _wait(processes, stopping)


def fork(work: Callable[[int], None], num_ranks: int, *, stopping: Callable[[], bool] = lambda: False) -> int:
    """As `launch` on this machine, by ranks that begin as copies of this process and call `work(rank)`: nothing is loaded again.

    From the main thread, with which they die, and not where CUDA has begun. Other threads are not copied, and a lock that one holds
    stays locked in the copies: they hold `STILL` while they hold another.
    """
    meeting = _meeting(num_ranks, num_ranks, "127.0.0.1")
    with _started([functools.partial(_Copy, work, rank, meeting) for rank in range(num_ranks)]) as processes:
        return _wait(processes, stopping)


class _Copy:
    """A rank that is a copy of this process."""

    def __init__(self, work: Callable[[int], None], rank: int, meeting: Mapping[str, str]) -> None:
        self._process = multiprocessing.get_context("fork").Process(target=self._run, args=(work, rank, meeting, os.getpid()))
        with STILL:
            self._process.start()

    @staticmethod
    def _run(work: Callable[[int], None], rank: int, meeting: Mapping[str, str], parent: int) -> None:
        die_with(parent)
        with contextlib.suppress(OSError):
            Path("/proc/self/comm").write_text(f"rank {rank}")  # for ps and top
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        os.environ.update({**meeting, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        heed_fault()
        work(rank)

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, sig: int, /) -> None:
        if self._process.pid and self.poll() is None:
            os.kill(self._process.pid, sig)

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if (status := self.poll()) is None:
            raise subprocess.TimeoutExpired("a rank", timeout or 0.0)
        return status


def _meeting(num_ranks: int, ranks_per_node: int, address: str) -> dict[str, str]:
    """Where ranks find each other."""
    sizes = {"WORLD_SIZE": str(num_ranks), "LOCAL_WORLD_SIZE": str(ranks_per_node)}
    return {**sizes, "MASTER_ADDR": address, "MASTER_PORT": str(_free_port())}


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
def _started(starts: Sequence[Callable[[], _Rank]]) -> Iterator[list[_Rank]]:
    """The processes, none of which outlives this block. They stay in the task's process group, which dies with the task."""
    processes: list[_Rank] = []
    try:
        for start in starts:
            processes.append(start())
        yield processes
    finally:
        _end(processes)


def _wait(processes: list[_Rank], stopping: Callable[[], bool]) -> int:
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


def _end(processes: list[_Rank]) -> None:
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
