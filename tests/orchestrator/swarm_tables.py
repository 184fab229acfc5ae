"""Tables as swarm workloads write them, made of known laws: policies of each strategy, courses, positions, rods."""

from typing import Any

import numpy as np
import polars as pl

from orchestrator.swarm.strategies import ACTIONS

OBSERVATIONS = np.linspace(-1.7, 1.7, 35)
# probabilities of ACTIONS where the concentration falls
FALLING = {
    "run_and_rotate": (0.92, 0.04, 0.02, 0.02),
    "brownian_piloting": (0.08, 0.04, 0.06, 0.82),
    "gradient_gliding": (0.57, 0.39, 0.02, 0.02),
    "exotic": (0.30, 0.05, 0.35, 0.30),
}


def policy(strategy: str, *, handedness: str = "ccw", draw: int = 0, noise: float = 0.0) -> Any:
    """(O, A): what a strategy does where it falls, and swimming where it rises; `search_and_sit` stops at the largest rises."""
    falling = np.array(FALLING.get(strategy, FALLING["run_and_rotate"]))
    rising = np.array([0.01, 0.97, 0.01, 0.01])
    weight = 1 / (1 + np.exp(-20 * (OBSERVATIONS - 0.1)))[:, None]
    found = (1 - weight) * falling + weight * rising
    if strategy == "search_and_sit":
        found[OBSERVATIONS > 1.0] = [0.02, 0.03, 0.02, 0.93]
    if handedness == "cw":
        found = found[:, [2, 1, 0, 3]]
    factor = np.exp(noise * np.random.default_rng(draw).standard_normal(4))
    return found * factor / (found * factor).sum(axis=1, keepdims=True)


def policy_rows(key: str, probabilities: Any) -> list[dict[str, Any]]:
    """As in the table `policy`."""
    return [
        {"key": key, "observation": float(o), "action": action, "probability": float(probabilities[i, j])}
        for i, o in enumerate(OBSERVATIONS)
        for j, action in enumerate(ACTIONS)
    ]


def policy_table(strategies: list[str]) -> pl.DataFrame:
    """A task each, called by its place, left- and right-handed in turn."""
    rows = []
    for place, name in enumerate(strategies):
        probabilities = policy(name, handedness="ccw" if place % 2 else "cw", draw=place, noise=0.1)
        rows += policy_rows(str(place), probabilities)
    return pl.DataFrame(rows)


def course(key: str, *, start: float = 66.0, end: float = 5.0, pace: float = 60.0, frames: int = 1200, draw: int = 0) -> pl.DataFrame:
    """As in the table `frames`: the distance falls to `end` in times of `pace` seconds, a frame a second."""
    seconds = np.arange(frames, dtype=float)
    noise = np.exp(0.05 * np.random.default_rng(draw).standard_normal(frames))
    distance = (end + (start - end) * np.exp(-seconds / pace)) * noise
    columns = {
        "key": [key] * frames,
        "frame": np.arange(frames),
        "seconds": seconds,
        "mean_distance": distance,
        "max_distance": 2 * distance,
    }
    return pl.DataFrame({**columns, "rod_angle": np.full(frames, np.nan)})


def turning_rod(key: str, rate: float, *, frames: int = 200, wrapped: bool = True) -> pl.DataFrame:
    """As in the table `frames`, every 10 s: a rod of so many revolutions per hour."""
    seconds = 10.0 * np.arange(frames)
    angle = 1.3 + rate * 2 * np.pi * seconds / 3600
    angle = (angle + np.pi) % (2 * np.pi) - np.pi if wrapped else angle
    columns = {"key": [key] * frames, "frame": np.arange(frames), "seconds": seconds, "rod_angle": angle}
    return pl.DataFrame({**columns, "mean_distance": np.full(frames, 30.0), "max_distance": np.full(frames, 40.0)})


def beside_rod(rods: pl.DataFrame, places: list[tuple[float, float]]) -> pl.DataFrame:
    """As in the table `positions`: agents that keep places (um along, across) in the frame of a rod about the origin."""
    rows = []
    for row in rods.iter_rows(named=True):
        cos, sin = np.cos(row["rod_angle"]), np.sin(row["rod_angle"])
        for agent, (u, v) in enumerate(places):
            place = {"x": u * cos - v * sin, "y": u * sin + v * cos, "z": 0.0, "angle": row["rod_angle"]}
            rows.append({"key": row["key"], "frame": row["frame"], "agent": agent, **place})
    return pl.DataFrame(rows)
