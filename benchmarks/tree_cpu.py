"""Processor seconds of a command and of all that it starts, whoever buries it: at its end, and at any instant before."""

import contextlib
import os
import secrets
import subprocess
import threading
import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.measure import CommandFailed

LOOK_SECONDS = 0.05
_MARK = "BENCHMARK_TREE"
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Tree:
    """A command that has ended: `began` on the monotonic clock, wall seconds, output; what it used by then, looked up every 0.05 s.

    What a process uses after the last look at it is missed.
    """

    began: float
    seconds: float
    output: str
    instants: list[float]
    used: list[float]

    @property
    def cpu_seconds(self) -> float:
        """Of all its processes."""
        return self.used[-1]

    def cpu_seconds_at(self, instant: float) -> float:
        """By an instant of the monotonic clock."""
        return self.used[min(bisect_left(self.instants, instant), len(self.used) - 1)]


@dataclass(slots=True)
class _Looks:
    """Processes have the mark in their environment, which they take over from the command; it is read when a process is new."""

    command: int
    mark: bytes
    known: dict[int, bool] = field(default_factory=dict)
    used: dict[tuple[int, str], float] = field(default_factory=dict)

    def look(self) -> float:
        """Processor seconds until now, of those that have ended too."""
        there = {int(name) for name in os.listdir("/proc") if name.isdigit()}
        self.known = {pid: own for pid, own in self.known.items() if pid in there}
        for pid in there - self.known.keys():
            self.known[pid] = pid == self.command or self._is_marked(pid)
        for pid in [pid for pid, own in self.known.items() if own]:
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                self.used[pid, words[19]] = (int(words[11]) + int(words[12])) / _TICKS
        return sum(self.used.values())

    def _is_marked(self, pid: int) -> bool:
        try:
            return self.mark in Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False


def run_tree(command: Sequence[str | Path], **environment: str) -> Tree:
    """Run a command to its end; CommandFailed with its output where that is not good."""
    mark, words = secrets.token_hex(8), [str(word) for word in command]
    began, instants, used = time.monotonic(), [], []
    process = subprocess.Popen(
        words, env={**os.environ, **environment, _MARK: mark}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    looks, ended = _Looks(process.pid, f"{_MARK}={mark}".encode()), threading.Event()

    def watch() -> None:
        while not ended.wait(LOOK_SECONDS):
            instants.append(time.monotonic())
            used.append(looks.look())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    output, errors = process.communicate()
    seconds = time.monotonic() - began
    ended.set()
    thread.join()
    if process.returncode:
        raise CommandFailed(f"exit code {process.returncode} from: {' '.join(words)}\n{output[-1500:]}\n{errors[-3000:]}")
    return Tree(began, seconds, output, instants, used)
