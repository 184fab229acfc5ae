"""The scene of the swarm benchmark in numbers that every contender reads, and the loop in which it is timed."""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from workers.swarm.contacts import CUTOFF
from workers.swarm.friction import BOLTZMANN, sphere


@dataclass(frozen=True, slots=True)
class Scene:
    """Colloids of SwarmRL's papers in water at 300 K (um, s, pN), `agents` of them in a disc in each of `environments`."""

    environments: int
    agents: int
    disc: float
    radius: float = 2.14
    viscosity: float = 8.9e-4
    kelvin: float = 300.0
    force: float = 0.0404530
    seconds: float = 0.1
    substeps: int = 10

    @property
    def energy(self) -> float:
        """kT."""
        return BOLTZMANN * self.kelvin

    @property
    def friction(self) -> tuple[float, float]:
        """Of translation and of rotation."""
        own = sphere(self.radius, self.viscosity)
        return own.along, own.rotation

    @property
    def sigma(self) -> float:
        """Of WCA, whose cut-off is two radii."""
        return 2 * self.radius / CUTOFF

    @property
    def step(self) -> float:
        """One substep."""
        return self.seconds / self.substeps

    def particle_steps(self, slices: int) -> int:
        """In so many slices."""
        return self.environments * self.agents * self.substeps * slices


def arguments() -> tuple[Scene, int]:
    """The scene and the slices of a turn, from the command line."""
    made = argparse.ArgumentParser()
    made.add_argument("scene", type=json.loads)
    made.add_argument("slices", type=int)
    found = made.parse_args()
    return Scene(**found.scene), found.slices


def serve(go: Callable[[], float]) -> None:
    """Say that it is ready; at each line of input go, and answer with the seconds of processor that it took and what `go` says."""
    go()
    print(json.dumps("ready"), flush=True)
    for _ in sys.stdin:
        began = time.process_time()
        said = go()
        print(json.dumps([time.process_time() - began, said]), flush=True)
