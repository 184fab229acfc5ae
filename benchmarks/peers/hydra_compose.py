"""Hydra's own composition of grid points: `python hydra_compose.py NUM_POINTS`; prints the seconds that they took as JSON.

The settings of the benchmark's sweep: a structured config with 3 axes, and the groups `workload` and `launcher`, as small as they can be.
"""

import json
import sys
import time
from dataclasses import dataclass

from hydra import compose, initialize
from hydra.core.config_store import ConfigStore


@dataclass
class Noop:
    """Settings of the no-op workload."""

    index: int = 0
    seconds: float = 0.0
    memory_mib: float = 0.0
    fail: str = "none"
    fail_first: int = 0
    progress: bool = False


@dataclass
class Local:
    """Settings of the launcher."""

    slots: int = 2
    cpus_per_slot: int = 1


def main(num_points: str) -> int:
    """Compose each point by overrides, as `-m` does."""
    store = ConfigStore.instance()
    store.store(group="workload", name="noop", node=Noop)
    store.store(group="launcher", name="local", node=Local)
    store.store(name="root", node={"defaults": [{"workload": "noop"}, {"launcher": "local"}]})
    with initialize(version_base=None, config_path=None):
        compose("root")
        begun = time.perf_counter()
        for index in range(int(num_points)):
            overrides = [f"workload.index={index}", f"workload.seconds={index / 10}", f"workload.memory_mib={index % 10}"]
            compose("root", overrides=overrides, return_hydra_config=True)
        print(json.dumps({"seconds": time.perf_counter() - begun, "tasks": int(num_points)}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
