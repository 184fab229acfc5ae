"""What the parts of a swarm declare: what agents see, are rewarded for, may do and how they learn; each is a file of its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workers.errors import ConfigError
from workers.settings import Plugin

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from workers.swarm.engine import Engine, State
    from workers.swarm.learning import Episode
    from workers.swarm.networks import Networks
    from workers.swarm.policies import Policies

# P policies; E environments; N agents; I observed numbers; A outputs of an actor; K agents that share a network, of all environments


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """For one slice, each (P, E, N): shares of the force of the swim speed along the director, and of the torque of the turn rate about +z.

    `directors` (D, P, E, N): where agents are turned to at once, before the slice; None: they stay as they are.
    """

    force: "Tensor"
    torque: "Tensor"
    directors: "Tensor | None" = None


@dataclass(frozen=True, kw_only=True)
class SwarmPart(Plugin):
    """What depends on where agents are, and so on the world that they live in."""

    def parts(self) -> "tuple[SwarmPart, ...]":
        """Those that it is made of."""
        return ()

    @property
    def needs_rod(self) -> bool:
        """Whether it works only where there is a rod."""
        return any(part.needs_rod for part in self.parts())

    @property
    def dimensions(self) -> tuple[int, ...]:
        """In how many it works; rods lie in a plane."""
        own = (2,) if self.needs_rod else (2, 3)
        return tuple(number for number in own if all(number in part.dimensions for part in self.parts()))

    def require(self, num_dimensions: int, *, rod: bool) -> None:
        """Raise ConfigError unless it works in so many dimensions, with or without a `rod`; what it is made of says so by its own name."""
        for part in self.parts():
            part.require(num_dimensions, rod=rod)
        if num_dimensions not in self.dimensions:
            allowed = " or ".join(map(str, self.dimensions))
            raise ConfigError(f"{self.plugin_name()} works in {allowed} dimensions, got {num_dimensions}; choose another, or a plane")
        if self.needs_rod and not rod:
            raise ConfigError(f"{self.plugin_name()} needs a rod, and this swarm has none; give it one, or choose what does without")


@dataclass(frozen=True, kw_only=True)
class SwarmObservable(SwarmPart):
    """What an agent sees. A policy's agents see alike whoever else is in the batch: nothing is taken over the axis P."""

    group: ClassVar[str] = "swarm.observables"

    def observe(self, engine: "Engine", before: "State", after: "State") -> "Tensor":
        """Numbers (P, E, N, I) of the state `after` a slice, and of that before it; both are one at the very beginning.

        What it has to remember for longer stands in `after.memory` by a name of its own, as tensors (P, ...); checkpoints keep it. It is
        made from `before.memory`, so that two parts of one kind, with one name, do not remember a slice twice.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class SwarmTask(SwarmPart):
    """What an agent is rewarded for."""

    group: ClassVar[str] = "swarm.tasks"

    def reward(self, engine: "Engine", before: "State", after: "State") -> "Tensor":
        """Of each agent (P, E, N), for what came of a slice; memory as in `SwarmObservable.observe`."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class SwarmAction(Plugin):
    """What an agent may do, and how one action is drawn from the outputs of its actor; shapes (...) are any, A is the last axis."""

    group: ClassVar[str] = "swarm.actions"

    @property
    def num_outputs(self) -> int:
        """A."""
        raise NotImplementedError

    @property
    def largest_force(self) -> float:
        """The largest share of the force of the swim speed, either way."""
        return 1.0

    @property
    def names(self) -> tuple[str, ...]:
        """Of the actions, where they are few; else empty."""
        return ()

    def sample(self, outputs: "Tensor", keys: "Tensor", step: int) -> "Tensor":
        """Actions drawn by each agent's own key (...) and the slice's number."""
        raise NotImplementedError

    def explore(self, actions: "Tensor", keys: "Tensor", step: int, probability: float) -> "Tensor":
        """With a probability any action in place of the own one, each agent for itself."""
        raise NotImplementedError

    def log_probability(self, outputs: "Tensor", actions: "Tensor") -> "tuple[Tensor, Tensor]":
        """Of these actions (...), and the entropy of what might have been drawn (...); both differentiable."""
        raise NotImplementedError

    def controls(self, actions: "Tensor") -> Controls:
        """Of actions (P, E, N)."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class ClassicalAgent(SwarmPart):
    """An agent that follows a rule and learns nothing."""

    group: ClassVar[str] = "swarm.agents"

    @property
    def largest_force(self) -> float:
        """The largest share of the force of the swim speed, either way: of its settings `force`, `alone` and `fastest`, or 1."""
        found = [abs(getattr(self, name)) for name in ("force", "alone", "fastest") if hasattr(self, name)]
        return max(found, default=1.0)

    def controls(self, engine: "Engine", before: "State", after: "State") -> Controls:
        """What each agent does in the next slice; memory as in `SwarmObservable.observe`."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Learner(Plugin):
    """A rule by which networks change after an episode."""

    group: ClassVar[str] = "swarm.learners"

    def extra(self, seeds_P: "Tensor", num_inputs: int, dtype: "torch.dtype") -> "dict[str, Networks]":
        """Further networks, of each network's own seed, which are kept with its weights."""
        return {}

    def check_samples(self, num_samples: int) -> None:
        """Raise ConfigError where so many samples of an episode are too few."""

    def learn(self, policies: "Policies", action: SwarmAction, episode: "Episode") -> "Mapping[str, Tensor]":
        """Update `policies` by an episode; what it has to say, numbers (networks,) by name."""
        raise NotImplementedError
