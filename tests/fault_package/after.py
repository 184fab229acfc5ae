"""A workload that reads a no-op."""

from collections.abc import Iterator
from dataclasses import dataclass

from workers.context import Context
from workers.workload import Resources, Row, Workload
from workers.workloads.noop import Noop


@dataclass(frozen=True, kw_only=True)
class After(Workload):
    """Ten times what its input says."""

    before: Noop = Noop()

    def resources(self) -> Resources:
        """Little."""
        return Resources(memory_gib=0.25, walltime_minutes=1.0)

    def run(self, context: Context) -> Iterator[Row]:
        """One row."""
        yield Row(name="tenfold", value=10 * context.input("before").rows()["value"][0])
