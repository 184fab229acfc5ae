"""Tasks of swarms, many of which are computed as one batch: what they have in common."""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workers.errors import Diverged
from workers.swarm.world import World
from workers.workload import Resources, Row, Rows, Workload, setting

if TYPE_CHECKING:
    from workers.context import Context

# of one core: particle-steps a second in a large batch, and seconds of a slice whatever is in it
STEPS_PER_SECOND, SLICE_SECONDS = 3e6, 2e-3
# how many share the latter, as a first guess
USUAL_BATCH = 16
# of a GPU, of which nothing was measured
GPU_SPEED = 30


@dataclass(frozen=True, kw_only=True)
class Batched(Workload):
    """A task of a swarm in a `world`, computed slice by slice together with others that differ in `ensemble_axes`."""

    ensemble_size: ClassVar[int] = 256

    ensemble: bool = setting(True, identity=False, help="computed with others at once, which changes no bit on one thread of a CPU")
    checkpoint_every_seconds: float = setting(120.0, above=0, identity=False, unit="s")

    def world(self) -> World:
        """Where it takes place."""
        raise NotImplementedError

    def num_slices(self) -> int:
        """From beginning to end."""
        raise NotImplementedError

    def resources(self) -> Resources:
        """One core; the matrix of pairs of robots has the third power of their number."""
        return self.adapted(Resources(memory_gib=2.0 + round(4 * self.world().robots.num_agents ** 3 / 2**30, 1)))

    def adapted(self, resources: Resources) -> Resources:
        """Time for a whole batch, up to 20, 40, 80 ... minutes."""
        minutes = self.seconds_on(resources) * (self.ensemble_size if self.ensemble else 1) / 60
        return dataclasses.replace(resources, walltime_minutes=20.0 * 2 ** max(0, math.ceil(math.log2(minutes / 4))))

    def estimated_seconds(self) -> float:
        """On a core of a CPU."""
        return self.seconds_on(Resources())

    def seconds_on(self, resources: Resources) -> float:
        """Its share in a batch of 16, or alone."""
        world = self.world()
        steps = world.num_environments * world.robots.num_agents * world.num_substeps()
        rate = STEPS_PER_SECOND * (GPU_SPEED if resources.gpus else 1)
        return 0.3 + self.num_slices() * (steps / rate + SLICE_SECONDS / (USUAL_BATCH if self.ensemble else 1))

    def run(self, context: "Context") -> Iterator[Row | Rows]:
        """Those of `run_many`, of this one alone."""
        for _, found in self.run_many([(self, context)]):
            if isinstance(found, Diverged):
                raise found
            if found is not None:
                yield found
