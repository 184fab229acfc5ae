"""What a workload declares: its settings, inputs, resources and the rows it yields. Imports nothing heavy."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from workers.settings import Plugin, Settings, _fields, setting

if TYPE_CHECKING:
    from workers.context import Context
    from workers.errors import Diverged

__all__ = ["CostEstimate", "Data", "Layer", "Model", "Optimizer", "Resources", "Row", "Rows", "Workload", "setting"]

# the input by which a task finds the commit of `Workload.earlier`
EARLIER = "earlier"


@dataclass(frozen=True, kw_only=True)
class Resources(Settings):
    """What one task needs while it runs; equal resources share a bucket."""

    nodes: int = setting(1, low=1)
    cpus: int = setting(1, low=1, help="cores, also the number of threads")
    gpus: int = setting(0, low=0)
    memory_gib: float = setting(1.0, above=0, unit="GiB")
    walltime_minutes: float = setting(60.0, above=0, unit="min", help="limit for one attempt")


@dataclass(frozen=True, slots=True, kw_only=True)
class CostEstimate:
    """What a large task takes on the resources it is given, as well as can be told before it runs; `what` it computes, in a few words.

    `memory_gib`: of the node that needs most. `disk_bytes`: of the files it leaves. `flops`, `seconds`: None where nobody knows; seconds
    are rough. `obstacle`: why it cannot run on these resources, and what would do; "": it can.
    """

    what: str
    memory_gib: float
    disk_bytes: int = 0
    flops: float | None = None
    seconds: float | None = None
    obstacle: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One number of the `scalars` table; a NaN stays a NaN."""

    name: str
    value: float
    step: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Many rows of one table at once: equally long columns (lists or 1-D arrays), named as in the table's schema."""

    table: str
    columns: Mapping[str, Sequence[Any]]


@dataclass(frozen=True, kw_only=True)
class Workload(Plugin):
    """A kind of task: its fields are its settings; a field whose type is another workload is an input.

    `version` rises when the numbers change. `deterministic`: two executions give bitwise equal rows, else rows may differ by the
    relative `tolerance`. `halves_batches`: its micro-batch may be halved with the same result (see `Context.micro_batch`).
    `quantities`: what it counts of itself for derived settings, with the settings that each follows from.
    `ensemble_axes`: dotted paths of settings; tasks that are equal in all others and have `ensemble=true`, a setting of the workload,
    are run by `run_many` where they wait in one job, `ensemble_size` of them at most. `tables`: further tables, name -> {column: Arrow
    type}. `accepts_diverged`: runs although an input diverged.
    """

    group: ClassVar[str] = "workloads"
    deterministic: ClassVar[bool] = True
    tolerance: ClassVar[float] = 0.0
    accepts_diverged: ClassVar[bool] = False
    halves_batches: ClassVar[bool] = False
    ensemble_axes: ClassVar[frozenset[str]] = frozenset()
    ensemble_size: ClassVar[int] = 16
    tables: ClassVar[Mapping[str, Mapping[str, str]]] = {}
    quantities: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    @classmethod
    def quantity(cls, name: str, **settings: Any) -> float:
        """One of `quantities`, from those settings alone, worked out on the login node before there is a task."""
        raise NotImplementedError

    def resources(self) -> Resources:
        """What this task needs, which may depend on its settings."""
        return Resources()

    def adapted(self, resources: Resources) -> Resources:
        """`resources` with what follows from the nodes, CPUs and GPUs that the user has asked for; what he gave himself stays."""
        return resources

    def estimated_seconds(self) -> float | None:
        """A first guess of the run time, for the cost shown by `plan`; None: unknown."""
        return None

    def seconds_on(self, resources: Resources) -> float | None:
        """The same where it depends on the CPUs and GPUs that it is given."""
        return self.estimated_seconds()

    def estimate(self, resources: Resources) -> CostEstimate | None:
        """What a large task takes on these resources, shown and checked by `plan` and `submit`; None: nothing that needs to be shown.

        Its seconds count instead of `seconds_on`.
        """
        return None

    def inputs(self) -> dict[str, "Workload"]:
        """The tasks whose commits this one reads, by field name."""
        return {field.name: value for field, _, _ in _fields(type(self)) if isinstance(value := getattr(self, field.name), Workload)}

    def earlier(self) -> "Workload | None":
        """A task that this one goes on from as from a checkpoint, and reads as the input `earlier`; it is no setting. None: it begins anew.

        For workloads without other inputs. Whether it is read or not, the rows are the same: where that task diverged, this one runs,
        and is to diverge as it would from the beginning.
        """
        return None

    def run(self, context: "Context") -> Iterator[Row | Rows]:
        """Compute and yield the rows; the commit holds them."""
        raise NotImplementedError

    @classmethod
    def run_many(cls, members: "Sequence[tuple[Any, Context]]") -> "Iterator[tuple[int, Row | Rows | Diverged | None]]":
        """Compute tasks that differ in `ensemble_axes` alone, given as (workload, its context), at once.

        Yields (number of a member, a row of it), and (number, None) when that member is done, or (number, why it diverged): it is
        committed then, while the others go on. An exception ends all that are not done.
        """
        raise NotImplementedError

    def permitted_difference(self) -> float:
        """By how much, relatively, the numbers of two executions may differ."""
        return 0.0 if self.deterministic else self.tolerance


@dataclass(frozen=True, slots=True)
class Layer:
    """A product with weights (num_outputs, fan_in) at `positions` places of a sample, for estimates of cost.

    `role`: "readout", the last layer; "separable", where activations and means over positions alone lie between it and that; "".
    """

    positions: int
    fan_in: int
    num_outputs: int
    role: str = ""
    bias: bool = True


@dataclass(frozen=True, kw_only=True)
class Model(Plugin):
    """A network: `build(input_shape, num_outputs, seed)` gives a torch module (see `workers/models/mlp.py`).

    `reads_tokens`: its inputs are sequences of tokens (N, T), and it has outputs for each of them.
    """

    group: ClassVar[str] = "models"
    reads_tokens: ClassVar[bool] = False

    @property
    def mixes_samples(self) -> bool:
        """Whether the output for a sample depends on others of its batch while it is trained."""
        return False

    def build(self, input_shape: tuple[int, ...], num_outputs: int, seed: int) -> Any:
        """A torch module on the CPU in float32, initialised from `seed` alone."""
        raise NotImplementedError

    def layers(self, input_shape: tuple[int, ...], num_outputs: int) -> tuple[Layer, ...] | None:
        """The products with weights of a network that `build` would give, first to last, without building it; None: not known."""
        return None


@dataclass(frozen=True, kw_only=True)
class Data(Plugin):
    """A data set; its key holds name, version and the SHA-256 of its files, never their path."""

    group: ClassVar[str] = "data"

    def check(self) -> None:
        """A relative `path` (or `..._path`) is one of the folder where the sweep is submitted, also for the jobs that run elsewhere."""
        for field, _, _ in _fields(type(self)):
            given = getattr(self, field.name)
            if given is not None and (field.name == "path" or field.name.endswith("_path")):
                object.__setattr__(self, field.name, os.path.abspath(os.path.expanduser(given)))

    def key_version(self) -> int:
        """The version that enters a task's key; where numbers change for some settings alone, it rises for these alone."""
        return self.version

    def files(self) -> list[Any]:
        """The files (pathlib.Path) whose content is the data set; raises ConfigError where they are absent."""
        raise NotImplementedError

    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """Shapes (N, ...) of the inputs of the training and the test split, where they are known without reading them."""
        return None

    def held_bytes(self) -> int:
        """Bytes of the inputs that `load` keeps in memory, where `shapes` are known; none where they are read when they are taken."""
        return sum(4 * math.prod(shape) for shape in self.shapes() or ())

    def load(self) -> Any:
        """Arrays of the training and the test split (see `workers/data/fashion_mnist.py`).

        Files are opened through `workers.staging.local`, which knows of a copy on the node's own disk where a job has made one.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Optimizer(Plugin):
    """An optimiser with its schedule: `build(parameter_groups, num_steps)` gives a torch optimiser."""

    group: ClassVar[str] = "optimizers"

    def build(self, parameters: Any) -> Any:
        """A torch optimiser over parameter groups."""
        raise NotImplementedError
