"""Lets a trained swarm act, at its own or another temperature, and says how well it did."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workers.errors import ConfigError, Diverged
from workers.seeds import role_seed
from workers.swarm.batched import Batched
from workers.swarm.scoring import TABLES, Deployment
from workers.swarm.world import World
from workers.workload import Row, Rows, setting
from workers.workloads.swarm_train import SwarmTrain

if TYPE_CHECKING:
    from workers.context import Context


@dataclass(frozen=True, kw_only=True)
class SwarmDeploy(Batched):
    """The policy of a training acts without exploring or learning; `temperature_kelvin` differs in transfers.

    Tables: `swarm_deploy.frames`, `swarm_deploy.positions` (um, rad), and `swarm_deploy.policy`, the probability of each action against
    what is seen, where that is one number.
    """

    version: ClassVar[int] = 1
    ensemble_axes: ClassVar[frozenset[str]] = frozenset(("train", "temperature_kelvin", "seed"))
    tables: ClassVar[Mapping[str, Mapping[str, str]]] = {
        **TABLES,
        "policy": {"group": "int32", "observation": "float64", "action": "string", "probability": "float64"},
    }

    train: SwarmTrain = SwarmTrain()
    temperature_kelvin: float | None = setting(None, low=0.0, unit="K", help="null: physics.temperature_kelvin of the training")
    num_agents: int | None = setting(None, low=1, help="null: as in the training, which begin where its start_positions say")
    deployment: Deployment = Deployment(num_slices=200, slices_per_frame=2, scored_from_frame=50)
    seed: int = setting(0, low=0, help="of starts, noise and choices, with the training's seed")
    largest_observation: float = setting(1.7, above=0.0, help="the table policy is of observations up to this on both sides of 0")
    num_observations: int = setting(35, low=2)

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
        robots = train.robots
        if self.num_agents is not None:
            robots = dataclasses.replace(robots, num_agents=self.num_agents, start_positions=())
        return dataclasses.replace(
            train,
            physics=train.physics if kelvin is None else dataclasses.replace(train.physics, temperature_kelvin=kelvin),
            robots=robots,
            temperatures=(),
            others=(),
            late_rewards=False,
            num_environments=self.deployment.num_environments,
            start_radius=self.deployment.start_radius,
            seed=role_seed(train.seed + self.seed, "order"),
        )

    def num_slices(self) -> int:
        """As the deployment says."""
        return self.num_steps

    @classmethod
    def run_many(cls, members: "Sequence[tuple[SwarmDeploy, Context]]") -> "Iterator[tuple[int, Row | Rows | Diverged | None]]":
        """Rows of each member, by its number, and None at its end, or why it diverged.

        `success`, `mean_distance` (um), `time_to_source` (s; NaN: never), `mean_reward` of a slice, `revolutions_per_hour` of a rod.
        """
        from workers.swarm.deploying import deploy_many

        return deploy_many(members)
