"""Particle-steps a core-second of the whole learning loop, beside one policy at a time and the engine alone."""

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from measure import Bars, heading, interleave, parser, table

from workers.swarm.learners.policy_gradient import PolicyGradient
from workers.swarm.networks import Architecture
from workers.swarm.physics import Timing
from workers.swarm.policies import new_policies
from workers.swarm.world import World, arena_of
from workers.workloads.swarm_train import SwarmTrain

# the settings at which SwarmRL on ESPResSo was measured at 1.7e4: 20 slices of 100 substeps an episode, 10 colloids of 2.14 um
WORLD = SwarmTrain(timing=Timing(slice_seconds=1.0, num_substeps=100)).world()
SLICES, BATCHES, LEAST = 20, (1, 16, 128), 5e6


def worlds(count: int) -> list[World]:
    """Of policies that share all but their seed."""
    return [replace(WORLD, seed=seed) for seed in range(count)]


def learning(count: int) -> Callable[[], float]:
    """A function that trains so many policies for an episode, in seconds of processor."""
    arena, learner = arena_of(worlds(count), "cpu"), PolicyGradient()
    policies = new_policies(learner, range(count), 1, 4, Architecture())

    def go() -> float:
        began = time.process_time()
        learner.learn(policies, arena.action, arena.episode(policies.acting, SLICES, 0.2))
        return time.process_time() - began

    return go


def moving(count: int) -> Callable[[], float]:
    """The same robots that swim on, without networks."""
    arena = arena_of(worlds(count), "cpu")
    forces, torques = arena.forces.expand(arena.engine.shape), torch.zeros(arena.engine.shape)

    def go() -> float:
        began = time.process_time()
        for _ in range(SLICES):
            arena.engine.advance(arena.state, forces, torques)
        return time.process_time() - began

    return go


def episodes(go: Callable[[], float], number: int) -> float:
    """Seconds of processor of one of so many episodes."""
    return sum(go() for _ in range(number)) / number


def main() -> int:
    """Measure, print, and fail where the bar is missed."""
    made = parser(__doc__ or "", repetitions=7)
    args = made.parse_args()
    torch.set_num_threads(1)
    heading("Learning swarms", args.folder, ("torch",))
    found = {f"learning, {count} policies": (count, learning(count)) for count in BATCHES}
    found[f"moving alone, {BATCHES[-1]} policies"] = (BATCHES[-1], moving(BATCHES[-1]))
    times = interleave({name: partial(episodes, go, 4) for name, (_, go) in found.items()}, args.repetitions)
    rates = {}
    for name, (count, _) in found.items():
        rates[name] = count * WORLD.robots.num_agents * SLICES * WORLD.num_substeps() / statistics.median(times[name])
    best = f"learning, {BATCHES[-1]} policies"
    table(
        ["", "particle-steps a core-second", "beside the first"],
        [[name, f"{rate:.3g}", f"{rate / next(iter(rates.values())):.2f} x"] for name, rate in rates.items()],
    )
    bars = Bars()
    bars.at_least(f"particle-steps a core-second, {best}", rates[best], LEAST, "")
    return bars.show(check=not args.no_check)


if __name__ == "__main__":
    sys.exit(main())
