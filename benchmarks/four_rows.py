"""A workload of one's own, `workload=benchmarks.four_rows`: the rows that a small training leaves, with digits that do not compress."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workers.workload import Row, Workload, setting

if TYPE_CHECKING:
    from workers.context import Context


@dataclass(frozen=True, kw_only=True)
class FourRows(Workload):
    """Four rows: a loss at two steps, a test loss and an accuracy, every bit of which depends on the settings."""

    version: ClassVar[int] = 1

    width: int = setting(32, low=1)
    num_samples: int = setting(256, low=1)
    seed: int = setting(0, low=0)

    def run(self, context: "Context") -> Iterator[Row]:
        """A power law with noise."""
        noise = math.sin(1e3 * self.width + 1e2 * self.num_samples + self.seed)
        loss = 0.1 + self.width**-0.5 + self.num_samples**-0.35
        yield Row(name="loss", value=2.3 + 0.01 * noise)
        yield Row(name="loss", value=loss * (1 + 0.05 * noise), step=1000)
        yield Row(name="test_loss", value=loss * (1.1 + 0.05 * noise), step=1000)
        yield Row(name="test_accuracy", value=math.exp(-loss * (1 + 0.02 * noise)), step=1000)
