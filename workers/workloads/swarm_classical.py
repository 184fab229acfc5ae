"""Lets a swarm act by a rule: the baseline of what is learned."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workers.errors import Diverged
from workers.seeds import role_seed
from workers.swarm.actions.discrete import Discrete
from workers.swarm.agents.run_and_tumble import RunAndTumble
from workers.swarm.batched import Batched
from workers.swarm.observables.concentration_field import ConcentrationField
from workers.swarm.parts import ClassicalAgent, SwarmTask
from workers.swarm.physics import Physics, Robots, Timing
from workers.swarm.scoring import TABLES, Deployment
from workers.swarm.tasks.gradient_sensing import GradientSensing
from workers.swarm.world import AXES, World
from workers.workload import Row, Rows, setting

if TYPE_CHECKING:
    from workers.context import Context


@dataclass(frozen=True, kw_only=True)
class SwarmClassical(Batched):
    """Robots that follow the rule of `agent`, scored as those of `swarm_deploy`; tables `swarm_classical.frames` and `.positions`."""

    version: ClassVar[int] = 1
    ensemble_axes: ClassVar[frozenset[str]] = AXES
    tables: ClassVar[Mapping[str, Mapping[str, str]]] = TABLES

    physics: Physics = Physics()
    robots: Robots = Robots()
    timing: Timing = Timing()
    agent: ClassicalAgent = RunAndTumble()
    task: SwarmTask = GradientSensing()
    deployment: Deployment = Deployment(num_slices=200, slices_per_frame=2, scored_from_frame=50)
    dtype: str = setting("float32", choices=("float32", "float64"))
    seed: int = setting(0, low=0, help="of starts, noise and choices")

    def check(self) -> None:
        """Substeps resolve what happens in them."""
        self.world().check()

    @property
    def num_steps(self) -> int:
        """Slices."""
        return self.deployment.num_slices

    def num_slices(self) -> int:
        """As the deployment says."""
        return self.num_steps

    def world(self) -> World:
        """Where it takes place; what is observed and done there is the rule's own."""
        return World(
            physics=self.physics,
            robots=self.robots,
            timing=self.timing,
            task=self.task,
            observable=ConcentrationField(),
            action=Discrete(),
            num_environments=self.deployment.num_environments,
            start_radius=self.deployment.start_radius,
            dtype=self.dtype,
            # that of a deployment, of the training of this seed
            seed=role_seed(role_seed(self.seed, "noise"), "order"),
            others=(("agent", self.agent),),
            largest_share=self.agent.largest_force,
        )

    @classmethod
    def run_many(cls, members: "Sequence[tuple[SwarmClassical, Context]]") -> "Iterator[tuple[int, Row | Rows | Diverged | None]]":
        """Rows of each member as those of `swarm_deploy`, by its number, and None at its end, or why it diverged."""
        from workers.swarm.deploying import follow_many

        return follow_many(members)
