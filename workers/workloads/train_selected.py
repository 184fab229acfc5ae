"""Trains the production network on a training set that was chosen."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workers.errors import ConfigError
from workers.losses import NAMES as LOSSES
from workers.optimizers.adam import Adam
from workers.schedule import ScheduledOptimizer
from workers.workload import Resources, Row, Workload, setting
from workers.workloads.select import FEWEST, Select, chosen_set, observed_set
from workers.workloads.train import Train

if TYPE_CHECKING:
    from workers.context import Context


@dataclass(frozen=True, kw_only=True)
class TrainSelected(Workload):
    """The network of `select` trained on the first `set_size` samples that it chose (arXiv 2305.00995), from the same initialisation.

    Data, model and seed are those of `select`: with one seed, every method has the same pool, initialisation and test set, so that two
    methods are compared in pairs. Bitwise equal as `train`, which does the training.
    """

    version: ClassVar[int] = 1
    halves_batches: ClassVar[bool] = True

    select: Select = Select()
    optimizer: ScheduledOptimizer = Adam()
    set_size: int = setting(10, low=FEWEST, help="samples of the training set, at most select.max_size")
    test_size: int | None = setting(None, low=1, help="samples of the test set that are evaluated; null: all")
    num_steps: int = setting(100, low=1)
    batch_size: int = setting(10, low=1)
    loss: str = setting("cross_entropy", choices=LOSSES)
    seed_order: int | None = setting(None, low=0, help="null: from select.seed")
    dtype: str = setting("float32", choices=("float32", "float64"))
    num_evaluations: int = setting(12, low=2, help="log-spaced steps with rows; the first and the last always")
    num_snapshots: int = setting(2, low=2, identity=False, help="log-spaced steps with a file; the first and the last always")

    def check(self) -> None:
        """No more samples than were chosen."""
        if self.set_size > self.select.max_size:
            raise ConfigError(
                f"set_size must be at most select.max_size={self.select.max_size}, the samples that are chosen, got {self.set_size}"
            )

    def training(self) -> Train:
        """The settings of the training proper."""
        own = ("optimizer", "test_size", "num_steps", "batch_size", "loss", "seed_order", "dtype", "num_evaluations", "num_snapshots")
        of_select = ("data", "model", "seed", "seed_init")
        return Train(
            train_size=self.set_size,
            **{name: getattr(self, name) for name in own},
            **{name: getattr(self.select, name) for name in of_select},
        )

    def resources(self) -> Resources:
        """Those of the training."""
        return self.training().resources()

    def adapted(self, resources: Resources) -> Resources:
        """Those of the training."""
        return self.training().adapted(resources)

    def estimated_seconds(self) -> float:
        """Those of the training."""
        return self.training().estimated_seconds()

    def seconds_on(self, resources: Resources) -> float:
        """Those of the training."""
        return self.training().seconds_on(resources)

    def run(self, context: "Context") -> Iterator[Row]:
        """Rows of `train`, and at step 0 those of the kernel of the set (see `select`), before anything is trained."""
        samples = self.select.data.load()
        chosen_S = chosen_set(context.input("select").rows("select.points"), self.set_size)
        network = self.select.network(samples).to(context.device)
        for name, value in observed_set(network, samples, chosen_S, context.device).items():
            yield Row(step=0, name=name, value=value)
        yield from self.training().run(context, chosen_S)
