"""A training workload of a user's own."""

from dataclasses import dataclass

from grid_package.table import Table
from grid_package.wide import Wide

from workers.errors import ConfigError
from workers.workload import Data, Model, Resources, Workload, setting


@dataclass(frozen=True, kw_only=True)
class Study(Workload):
    """Trains."""

    data: Data = Table()
    model: Model = Wide()
    train_size: int = setting(64, low=1)
    rate: float = setting(0.1, above=0)
    label: str = setting("a", choices=("a", "b"))
    seed: int = setting(0, low=0)
    log_every: int = setting(1, identity=False)
    momentum: float = setting(0.0, added=True)

    def check(self) -> None:
        """A rule over two settings."""
        if self.train_size == 1313 and self.seed == 1313:
            raise ConfigError("train_size and seed must not both be 1313")

    def resources(self) -> Resources:
        """Grows with the width."""
        return Resources(memory_gib=1 + self.model.width / 1024)

    def estimated_seconds(self) -> float:
        """In proportion to the data."""
        return self.train_size / 100
