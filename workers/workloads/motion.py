"""How far a kernel has moved from a reference: between two snapshots of one training, or between two trainings."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workers.errors import ConfigError
from workers.snapshots import num_units
from workers.workload import Resources, Row, Workload, setting
from workers.workloads.gram import FULL, TRACED, Gram
from workers.workloads.train import Train

if TYPE_CHECKING:
    from workers.context import Context


@dataclass(frozen=True, kw_only=True)
class Motion(Workload):
    """Distance, alignment and overlap of two kernels on one probe set, in float64: every observable of two kernels.

    An axis of the training is zipped over both: `gram.train.seed` with `reference.train.seed`.
    """

    version: ClassVar[int] = 1

    gram: Gram = Gram()
    reference: Gram = Gram(snapshot="init")
    kernel: str = setting("full", choices=("full", "traced"))

    def check(self) -> None:
        """Both kernels must be of the same images, and stored, and not one and the same."""
        if self.gram == self.reference:
            raise ConfigError("gram and reference are one kernel, which is at no distance from itself; take reference.snapshot=init")
        for name, own, other in (
            ("probe_size", self.gram.probe_size, self.reference.probe_size),
            ("train.data", self.gram.train.data, self.reference.train.data),
        ):
            if own != other:
                raise ConfigError(
                    f"gram.{name} and reference.{name} must be equal, for a kernel moves on one probe set; got {own} and {other}"
                )
        if self.kernel == "full" and not (self.gram.full and self.reference.full):
            raise ConfigError("kernel=full needs gram.full=true and reference.full=true; or take kernel=traced")

    def resources(self) -> Resources:
        """Two kernels with eigenvectors, and their products."""
        return Resources(memory_gib=1.0 + 10 * (10 * num_units(self.gram.train, self.gram.probe_size)) ** 2 * 8 / 2**30)

    def estimated_seconds(self) -> float:
        """From one Xeon core, with the third power of the rows."""
        return 0.02 + 10.0 * (num_units(self.gram.train, self.gram.probe_size) * (10 if self.kernel == "full" else 1) / 2000) ** 3

    def run(self, context: "Context") -> Iterator[Row]:
        """A row an observable of two kernels, at the step of `gram`; `kernel_velocity` only within one training."""
        import numpy as np

        from workers.kernel_data import observe_pair

        reference_RR, kernel_RR = (
            np.load(context.input(name).file(FULL if self.kernel == "full" else TRACED)) for name in ("reference", "gram")
        )
        num_steps = abs(self.gram.step() - self.reference.step())
        timed = {"num_steps": num_steps} if num_steps and _is_one_training(self.gram.train, self.reference.train) else {}
        suffix = "_traced" if self.kernel == "traced" else ""
        for name, value in observe_pair(reference_RR, kernel_RR, **timed).items():
            yield Row(step=self.gram.step(), name=f"{name}{suffix}", value=value)
        yield Row(step=self.gram.step(), name="num_rows", value=len(kernel_RR))


def _is_one_training(train: Train, other: Train) -> bool:
    """Whether two trainings are one, whatever of them is kept."""
    names = [field.name for field in dataclasses.fields(train) if field.metadata.get("identity", True)]
    return all(getattr(train, name) == getattr(other, name) for name in names)
