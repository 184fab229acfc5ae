"""What a swarm lives in and how it is seen: the settings of one policy, and the arena of many."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workers.errors import ConfigError
from workers.swarm.concentration import Concentration
from workers.swarm.fields.none import Nothing
from workers.swarm.parts import SwarmAction, SwarmObservable, SwarmPart, SwarmTask
from workers.swarm.physics import Physics, Robots, Timing
from workers.swarm.resolution import Resolution
from workers.swarm.sums import dot

if TYPE_CHECKING:
    from torch import Tensor

    from workers.swarm.arena import Arena
    from workers.swarm.engine import Body, Engine, State
    from workers.swarm.runs import Run

# P policies; E environments; N agents

# settings in which the policies of one batch may differ
AXES = frozenset(
    "seed seed_init seed_noise physics.temperature_kelvin physics.viscosity physics.contact_kelvin robots.shape robots.aspect "
    "robots.mass robots.radius robots.speed robots.speed_body_lengths robots.turn_rate robots.force_viscosity "
    "curriculum.temperatures curriculum.temperature_range".split()
)
STATE, BEFORE, SEEN = "state.", "before.", "seen"


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Of one policy. `seed`: of starts, noise and choices."""

    physics: Physics
    robots: Robots
    timing: Timing
    task: SwarmTask
    observable: SwarmObservable
    action: SwarmAction
    num_environments: int
    start_radius: float
    dtype: str
    seed: int
    late_rewards: bool = False
    # further parts, by the names of their settings, and temperatures (K) that it comes to have
    others: tuple[tuple[str, SwarmPart], ...] = ()
    temperatures: tuple[float, ...] = ()
    # of the force of the swim speed, that robots may choose
    largest_share: float = 1.0

    def check(self) -> None:
        """ConfigError where parts do not fit the physics, robots overlap at the start, or substeps do not resolve what happens."""
        for name, part in (("task", self.task), ("observable", self.observable), *self.others):
            try:
                part.require(self.physics.num_dimensions, rod=self.physics.rod_length > 0.0)
            except ConfigError as error:
                raise ConfigError(f"{name}: {error} (physics.num_dimensions, physics.rod_length in um)") from None
            for places in map(len, _sources(part)):
                if places not in (0, self.physics.num_dimensions):
                    raise ConfigError(
                        f"{name}.field.source must have {self.physics.num_dimensions} coordinates, or none for the middle, got {places}"
                    )
        smelt, paid = _sources(self.observable), _sources(self.task)
        if paid and not set(smelt) <= set(paid):
            raise ConfigError(
                f"task.field.source and observable.field.source must be one, got {_places(paid)} and {_places(smelt)}: what robots smell "
                "is not what they are paid for"
            )
        if self.robots.mass is not None and self.physics.dynamics == "overdamped":
            raise ConfigError(f"robots.mass is for physics.dynamics=langevin, got {self.robots.mass} with overdamped; leave it null")
        self.robots.check_starts(self.physics.num_dimensions, self.physics.room(self.start_radius))
        self.timing.check_for(self.resolution())

    def resolution(self) -> Resolution:
        """What sets the substeps: the hottest that it becomes, and the fastest that robots swim."""
        physics, friction = self.physics, self.robots.friction(self.physics.eta())
        kelvin = max([physics.temperature_kelvin, *self.temperatures])
        return Resolution(
            friction=friction,
            temperature=kelvin,
            radius=self.robots.radius,
            speed=self.largest_share * self.robots.force(physics.eta()) / friction.along,
            contact_temperature=physics.contact_depth(),
            pace=physics.field.pace(1.0 / min(friction.along, friction.across)),
            walls=physics.has_walls or physics.rod_length > 0.0,
            aspect=self.robots.axis_ratio,
            gay_berne=physics.contact == "gay_berne",
        )

    def kind(self) -> tuple[int, bool, float]:
        """What the policies of one batch share besides the settings that they have in common."""
        return self.num_substeps(), self.body().is_round, self.robots.axis_ratio if self.physics.contact == "gay_berne" else 0.0

    def num_substeps(self) -> int:
        """Of a slice, as given, or as many as are needed."""
        return self.timing.substeps(self.resolution())

    def is_coarse(self) -> bool:
        """Whether substeps are longer than what happens in them allows."""
        return self.timing.is_coarse(self.resolution())

    @property
    def source(self) -> tuple[float, ...]:
        """From where distances count: the task's source, if it has one, or the middle (empty)."""
        return next(iter(_sources(self.task)), ())

    @property
    def has_source(self) -> bool:
        """Whether the task has one."""
        return bool(_sources(self.task))

    def begin(self, engine: "Engine") -> "State":
        """Where robots stand at first: at the places given, or anywhere; their directors are drawn."""
        if not self.robots.start_positions:
            return engine.start(self.start_radius)
        import torch

        from workers.swarm.starts import directors

        places = torch.tensor(self.robots.start_positions, dtype=engine.dtype).view(-1, self.physics.num_dimensions).T.to(engine.device)
        return engine.start_at(places[:, None, None].expand(-1, *engine.shape), directors(engine))

    def recorded(self, slices_per_frame: int) -> dict[str, Any]:
        """What the file of a trajectory says of it: arguments of a TrajectoryWriter."""
        physics, robots = self.physics, self.robots
        return dict(
            num_agents=robots.num_agents,
            num_dimensions=physics.num_dimensions,
            radius=robots.radius,
            frame_seconds=slices_per_frame * self.timing.slice_seconds,
            box=physics.images(),
            rod=physics.rod(),
            action_names=self.action.names,
            settings={"physics": physics.to_plain(), "robots": robots.to_plain(), "timing": self.timing.to_plain()},
        )

    def body(self) -> "Body":
        """Of its robots."""
        from workers.swarm.engine import Body

        return Body(
            radius=self.robots.radius,
            friction=self.robots.friction(self.physics.eta()),
            temperature=self.physics.temperature_kelvin,
            contact_temperature=self.physics.contact_depth(),
            aspect=self.robots.axis_ratio,
            mass=self.robots.mass,
        )


def arena_of(worlds: Sequence[World], device: str, runs: "Sequence[Run]" = ()) -> "Arena":
    """Of worlds that differ in `AXES` alone; `runs`: whose checkpoints it goes on from, none where it begins."""
    from workers.swarm.runs import joined

    engine, first = _engine(worlds, device), worlds[0]
    if runs and runs[0].kept is not None:
        engine.slices = runs[0].kept.meta["slices"]
        state, last = joined_state(runs, STATE, device), (joined_state(runs, BEFORE, device), joined(runs, SEEN))
    else:
        state, last = first.begin(engine), None
    return arena_on(engine, state, worlds, last)


def arena_on(engine: "Engine", state: "State", worlds: Sequence[World], last: "tuple[State, Tensor] | None" = None) -> "Arena":
    """With an engine that is there; `last` as of an Arena."""
    from workers.swarm.arena import Arena

    first, etas = worlds[0], [world.physics.eta() for world in worlds]
    return Arena(
        engine,
        state,
        observable=first.observable,
        task=first.task,
        action=first.action,
        forces_P=[world.robots.force(eta) for world, eta in zip(worlds, etas, strict=True)],
        torques_P=[world.robots.torque(eta) for world, eta in zip(worlds, etas, strict=True)],
        late_rewards=first.late_rewards,
        last=last,
    )


def _engine(worlds: Sequence[World], device: str) -> "Engine":
    import torch

    from workers.swarm.engine import Engine

    first = worlds[0]
    return Engine(
        [world.body() for world in worlds],
        [world.seed for world in worlds],
        num_environments=first.num_environments,
        num_agents=first.robots.num_agents,
        slice_seconds=first.timing.slice_seconds,
        num_substeps=first.num_substeps(),
        num_dimensions=first.physics.num_dimensions,
        box=first.physics.images(),
        rod=first.physics.rod(),
        fields=() if isinstance(first.physics.field, Nothing) else (first.physics.field,),
        walls=first.physics.all_walls(),
        contact=first.physics.contact,
        dynamics=first.physics.dynamics,
        device=device,
        dtype=getattr(torch, first.dtype),
    )


# -- what checkpoints keep -------------------------------------------------------------------------------------------------------

# of a state: the axis of policies
_AXIS = {"rods": 0}
_MEMORY = "memory."


def kept(arena: "Arena", policy: int) -> "dict[str, Tensor]":
    """Of one policy: its state, that of a slice before, and what its agents see."""
    return {**_tensors(arena.state, STATE, policy), **_tensors(arena.before, BEFORE, policy), SEEN: arena.seen[policy]}


def _tensors(state: "State", prefix: str, policy: int) -> "dict[str, Tensor]":
    from dataclasses import fields

    found = {f"{prefix}{_MEMORY}{name}": values[policy] for name, values in state.memory.items()}
    for field in fields(state):
        values: Any = getattr(state, field.name)
        if field.name != "memory" and values is not None:
            found[f"{prefix}{field.name}"] = values.select(_AXIS.get(field.name, 1), policy)
    return found


def joined_state(runs: "Sequence[Run]", prefix: str, device: str) -> "State":
    """The state of all, of what `kept` gave of each."""
    import torch

    from workers.swarm.engine import State

    own = [run.tensors(prefix) for run in runs]
    whole: dict[str, Any] = {"memory": {}}
    for name in own[0]:
        plain = name.removeprefix(_MEMORY)
        values = torch.stack([one[name] for one in own], 0 if name != plain else _AXIS.get(name, 1)).to(device)
        (whole["memory"] if name != plain else whole)[plain] = values
    return State(**whole)


def distances(state: "State", source: tuple[float, ...] = ()) -> "Tensor":
    """From a source, or the middle (P, E, N), in double precision."""
    centre = source or (0.0,) * len(state.positions)
    apart = [values.double() - own for values, own in zip(state.positions, centre, strict=True)]
    return dot(apart, apart).sqrt()


def _sources(part: SwarmPart) -> list[tuple[float, ...]]:
    """Of the fields of a source that a part has, and those that it is made of; an empty one is in the middle."""
    field = getattr(part, "field", None)
    own = [field.source] if isinstance(field, Concentration) else []
    return own + [source for one in part.parts() for source in _sources(one)]


def _places(sources: list[tuple[float, ...]]) -> str:
    return " and ".join(str(list(one)) for one in sources)
