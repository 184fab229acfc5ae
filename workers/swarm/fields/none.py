"""Nothing acts on the agents but what they touch."""

from dataclasses import dataclass

from workers.swarm.field import Field


@dataclass(frozen=True, kw_only=True)
class Nothing(Field):
    """No force, and a fluid at rest."""
