"""A workload with two inputs of one kind."""

from dataclasses import dataclass

from grid_package.study import Study

from workers.workload import Workload


@dataclass(frozen=True, kw_only=True)
class Pair(Workload):
    """Compares two studies."""

    one: Study = Study()
    other: Study = Study(seed=1)
