"""Estimates pi from random points: a user's own workload in one file, with a log, progress, checkpoints and a file."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import eigensweep as es

NUM_PER_BLOCK = 10_000


@dataclass(frozen=True, kw_only=True)
class Pi(es.Workload):
    """Four times the share of uniform points that fall into the quarter circle; the error falls as num_points^-1/2."""

    version: ClassVar[int] = 1  # raise it when the numbers change: old results stay, new ones get new keys

    num_points: int = es.setting(100_000, low=NUM_PER_BLOCK, help="random points, in whole blocks of 10,000")
    seed: int = es.setting(0, low=0)

    def resources(self) -> es.Resources:
        """What one task needs; it may depend on the settings."""
        return es.Resources(cpus=1, memory_gib=0.25, walltime_minutes=5 + self.num_points / 1e8)

    def run(self, context: es.Context) -> Iterator[es.Row]:
        """Count block by block; the state between two blocks is one number."""
        checkpoint = context.restore()  # None at the first attempt; rows so far come back by themselves
        begin, hits = (checkpoint.step, checkpoint.meta["hits"]) if checkpoint else (0, 0)
        num_blocks = self.num_points // NUM_PER_BLOCK
        context.log(f"blocks {begin} to {num_blocks}")
        for block in range(begin, num_blocks):
            draw = random.Random(f"{self.seed}-{block}").random
            hits += sum(draw() ** 2 + draw() ** 2 < 1.0 for _ in range(NUM_PER_BLOCK))
            estimate = 4 * hits / ((block + 1) * NUM_PER_BLOCK)
            yield es.Row(name="estimate", value=estimate, step=block + 1)
            context.progress(block + 1, num_blocks)
            if context.stopping:  # the warning before a time limit or a preemption
                context.stop_here(block + 1, {}, hits=hits)
            if (block + 1) % 100 == 0 and context.time_left() > 1:
                context.checkpoint(block + 1, {}, hits=hits)
        with context.file("hits.txt") as path:  # appears whole or not at all; `task.file("hits.txt")` finds it
            path.write_text(f"{hits}\n")
        yield es.Row(name="error", value=abs(estimate - math.pi), step=num_blocks)
