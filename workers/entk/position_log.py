"""Spectral position along a training run: training batches in log-spaced windows, and a fixed probe set in every second of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from workers.entk import checks
from workers.entk.network import Network
from workers.entk.norms import network
from workers.entk.position import Position, lnp
from workers.entk.position_loss import UnitLoss, unit_losses
from workers.entk.position_windows import PositionWindow, log_windows, step_sums

VALUES = ("chi_loss", "chi_net", "chi_pos", "delta_loss")
ERRORS = tuple(f"{name}_standard_error" for name in VALUES)
OF_BATCHES = ("chi_pos_self", "delta_loss_self", "kappa_over_units")
PROBE_MICRO_BATCHES = 4
PROBE_SIGNS = 2
PROBE_EVERY = 2

Batch = tuple[Tensor, Tensor]


@dataclass(slots=True, kw_only=True)
class PositionLog:
    """Measures batch and gradient of the updates where `measures(step)`, and keeps rows (name, step, value).

    Batches are drawn from a training set of `pool_size` samples, of whose mean loss delta_loss is ||grad L||^2, without bias. Rows hold
    the means of a window at its middle step, with the loss of its batches, `batch_loss`, and `probe_*` of every second window the probe
    set's, with `cross_*` of that step's batch against it. Each step draws probes of its own; the probe set keeps its ones, so that what
    changes along the run is the network.

    A run of 10,000 steps at 5 windows a decade measures 165 of them: 1.5 to 5 % of its time on one core where an update takes 0.7 ms or
    more (`benchmarks/bench_position.py`). With the outputs' graph (`backward(retain_graph=True)`) a step needs no forward pass of its own.
    """

    num_steps: int
    per_decade: int
    unit_loss: UnitLoss
    probe: Batch
    pool_size: int
    rows: list[tuple[str, int, float]] = field(default_factory=list)
    window: PositionWindow = field(init=False)
    _windows: dict[int, range] = field(init=False)
    _probed: frozenset[int] = field(init=False)
    _known: Network | None = None
    _seen: tuple[nn.Module, tuple[bool, ...]] | None = None

    def __post_init__(self) -> None:
        self.window = PositionWindow(pool_size=self.pool_size)
        windows = log_windows(self.num_steps, self.per_decade)
        self._windows = {step: window for window in windows for step in window}
        # from the last one backwards, so that it is always among them
        self._probed = frozenset(map(_middle, windows[::-PROBE_EVERY]))

    def measures(self, step: int) -> bool:
        """Whether the update number `step` is in a window."""
        return step in self._windows

    def resume(self, state: list[list[float]]) -> None:
        """Go on with the window that an interruption has left, from its `state()`."""
        self.window = PositionWindow.of_state(state, self.pool_size)

    def measure(self, step: int, model: nn.Module, batch: Batch, outputs: Tensor, *, num_at_once: int | None = None) -> None:
        """Between backward and step of the update number `step`, where `.grad` is that of the batch's mean loss; its outputs."""
        steps = self._windows[step]
        # a network is looked at again where another set of its weights is trained
        seen = model, tuple(weights.requires_grad for weights in model.parameters())
        if self._known is None or seen != self._seen:
            self._seen = seen
            with checks.as_found(model, batch, None):
                self._known = network(model, batch[0])
        trained = outputs, [weights.grad for weights in model.parameters() if weights.requires_grad]
        sums = step_sums(model, self.unit_loss, batch, trained=trained, known=self._known, seed=step, num_at_once=num_at_once)
        self.window.add(sums)
        if step in self._probed:
            self._measure_probe(model, step, trained[1], sums)
        if step == steps[-1]:
            found, self.window = self.window.result(), PositionWindow(pool_size=self.pool_size)
            self.rows += [(name, _middle(steps), getattr(found, name)) for name in (*VALUES, *ERRORS, *OF_BATCHES)]
            self.rows.append(("batch_loss", _middle(steps), found.mean_loss))

    def taken(self) -> list[tuple[str, int, float]]:
        """The rows since the last call."""
        rows, self.rows = self.rows, []
        return rows

    def _measure_probe(self, model: nn.Module, step: int, gradients: Sequence[Tensor | None], sums: Tensor) -> None:
        found = lnp(model, self.unit_loss, self.probe, num_micro_batches=PROBE_MICRO_BATCHES, num_probes=PROBE_SIGNS, known=self._known)
        self.rows += [(f"probe_{name}", step, getattr(found, name)) for name in (*VALUES, *ERRORS, "kappa_over_units")]
        self.rows.append(("probe_loss", step, found.mean_loss))
        self.rows += [(name, step, value) for name, value in self._cross(model, gradients, sums, found).items()]

    def _cross(self, model: nn.Module, gradients: Sequence[Tensor | None], sums: Tensor, found: Position) -> dict[str, float]:
        """Of an update on the training batch A for the probe set B: <grad L^A, grad L^B>, its position among their factors, its cosine."""
        weights = [one for one in model.parameters() if one.requires_grad]
        outputs = checks.outputs(model(self.probe[0]))
        loss = unit_losses(self.unit_loss, outputs, self.probe[1]).mean()
        others = torch.autograd.grad(loss, weights, allow_unused=True)
        pairs = [(one.double(), other.double()) for one, other in zip(gradients, others) if one is not None and other is not None]
        product, own, other = (float(sum((a * b).sum() for a, b in some)) for some in _products(pairs))
        units, _, energy, trace, *_ = sums.tolist()
        scale = math.sqrt(energy * trace * found.chi_loss * found.chi_net) / units if units else math.nan
        norms = math.sqrt(own * other)
        return {
            "cross_delta_loss": product,
            "cross_chi_pos": product / scale if scale > 0 else math.nan,
            "cross_cosine": product / norms if norms > 0 else math.nan,
        }


def _products(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Sequence[tuple[Tensor, Tensor]], ...]:
    """Each with the other, and each with itself."""
    return pairs, [(one, one) for one, _ in pairs], [(other, other) for _, other in pairs]


def _middle(steps: range) -> int:
    return steps[(len(steps) - 1) // 2]
