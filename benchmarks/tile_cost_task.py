"""One attempt at a task on the nodes of a SLURM job: `python -m benchmarks.tile_cost_task ROOT TASK.json NODE...`."""

import json
import sys
from pathlib import Path

from workers.execute import execute
from workers.taskdir import Task


def main(root: str, task: str, *nodes: str) -> None:
    """Errors of the workload pass through, so that the job fails."""
    import torch

    torch.set_num_threads(1)
    execute(Path(root), Task(**json.loads(Path(task).read_text())), attempt="first", code="benchmark", nodes=nodes, reraise=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
