"""Training runs that go on as one ensemble: each has its own rows, snapshots and checkpoints, as if it were alone."""

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253  (imported by `Train.run_many` alone)
from torch import Tensor  # noqa: TID253

from workers import training
from workers.ensembles.shared import SharedSamples, Taken
from workers.ensembles.stacked import Ensemble, Member
from workers.ensembles.starts import common_starts
from workers.errors import Diverged
from workers.pauses import pause
from workers.subsets import num_batches

if TYPE_CHECKING:
    from workers.samples import Samples
    from workers.workload import Row
    from workers.workloads.train import _Run

# E runs, N samples of a batch

Event = tuple[int, "Row | Diverged | None"]


def run_many(samples: "Samples", make: "Callable[[Any], list[_Run]]") -> Iterator[Event]:
    """(number of a run, a row of it, or None at its end, or why it diverged) of the runs that `make` gives for shared samples.

    Runs go on together from the newest step that all have a checkpoint of; those without such a step make ensembles of their own.
    """
    runs = make(SharedSamples(samples))
    numbered = list(enumerate(runs))
    for start in common_starts(runs):
        together = [(number, run) for number, run in numbered if run.started_at == start]
        yield from _Together(together).run(start)


class _Together:
    """Runs of one step as one ensemble. Those whose learning rates are equal stand side by side, for the optimiser's sake."""

    def __init__(self, numbered: "list[tuple[int, _Run]]") -> None:
        self.numbered = sorted(numbered, key=lambda pair: (_rate_class(pair[1]), pair[0]))
        self.runs = [run for _, run in self.numbered]
        first = self.runs[0]
        self.settings, self.context, self.size = first.settings, first.context, first.batch_size
        self.ensemble = Ensemble([_member(run) for run in self.runs], self.settings.optimizer.build, self.settings.loss)
        self.shared_samples: SharedSamples = _taken(first).shared
        self.per_epoch = num_batches(len(first.train_targets), self.size)
        self.epoch, self.rows_EN, self.is_shared = -1, torch.empty(0), False
        self.room: Tensor | None = None
        self.checkpointed = self.reported = time.monotonic()

    def run(self, start: int) -> Iterator[Event]:
        """From the step `start`; -1: from the beginning."""
        if start < 0:
            yield from self.look(0)
        for step in range(max(0, start) + 1, self.settings.num_steps + 1):
            if not self.runs:
                return
            self.update(step - 1)
            yield from self.look(step)
            if step < self.settings.num_steps:
                pause(self, step, [run.context for run in self.runs])
        for number, run in self.numbered:
            yield from ((number, row) for row in run.sizes())
            yield number, None

    # -- steps --------------------------------------------------------------------------------------------------------

    def update(self, step: int) -> None:
        """The update number `step` of every run."""
        epoch, number = divmod(step, self.per_epoch)
        if epoch != self.epoch:
            self.epoch = epoch
            self.rows_EN = torch.stack([_taken(run).rows[run.order_of(epoch)] for run in self.runs])
            self.is_shared = bool((self.rows_EN == self.rows_EN[0]).all())
        rates_E = [run.settings.optimizer.rate(step, self.settings.num_steps) for run in self.runs]
        inputs, targets = self._batch(number)
        at_once = self.context.micro_batch(self.size)
        self.ensemble.update(rates_E, inputs, targets, shared=self.is_shared, num_at_once=at_once)
        for run, rate in zip(self.runs, rates_E, strict=True):
            run.add_noise(rate, step)

    def _batch(self, number: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of the batch `number` of this epoch, (N, ...) where shared, else (E, N, ...)."""
        inputs, targets = self.shared_samples.table()
        rows = self.rows_EN[:1] if self.is_shared else self.rows_EN
        rows = rows[:, number * self.size : (number + 1) * self.size]
        shape = rows.shape[1:] if self.is_shared else rows.shape
        if self.room is None or len(self.room) != rows.numel():
            self.room = inputs.new_empty((rows.numel(), *inputs.shape[1:]))
        torch.index_select(inputs, 0, rows.reshape(-1), out=self.room)
        return self.room.view(*shape, *inputs.shape[1:]), targets[rows.reshape(-1)].view(*shape, *targets.shape[1:])

    # -- looking ------------------------------------------------------------------------------------------------------

    def look(self, step: int) -> Iterator[Event]:
        """The rows and snapshots of a step; runs that diverge leave the ensemble, and the others do not notice."""
        losses = self._evaluate() if step in self.runs[0].evaluated else [None] * len(self.runs)
        left = []
        for (number, run), found in zip(self.numbered, losses, strict=True):
            try:
                for row in run.look(step, found):
                    yield number, row
                left.append((number, run))
            except Diverged as error:
                yield number, error
        if len(left) < len(self.runs):
            self._keep(left)

    def _keep(self, left: "list[tuple[int, _Run]]") -> None:
        self.ensemble.lend_states()
        self.numbered, self.runs, self.epoch = left, [run for _, run in left], -1
        if left:
            self.ensemble = Ensemble([_member(run) for run in self.runs], self.settings.optimizer.build, self.settings.loss)

    def _evaluate(self) -> list[tuple[float, float, float]]:
        """Training loss, test loss and accuracy of each run."""
        first = self.runs[0]
        num_test = len(first.test_targets)
        at_once = self.context.micro_batch(training.num_evaluated_at_once(first.samples.units_per_sample))
        rows_EN = torch.stack([_taken(run).rows[:num_test] for run in self.runs])
        shared = bool((rows_EN == rows_EN[0]).all())
        rows = rows_EN[0] if shared else rows_EN
        inputs, targets = self.shared_samples.table()
        train = _sum(self.ensemble.losses(inputs[part], targets[part], shared=shared) for part in rows.split(at_once, -1))
        pieces = zip(first.test_inputs.split(at_once), first.test_targets.split(at_once), strict=True)
        test = _sum(self.ensemble.losses(*piece, shared=True) for piece in pieces)
        train_units = rows_EN.shape[1] * first.samples.units_per_sample
        test_units = num_test * first.samples.units_per_sample
        return list(zip((train[:, 0] / train_units).tolist(), *(test / test_units).T.tolist(), strict=True))

    # -- between two steps --------------------------------------------------------------------------------------------

    def checkpoint(self, step: int) -> None:
        """Of each run, as it would write it alone."""
        self.ensemble.lend_states()
        for run in self.runs:
            run.checkpoint(step)
        self.checkpointed = time.monotonic()


def _taken(run: "_Run") -> Taken:
    taken: Any = run.train_inputs
    assert isinstance(taken, Taken)
    return taken


def _rate_class(run: "_Run") -> tuple[float, float]:
    return run.settings.optimizer.learning_rate, run.settings.optimizer.weight_decay


def _member(run: "_Run") -> Member:
    return Member(run.module, run.optimizer, run.settings.optimizer.learning_rate, run.settings.logit_temperature)


def _sum(parts: Iterator[Tensor]) -> Tensor:
    """(E, 2)."""
    return torch.stack(list(parts)).sum(0)
