"""Spectral position along a training run: the training batches of log-spaced windows, and a fixed probe set in the middle of each."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor, nn

from workers.entk.position import lnp
from workers.entk.position_loss import UnitLoss
from workers.entk.position_windows import PositionWindow, log_windows, step_sums

VALUES = ("chi_loss", "chi_net", "chi_pos", "delta_loss")
ERRORS = tuple(f"{name}_standard_error" for name in VALUES)
PROBE_MICRO_BATCHES = 8

Batch = tuple[Tensor, Tensor]


@dataclass(slots=True, kw_only=True)
class PositionLog:
    """Call `before` with each update's batch and take its rows (name, step, value): means of a window, and `probe_*` of the probe set.

    Rows carry the middle step of their window. Each step draws probes of its own; the probe set keeps its ones, so that what changes
    along the run is the network.
    """

    num_steps: int
    per_decade: int
    unit_loss: UnitLoss
    probe: Batch
    window: PositionWindow = field(default_factory=PositionWindow)
    _windows: dict[int, range] = field(init=False)

    def __post_init__(self) -> None:
        self._windows = {step: window for window in log_windows(self.num_steps, self.per_decade) for step in window}

    def resume(self, state: list[list[float]]) -> None:
        """Go on with the window that an interruption has left, from its `state()`."""
        self.window = PositionWindow.of_state(state)

    def measures(self, step: int) -> bool:
        """Whether `before` looks at this step's batch."""
        return step in self._windows

    def before(self, step: int, model: nn.Module, batch: Batch, *, num_at_once: int | None = None) -> Iterator[tuple[str, int, float]]:
        """To be called where `measures(step)`, before the update number `step`, with its batch."""
        steps = self._windows[step]
        middle = steps[(len(steps) - 1) // 2]
        if step == middle:
            yield from self._of_probe(model, step)
        self.window.add(step_sums(model, self.unit_loss, batch, seed=step, num_at_once=num_at_once))
        if step == steps[-1]:
            found, self.window = self.window.result(), PositionWindow()
            for name in (*VALUES, *ERRORS, "chi_pos_self", "delta_loss_self"):
                yield name, middle, getattr(found, name)

    def _of_probe(self, model: nn.Module, step: int) -> Iterator[tuple[str, int, float]]:
        found = lnp(model, self.unit_loss, self.probe, num_micro_batches=PROBE_MICRO_BATCHES)
        for name in (*VALUES, *ERRORS, "kappa_over_units"):
            yield f"probe_{name}", step, getattr(found, name)
