"""The numbers of a no-op task by hydra-submitit-launcher: `python hydra_submitit.py -m hydra/launcher=submitit_slurm 'index=range(0,200)'`.

A job array of one element a point; the command returns when it has all results, for which it looks once a second.
"""

import json
from dataclasses import dataclass

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig


@dataclass
class Noop:
    """The settings of the no-op workload that this peer needs."""

    index: int = 0
    seconds: float = 0.0
    memory_mib: float = 0.0


ConfigStore.instance().store(name="noop", node=Noop)


@hydra.main(version_base=None, config_path=None, config_name="noop")
def main(config: Noop) -> dict[str, float]:
    """Write the rows of one task into Hydra's folder for it, and hand them back; not synced, as Hydra's own files are not."""
    rows = {"index": float(config.index), "square": float(config.index**2), "total": config.index + config.seconds + config.memory_mib}
    with open(f"{HydraConfig.get().runtime.output_dir}/rows.json", "w") as file:
        json.dump(rows, file)
    return rows


if __name__ == "__main__":
    main()
