"""A workload that says which of a data set's files it opened."""

from collections.abc import Iterator
from dataclasses import dataclass

from workers.context import Context
from workers.data.digits import Digits
from workers.staging import local
from workers.workload import Data, Resources, Row, Workload, setting


@dataclass(frozen=True, kw_only=True)
class Reader(Workload):
    """Copies the data set's files into its attempt, under the names by which it found them."""

    data: Data = Digits()

    index: int = setting(0)

    def resources(self) -> Resources:
        """Little."""
        return Resources(memory_gib=0.25, walltime_minutes=2.0)

    def run(self, context: Context) -> Iterator[Row]:
        """One row."""
        for number, path in enumerate(map(local, self.data.files())):
            with context.file(f"{number}") as copy:
                copy.write_text(f"{path}\n{path.stat().st_size}")
        yield Row(name="index", value=float(self.index))
