"""A workload that writes down where it is and what it sees, and meets others of its kind."""

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from workers.context import Context
from workers.workload import Resources, Row, Workload, setting

RANK = "import os, sys; open(sys.argv[1] + os.environ['RANK'], 'w').write(os.uname().nodename + ' ' + os.environ['WORLD_SIZE'])"


@dataclass(frozen=True, kw_only=True)
class Seen(Workload):
    """Keeps what it sees in a file of its attempt, `seen.json`."""

    index: int = setting(0)
    text: str = setting("", help="comes back as it is")
    gate: str = setting("", help="waits until this file is there")
    meets: int = setting(1, help="waits until so many tasks stand in the folder of the gate")
    ranks: int = setting(0, help="launches so many ranks on each node")

    def resources(self) -> Resources:
        """Little."""
        return Resources(memory_gib=0.25, walltime_minutes=2.0)

    def run(self, context: Context) -> Iterator[Row]:
        """One row."""
        began = time.time()
        print(f"seen {self.index} {self.text}", flush=True)
        self._wait(context)
        seen = {
            "host": os.uname().nodename,
            "nodes": context.nodes,
            "device": context.device,
            "environment": dict(os.environ),
            "text": self.text,
            "began": began,
            "ranks": self._launch(context) if self.ranks else [],
        }
        with context.file("seen.json") as path:
            path.write_text(json.dumps(seen | {"ended": time.time()}))
        yield Row(name="index", value=float(self.index))

    def _wait(self, context: Context) -> None:
        folder, name = os.path.split(self.gate)
        if folder:
            open(os.path.join(folder, f"task-{self.index}"), "w").close()
        while (name and not os.path.exists(self.gate)) or (folder and sum(n.startswith("task-") for n in os.listdir(folder)) < self.meets):
            if context.stopping:
                context.stop_here(0, {})
            time.sleep(0.02)

    def _launch(self, context: Context) -> list[str]:
        prefix = os.path.join(context.folder, "rank-")
        status = context.launch([sys.executable, "-c", RANK, prefix], ranks_per_node=self.ranks)
        if status:
            raise RuntimeError(f"the ranks ended with {status}")
        return [open(f"{prefix}{rank}").read() for rank in range(self.ranks * len(context.nodes))]
