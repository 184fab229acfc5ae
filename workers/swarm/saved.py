"""A trained policy by itself: from its file, to robots that act by it in simulation or in an experiment."""

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from workers.errors import ConfigError, Garbled, RigLost
from workers.workloads.swarm_deploy import SwarmDeploy
from workers.workloads.swarm_train import SwarmTrain

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from workers.swarm.arena import Arena
    from workers.swarm.engine import Engine
    from workers.swarm.rig import RigEngine
    from workers.swarm.world import World

    Array = np.ndarray[Any, Any]

# F frames; N agents; D dimensions

HEADER = "swarm_train"
# radii of a rig's robots and of a policy's may differ by such a share
ALIKE = 0.1


@dataclass(frozen=True, slots=True, eq=False, kw_only=True, repr=False)
class Rollout:
    """What robots did in a `world`: seconds (F,), positions (F, N, D) in um and directors, angles of the rod (F,), rewards (F, N).

    Rewards are those since the frame before; the first frame is that before anything happens. Of an experiment, seconds are on its own
    clock, and `tracked` (F, N) says which robots it saw.
    """

    world: "World"
    slices_per_frame: int
    seconds: "Array"
    positions: "Array"
    directors: "Array"
    rewards: "Array"
    rod_angles: "Array | None" = None
    tracked: "Array | None" = None

    @property
    def distances(self) -> "Array":
        """From the task's source, or the origin where it has none (F, N), in um."""
        import numpy as np

        return cast("Array", np.linalg.norm(self.positions - np.asarray(self.world.source or (0.0,)), axis=-1))

    def save(self, path: str | os.PathLike[str]) -> None:
        """As H5MD (`.h5md`, `.h5`) or as a table (`.parquet`), with units; ConfigError for other names."""
        from workers.swarm import trajectory

        target = Path(path)
        if target.suffix in (".h5md", ".h5"):
            self._write(target)
        elif target.suffix == ".parquet":
            whole = target.with_suffix(".parquet.h5md")
            try:
                self._write(whole)
                trajectory.read(whole).to_parquet(target)
            finally:
                whole.unlink(missing_ok=True)
        else:
            raise ConfigError(f"a trajectory is saved as .h5md, .h5 or .parquet, got {target.name!r}")

    def _write(self, path: Path) -> None:
        from workers.swarm.trajectory import TrajectoryWriter

        world = dataclasses.replace(self.world, robots=dataclasses.replace(self.world.robots, num_agents=self.positions.shape[1]))
        with TrajectoryWriter(path, **world.recorded(self.slices_per_frame)) as writer:
            for frame, seconds in enumerate(self.seconds.tolist()):
                angle = None if self.rod_angles is None else float(self.rod_angles[frame])
                step = frame * self.slices_per_frame
                told = {"rewards": self.rewards[frame], "tracked": None if self.tracked is None else self.tracked[frame]}
                writer.append(step, seconds, self.positions[frame], self.directors[frame], angle, **told)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True, repr=False)
class Policy:
    """Weights by name, as they were after an `episode` of the training `train`."""

    train: SwarmTrain
    weights: "Mapping[str, Tensor]"
    episode: int

    def deploy(
        self,
        *,
        num_slices: int = 1000,
        slices_per_frame: int = 1,
        temperature_kelvin: float | None = None,
        num_agents: int | None = None,
        start_radius: float = 100.0,
        seed: int = 0,
        rig: str = "",
        timeout_seconds: float = 10.0,
        device: str = "cpu",
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Rollout:
        """Robots that act by it, without exploring or learning; temperature and number as in the training where they are not given.

        `rig`: the address of an experiment (docs/rig.md), whose robots stand where they stand, and which has `timeout_seconds` for an
        answer; a RigLost, or an interrupt, carries as `rollout` what was seen until then. ConfigError for settings that do not fit.
        """
        import torch

        from workers.swarm.deploying import actors_of
        from workers.swarm.policies import Acting

        _check(num_slices, slices_per_frame, device)
        if rig and (temperature_kelvin is not None or num_agents is not None):
            raise ConfigError("temperature_kelvin and num_agents are the rig's own where there is one; leave them out")
        deploy = SwarmDeploy(train=self.train, temperature_kelvin=temperature_kelvin, num_agents=num_agents, seed=seed)
        world = dataclasses.replace(deploy.world(), start_radius=start_radius)
        if not rig:
            world.check()
        acting = Acting(actors_of([dict(self.weights)], self.train.network.activation, device), self.train.num_groups)
        noted: dict[str, list[Tensor]] = {}
        with torch.no_grad(), _arena(world, rig, device, self.train.num_groups, timeout_seconds) as arena:
            reward = torch.zeros_like(arena.state.positions[0, 0, 0])
            _note(noted, arena, reward)
            try:
                for number in range(1, num_slices + 1):
                    reward = reward + arena.step(arena.action.controls(arena.act(acting)))[0, 0]
                    if number % slices_per_frame == 0:
                        _note(noted, arena, reward)
                        reward = torch.zeros_like(reward)
                    progress(number, num_slices)
            except (RigLost, KeyboardInterrupt) as error:
                # of an experiment nothing that was seen may be lost
                error.rollout = _rollout(world, slices_per_frame, noted)  # type: ignore[union-attr]
                raise
        return _rollout(world, slices_per_frame, noted)


def _check(num_slices: int, slices_per_frame: int, device: str) -> None:
    import torch

    for name, value in (("num_slices", num_slices), ("slices_per_frame", slices_per_frame)):
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f"{name} must be a whole number of at least 1, got {value}")
    if slices_per_frame > num_slices:
        raise ConfigError(f"slices_per_frame must be at most num_slices={num_slices}, got {slices_per_frame}")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device must be one of this machine, got {device!r} and there is no GPU that torch can use; take device=cpu")


def _rollout(world: "World", slices_per_frame: int, noted: "Mapping[str, list[Tensor]]") -> Rollout:
    import torch

    return Rollout(world=world, slices_per_frame=slices_per_frame, **{name: torch.stack(values).numpy() for name, values in noted.items()})


def load_policy(path: str | os.PathLike[str]) -> Policy:
    """The policy of a file that `swarm_train` saved; ConfigError where there is none, Garbled where it is another's."""
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise ConfigError(f"no file {path}; give the path of a policy.safetensors that a task of swarm_train saved")
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {})[HEADER])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    except (SafetensorError, KeyError, ValueError) as error:
        raise Garbled(f"{path} is no policy of swarm_train: {error}") from None
    if header["version"] != SwarmTrain.version:
        raise ConfigError(
            f"{path} is of version {header['version']} of swarm_train, and this code is of {SwarmTrain.version}; train it again"
        )
    return Policy(train=SwarmTrain.from_plain(header["settings"]), weights=weights, episode=header["episode"])


@contextmanager
def _arena(world: "World", rig: str, device: str, num_groups: int, timeout_seconds: float) -> "Iterator[Arena]":
    """Of one policy, in simulation or on a rig."""
    from workers.swarm.world import arena_of, arena_on

    if not rig:
        yield arena_of([world], device)
        return
    import torch

    from workers.swarm.rig import RigEngine

    dtype = getattr(torch, world.dtype)
    seconds = world.timing.slice_seconds
    with RigEngine(rig, slice_seconds=seconds, seed=world.seed, dtype=dtype, timeout_seconds=timeout_seconds) as engine:
        _check_rig(engine, world, num_groups)
        # it has all that an arena asks of an engine
        yield arena_on(cast("Engine", engine), engine.start(), [world])


def _check_rig(engine: "RigEngine", world: "World", num_groups: int) -> None:
    """ConfigError for a rig that is unlike what the policy was trained with."""
    radius, own = float(engine.radius), world.robots.radius
    where = f"the rig at {engine.address}"
    if engine.shape[2] % num_groups:
        raise ConfigError(f"{where} has {engine.shape[2]} robots, and the policy is of {num_groups} equal groups")
    if engine.num_dimensions != world.physics.num_dimensions or (engine.rod is None) != (world.physics.rod() is None):
        raise ConfigError(
            f"{where} has {engine.num_dimensions} dimensions and {'a' if engine.rod else 'no'} rod, and the policy was trained in "
            f"{world.physics.num_dimensions} with {'one' if world.physics.rod_length else 'none'}; take a policy of such a world"
        )
    if abs(radius - own) > ALIKE * own:
        raise ConfigError(
            f"{where} has robots of radius {radius:g} um, and the policy was trained with {own:g} um, whose forces would drive them at "
            "other speeds; take a policy of their size"
        )


def _note(noted: "dict[str, list[Tensor]]", arena: "Arena", reward: "Tensor") -> None:
    import torch

    state, engine = arena.state, arena.engine
    found = {"seconds": torch.tensor(engine.seconds, dtype=torch.float64), "rewards": reward}
    found |= {"positions": state.positions[:, 0, 0].T, "directors": state.directors[:, 0, 0].T}
    if state.rods is not None:
        found["rod_angles"] = state.rods[0, 0]
    if (tracked := getattr(engine, "tracked", None)) is not None:
        found["tracked"] = tracked
    for name, values in found.items():
        noted.setdefault(name, []).append(values.cpu().clone())
