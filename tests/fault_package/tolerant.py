"""A workload that reads a no-op, also a diverged one."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from workers.context import Context
from workers.workload import Resources, Row, Workload
from workers.workloads.noop import Noop


@dataclass(frozen=True, kw_only=True)
class Tolerant(Workload):
    """Says whether its input diverged."""

    accepts_diverged: ClassVar[bool] = True

    before: Noop = Noop()

    def resources(self) -> Resources:
        """Little."""
        return Resources(memory_gib=0.25, walltime_minutes=1.0)

    def run(self, context: Context) -> Iterator[Row]:
        """One row."""
        yield Row(name="diverged", value=float(context.input("before").commit.status == "diverged"))
