"""`eigensweep chaos` on the cluster: under kills, OOMs, requeues, power cuts and without its driver a sweep ends as in calm.

EIGENSWEEP_CHAOS="--tasks 80 --task-seconds 1-3 --kill 10" replaces the flags of the long trial, which takes most of an hour.
"""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.cluster import REPOSITORY, Cluster

LONG = "--tasks 500 --task-seconds 1-8 --kill 5% --oom 2% --preempt 2% --power-cuts 2 --driver-kill-seconds 30"
SHORT = "--tasks 60 --task-seconds 0.5-2 --kill 6 --oom 2 --preempt 2 --power-cuts 0 --driver-kill-seconds 10"
# four tasks at once, so that the long trial's calm run takes its eight minutes; many jobs, so that some wait while others are hit
LAUNCHER = ["launcher=slurm", "launcher.partition=low", "launcher.slots=1", "launcher.max_jobs=4", "launcher.poll_seconds=2"]


def trial(cluster: Cluster, folder: Path, flags: list[str], *settings: str, seconds: float) -> dict[str, Any]:
    """The report of a trial that went well, which is shown too."""
    cluster.broken = True  # as long as nodes are without power
    words = [sys.executable, "-m", "orchestrator", "chaos", *flags, "--folder", str(folder), *LAUNCHER, *settings, "--json"]
    environment = {**cluster.environment, "EIGENSWEEP_CLUSTER": cluster.name, "PYTHONPATH": str(REPOSITORY)}
    with (folder.with_name("progress")).open("w") as progress:
        done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, stderr=progress, text=True, timeout=seconds)
    assert done.returncode == 0, f"{done.stdout}\n{folder.with_name('progress').read_text()[-3000:]}"
    report: dict[str, Any] = json.loads(done.stdout)
    print(json.dumps({name: value for name, value in report.items() if name != "tables"}, indent=1))
    return report


def hits(report: dict[str, Any]) -> dict[str, int]:
    """Running tasks hit by each kind of fault."""
    return {fault["kind"]: fault["hits"] for fault in report["faults"]}


def rows(report: dict[str, Any]) -> dict[str, int]:
    """Rows of each table that is equal in both runs, of all sweeps."""
    found: dict[str, int] = {}
    for table in report["tables"]:
        assert not table["difference"], table
        found[table["table"]] = found.get(table["table"], 0) + table["rows"]
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_short_sweep_ends_as_in_calm(cluster: Cluster, shared: Path) -> None:
    report = trial(cluster, shared / "trial", SHORT.split(), "launcher.tasks_per_job=8", seconds=590)
    assert report["ends"]["completed"] == 60
    assert rows(report)["tasks"] == 60
    hit = hits(report)
    assert hit["kill"] >= 6
    assert hit["oom"] >= 2
    assert hit["preempt"] >= 2
    assert hit["driver kill"] >= 1


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_five_hundred_tasks_end_as_in_calm_under_every_fault(cluster: Cluster, shared: Path) -> None:
    own = os.environ.get("EIGENSWEEP_CHAOS", "")
    report = trial(cluster, shared / "trial", shlex.split(own or LONG), "launcher.tasks_per_job=20", seconds=5300)
    found = rows(report)
    assert found["tasks"] == report["tasks"]
    assert found["spectra"] > 0
    cuts = {fault["kind"]: fault["strikes"] for fault in report["faults"]}
    if not own:
        hit = hits(report)
        assert report["calm_seconds"] >= 480
        assert cuts["power cut"] == 2
        assert hit["power cut"] >= 2
        for kind in ("kill", "oom", "preempt", "driver kill"):
            assert hit[kind] >= 10, hit
