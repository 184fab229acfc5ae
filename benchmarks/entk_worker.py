"""What each contender of the kernel benchmark runs in: a process that repeats its call on command and shows its kernel.

Commands and answers are lines of JSON. numpy is all that it needs, so that it runs beside JAX as well.
"""

import ctypes
import gc
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Case = dict[str, Any]
MIB = 2**20
PR_SET_PDEATHSIG = 1


class Unsupported(Exception):
    """What a contender cannot do, in words for the table."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A case made ready: inputs in memory, compiled where there is a compiler."""

    # one call, which ends when the kernel is there
    kernel: Callable[[], Any]
    # the kernel as a matrix with rows n C + c
    matrix: Callable[[Any], np.ndarray]
    # floating-point operations that the call plans, if it counts them
    flops: Callable[[], float | None] = lambda: None


def serve(prepare: Callable[[Case], Contender]) -> None:
    """Answer commands from standard input until it ends; the first line is the case."""
    lines = iter(sys.stdin.readline, "")
    case = json.loads(next(lines))
    os.sched_setaffinity(0, {case["core"]})
    # ends with the driver, however that ends
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        contender = prepare(case)
        say(ready=True)
        for line in lines:
            say(**answer(contender, json.loads(line)))
    except Unsupported as error:
        say(failed=f"unsupported: {error}")
    except MemoryError as error:
        say(failed=f"memory: {error}")
    except Exception as error:
        traceback.print_exc()
        say(failed=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")


def answer(contender: Contender, command: dict[str, Any]) -> dict[str, Any]:
    """What a command asks for."""
    match command["do"]:
        case "time":
            return timed(contender.kernel)
        case "memory":
            return {"peak_mib": peak_mib(contender.kernel)}
        case "gemm":
            return {"gflops": gemm_gflops()}
        case "flops":
            return {"flops": contender.flops()}
        case "save":
            np.save(command["file"], contender.matrix(contender.kernel()))
            return {"saved": command["file"]}
    raise ValueError(f"no command {command['do']!r}")


def say(**answer: Any) -> None:
    """One line for the driver."""
    OUT.write(json.dumps(answer) + "\n")
    OUT.flush()


def _own_output() -> Any:
    """Standard output for answers alone: what libraries print goes to standard error."""
    kept = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return kept


OUT = _own_output()


def timed(kernel: Callable[[], Any]) -> dict[str, float]:
    """Processor and wall seconds of one call; the processor's are those of all threads."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    made = kernel()
    seconds = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    del made
    return seconds


def peak_mib(kernel: Callable[[], Any]) -> float:
    """Largest resident memory during one call above what was resident before it, the kernel included."""
    gc.collect()
    # what the allocator keeps of former calls would hide as much of this one
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    base = _status("VmRSS")
    made = kernel()
    peak = _status("VmHWM") - base
    del made
    return peak / MIB


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {name}")


def gemm_gflops(size: int = 2048, repetitions: int = 5) -> float:
    """GFLOP a processor second of torch.mm in float32: the best of some."""
    import torch

    left, right = (torch.randn(size, size, dtype=torch.float32) for _ in range(2))
    out = torch.mm(left, right)
    seconds = min(timed(lambda: torch.mm(left, right, out=out))["cpu"] for _ in range(repetitions))
    return 2 * size**3 / seconds / 1e9
