"""Swarms that act and learn no more: what is noted of them frame by frame, and how well they did."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from workers.errors import Diverged
from workers.pauses import pause
from workers.swarm.runs import Run, joined
from workers.swarm.world import World, distances, kept
from workers.workload import Row, Rows

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from workers.swarm.arena import Arena
    from workers.swarm.parts import Controls
    from workers.swarm.scoring import Deployment

    Array = np.ndarray[Any, Any]
    More = Callable[[int], Sequence[Row | Rows]]

# P policies; E environments; N agents; F frames; D dimensions

Event = tuple[int, "Row | Rows | Diverged | None"]
NOTED, REWARD = "noted.", "reward"
TRAJECTORY = "trajectory.h5md"


class Deployed:
    """Runs that act as one batch in an arena, by `act`. `noted`: arrays (F, P, E, ...) by name. `more`: further rows of a run."""

    def __init__(self, runs: Sequence[Run], arena: "Arena", act: "Callable[[Arena], Controls]", more: "More" = lambda place: ()) -> None:
        import torch

        self.runs, self.arena, self.act, self.more = list(runs), arena, act, more
        self.settings, self.context = runs[0].settings, runs[0].context
        self.plan: Deployment = self.settings.deployment
        self.worlds = [run.settings.world() for run in runs]
        self.slice = max(0, runs[0].started_at)
        self.with_positions = frozenset(self.plan.with_positions())
        self.noted: dict[str, list[Tensor]] = {}
        self.reward = torch.zeros_like(arena.state.positions[0], dtype=torch.float64)
        if self.slice:
            self.reward = joined(runs, REWARD)
            for name in runs[0].tensors(NOTED):
                self.noted[name] = list(joined(runs, NOTED, name).cpu().transpose(0, 1))
        self.checkpointed = self.reported = time.monotonic()

    def run(self) -> Iterator[Event]:
        """To the last slice; then the rows of each, and its end."""
        import numpy as np
        import torch

        with torch.no_grad():
            if self.slice == 0:
                self._note(0)
            for number in range(self.slice + 1, self.plan.num_slices + 1):
                self.reward += self.arena.step(self.act(self.arena))
                if number % self.plan.slices_per_frame == 0:
                    self._note(number // self.plan.slices_per_frame)
                if number < self.plan.num_slices:
                    pause(self, number, [run.context for run in self.runs])
        noted = {name: torch.stack(values).numpy() for name, values in self.noted.items()}
        for place, run in enumerate(self.runs):
            own = {name: values[:, place] for name, values in noted.items()}
            if self.plan.trajectory:
                self._save(run, self.worlds[place], own)
            yield from ((run.number, row) for row in (*self._rows(self.worlds[place], own), *self.more(place)))
            is_good = bool(np.isfinite(own["mean_distance"]).all())
            yield run.number, None if is_good else Diverged("a robot is nowhere: its position is no number; take shorter substeps")

    # -- frames -----------------------------------------------------------------------------------------------------------------

    def _note(self, frame: int) -> None:
        """What is seen in a frame, on the CPU."""
        state, spf = self.arena.state, self.plan.slices_per_frame
        distance = distances(state, self.worlds[0].source)
        found = {"mean_distance": distance.mean(-1), "max_distance": distance.amax(-1)}
        found["mean_reward"] = self.reward.mean(-1) / (spf if frame else 1)
        self.reward.zero_()
        if state.rods is not None:
            found["rod_angle"] = state.rods.double()
        if frame in self.with_positions:
            found["positions"] = state.positions.permute(1, 2, 3, 0)
            found["directors"] = state.directors.permute(1, 2, 3, 0)
        for name, values in found.items():
            # a copy: a view would keep the whole slice
            self.noted.setdefault(name, []).append(values.cpu().clone())

    def checkpoint(self, step: int) -> None:
        """Of each run, as it would write it alone."""
        import torch

        noted = {name: torch.stack(values, 1) for name, values in self.noted.items()}
        for place, run in enumerate(self.runs):
            tensors = {
                **kept(self.arena, place),
                **{f"{NOTED}{name}": values[place] for name, values in noted.items()},
                REWARD: self.reward[place],
            }
            run.context.checkpoint(step, tensors, slices=self.arena.engine.slices)
        self.checkpointed = time.monotonic()

    # -- rows -------------------------------------------------------------------------------------------------------------------

    def _rows(self, world: World, noted: "Mapping[str, Array]") -> "Iterator[Row | Rows]":
        from workers.swarm.scoring import scores

        seconds = self.arena.engine.slice_seconds * self.plan.slices_per_frame
        for name, value in scores(self.plan, noted, seconds).items():
            yield Row(step=self.plan.num_slices, name=name, value=value)
        yield Row(step=self.plan.num_slices, name="coarse_dt", value=float(world.is_coarse()))
        yield Rows(table="frames", columns=_frames(noted, seconds))
        if self.with_positions:
            yield Rows(table="positions", columns=_positions(noted, sorted(self.with_positions)))

    def _save(self, run: Run, world: World, noted: "Mapping[str, Array]") -> None:
        """The trajectory of the first environment."""
        from workers.swarm.trajectory import TrajectoryWriter

        with (
            run.context.file(TRAJECTORY) as path,
            TrajectoryWriter(path, **world.recorded(self.plan.slices_per_frame)) as writer,
        ):
            for place, frame in enumerate(sorted(self.with_positions)):
                step = frame * self.plan.slices_per_frame
                angle = float(noted["rod_angle"][frame, 0]) if "rod_angle" in noted else None
                seconds = step * self.arena.engine.slice_seconds
                writer.append(step, seconds, noted["positions"][place, 0], noted["directors"][place, 0], angle)


def _frames(noted: "Mapping[str, Array]", seconds: float) -> dict[str, Any]:
    """Columns of the table `frames`, a row an environment and frame."""
    import numpy as np

    num_frames, num_environments = noted["mean_distance"].shape
    frame = np.repeat(np.arange(num_frames), num_environments)
    rod = noted.get("rod_angle", np.full((num_frames, num_environments), math.nan))
    return {
        "environment": np.tile(np.arange(num_environments), num_frames),
        "frame": frame,
        "seconds": frame * seconds,
        "mean_distance": noted["mean_distance"].ravel(),
        "max_distance": noted["max_distance"].ravel(),
        "rod_angle": rod.ravel(),
        "mean_reward": noted["mean_reward"].ravel(),
    }


def _positions(noted: "Mapping[str, Array]", frames: Sequence[int]) -> dict[str, Any]:
    """Columns of the table `positions`, a row an environment, frame and agent; of directors in space, the angle about z."""
    import numpy as np

    positions, directors = noted["positions"], noted["directors"]
    num_frames, num_environments, num_agents, num_dimensions = positions.shape
    frame, environment, agent = np.meshgrid(frames, np.arange(num_environments), np.arange(num_agents), indexing="ij")
    height = positions[..., 2] if num_dimensions == 3 else np.zeros(positions.shape[:-1])
    return {
        "environment": environment.ravel(),
        "frame": frame.ravel(),
        "agent": agent.ravel(),
        "x": positions[..., 0].ravel().astype(float),
        "y": positions[..., 1].ravel().astype(float),
        "z": height.ravel().astype(float),
        "angle": np.arctan2(directors[..., 1], directors[..., 0]).ravel().astype(float),
    }
