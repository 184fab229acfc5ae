"""A contender of the kernel benchmark in a process of its own, held to a limit of memory and of processor time."""

import json
import os
import select
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

MEMORY_LIMIT_GIB = 12
CALL_LIMIT_SECONDS = 150
# imports and, for JAX, compiling
READY_LIMIT_SECONDS = 400
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}


class Failed(Exception):
    """Why a contender has no figure for a case, in words for the table."""


@dataclass
class Worker:
    """A running contender; commands go to its standard input, answers come from its standard output."""

    command: list[str]
    log: Path
    process: "subprocess.Popen[str]" = field(init=False)

    def start(self, case: dict[str, Any]) -> None:
        """Begin, and wait until the case is ready."""
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=os.environ | ONE_THREAD
            )
        self.ask(case, READY_LIMIT_SECONDS)

    def ask(self, command: dict[str, Any], limit_seconds: float = CALL_LIMIT_SECONDS) -> dict[str, Any]:
        """The answer to one command; Failed, and the process is ended, where there is none within the limits."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        began = self._cpu_seconds()
        while not select.select([self.process.stdout], [], [], 0.02)[0]:
            self._hold(began, limit_seconds)
        line = self.process.stdout.readline()
        if not line:
            raise Failed(f"ended with {self.process.wait()}; see {self.log}")
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer:
            self.end()
            raise Failed(answer["failed"])
        return answer

    def _hold(self, began: float, limit_seconds: float) -> None:
        if self.process.poll() is not None:
            return
        try:
            resident = psutil.Process(self.process.pid).memory_info().rss / 2**30
        except psutil.NoSuchProcess:
            return
        if resident > MEMORY_LIMIT_GIB:
            self.end()
            raise Failed(f"> {MEMORY_LIMIT_GIB} GiB")
        if self._cpu_seconds() - began > limit_seconds:
            self.end()
            raise Failed(f"> {limit_seconds} s")

    def _cpu_seconds(self) -> float:
        try:
            times = psutil.Process(self.process.pid).cpu_times()
        except psutil.NoSuchProcess:
            return time.process_time()
        return times.user + times.system

    def end(self) -> None:
        """End the process."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
