"""Lets robots act by a saved policy in this process, and writes what they did as trajectories and animations."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.overrides import parse
from workers import taskdir
from workers.errors import ConfigError, EigensweepError, RigLost, UnknownName, nearest
from workers.settings import _coerce

if TYPE_CHECKING:
    from orchestrator.task_result import TaskResult
    from workers.swarm.saved import Rollout

FILE = "policy.safetensors"
TRAJECTORIES, ANIMATIONS = (".h5md", ".h5", ".parquet"), (".html", ".gif")
_TYPES = dict(num_slices=int, slices_per_frame=int, temperature_kelvin=float, num_agents=int, start_radius=float)
_TYPES |= dict(seed=int, device=str, timeout_seconds=float)


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """How the robots did, and files of it.

    Seconds; distances at the end (um) from the source, or the origin where there is none; reward of an agent in a slice; turns of a rod.
    """

    policy: str
    num_agents: int
    temperature_kelvin: float
    seconds: float
    mean_distance: float
    largest_distance: float
    mean_reward: float
    revolutions: float | None = None
    files: list[str] = field(default_factory=list)


def names() -> list[str]:
    """Settings of a deployment."""
    return list(_TYPES)


def deploy(
    words: Sequence[str],
    settings: Sequence[str] = (),
    *,
    root: Path | None = None,
    save: Sequence[str] = (),
    rig: str = "",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Deployed:
    """`words`: a policy's file, a whole key, or a sweep and a key's first letters. ConfigError for files of other names."""
    from workers.swarm.saved import load_policy

    targets = [Path(one) for one in save]
    for target in targets:
        if target.suffix not in (*TRAJECTORIES, *ANIMATIONS):
            raise ConfigError(f"--save takes {', '.join((*TRAJECTORIES, *ANIMATIONS))} files, got {target.name!r}")
        target.parent.mkdir(parents=True, exist_ok=True)
    path = policy_file(words, root)
    policy = load_policy(path)
    try:
        rollout = policy.deploy(rig=rig, progress=progress, **_options(settings))
    except (RigLost, KeyboardInterrupt) as error:
        for target in targets if getattr(error, "rollout", None) is not None else ():
            _save(error.rollout, target)  # type: ignore[union-attr]
        raise
    for target in targets:
        _save(rollout, target)
    return _summary(str(path), rollout, targets)


def policy_file(words: Sequence[str], root: Path | None) -> Path:
    """Of a file's name, or of a task, by its key or a sweep and the key's first letters: its own, or its training's."""
    task = _found(words[0], root) if len(words) == 1 else _of_sweep(words[0], words[1], root)
    if task is None:
        return Path(words[0])
    return (task if FILE in task.file_names or "train" not in task.commit.inputs else task.input("train")).file(FILE)


def _of_sweep(name: str, key: str, root: Path | None) -> "TaskResult":
    from orchestrator.results import load

    return load(name, root, mixed_code=True).task(key=key)


def _found(word: str, root: Path | None) -> "TaskResult | None":
    """The task of a whole key, as `run` tells it; None where the word is a file, or nothing here; ConfigError for a sweep's name."""
    from orchestrator import ledger
    from orchestrator.store import Store
    from orchestrator.task_result import TaskResult

    if Path(word).exists():
        return None
    try:
        store = Store.open(root)
    except EigensweepError:
        return None
    if word in store.sweep_names():
        raise ConfigError(f"{word} is a sweep: give the first letters of a task's key, too; `eigensweep status {word} --keys` lists them")
    name = ledger.read(store.root).name_of(word) if word.isalnum() else ""
    return TaskResult(store.root, taskdir.read_commit(store.root, name)) if name and taskdir.is_committed(store.root, name) else None


def _options(settings: Sequence[str]) -> dict[str, Any]:
    """In their types; UnknownName, and ConfigError for values that are none."""
    found: dict[str, Any] = {}
    for word in parse(settings):
        if word.key not in _TYPES:
            raise UnknownName(f"no setting {word.key!r} of deploy{nearest(word.key, _TYPES)} There are {', '.join(_TYPES)}")
        if len(word.values or ()) > 1:
            raise ConfigError(f"{word.key} must be one value for deploy, got {word.line}; a sweep takes several: eigensweep submit ...")
        found[word.key] = _coerce(word.value, _TYPES[word.key], word.key == "temperature_kelvin", word.key)
    return found


def _save(rollout: "Rollout", target: Path) -> None:
    if target.suffix in TRAJECTORIES:
        rollout.save(target)
        return
    from orchestrator.swarm import animation

    physics, robots = rollout.world.physics, rollout.world.robots
    options: Mapping[str, Any] = dict(
        radius=robots.radius,
        aspect=robots.axis_ratio,
        rod_length=physics.rod_length or 100.0,
        source=(rollout.world.source or (0.0, 0.0))[:2] if rollout.world.has_source else None,
        title=f"{rollout.positions.shape[1]} robots{', seen along z' if physics.num_dimensions == 3 else ''}",
    )
    positions, frames = _tables(rollout)
    if target.suffix == ".html":
        animation.animation(positions, frames, target, **options)
    else:
        animation.gif(animation.scene(positions, frames, most_frames=200, **options), target)


def _tables(rollout: "Rollout") -> tuple[Any, Any]:
    """As the tables `positions` and `frames` of a task are."""
    import numpy as np
    import polars as pl

    num_frames, num_agents = rollout.positions.shape[:2]
    frame = np.arange(num_frames)
    angle = np.arctan2(rollout.directors[..., 1], rollout.directors[..., 0])
    columns = {"x": rollout.positions[..., 0], "y": rollout.positions[..., 1], "angle": angle}
    positions = pl.DataFrame(
        {
            "frame": np.repeat(frame, num_agents),
            "agent": np.tile(np.arange(num_agents), num_frames),
            **{name: values.astype(np.float64).ravel() for name, values in columns.items()},
        }
    )
    rods = np.full(num_frames, np.nan) if rollout.rod_angles is None else rollout.rod_angles.astype(np.float64)
    return positions, pl.DataFrame({"frame": frame, "seconds": rollout.seconds, "rod_angle": rods})


def _summary(policy: str, rollout: "Rollout", files: Sequence[Path]) -> Deployed:
    import math

    distances, angles = rollout.distances, rollout.rod_angles
    return Deployed(
        policy=policy,
        num_agents=distances.shape[1],
        temperature_kelvin=rollout.world.physics.temperature_kelvin,
        seconds=float(rollout.seconds[-1]),
        mean_distance=float(distances[-1].mean()),
        largest_distance=float(distances[-1].max()),
        mean_reward=float(rollout.rewards[1:].mean()) / rollout.slices_per_frame,
        revolutions=None if angles is None else float(angles[-1] - angles[0]) / (2.0 * math.pi),
        files=[str(path) for path in files],
    )
