"""A workload that needs a study."""

from dataclasses import dataclass

from grid_package.study import Study

from workers.workload import Workload, setting


@dataclass(frozen=True, kw_only=True)
class Kernel(Workload):
    """Reads one study."""

    study: Study = Study()
    step: int = setting(0, low=0)
    seed: int = setting(0, low=0)
