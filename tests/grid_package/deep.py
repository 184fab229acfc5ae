"""Another model of a user's own, with a list among its settings."""

from dataclasses import dataclass

from workers.workload import Model, setting


@dataclass(frozen=True, kw_only=True)
class Deep(Model):
    """Numbers."""

    version = 3

    width: int = setting(8, low=1)
    layers: tuple[int, ...] = (4, 4)
