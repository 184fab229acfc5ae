"""Where runs that go on together begin: at the newest step that all of them have a checkpoint of."""

from collections.abc import Sequence
from typing import Protocol


class Restorable(Protocol):
    """A run that can be put back to a checkpoint; `started_at`: its step, -1 where it begins anew."""

    started_at: int

    def restore(self, at_most: int | None = None) -> int | None:
        """The step of the newest checkpoint (of a step up to `at_most`), which is put back; None: there is none, and nothing changes."""


def common_starts(runs: Sequence[Restorable]) -> list[int]:
    """Restore every run, at the newest step of the slowest where the faster have a checkpoint of that step; the steps they begin at."""
    for run in runs:
        _restore(run)
    slowest = min(run.started_at for run in runs)
    for run in runs:
        if run.started_at > slowest >= 0:
            _restore(run, at_most=slowest)
            if run.started_at != slowest:
                _restore(run)
    return sorted({run.started_at for run in runs})


def _restore(run: Restorable, at_most: int | None = None) -> None:
    """Where no checkpoint is found, the run keeps the state that it has: checkpoints may vanish at any time."""
    step = run.restore(at_most)
    run.started_at = run.started_at if step is None else step
