"""Results of swarm sweeps as studies read them, made of known laws."""

import itertools
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

from orchestrator.grid import Axis
from orchestrator.swarm import boundaries
from tests.orchestrator.swarm_tables import beside_rod, course, policy, policy_rows, turning_rod
from workers.errors import UnknownName

TEMPERATURES = (0.0, 150.0, 273.0, 300.0, 350.0)
TRAINED, DEPLOYED = "physics_temperature_kelvin", "temperature_kelvin"
PATHS = {
    TRAINED: "train.physics.temperature_kelvin",
    "seed": "train.seed",
    "temperatures": "train.curriculum.temperatures",
    "temperature_range": "train.curriculum.temperature_range",
    "shape": "train.robots.shape",
    "radius": "train.robots.radius",
    "speed_body_lengths": "train.robots.speed_body_lengths",
}


class PlantedSwarm:
    """`runs`: a row a task with key, axes (a dict), workload, values at its end; `tables`: of deployments, by name."""

    def __init__(self, name: str, runs: list[dict[str, Any]], tables: dict[str, pl.DataFrame] | None = None, **settings: Any) -> None:
        self.name, self.runs, self.tables, self.settings = name, runs, tables or {}, settings

    @property
    def axes(self) -> list[Axis]:
        """Named as `grid.named` does: of one temperature, that of the training."""
        names = list(self.runs[0]["axes"])
        paths = {name: PATHS.get(name, name) if TRAINED in names or name != DEPLOYED else PATHS[TRAINED] for name in names}
        return [Axis(name, path, "float", ()) for name, path in paths.items()]

    def scalars(self) -> pl.LazyFrame:
        found = []
        for run in self.runs:
            common = {"key": run["key"], "workload": run["workload"], "status": run.get("status", "ok"), "code": "one", **run["axes"]}
            for step, values in run["steps"].items():
                found += [{**common, "step": step, "name": name, "value": float(value)} for name, value in values.items()]
        return pl.DataFrame(found, infer_schema_length=None).lazy()

    def tasks(self) -> pl.LazyFrame:
        return self.scalars().select("key", "workload", settings=pl.lit(json.dumps(self.settings))).unique()

    def table(self, name: str) -> pl.LazyFrame:
        known = self.tables.get(name.removeprefix("swarm_deploy."))
        if known is None:
            raise UnknownName(f"no table {name!r}")
        axes = pl.DataFrame([{"key": run["key"], **run["axes"]} for run in self.runs], infer_schema_length=None)
        return known.lazy().join(axes.lazy(), on="key", how="left")


def deployment(key: str, axes: dict[str, Any], *, status: str = "ok", **values: float) -> dict[str, Any]:
    """A deployment with what it told at its end."""
    return {"key": key, "axes": axes, "workload": "swarm_deploy", "status": status, "steps": {1200: values}}


def training(key: str, axes: dict[str, Any]) -> dict[str, Any]:
    """A training that comes closer from episode to episode."""
    steps = {step: {"mean_return": 0.1 * step, "mean_distance": 80.0 * math.exp(-step / 300)} for step in (0, 250, 500, 1000)}
    return {"key": key, "axes": axes, "workload": "swarm_train", "steps": steps}


def walks(key: str, num_frames: int = 300, num_agents: int = 5, end: float = 5.0, draw: int = 0) -> pl.DataFrame:
    """Positions of agents that come to the source."""
    random = np.random.default_rng(draw)
    frame, agent = (part.ravel() for part in np.meshgrid(np.arange(num_frames), np.arange(num_agents), indexing="ij"))
    radius = (end + 60 * np.exp(-frame / 60)) * np.exp(0.1 * random.standard_normal(len(frame)))
    around = agent * 2 * np.pi / num_agents + frame / 90
    columns = {"frame": frame, "agent": agent, "x": radius * np.cos(around), "y": radius * np.sin(around), "z": 0.0 * radius}
    return pl.DataFrame({"key": [key] * len(frame), **columns, "angle": around + np.pi})


def search(
    success: Callable[[float, int], bool],
    strategy: Callable[[float], str] = lambda t: "brownian_piloting" if t > 0 else "run_and_rotate",
    *,
    temperatures: tuple[float, ...] = TEMPERATURES,
    seeds: int = 10,
    distance: Callable[[float], float] = lambda t: 4.0 + t / 100,
    diverged: int = 0,
) -> PlantedSwarm:
    """The sweep gradient_search, with one temperature for training and deployment."""
    runs, frames, positions, policies = [], [], [], []
    for t, seed in itertools.product(temperatures, range(seeds)):
        axes, key = {DEPLOYED: t, "seed": seed}, f"{t:g}-{seed}"
        won, draw = success(t, seed), int(t) * 100 + seed
        end = (distance(t) if won else 40.0) * math.exp(0.05 * np.random.default_rng(draw).standard_normal())
        values = {"success": won, "mean_distance": end, "time_to_source": 80.0 + seed if won else math.nan, "mean_reward": 1.0}
        runs.append(deployment(key, axes, status="diverged" if len(runs) < diverged else "ok", **values))
        runs.append(training(f"{key}-train", axes))
        frames.append(course(key, end=end, frames=300, draw=draw))
        positions.append(walks(key, end=end, draw=draw))
        hand = "ccw" if seed % 2 else "cw"
        policies += policy_rows(key, policy(strategy(t), handedness=hand, draw=draw, noise=0.3))
    tables = {"frames": pl.concat(frames), "positions": pl.concat(positions), "policy": pl.DataFrame(policies)}
    return PlantedSwarm("gradient_search_small", runs, tables, radius=2.14)


def transfers(name: str, value: Callable[[float, float, int], dict[str, float]], seeds: int = 8) -> PlantedSwarm:
    """gradient_transfer or rod_transfer: scalars by trained and deployed temperature, and seed."""
    runs = [
        deployment(f"{at:g}-{to:g}-{seed}", {TRAINED: at, DEPLOYED: to, "seed": seed}, **value(at, to, seed))
        for at, to, seed in itertools.product(TEMPERATURES, TEMPERATURES, range(seeds))
    ]
    return PlantedSwarm(name, runs)


def schedules(name: str, value: Callable[[str, float, int], dict[str, float]], seeds: int = 8) -> PlantedSwarm:
    """gradient_schedules or rod_schedules: scalars by what the temperature does, temperature of deployment, and seed."""
    ways = {"rising": ([0.0, 350.0], []), "falling": ([350.0, 0.0], []), "drawn": ([], [0.0, 350.0])}
    runs = [
        deployment(
            f"{way}-{to:g}-{seed}",
            {"temperatures": phases, "temperature_range": ends, DEPLOYED: to, TRAINED: 300.0, "seed": seed},
            **value(way, to, seed),
        )
        for (way, (phases, ends)), to, seed in itertools.product(ways.items(), TEMPERATURES, range(seeds))
    ]
    return PlantedSwarm(name, runs)


def rotation(rate: Callable[[float, int], float], lever: Callable[[float], float] = lambda t: 35.0, seeds: int = 6) -> PlantedSwarm:
    """rod_rotation: revolutions per hour by temperature and seed, agents at a lever on one side of the rod."""
    runs, frames, positions = [], [], []
    for t, seed in itertools.product(TEMPERATURES, range(seeds)):
        key, draw = f"{t:g}-{seed}", np.random.default_rng(int(t) + seed)
        rod = turning_rod(key, rate(t, seed), frames=60)
        runs.append(deployment(key, {DEPLOYED: t, "seed": seed}, revolutions_per_hour=rate(t, seed), success=0.0, mean_distance=30.0))
        frames.append(rod)
        places = [(lever(t) + 4 * draw.standard_normal(), -2 - 2 * abs(draw.standard_normal())) for _ in range(8)]
        positions.append(beside_rod(rod, places))
    tables = {"frames": pl.concat(frames), "positions": pl.concat(positions)}
    return PlantedSwarm("rod_rotation_small", runs, tables, rod_length=100.0, radius=2.14)


def chemotaxis(
    share: Callable[[str, float, float], float],
    *,
    shapes: tuple[str, ...] = ("sphere",),
    radii: tuple[float, ...] = (0.25, 0.325, 0.4, 0.475, 0.55, 0.7, 1.0, 1.3, 1.6, 1.9, 2.2, 2.5),
    speeds: tuple[float, ...] = (1.0, 3.0, 5.0),
    seeds: int = 10,
    slope: float = 1.5,
    pilots: float = 0.6,
    late: float = 1.0,
    **settings: float,
) -> PlantedSwarm:
    """Success by shape, radius and speed; Brownian Piloting below a radius of `pilots`, else a strategy by seed, of which piloting takes
    `late` times as long."""
    runs, frames, policies, positions = [], [], [], []
    for shape, radius, speed, seed in itertools.product(shapes, radii, speeds, range(seeds)):
        key = f"{shape}-{radius:g}-{speed:g}-{seed}"
        random = np.random.default_rng(abs(hash((len(shape), round(radius * 1000), round(speed * 10), seed))) % 2**32)
        won = random.random() < share(shape, radius, speed)
        name = "brownian_piloting" if radius < pilots else ("run_and_rotate", "gradient_gliding", "brownian_piloting")[seed % 3]
        axes = {"shape": shape, "radius": radius, "speed_body_lengths": speed, "seed": seed}
        noise = math.exp(0.03 * random.standard_normal())
        end = (1.0 + 0.3 * speed + slope * radius) * noise if won else 40.0
        time = (8.0 + 50 * math.exp(-radius / 0.3)) * noise if won else math.nan
        reward = 5.0 * (1 - math.exp(-radius / 0.4)) * (1 - math.exp(-speed / 0.7)) * noise / radius
        values = {"success": won, "mean_distance": end, "time_to_source": time, "mean_reward": reward, "revolutions_per_hour": math.nan}
        runs.append(deployment(key, axes, **values))
        if won:
            pace = 30.0 * (late if name == "brownian_piloting" else 1.0) * noise
            frames.append(course(key, end=end, pace=pace, frames=200, draw=len(runs)))
            policies += policy_rows(key, policy(name, handedness="ccw" if random.random() < 0.5 else "cw", draw=seed, noise=0.2))
            positions.append(walks(key, num_frames=20, end=end, draw=seed))
    tables = {}
    if frames:
        tables = {"frames": pl.concat(frames), "policy": pl.DataFrame(policies), "positions": pl.concat(positions)}
    return PlantedSwarm("chemotaxis_small", runs, tables, **settings)


def by_swimming(shape: str, radius: float, speed: float) -> float:
    """Success where swimming overpowers noise alone."""
    return 0.8 if radius >= boundaries.translational(speed) else 0.0
