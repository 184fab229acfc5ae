"""Lets a trained swarm act, at its own or another temperature, and says how well it did."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workers.errors import ConfigError
from workers.seeds import role_seed
from workers.swarm.scoring import TABLES, Deployment
from workers.swarm.world import World
from workers.workload import Resources, Row, Rows, Workload, setting
from workers.workloads.swarm_train import SwarmTrain, particle_seconds

if TYPE_CHECKING:
    from workers.context import Context


@dataclass(frozen=True, kw_only=True)
class SwarmDeploy(Workload):
    """The policy of a training acts without exploring or learning; `temperature_kelvin` differs in transfers.

    Tables: `swarm_deploy.frames`, `swarm_deploy.positions` (um, rad), and `swarm_deploy.policy`, the probability of each action against
    what is seen, where that is one number.
    """

    version: ClassVar[int] = 1
    ensemble_axes: ClassVar[frozenset[str]] = frozenset(("train", "temperature_kelvin", "seed"))
    ensemble_size: ClassVar[int] = 256
    tables: ClassVar[Mapping[str, Mapping[str, str]]] = {
        **TABLES,
        "policy": {"group": "int32", "observation": "float64", "action": "string", "probability": "float64"},
    }

    train: SwarmTrain = SwarmTrain()
    temperature_kelvin: float | None = setting(None, low=0.0, unit="K", help="null: as in the training")
    num_agents: int | None = setting(None, low=1, help="null: as in the training")
    deployment: Deployment = Deployment()
    seed: int = setting(0, low=0, help="of starts, noise and choices, with the training's seed")
    largest_observation: float = setting(1.7, above=0.0, help="the table policy is of observations up to this on both sides of 0")
    num_observations: int = setting(35, low=2)
    ensemble: bool = setting(True, identity=False, help="computed with others at once")
    checkpoint_every_seconds: float = setting(120.0, above=0, identity=False, unit="s")

    def check(self) -> None:
        """Groups of agents are equally large; substeps resolve what happens at this temperature."""
        if self.world().robots.num_agents % self.train.num_groups:
            raise ConfigError(f"num_agents must be a multiple of train.num_groups={self.train.num_groups}, got {self.num_agents}")
        self.world().check()

    @property
    def num_steps(self) -> int:
        """Slices."""
        return self.deployment.num_slices

    def world(self) -> World:
        """Of the training, at the temperature of the deployment, with noise of its own."""
        train, kelvin = self.train.world(), self.temperature_kelvin
        return dataclasses.replace(
            train,
            physics=train.physics if kelvin is None else dataclasses.replace(train.physics, temperature_kelvin=kelvin),
            robots=dataclasses.replace(train.robots, num_agents=self.num_agents or train.robots.num_agents),
            num_environments=self.deployment.num_environments,
            start_radius=self.deployment.start_radius,
            seed=role_seed(train.seed + self.seed, "order"),
        )

    def resources(self) -> Resources:
        """One core."""
        return self.adapted(Resources(memory_gib=2.0))

    def adapted(self, resources: Resources) -> Resources:
        """Time for a whole ensemble, up to 20, 40, 80 ... minutes."""
        minutes = self.seconds_on(resources) * (self.ensemble_size if self.ensemble else 1) / 60
        return dataclasses.replace(resources, walltime_minutes=20.0 * 2 ** max(0, math.ceil(math.log2(minutes / 4))))

    def estimated_seconds(self) -> float:
        """On a core of a CPU."""
        return self.seconds_on(Resources())

    def seconds_on(self, resources: Resources) -> float:
        """As of a training."""
        world = self.world()
        steps = world.num_environments * world.robots.num_agents * world.num_substeps()
        return particle_seconds(self.num_steps, steps, ensemble=self.ensemble, gpus=resources.gpus)

    def run(self, context: "Context") -> Iterator[Row | Rows]:
        """Rows `success`, `mean_distance` (um), `time_to_source` (s; NaN: never), `mean_reward` of a slice, `revolutions_per_hour`."""
        for _, found in self.run_many([(self, context)]):
            if found is not None:
                yield found

    @classmethod
    def run_many(cls, members: "Sequence[tuple[SwarmDeploy, Context]]") -> "Iterator[tuple[int, Row | Rows | None]]":
        """The rows of each member, by its number, and None at its end."""
        from workers.swarm.deploying import deploy_many

        return deploy_many(members)
