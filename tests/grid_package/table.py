"""A data set of a user's own: one file anywhere."""

from dataclasses import dataclass
from pathlib import Path

from workers.workload import Data, setting


@dataclass(frozen=True, kw_only=True)
class Table(Data):
    """The bytes of a file."""

    path: str = setting(__file__, identity=False)
    scale: float = 1.0

    def files(self) -> list[Path]:
        """The one file."""
        return [Path(self.path)]
