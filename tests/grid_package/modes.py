"""A workload that needs a kernel, which needs a study."""

from dataclasses import dataclass

from grid_package.kernel import Kernel

from workers.workload import Workload


@dataclass(frozen=True, kw_only=True)
class Modes(Workload):
    """Reads one kernel."""

    accepts_diverged = True

    kernel: Kernel = Kernel()
    count: int | None = None
