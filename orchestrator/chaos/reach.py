"""The ways in which a chaos run reaches what is its own: a task's process, a job, a node of the development cluster."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.chaos.strike import strike
from orchestrator.launchers.launcher import SchedulerSilent
from orchestrator.slurm import commands
from workers.errors import ConfigError
from workers.processes import Process

CLUSTER = Path(__file__).resolve().parents[2] / "slurm" / "dev" / "cluster"
KILL = int(signal.SIGKILL)
_SECONDS = 30.0


def python_path(*first: Path) -> str:
    """A PYTHONPATH with these folders in front of what is there already."""
    return os.pathsep.join(filter(None, [*map(str, first), os.environ.get("PYTHONPATH", "")]))


def signal_task(receipt: Mapping[str, Any], log: str, number: int) -> bool:
    """Send a signal to the child that writes to `log`, by its job's receipt; on another host through the scheduler, in the job itself."""
    if "job" not in receipt:
        return False
    if Process.parse(receipt["job"]).is_here:
        return strike(receipt["pid"], receipt["pid_start"], log, number)
    words = [str(receipt["pid"]), str(receipt["pid_start"]), log, str(number)]
    job_id = _raw_id(receipt)
    if not job_id:
        return False
    step = ["srun", f"--jobid={job_id}", "--overlap", "--nodes=1", "--ntasks=1", f"--nodelist={receipt['host']}", "--quiet"]
    return _answer([*step, sys.executable, "-P", "-m", "orchestrator.chaos.strike", *words]) is not None


def requeue(receipt: Mapping[str, Any]) -> bool:
    """Have the scheduler take the job off its nodes and queue it again, as a preemption does; only if its name is the receipt's token."""
    # `ARRAY_INDEX`, not the job's own number, which for the last element is that of the whole array
    job_id, name = _job_id(receipt), str(receipt.get("token", "")).partition("/")[0]
    if not job_id or not name or _answer(["squeue", "--noheader", f"--jobs={job_id}", "--format=%j"]) != name:
        return False
    return _answer(["scontrol", "requeue", job_id]) is not None


def _job_id(receipt: Mapping[str, Any]) -> str:
    return str((receipt.get("slurm") or {}).get("job_id", ""))


def _raw_id(receipt: Mapping[str, Any]) -> str | None:
    """The job's own number: an element of an array has one beside `ARRAY_INDEX`."""
    job_id = _job_id(receipt)
    return _answer(["squeue", "--noheader", f"--jobs={job_id}", "--format=%A"]) if "_" in job_id else job_id


def _answer(words: Sequence[str]) -> str | None:
    """What a command of the scheduler prints; None where it fails."""
    try:
        return commands.call(words, _SECONDS).strip()
    except SchedulerSilent:
        return None


@dataclass(slots=True)
class Power:
    """The plugs of the development cluster's nodes; there is no other cluster whose power we would cut."""

    cut_nodes: set[str] = field(default_factory=set)

    @classmethod
    def of_development_cluster(cls) -> "Power":
        """The cluster that EIGENSWEEP_CLUSTER names; ConfigError where there is none."""
        if not CLUSTER.exists() or not os.environ.get("EIGENSWEEP_CLUSTER"):
            raise ConfigError(
                "--power-cuts is for the development cluster alone: run it from a checkout with slurm/dev/cluster, "
                "and name the cluster with EIGENSWEEP_CLUSTER=NAME"
            )
        power = cls()
        power._call("status")
        return power

    def cut(self, node: str) -> None:
        """All that runs there is gone at once."""
        self._call("kill-node", node)
        self.cut_nodes.add(node)

    def restore(self, node: str) -> None:
        """Start it again."""
        self._call("restore-node", node)
        self.cut_nodes.discard(node)

    def _call(self, *words: str) -> None:
        done = subprocess.run([CLUSTER, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=2 * _SECONDS)
        if done.returncode:
            raise ConfigError(f"slurm/dev/cluster {' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
