"""Chooses a training set from a pool, and looks at the kernel of the chosen points before anything is trained."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from workers.data.digits import Digits
from workers.errors import ConfigError
from workers.models.mlp import Mlp
from workers.samples import num_taken
from workers.schedule import log_spaced_steps
from workers.seeds import role_seed
from workers.selection import Method, Pool, Selection
from workers.selections.rnd import Rnd
from workers.subsets import subset
from workers.workload import Data, Model, Resources, Row, Rows, Workload, setting
from workers.workloads.train import Train

if TYPE_CHECKING:
    from torch import Tensor, nn

    from workers.context import Context
    from workers.samples import Samples
    from workers.selection import Array

# a kernel of one sample has no entropy
FEWEST = 2


@dataclass(frozen=True, kw_only=True)
class Select(Workload):
    """Sets of 1 to `max_size` training samples from a pool, by `method`, for the production network `model` at its initialisation (D13).

    Every size is there at once: the set of n samples is the same for every `max_size` of at least n, so that trainings at many sizes read
    one selection. Methods that share `seed` share the pool and the production network. Table `select.points`, a row a sample of an order:
    `index` in the training set, `score`, and `is_set`, whether the set of rank + 1 samples is the beginning of that order.
    """

    version: ClassVar[int] = 1
    tables: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "points": {"order": "int32", "rank": "int32", "index": "int64", "label": "int64", "score": "float64", "is_set": "bool"}
    }

    data: Data = Digits()
    model: Model = Mlp()
    method: Method = Rnd()
    pool_size: int | None = setting(256, low=2, help="samples of the training set that may be chosen; null: all")
    max_size: int = setting(20, low=2, help="samples of the largest set")
    seed: int = setting(0, low=0, help="of the production network, the pool and the method")
    seed_init: int | None = setting(None, low=0, help="of the production network; null: from seed")
    seed_subset: int | None = setting(None, low=0, help="of the pool; null: from seed")
    seed_noise: int | None = setting(None, low=0, help="of the method; null: from seed")
    dtype: str = setting("float32", choices=("float32", "float64"), help="of the networks that a method trains; kernels are in float64")
    num_evaluations: int = setting(8, low=2, help="log-spaced sizes with rows of the kernel; the last always")

    def check(self) -> None:
        """A pool holds at least the largest set; samples have one kernel row each."""
        if self.pool_size is not None and self.max_size > self.pool_size:
            raise ConfigError(f"max_size must be at most pool_size={self.pool_size}, the samples to choose from, got {self.max_size}")
        if self.model.reads_tokens:
            raise ConfigError(
                f"select chooses samples of one unit each, and model={self.model.plugin_name()} reads sequences of tokens; "
                "take images or vectors"
            )

    def resources(self) -> Resources:
        """One core; the data set, the pool and a column of the kernel for each chosen sample."""
        return Resources(memory_gib=3.0 + (self.max_size + 100) * (self.pool_size or 60_000) * 8 / 2**30, walltime_minutes=60.0)

    def estimated_seconds(self) -> float:
        """From one Xeon core, an MLP of width 128 and a pool of 4,000: 0.06 s a sample."""
        width = getattr(self.model, "width", 32)
        return 1.0 + 0.06 * self.max_size * width / 128 * max(1.0, (self.pool_size or 60_000) / 4000)

    def network(self, samples: "Samples") -> "nn.Module":
        """The production network at initialisation, on the CPU in float64 and in evaluation mode."""
        loss = "mse" if samples.train_targets.dtype.kind == "f" else "cross_entropy"
        train = Train(data=self.data, model=self.model, seed=self.seed, seed_init=self.seed_init, loss=loss, dtype="float64")
        return train.build(samples).eval()

    def run(self, context: "Context") -> Iterator[Row | Rows]:
        """At step n, of the traced kernel of the set of n samples: `entropy_traced`, `trace_traced` and so on, and `label_entropy`.

        At the last, `max_size`, also what the method has to say, and `num_selected`: fewer than `max_size` where it stopped.
        """
        samples = self.data.load()
        num_train, network = len(samples.train_targets), self.network(samples).to(context.device)
        index_N = subset(num_train, num_taken("pool_size", self.pool_size, num_train), role_seed(self.seed, "subset", self.seed_subset))
        if self.max_size > len(index_N):
            raise ConfigError(f"max_size must be at most {len(index_N)}, the training samples of this data set, got {self.max_size}")
        pool = self._pool(samples, index_N, network, context)
        found = self.method.select(pool, self.max_size)
        yield _points(found, index_N, pool.labels_N)
        for size in [step for step in log_spaced_steps(found.size, self.num_evaluations) if step >= FEWEST]:
            chosen = index_N[found.of_size(size)]
            for name, value in observed_set(network, samples, chosen, context.device).items():
                yield Row(step=size, name=name, value=value)
        for name, value in {**found.facts, "num_selected": found.size}.items():
            yield Row(step=self.max_size, name=name, value=value)

    def _pool(self, samples: "Samples", index_N: "Array", network: "nn.Module", context: "Context") -> Pool:
        import torch

        inputs_N, targets_N = samples.train(index_N, context.device, getattr(torch, self.dtype))
        are_labels = targets_N.dim() == 1 and not targets_N.is_floating_point()
        return Pool(
            inputs_N=inputs_N,
            labels_N=targets_N.cpu().numpy() if are_labels else None,
            network=network,
            model=self.model,
            seed=role_seed(self.seed, "noise", self.seed_noise),
            progress=context.progress,
        )


def observed_set(network: "nn.Module", samples: "Samples", chosen_S: "Array", device: str) -> dict[str, float]:
    """What is observed of the traced kernel of a network in float64 on a set of training samples (see `workers.selection_kernel`)."""
    import torch

    from workers import entk
    from workers.selection_kernel import observed

    inputs_S, targets_S = samples.train(chosen_S, device, torch.float64)
    kernel_SS: Tensor = entk.gram(network, inputs_S, outputs="traced")
    are_labels = targets_S.dim() == 1 and not targets_S.is_floating_point()
    return observed(kernel_SS.cpu().numpy(), targets_S.cpu().numpy() if are_labels else None)


def chosen_set(columns: Mapping[str, Any], size: int) -> "Array":
    """Indices (size,) of the training set, of the set of that size, from the table `points`; ConfigError where it is not there."""
    import numpy as np

    order, rank, index, is_set = (np.asarray(columns[name]) for name in ("order", "rank", "index", "is_set"))
    best = order[is_set & (rank == size - 1)]
    if len(best) != 1:
        raise ConfigError(
            f"the selection has sets of up to {int(rank.max()) + 1} samples, got set_size={size}; raise select.max_size, "
            "or lower select.method.stop_below where its method stopped before"
        )
    own = (order == best[0]) & (rank < size)
    found: Array = index[own][np.argsort(rank[own], kind="stable")]
    return found


def _points(found: Selection, index_N: "Array", labels_N: "Array | None") -> Rows:
    import numpy as np

    num_orders, size = found.orders_KS.shape
    positions = found.orders_KS.ravel()
    columns = {
        "order": np.repeat(np.arange(num_orders), size),
        "rank": np.tile(np.arange(size), num_orders),
        "index": index_N[positions],
        "label": np.full(len(positions), -1) if labels_N is None else labels_N[positions],
        "score": found.scores_KS.ravel(),
        "is_set": (np.arange(num_orders)[:, None] == found.best_S).ravel(),
    }
    return Rows(table="select.points", columns=columns)
