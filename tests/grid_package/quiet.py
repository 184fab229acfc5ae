"""A launcher of a user's own that does nothing."""

from dataclasses import dataclass
from typing import ClassVar

from workers.settings import Plugin
from workers.workload import setting


@dataclass(frozen=True, kw_only=True)
class Quiet(Plugin):
    """Launches nothing."""

    package: ClassVar[str] = "orchestrator"
    group: ClassVar[str] = "launchers"

    slots: int = setting(2, low=1)
