"""A workload that reads a no-op and takes its time."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

from workers.context import Context
from workers.workload import Resources, Row, Workload, setting
from workers.workloads.noop import Noop


@dataclass(frozen=True, kw_only=True)
class Late(Workload):
    """What its input says, after a file is there."""

    before: Noop = Noop()
    gate: str = setting("", help="waits until this file is there")

    def resources(self) -> Resources:
        """Little."""
        return Resources(memory_gib=0.25, walltime_minutes=5.0)

    def run(self, context: Context) -> Iterator[Row]:
        """One row."""
        value = context.input("before").rows()["value"][0]
        while not os.path.exists(self.gate):
            time.sleep(0.01)
        yield Row(name="read", value=value)
