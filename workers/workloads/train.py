"""Trains a network on images, tokens or vectors and keeps its snapshots."""

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from workers import continuing
from workers.data.digits import Digits
from workers.ensembles.groups import check_ensemble
from workers.errors import ConfigError, Diverged
from workers.losses import NAMES as LOSSES
from workers.losses import check_targets, loss_per_unit
from workers.models.mlp import Mlp
from workers.optimizers.sgd import Sgd
from workers.pauses import pause
from workers.quantities import QUANTITIES, quantity
from workers.samples import num_taken
from workers.schedule import ScheduledOptimizer, check_schedule
from workers.seeds import role_seed
from workers.subsets import num_batches, num_seen, permutation, probe, subset
from workers.workload import Data, Model, Resources, Row, Workload, setting

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from workers.context import Context
    from workers.entk.position_log import PositionLog
    from workers.samples import Samples
    from workers.subsets import Indices

USUAL_VOCABULARY = 1024
OWN_GIB = 1.5  # of a training beside its data
FROZEN = ("none", "readout", "random_features", "linearised", "lazy")
ENSEMBLE_TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Train(Workload):
    """A network trained for `num_steps` mini-batches, evaluated at log-spaced steps.

    Points that share `seed` share subset and order: a smaller training set is the beginning of a larger one. Bitwise equal on one type
    of device with one number of threads, whether interrupted or not; where a GPU's memory was full, gradients add up from smaller
    pieces of a batch, equal but for rounding; a batch that is normalised stays whole. With `ensemble` the arithmetic is that of
    `workers.ensembles.stacked`, whoever trains beside it. Files: `snapshot-<step>.safetensors`.
    """

    version: ClassVar[int] = 1
    halves_batches: ClassVar[bool] = True
    quantities: ClassVar[Mapping[str, tuple[str, ...]]] = QUANTITIES
    ensemble_axes: ClassVar[frozenset[str]] = frozenset(
        "seed seed_init seed_subset seed_order seed_noise logit_temperature optimizer.learning_rate optimizer.weight_decay "
        "optimizer.langevin_temperature".split()
    )

    data: Data = Digits()
    model: Model = Mlp()
    optimizer: ScheduledOptimizer = Sgd()
    train_size: int | None = setting(512, low=1, help="samples of the training set (images, sequences); null: all")
    test_size: int | None = setting(None, low=1, help="samples of the test set that are evaluated; null: all")
    num_steps: int = setting(100, low=1)
    batch_size: int = setting(64, low=1)
    loss: str = setting("cross_entropy", choices=LOSSES, help="mse: half the squared distance to the one-hot label, or to the value")
    seed: int = setting(0, low=0, help="of initialisation, subset and order")
    seed_init: int | None = setting(None, low=0, help="null: from seed")
    seed_subset: int | None = setting(None, low=0, help="null: from seed")
    seed_order: int | None = setting(None, low=0, help="null: from seed")
    seed_noise: int | None = setting(None, low=0, added=True, help="of Langevin's noise; null: from seed")
    dtype: str = setting("float32", choices=("float32", "float64"))
    num_evaluations: int = setting(8, low=2, help="log-spaced steps with rows; the first and the last always")
    num_snapshots: int = setting(2, low=2, identity=False, help="log-spaced steps with a file; the first and the last always")
    position_windows_per_decade: int = setting(
        0, low=0, added=True, help="log-spaced windows of 10 steps with rows chi_loss, chi_net, chi_pos, delta_loss, batch_loss; 0: none"
    )
    position_probe_size: int = setting(64, low=1, added=True, help="samples of the fixed probe set of every second window")
    frozen: str = setting(
        "none", choices=FROZEN, added=True, help="how the kernel stands still (D9): trunk or all weights' gradients as they were"
    )
    frozen_at: float = setting(0.0, low=0, high=1, added=True, help="readout, linearised: fraction of the steps that is trained before")
    lazy_alpha: float = setting(1.0, above=0, added=True, help="lazy: outputs are alpha (h - h_0), learning rates over alpha^2")
    keep_state: bool = setting(False, identity=False, help="with each snapshot the optimiser's state, for longer trainings and replays")
    continue_from: tuple[int, ...] = setting(
        (), low=1, added=True, help="lengths of trainings that this one goes on from, evaluated as they were; then at log-spaced steps"
    )
    logit_temperature: float = setting(1.0, above=0, added=True, help="divides the outputs in the cross entropy")
    ensemble: bool = setting(
        False, added=True, help="computed as member of an ensemble: tasks that differ in seeds, rates or temperatures train together"
    )
    checkpoint_every_seconds: float = setting(120.0, above=0, identity=False, unit="s")

    @classmethod
    def quantity(cls, name: str, **settings: Any) -> float:
        """Parameters, units of a sample and of a step (see `workers.quantities`)."""
        return quantity(name, **settings)

    def check(self) -> None:
        """Spectral position is of samples that do not depend on each other; a temperature is one of the cross entropy."""
        if self.model.mixes_samples and self.position_windows_per_decade:
            raise ConfigError(
                "position_windows_per_decade must be 0 for a model with batch normalisation, whose samples depend on each other in "
                f"training, got {self.position_windows_per_decade}; take model.normalisation=none"
            )
        if self.logit_temperature != 1.0 and self.loss != "cross_entropy":
            raise ConfigError(f"logit_temperature must be 1 with loss={self.loss}, got {self.logit_temperature}; take loss=cross_entropy")
        if self.ensemble:
            check_ensemble(self)
        self._check_frozen()
        check_schedule(self.optimizer, self.num_steps)
        continuing.check(self)

    def permitted_difference(self) -> float:
        """None, but for members of an ensemble: on GPUs, and on several threads, they depend on who else is in it, by rounding."""
        return ENSEMBLE_TOLERANCE if self.ensemble else 0.0

    def _check_frozen(self) -> None:
        if self.frozen_at and self.frozen not in ("readout", "linearised"):
            raise ConfigError(f"frozen_at is for frozen=readout and frozen=linearised, got {self.frozen_at} with frozen={self.frozen}")
        if self.lazy_alpha != 1.0 and self.frozen != "lazy":
            raise ConfigError(f"lazy_alpha is for frozen=lazy, got {self.lazy_alpha} with frozen={self.frozen}")
        if self.frozen != "none" and self.model.mixes_samples:
            raise ConfigError(f"frozen must be none for a model with batch normalisation, got {self.frozen}; take model.normalisation=none")

    def resources(self) -> Resources:
        """One core; memory in whole GiB for what is held of the data set and for the samples that are taken, where it is known how many."""
        return self.adapted(Resources(memory_gib=max(2.0, math.ceil(OWN_GIB + self._data_bytes() / 2**30))))

    def _data_bytes(self) -> float:
        shapes, sizes = self.data.shapes() or (), (self.train_size, self.test_size)
        taken = sum(min(size or shape[0], shape[0]) * math.prod(shape[1:]) for size, shape in zip(sizes, shapes))
        # tokens and their targets become 8 bytes from 4 at most; numbers are taken in single precision
        each = 20 if self.model.reads_tokens else 4 if self.dtype == "float32" else 12
        return self.data.held_bytes() + each * taken

    def adapted(self, resources: Resources) -> Resources:
        """Ten times the time that it is thought to take, up to 20, 40, 80 ... minutes, so that like trainings share their jobs."""
        minutes = self.seconds_on(resources) / 60
        return dataclasses.replace(resources, walltime_minutes=10.0 * 2 ** max(0, math.ceil(math.log2(minutes))))

    def estimated_seconds(self) -> float:
        """On a core of a CPU."""
        return self.seconds_on(Resources())

    def seconds_on(self, resources: Resources) -> float:
        """From one Xeon core and 28 x 28 images: 0.5 ms a step, and for each image a time that grows with the width.

        Language models: 5 ms a step, and 40 GFLOP/s, with a usual vocabulary. A GPU, of which nothing was measured: 5 ms a step of any
        model, what it takes to launch some hundred kernels, and 4 TFLOP/s.
        """
        shapes = self.data.shapes() if self.model.reads_tokens else None
        if layers := self.model.layers(shapes[0][1:], USUAL_VOCABULARY) if shapes else None:
            flops = 6.0 * sum(layer.positions * layer.fan_in * layer.num_outputs for layer in layers)
            overhead, seconds_per_sample = 5e-3, flops / 4e10
        else:
            width, pooling = getattr(self.model, "width", 32), getattr(self.model, "input_pooling", None)
            overhead, seconds_per_sample = 5e-4, 6e-8 * width if pooling is None else 1.2e-5 * width / pooling**2
        if resources.gpus:
            overhead, seconds_per_sample = 5e-3, seconds_per_sample / 100
        num_steps = self.num_steps - max(self.continue_from, default=0)
        return 0.3 + num_steps * (overhead + self.batch_size * seconds_per_sample)

    def snapshot_steps(self) -> tuple[int, ...]:
        """Steps whose weights are kept."""
        return continuing.steps(self.num_steps, self.continue_from, self.num_snapshots)

    def earlier(self) -> "Train | None":
        """The training whose last state this one goes on from; it is planned, and run where it is not done yet."""
        if not self.continue_from:
            return None
        *before, last = self.continue_from
        optimizer = continuing.trunk(self.optimizer)
        return dataclasses.replace(self, num_steps=last, continue_from=tuple(before), keep_state=True, optimizer=optimizer)

    def frozen_from(self) -> int:
        """The number of the first update of the frozen network; one that there is none of, where nothing is frozen."""
        return round(self.frozen_at * self.num_steps) if self.frozen != "none" else self.num_steps

    def build(self, samples: "Samples") -> "nn.Module":
        """The network at initialisation, on the CPU."""
        import torch

        if samples.has_tokens != self.model.reads_tokens:
            wanted = "tokens, and this data set has none" if self.model.reads_tokens else "numbers, and this data set has tokens"
            raise ConfigError(f"model={self.model.plugin_name()} reads {wanted} (data={self.data.plugin_name()}); change one of the two")
        check_targets(self.loss, are_values=samples.train_targets.dtype.kind == "f")
        seed = role_seed(self.seed, "init", self.seed_init)
        module = self.model.build(samples.input_shape, samples.num_outputs, seed)
        return module.to(getattr(torch, self.dtype))  # type: ignore[no-any-return]

    def training_set(
        self, samples: "Samples", device: str, dtype: "torch.dtype", chosen: "Indices | None" = None
    ) -> "tuple[Tensor, Tensor]":
        """Inputs and targets of the samples that are trained on: those that were chosen, else a random subset."""
        num = len(samples.train_targets)
        if chosen is None:
            chosen = subset(num, num_taken("train_size", self.train_size, num), role_seed(self.seed, "subset", self.seed_subset))
        return samples.train(chosen, device, dtype)

    def test_set(self, samples: "Samples", device: str, dtype: "torch.dtype") -> "tuple[Tensor, Tensor]":
        """Those of the samples that are tested on, in a fixed order of their own: data sets sorted by class have unlike beginnings."""
        num = len(samples.test_targets)
        return samples.test(permutation(num, 0)[: num_taken("test_size", self.test_size, num)], device, dtype)

    def load_snapshot(self, path: Path) -> "nn.Module":
        """The network of a snapshot file, on the CPU."""
        from safetensors.torch import load_file

        from workers.frozen import freeze

        module = self.build(self.data.load())
        # the snapshot of the step of freezing is of the network before
        if self.frozen != "none" and (snapshot_step(path) > self.frozen_from() or not self.frozen_from()):
            module = freeze(self.frozen, module, self.lazy_alpha)
        module.load_state_dict(load_file(path))
        return module.eval()

    def run(self, context: "Context", chosen: "Indices | None" = None) -> Iterator[Row]:
        """Rows `train_loss`, `test_loss`, `test_accuracy` and `images_seen` (or `tokens_seen`, ...) by step, then sizes and compute.

        With `position_windows_per_decade`, also the loss-network-position decomposition (D3, D6) of the batches of each window at its
        middle step, `chi_loss` and so on, with the mean loss of these batches, `batch_loss`; and in every second window that of a fixed
        set of test samples, `probe_chi_loss` and so on. delta_loss of the windows is ||grad L||^2 of the whole training set, estimated
        without bias from pairs of samples of a batch. `chosen`: indices of the training set in place of a random subset, for a workload
        that has chosen them.
        """
        if self.ensemble:
            for _, found in self.run_many([(self, context)]):
                if isinstance(found, Diverged):
                    raise found
                if found is not None:
                    yield found
            return
        run = _Run(self, context, chosen)
        start = run.restore()
        if start is None and self.continue_from:
            yield from continuing.take_over(run, context, self)
            start = run.begun
        if start is None:
            yield from run.look(0)
        for step in range((start or 0) + 1, self.num_steps + 1):
            yield from run.update(step - 1)
            yield from run.look(step)
            if step < self.num_steps:
                pause(run, step, [context])
        yield from run.sizes()

    @classmethod
    def run_many(cls, members: "Sequence[tuple[Train, Context]]") -> "Iterator[tuple[int, Row | Diverged | None]]":
        """The rows of each member, by its number, and None at its end, or why it diverged: all train as one, by `workers.ensembles.runs`.

        A row is that of a run alone but for rounding. On one thread of a CPU it does not depend on who else is in the ensemble.
        """
        from workers.ensembles.runs import run_many

        samples = members[0][0].data.load()
        return run_many(samples, lambda shared: [_Run(settings, context, samples=shared) for settings, context in members])


class _Run:
    """A training run in progress on its device. `samples`: those of `settings.data`, where they are loaded already."""

    train_inputs: "Tensor"
    train_targets: "Tensor"
    test_inputs: "Tensor"
    test_targets: "Tensor"

    def __init__(self, settings: Train, context: "Context", chosen: "Indices | None" = None, samples: "Samples | None" = None) -> None:
        import torch

        from workers.frozen import rate_factor

        self.settings, self.context = settings, context
        self.samples: Samples = samples or settings.data.load()
        samples = self.samples
        self.module = self.base = settings.build(samples).to(context.device)
        self.optimizer = settings.optimizer.over(self.module)
        self.dtype = getattr(torch, settings.dtype)
        self.train_inputs, self.train_targets = settings.training_set(samples, context.device, self.dtype, chosen)
        self.test_inputs, self.test_targets = settings.test_set(samples, context.device, self.dtype)
        self.batch_size = min(settings.batch_size, len(self.train_targets))
        self.evaluated = frozenset(continuing.steps(settings.num_steps, settings.continue_from, settings.num_evaluations))
        self.begun: int | None = None
        self.kept = frozenset(settings.snapshot_steps())
        self.order_seed = role_seed(settings.seed, "order", settings.seed_order)
        self.epoch, self.order = -1, self.train_targets
        self.frozen_from = settings.frozen_from()
        self.rate_factor = rate_factor(settings.frozen, settings.lazy_alpha, normalised=settings.optimizer.normalised)
        self._freeze(0)
        self.position = self._position_log()
        self.checkpointed = self.reported = time.monotonic()
        self.started_at = -1

    def _position_log(self) -> "PositionLog | None":
        per_decade = self.settings.position_windows_per_decade
        if not per_decade:
            return None
        from workers.entk.position_log import PositionLog

        num_test = len(self.samples.test_targets)
        index = probe(num_test, min(self.settings.position_probe_size, num_test))
        return PositionLog(
            num_steps=self.settings.num_steps,
            per_decade=per_decade,
            unit_loss=partial(loss_per_unit, self.settings.loss, logit_temperature=self.settings.logit_temperature),
            probe=self.samples.test(index, self.context.device, self.dtype),
            pool_size=len(self.train_targets),
        )

    def update(self, step: int) -> Iterator[Row]:
        """The update number `step`; its batch follows from the seed and the number alone. Rows of a window that is complete."""
        from workers import training

        self._freeze(step)
        epoch, number = divmod(step, num_batches(len(self.train_targets), self.batch_size))
        if epoch != self.epoch:
            self.epoch, self.order = epoch, self.order_of(epoch)
        index = self.order[number * self.batch_size : (number + 1) * self.batch_size]
        batch, mixes = (self.train_inputs[index], self.train_targets[index]), self.settings.model.mixes_samples
        at_once = self.batch_size if mixes else self.context.micro_batch(self.batch_size)
        look = None
        if self.position is not None and self.position.measures(step):
            look = partial(self.position.measure, step, self.module, batch, num_at_once=at_once)
        rate = self.rate_factor * self.settings.optimizer.rate(step, self.settings.num_steps)
        step_with = partial(training.update, num_at_once=at_once, logit_temperature=self.settings.logit_temperature, look=look)
        step_with(self.module, self.optimizer, rate, self.settings.loss, *batch)
        self.add_noise(rate, step)
        for name, at, value in self.position.taken() if self.position is not None else ():
            yield Row(step=at, name=name, value=value)

    def add_noise(self, rate: float, step: int) -> None:
        """Langevin's, after the update number `step`, where the optimiser has a temperature."""
        from workers import training

        if temperature := getattr(self.settings.optimizer, "langevin_temperature", 0.0):
            training.add_noise(self.optimizer, rate, temperature, role_seed(self.settings.seed, "noise", self.settings.seed_noise), step)

    def _freeze(self, step: int) -> None:
        """Before the update number `step`: the frozen network, where it is the first of it."""
        if step == self.frozen_from and self.module is self.base:
            from workers.frozen import freeze

            self.module = freeze(self.settings.frozen, self.base, self.settings.lazy_alpha)

    def order_of(self, epoch: int) -> "Tensor":
        """The order (N,) of the training samples in an epoch."""
        import torch

        return torch.from_numpy(permutation(len(self.train_targets), self.order_seed, epoch)).to(self.context.device)

    def look(self, step: int, losses: tuple[float, float, float] | None = None) -> Iterator[Row]:
        """The rows and the snapshot of a step where they are due; Diverged after the rows of a loss that is no number.

        `losses`: training loss, test loss and accuracy, where they are known.
        """
        if step in self.kept:
            self._keep(step)
        if step not in self.evaluated:
            return
        train_loss, test_loss, accuracy = losses or self._evaluate()
        yield Row(step=step, name="train_loss", value=train_loss)
        yield Row(step=step, name="test_loss", value=test_loss)
        if not self.test_targets.is_floating_point():
            yield Row(step=step, name="test_accuracy", value=accuracy)
        for name, count in self.samples.counted().items():
            yield Row(step=step, name=f"{name}_seen", value=step * self.batch_size * count)
        if not math.isfinite(train_loss) or not math.isfinite(test_loss):
            raise Diverged(f"train_loss is {train_loss}, test_loss {test_loss} at step {step}; try a smaller optimizer.learning_rate")

    def _evaluate(self) -> tuple[float, float, float]:
        """Training loss on as many images of the training set as are tested on, test loss and accuracy."""
        from workers import training

        num_test = len(self.test_targets)
        at_once = self.context.micro_batch(training.num_evaluated_at_once(self.samples.units_per_sample))
        train = (self.train_inputs[:num_test], self.train_targets[:num_test])
        test = (self.test_inputs, self.test_targets)
        evaluate = partial(training.evaluate, num_at_once=at_once, logit_temperature=self.settings.logit_temperature)
        train_loss, _ = evaluate(self.module, self.settings.loss, *train)
        test_loss, accuracy = evaluate(self.module, self.settings.loss, *test)
        return train_loss, test_loss, accuracy

    def _keep(self, step: int) -> None:
        from safetensors.torch import save_file

        with self.context.file(snapshot_name(step)) as path:
            save_file({name: value.detach().cpu().contiguous() for name, value in self.module.state_dict().items()}, path)
        if self.settings.keep_state and step:
            continuing.save_state(self.context, step, self.optimizer, self.module)

    def sizes(self) -> Iterator[Row]:
        """Rows of size and compute (D7): 6 N D with D all units, such as tokens, and the operations that were counted."""
        from workers import training
        from workers.layers import num_params

        step, seen = self.settings.num_steps, self.settings.num_steps * self.batch_size
        count, non_embedding = num_params(self.base)
        flops = training.count_flops(self.base, self.settings.loss, self.train_inputs[:1], self.train_targets[:1])
        unique = num_seen(len(self.train_targets), self.batch_size, step, self.order_seed)
        yield Row(step=step, name="num_params", value=count)
        yield Row(step=step, name="num_params_non_embedding", value=non_embedding)
        for name, each in self.samples.counted().items():
            yield Row(step=step, name=f"unique_{name}", value=unique * each)
        yield Row(step=step, name="flops_6nd", value=6 * count * seen * self.samples.units_per_sample)
        yield Row(step=step, name="flops_counted", value=flops * seen)

    def restore(self, at_most: int | None = None) -> int | None:
        """The step of the newest checkpoint (of a step up to `at_most`), whose state is put back; None: begin at the beginning."""
        from workers import training

        checkpoint = self.context.restore(at_most)
        if checkpoint is None:
            return None
        self.at(checkpoint.step)
        training.set_state(self.module, self.optimizer, checkpoint.tensors)
        if self.position is not None:
            self.position.resume(checkpoint.meta["window"])
        self.context.log(f"goes on from step {checkpoint.step} of {self.settings.num_steps}")
        return checkpoint.step

    def at(self, step: int) -> None:
        """Make the network the frozen one, if it is after `step` updates."""
        if step > self.frozen_from:
            self._freeze(self.frozen_from)

    def _meta(self) -> "dict[str, list[list[float]]]":
        return {} if self.position is None else {"window": self.position.window.state()}

    def checkpoint(self, step: int) -> None:
        """Publish the state after `step` updates."""
        from workers import training

        self.context.checkpoint(step, training.state(self.module, self.optimizer), **self._meta())
        self.checkpointed = time.monotonic()


def snapshot_name(step: int) -> str:
    """File of the weights after `step` updates."""
    return f"snapshot-{step}.safetensors"


def snapshot_step(path: Path) -> int:
    """The step of a file of weights."""
    return int(path.stem.rpartition("-")[2])
