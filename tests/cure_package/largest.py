"""A workload that reads a spectrum, and at first takes more memory than it asked for."""

from collections.abc import Iterator
from dataclasses import dataclass

from workers.context import Context
from workers.workload import Resources, Row, Workload
from workers.workloads.spectrum import Spectrum

_BLOCK_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True)
class Largest(Workload):
    """The largest eigenvalue."""

    spectrum: Spectrum = Spectrum()

    def resources(self) -> Resources:
        """Little."""
        return Resources(memory_gib=0.3, walltime_minutes=1.0)

    def run(self, context: Context) -> Iterator[Row]:
        """One row."""
        held = []
        while not context.task.num_failed:
            held.append(b"x" * _BLOCK_BYTES)
        yield Row(name="largest", value=max(context.input("spectrum").rows("spectra")["eigenvalue"]))
