"""Trains the policy of a swarm of micro-robots by reinforcement learning."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workers.errors import ConfigError, Diverged
from workers.seeds import role_seed
from workers.swarm.actions.discrete import Discrete
from workers.swarm.batched import Batched
from workers.swarm.curiosity import Curiosity
from workers.swarm.curriculum import Curriculum
from workers.swarm.keeping import Keeping
from workers.swarm.learners.policy_gradient import PolicyGradient
from workers.swarm.networks import Architecture
from workers.swarm.observables.concentration_field import ConcentrationField
from workers.swarm.parts import Learner, SwarmAction, SwarmObservable, SwarmTask
from workers.swarm.physics import Physics, Robots, Timing
from workers.swarm.tasks.gradient_sensing import GradientSensing
from workers.swarm.world import AXES, World
from workers.workload import Row, Rows, setting

if TYPE_CHECKING:
    from workers.context import Context

POLICY = "policy.safetensors"


@dataclass(frozen=True, kw_only=True)
class SwarmTrain(Batched):
    """A policy of robots that see by `observable`, act by `action` and are rewarded by `task`, trained by `learner` in episodes.

    On one thread of a CPU a policy is bitwise the same whoever trains beside it. The robots are not put back between episodes unless
    `reset_every` says so. Files: `policy.safetensors`, weights by name, with the settings in its header; and
    `policy-<episode>.safetensors` where `keeping` says so.
    """

    version: ClassVar[int] = 1
    ensemble_axes: ClassVar[frozenset[str]] = AXES

    physics: Physics = Physics()
    robots: Robots = Robots()
    timing: Timing = Timing()
    task: SwarmTask = GradientSensing()
    lead_task: SwarmTask | None = setting(None, help="in place of task in all phases of the curriculum but the last; null: none")
    observable: SwarmObservable = ConcentrationField()
    action: SwarmAction = Discrete()
    learner: Learner = PolicyGradient()
    network: Architecture = Architecture()
    curiosity: Curiosity = Curiosity()
    curriculum: Curriculum = Curriculum(episodes=(20, 20))
    keeping: Keeping = Keeping()
    slices_per_episode: int = setting(20, low=1)
    num_environments: int = setting(1, low=1, help="of one policy, which learns of all of them at once")
    num_groups: int = setting(1, low=1, help="of agents, in the order of their numbers, each with networks of its own; 1: all share one")
    start_radius: float = setting(100.0, above=0.0, unit="um", help="of the disc (ball) about the origin in which robots begin")
    reset_every: int = setting(0, low=0, help="episodes after which robots begin anew; 0: never")
    late_rewards: bool = setting(False, help="a reward stands beside the action after the one that caused it, as in SwarmRL")
    dtype: str = setting("float32", choices=("float32", "float64"))
    seed: int = setting(0, low=0, help="of weights, starts, noise and choices")
    seed_init: int | None = setting(None, low=0, help="of the weights; null: from seed")
    seed_noise: int | None = setting(None, low=0, help="of starts, noise and choices; null: from seed")
    num_evaluations: int = setting(20, low=1, help="times, evenly spaced, with rows; the last episode always")

    def check(self) -> None:
        """Groups are equally large, an episode has samples enough, and substeps resolve what happens in them."""
        if self.robots.num_agents % self.num_groups:
            raise ConfigError(f"num_groups must divide robots.num_agents={self.robots.num_agents}, got {self.num_groups}")
        if self.lead_task is not None and self.curriculum.num_phases == 1:
            raise ConfigError("lead_task is for phases before the last, and the curriculum has one; leave it null, or give more phases")
        agents = self.robots.num_agents // self.num_groups
        self.learner.check_samples(self.slices_per_episode * self.num_environments * agents)
        self.world().check()

    @property
    def num_steps(self) -> int:
        """Episodes of all phases."""
        return self.curriculum.num_episodes

    def world(self) -> World:
        """Where it takes place, in the last phase."""
        return World(
            physics=self.physics,
            robots=self.robots,
            timing=self.timing,
            task=self.task,
            observable=self.observable,
            action=self.action,
            num_environments=self.num_environments,
            start_radius=self.start_radius,
            dtype=self.dtype,
            seed=role_seed(self.seed, "noise", self.seed_noise),
            late_rewards=self.late_rewards,
            others=() if self.lead_task is None else (("lead_task", self.lead_task),),
            temperatures=(*self.curriculum.temperatures, *self.curriculum.temperature_range),
            largest_share=self.action.largest_force,
        )

    def num_slices(self) -> int:
        """Of all episodes."""
        return self.num_steps * self.slices_per_episode

    def evaluated(self) -> frozenset[int]:
        """Episodes after which there are rows."""
        count = min(self.num_evaluations, self.num_steps)
        return frozenset(round(self.num_steps * (number + 1) / count) for number in range(count))

    def task_at(self, episode: int) -> SwarmTask:
        """What is rewarded in an episode, counted from 1."""
        is_last = self.curriculum.phase_of(episode - 1) == self.curriculum.num_phases - 1
        return self.task if is_last or self.lead_task is None else self.lead_task

    @classmethod
    def run_many(cls, members: "Sequence[tuple[SwarmTrain, Context]]") -> "Iterator[tuple[int, Row | Rows | Diverged | None]]":
        """Rows of each member, by its number, by episode, means since the row before over agents: `mean_return` of an episode,

        `mean_distance` (um) from the origin, and what the learner says, such as `entropy` of the actions. None at its end, or why it
        diverged.
        """
        from workers.swarm.training import train_many

        return train_many(members)
