"""SLURM allocations for tests of what runs in them, without SLURM: its variables, and a `scontrol` that does as it is told."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batches import TOKEN, Batch

from workers.taskdir import Task

REQUEST = {
    "nodes": 1,
    "cpus": 2,
    "gpus": 0,
    "memory_gib": 2.0,
    "minutes": 60,
    "slots": 2,
    "cpus_per_slot": 1,
    "tasks_per_gpu": 1,
    "exclude": [],
    "shape": {},
    "packed": True,
}
# `scontrol requeue` is noted, together with what the job had said by then
SCONTROL = """#!/bin/sh
here=$(dirname "$0")
echo "$@" >> "$here/calls"
case $1 in
show) echo "JobId=77 JobName=x"; echo "   JobState=$(cat "$here/state") Reason=None" ;;
requeue)
    cat "$EIGENSWEEP_TEST_ATTEMPTS" > "$here/attempts" 2> /dev/null
    test ! -e "$here/refuses" || { echo "scontrol: error: no" >&2; exit 1; } ;;
esac
"""


@dataclass
class Slurm:
    """One job of a pretended SLURM, which may run several times."""

    folder: Path
    job_id: str = "77"

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "scontrol").write_text(SCONTROL)
        (self.folder / "scontrol").chmod(0o755)
        self.state("RUNNING")

    def state(self, name: str) -> None:
        """What `scontrol show job` says."""
        (self.folder / "state").write_text(name)

    def refuse(self) -> None:
        """`scontrol requeue` fails from now on."""
        (self.folder / "refuses").touch()

    @property
    def requeued(self) -> int:
        """How often somebody has asked for it."""
        return self.calls.count(f"requeue {self.job_id}")

    @property
    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def environment(self, token: str = TOKEN, *, run: int = 0, seconds: float | None = None, **more: str) -> dict[str, str]:
        """Of the batch script; `seconds`: until SLURM ends the run, where it says so."""
        given = {
            "PATH": f"{self.folder}{os.pathsep}{os.environ['PATH']}",
            "SLURM_JOB_ID": self.job_id,
            "SLURM_JOB_NAME": token.partition("/")[0],
            "SLURM_JOB_NODELIST": "node[07-08]" if more.pop("nodes", "1") == "2" else "node07",
            "SLURMD_NODENAME": "node07",
            "SLURM_CPUS_ON_NODE": "2",
            "SLURM_MEM_PER_NODE": "2048",
            **more,
        }
        if run:
            given["SLURM_RESTART_COUNT"] = str(run)
        if seconds is not None:
            given["SLURM_JOB_END_TIME"] = str(time.time() + seconds)
        return given

    def batch(self, root: Path, tasks: list[Task], token: str = TOKEN, **terms: Any) -> Batch:
        """Written as for SLURM; `request`: what differs from REQUEST."""
        terms["request"] = REQUEST | terms.get("request", {})
        return Batch.write(root, tasks, token, **{"name": "slurm", "grace_seconds": 1.0} | terms)

    def start(self, batch: Batch, *, run: int = 0, seconds: float | None = None, **more: str) -> Batch:
        """Start a run of the job."""
        folder = batch.folder / f"run-{run}" if run else batch.folder
        batch.environment = self.environment(batch.token, run=run, seconds=seconds, **more)
        batch.environment["EIGENSWEEP_TEST_ATTEMPTS"] = str(folder / "attempts.jsonl")
        batch.run_number = run
        return batch.start()
