"""Between two steps of a long run: stop with a checkpoint if told to, write one where it is due, say how far it is."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from workers.errors import Interrupted

if TYPE_CHECKING:
    from workers.context import Context

PROGRESS_SECONDS = 1.0


class Pausable(Protocol):
    """A run, or several that go on together; its settings name `num_steps` and `checkpoint_every_seconds`."""

    settings: Any
    context: "Context"
    checkpointed: float
    reported: float

    def checkpoint(self, step: int) -> None:
        """Publish the state after `step`, and note when."""


def pause(run: Pausable, step: int, contexts: "Sequence[Context]") -> None:
    """After the step; progress is reported to each of `contexts`."""
    if run.context.stopping:
        run.checkpoint(step)
        raise Interrupted(f"stopped at step {step} after a checkpoint")
    if time.monotonic() - run.checkpointed >= run.settings.checkpoint_every_seconds:
        run.checkpoint(step)
    if time.monotonic() - run.reported >= PROGRESS_SECONDS:
        run.reported = time.monotonic()
        for context in contexts:
            context.progress(step, run.settings.num_steps)
