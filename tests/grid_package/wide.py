"""A model of a user's own."""

from dataclasses import dataclass

from workers.workload import Model, setting


@dataclass(frozen=True, kw_only=True)
class Wide(Model):
    """One number."""

    width: int = setting(16, low=1)
    slope: float = 0.0
