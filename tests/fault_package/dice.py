"""A workload that is not what it claims: every attempt gives other numbers."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

from workers.context import Context
from workers.workload import Resources, Row, Workload, setting


@dataclass(frozen=True, kw_only=True)
class Dice(Workload):
    """Waits for a file, then yields a number that only its process knows."""

    index: int = setting(0)
    gate: str = setting("", help="waits until this file is there")
    fair: bool = setting(False, help="the same number each time after all")

    def resources(self) -> Resources:
        """Little."""
        return Resources(memory_gib=0.25, walltime_minutes=5.0)

    def run(self, context: Context) -> Iterator[Row]:
        """One row."""
        while self.gate and not os.path.exists(self.gate):
            time.sleep(0.01)
        yield Row(name="thrown", value=6.0 if self.fair else float(os.getpid()))
