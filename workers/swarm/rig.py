"""An experiment, or whatever else moves agents, as an engine: policies act on it over a socket (docs/rig.md)."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from workers.errors import ConfigError, RigLost
from workers.swarm import noise
from workers.swarm.engine import State
from workers.swarm.rig_link import PROTOCOL, connect
from workers.swarm.rig_messages import NAMES, check_directors, checked_hello, ids_of, number, number_of, vectors
from workers.swarm.trajectory import NO_ACTION, TrajectoryWriter

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# one policy and one environment; N agents; D dimensions; n of the agents


class RigEngine:
    """Agents that a rig at `address` moves and sees; what an Arena asks of an Engine, for one policy and one environment.

    `address`: host:port or the path of a Unix socket; after `listen:` one at which the rig connects to us. Each slice it is told forces
    (pN), torques (pN um) and the names of these actions, and asked for what it sees after `slice_seconds`. An agent that it does not see
    keeps its last position and director, is False in `tracked` (N,), and is told nothing until it is seen again. Choices of actions are
    those of an Engine with the seed `seed`. The rig has `timeout_seconds` for an answer, and the slice. After RigLost the state is that
    before, and what was recorded is in its file.
    """

    def __init__(
        self, address: str, *, slice_seconds: float, seed: int = 0, dtype: "torch.dtype | None" = None, timeout_seconds: float = 10.0
    ) -> None:
        import torch

        if not (0.0 < slice_seconds < math.inf and 0.0 < timeout_seconds < math.inf):
            raise ConfigError(f"slice_seconds and timeout_seconds must be above 0, got {slice_seconds} and {timeout_seconds}")
        self.address, self.slice_seconds, self.timeout_seconds = address, slice_seconds, timeout_seconds
        self.dtype = dtype or torch.float32
        self.link = connect(address, timeout_seconds)
        try:
            hello = self.link.ask({"type": "hello", "protocol": PROTOCOL}, "hello", timeout_seconds)
            num_agents, self.num_dimensions, radius, self.rod = checked_hello(hello, address)
        except ConfigError:
            self.link.end(f"the rig at {address} cannot be used")
            raise
        self.shape = (1, 1, num_agents)
        self.radius = torch.full((1, 1, 1), radius, dtype=torch.float64)
        seeds = torch.tensor([seed], dtype=torch.int64)
        self.keys = {stream: noise.particle_keys(seeds, 1, num_agents, stream) for stream in noise.STREAMS}
        self.box, self.slices = None, 0
        self.levers = None if self.rod is None else torch.tensor(self.rod.levers(), dtype=self.dtype)
        self.seconds = -math.inf
        self.ids: list[int] = []
        self.tracked = torch.zeros(num_agents, dtype=torch.bool)
        self.recorder: TrajectoryWriter | None = None
        self._recorded = -1
        self._kept: tuple[Tensor, Tensor] | None = None

    def start(self, radius: float = 0.0) -> State:
        """What the rig sees; all agents must be seen once. They stand where they stand: the radius is for engines that place them."""
        import torch

        shape = (self.num_dimensions, *self.shape)
        state = State(torch.zeros(shape, dtype=self.dtype), torch.zeros(shape, dtype=self.dtype))
        if self._kept is not None:
            state.positions, state.directors = self._kept
        self._take(state, self.link.ask({"type": "state"}, "state", self.timeout_seconds), since=self.seconds)
        self._record(state, None)
        return state

    def advance(self, state: State, forces: "Tensor", torques: "Tensor") -> None:
        """One slice, in place, with forces and torques (1, 1, N)."""
        if not self.ids:
            raise ConfigError("the state is not one of this rig: take it from start()")
        pushes, turns = (values.detach().expand(self.shape).flatten().cpu() for values in (forces, torques))
        kinds = [number_of(force, torque) for force, torque in zip(pushes.tolist(), turns.tolist())]
        seen = [agent for agent, here in enumerate(self.tracked.tolist()) if here]
        act = {
            "type": "act",
            "ids": [self.ids[agent] for agent in seen],
            "forces_pn": pushes[seen].tolist(),
            "torques_pn_um": turns[seen].tolist(),
            "actions": [NAMES[kinds[agent]] for agent in seen],
            "seconds": self.slice_seconds,
        }
        self.link.ask(act, "done", self.timeout_seconds)
        later = {"type": "integrate", "seconds": self.slice_seconds}
        answer = self.link.ask(later, "state", self.slice_seconds + self.timeout_seconds)
        told = [kind if here else NO_ACTION for kind, here in zip(kinds, self.tracked.tolist())]
        self._take(state, answer, since=math.nextafter(self.seconds, math.inf))
        self.slices += 1
        self._record(state, told)

    def record(self, path: str | os.PathLike[str], settings: Mapping[str, Any] | None = None, *, flush_frames: int = 1) -> TrajectoryWriter:
        """A file to which each state goes from now on, on the rig's clock; it is the caller's to close, and whole after each flush."""
        self.recorder = TrajectoryWriter(
            path,
            num_agents=self.shape[2],
            num_dimensions=self.num_dimensions,
            radius=float(self.radius),
            frame_seconds=self.slice_seconds,
            rod=self.rod,
            action_names=NAMES,
            settings=settings,
            flush_frames=flush_frames,
        )
        self._recorded = -1
        return self.recorder

    def close(self) -> None:
        """Tell the rig that this is the end, if it still listens."""
        try:
            self.link.ask({"type": "end"}, "done", self.timeout_seconds)
        except RigLost:
            return
        self.link.end("this RigEngine was closed; make a new one")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # -- what the rig says ------------------------------------------------------------------------------------------------------

    def _take(self, state: State, answer: Mapping[str, Any], *, since: float) -> None:
        """Put what the rig sees into the state; RigLost, and nothing has changed, where that cannot be."""
        import torch

        try:
            seconds = number(answer, "seconds")
            if seconds < since:
                raise ValueError(f"seconds must go on from {self.seconds}, got {seconds}")
            ids = ids_of(answer)
            places = self._places(ids)
            found = [vectors(answer, name, len(ids), self.num_dimensions, self.dtype) for name in ("positions", "directors")]
            check_directors(found[1])
            rods = None if self.rod is None else torch.full((1, 1), number(answer, "rod_angle"), dtype=torch.float64)
        except ValueError as error:
            raise self.link.ended(
                f"the rig at {self.address} sent a state that cannot be: {error}; docs/rig.md says what one is"
            ) from error
        self.ids = self.ids or ids
        before = state.positions, state.directors
        state.positions, state.directors = (_placed(old, new, places) for old, new in zip(before, found))
        state.rods, self.seconds = rods, seconds
        self._kept = state.positions, state.directors
        self.tracked = torch.zeros_like(self.tracked).index_fill_(0, torch.tensor(places, dtype=torch.int64), True)

    def _places(self, ids: list[int]) -> list[int]:
        """Of the agents seen; the first time all must be."""
        if not self.ids and len(ids) != self.shape[2]:
            raise ValueError(
                f"at the start all of its {self.shape[2]} agents must be seen, and it sees {len(ids)}, with ids {ids}; "
                "start when it sees them all, or have its hello say how many there are"
            )
        known = {one: place for place, one in enumerate(self.ids or ids)}
        unknown = [one for one in ids if one not in known]
        if unknown:
            raise ValueError(f"ids {unknown} are new, there were {list(known)}; an agent that is seen again must have its id of before")
        return [known[one] for one in ids]

    def _record(self, state: State, kinds: "Sequence[int] | None") -> None:
        if self.recorder is None or self._recorded >= self.slices:
            return
        angle = None if state.rods is None else float(state.rods)
        at = (slice(None), 0, 0)
        told: dict[str, Any] = {"actions": kinds, "tracked": self.tracked}
        self.recorder.append(self.slices, self.seconds, state.positions[at].T, state.directors[at].T, angle, **told)
        self._recorded = self.slices


def _placed(old: "Tensor", new: "Tensor", places: list[int]) -> "Tensor":
    """(D, 1, 1, N) with the columns of `places` from (n, D)."""
    found = old.clone()
    found[:, 0, 0, places] = new.T.to(old.dtype)
    return found
