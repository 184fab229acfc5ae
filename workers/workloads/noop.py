"""A workload that does nothing but what a trial of the machinery needs: rows, time, memory and every kind of failure."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workers.errors import Diverged
from workers.workload import Resources, Row, Workload, setting

if TYPE_CHECKING:
    from workers.context import Context

FAILURES = ("none", "exception", "nan", "oom", "cuda_oom", "kill", "hang")
_TICK_SECONDS = 0.1
_BLOCK_MIB = 16
_BATCH_SIZE = 64


@dataclass(frozen=True, kw_only=True)
class Noop(Workload):
    """Three rows computed from the settings, after some time, with some memory, or a failure on purpose."""

    version: ClassVar[int] = 1
    halves_batches: ClassVar[bool] = True

    index: int = setting(0, help="tells tasks apart")
    seconds: float = setting(0.0, low=0, unit="s")
    memory_mib: float = setting(0.0, low=0, unit="MiB", help="held while it waits")
    fail: str = setting("none", choices=FAILURES, help="how it ends")
    fail_first: int = setting(0, low=0, help="only so many attempts fail; 0: all of them")
    progress: bool = setting(False, help="write a checkpoint every 0.1 s and go on from it")
    cuda_oom_above: int | None = setting(
        None, low=1, added=True, help="fails as a full GPU does while its micro-batch of at most 64 is larger; null: never"
    )

    def resources(self) -> Resources:
        """What it holds and a quarter of a GiB."""
        return Resources(memory_gib=0.25 + self.memory_mib / 1024, walltime_minutes=max(1.0, self.seconds / 30))

    def estimated_seconds(self) -> float:
        """The time it waits."""
        return self.seconds

    def run(self, context: "Context") -> Iterator[Row]:
        """Wait, fail if this attempt is to fail, else yield the rows."""
        held = _memory(self.memory_mib)
        fail = self.fail if not self.fail_first or context.task.num_failed < self.fail_first else "none"
        if fail == "hang":
            _hang()
        if self.cuda_oom_above is not None and context.micro_batch(_BATCH_SIZE) > self.cuda_oom_above:
            raise OutOfMemoryError(f"CUDA out of memory: a micro-batch of {context.micro_batch(_BATCH_SIZE)}, as `cuda_oom_above` asks")
        self._wait(context)
        del held
        if fail not in ("none", "nan"):
            _END[fail]()
        yield Row(name="index", value=float(self.index))
        yield Row(name="square", value=float(self.index**2), step=1)
        yield Row(name="total", value=float("nan") if fail == "nan" else self.index + self.seconds + self.memory_mib, step=2)
        if fail == "nan":
            raise Diverged("total is NaN, as `fail=nan` asks")

    def _wait(self, context: "Context") -> None:
        if not self.progress:
            if self.seconds:
                time.sleep(self.seconds)
            return
        checkpoint = context.restore()
        num_ticks = round(self.seconds / _TICK_SECONDS)
        for tick in range(checkpoint.step if checkpoint else 0, num_ticks):
            time.sleep(_TICK_SECONDS)
            if context.stopping:
                context.stop_here(tick + 1, {})
            context.checkpoint(tick + 1, {})
            context.progress(tick + 1, num_ticks)


def _memory(mib: float) -> list[bytes]:
    """Memory that is really there: every page is written."""
    return [b"x" * (1 << 20) for _ in range(round(mib))]


def _hang() -> None:
    """Deaf to warnings and to interrupts, as code stuck in a library is."""
    while True:
        try:
            time.sleep(3600)
        except BaseException:
            continue


def _exception() -> None:
    raise RuntimeError("an exception, as `fail=exception` asks")


def _oom() -> None:
    """Take memory until somebody ends it; never more than the machine has."""
    blocks = []
    for _ in range(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // (_BLOCK_MIB << 20)):
        blocks.append(b"x" * (_BLOCK_MIB << 20))
        time.sleep(0.002)
    raise MemoryError(f"{len(blocks) * _BLOCK_MIB} MiB taken and nobody objected")


class OutOfMemoryError(RuntimeError):
    """Stands for torch.OutOfMemoryError, without torch."""


def _cuda_oom() -> None:
    raise OutOfMemoryError("CUDA out of memory, as `fail=cuda_oom` asks")


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


_END = {"exception": _exception, "oom": _oom, "cuda_oom": _cuda_oom, "kill": _kill}
