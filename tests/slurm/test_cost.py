"""What a sweep has cost is what SLURM has counted, with the runs that it lost; and a budget holds real jobs back."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from orchestrator import verbs
from tests.slurm.cluster import Cluster, wait_until
from tests.slurm.drivers import here, settle, submit
from tests.slurm.scene import Scene
from workers.taskdir import shape_name


@pytest.fixture
def scene(cluster: Cluster, shared: Path) -> Iterator[Scene]:
    """A store that the nodes see."""
    with Scene(cluster=cluster, folder=shared) as scene:
        yield scene


def counted(scene: Scene, name: str) -> dict[str, float]:
    """SLURM's id of each job of a sweep -> CPU-seconds of all its runs, by sacct; of those that it knows to be completed."""
    base = scene.submissions(name)[0]["token"]
    lines = scene.cluster.exec("/usr/bin/sacct", "-nPXD", "-S", "now-1days", f"--name={base}", "-o", "JobID,ElapsedRaw,AllocCPUS,State")
    found: dict[str, float] = defaultdict(float)
    ended = set[str]()
    for line in lines.splitlines():
        job_id, seconds, cpus, state = line.split("|")
        found[job_id] += float(seconds) * float(cpus)
        ended |= {job_id} if state == "COMPLETED" else set()
    return {job_id: seconds for job_id, seconds in found.items() if job_id in ended}


def test_a_sweep_costs_what_slurm_counts_and_what_was_requeued_is_wasted(scene: Scene) -> None:
    submit(scene, "workload=noop", "name=packed", "index=range(0,6)", "seconds=3", "launcher.slots=2", "launcher.tasks_per_job=6")
    submit(scene, "workload=noop", "name=array", "index=range(10,13)", "seconds=20", "launcher.pack=never")
    scene.wait_for_running("array", 3)
    scene.cluster.exec("scontrol", "requeue", f"{scene.job_id('array')}_1")
    settle([(scene, "packed"), (scene, "array")])
    wait_until(lambda: _all_closed(scene), 30, "all jobs are closed")
    wait_until(lambda: len(counted(scene, "packed")) == 1 and len(counted(scene, "array")) == 3, 20, "sacct knows how all jobs ended")
    for name in ("packed", "array"):
        results = verbs.load(name, scene.root)
        jobs = results.jobs().filter(pl.col("sweep") == name).collect()
        seconds = {row["job_id"]: 3600 * row["cpu_hours"] for row in jobs.to_dicts()}
        # sacct counts whole seconds from before the script to after it; a run that was lost is known to its last heartbeat
        assert seconds == pytest.approx(counted(scene, name), abs=12)
        assert set(jobs["hosts"]) <= {"n1", "n2", "n3", "n4"}
        rows = results.costs().collect()
        assert rows["cpu_hours"].sum() == pytest.approx(sum(seconds.values()) / 3600, rel=0.02)
    with here(scene):
        found = verbs.cost("array", scene.root)
    causes = {(kind, group.value): group for kind, group in found.causes}
    assert causes["useful", "completed"].attempts == 3
    assert causes["useful", "completed"].hours["cpu_hours"] == pytest.approx(60 / 3600, rel=0.1)
    # killed at once, or with the time to leave a checkpoint
    ((kind, cause),) = {(kind, cause) for kind, cause in causes if causes[kind, cause].attempts and kind != "useful"}
    assert (kind, causes[kind, cause].attempts) in {("wasted", 1), ("continued", 1)}, cause
    assert set(verbs.load("packed", scene.root).attempts().collect()["job_id"]) == {f"{scene.job_id('packed')}"}


def test_a_budget_holds_jobs_back_until_it_is_raised(scene: Scene) -> None:
    words = ("workload=noop", "seconds=5", "launcher.pack=never", "launcher.poll_seconds=0.5")
    # now it is known how long a task takes
    submit(scene, *words, "name=first", "index=0")
    settle([(scene, "first")])
    wait_until(lambda: _all_closed(scene), 30, "the job is closed")
    shape = scene.submissions("first")[0]["request"]["shape"]
    slowest = scene.ledger.slowest[shape_name("noop", shape)]
    submit(scene, *words, "name=held", "index=range(1,9)", f"budget.cpu_hours={2.5 * slowest / 3600}")
    assert len(scene.tokens("held")) == 2
    wait_until(lambda: _tick(scene) and "held" in scene.ledger.paused, 90, "the budget is spent")
    assert "CPU-hours are spent (budget.cpu_hours)" in scene.ledger.paused["held"]
    assert len(scene.tokens("held")) <= 4, "one job may go beyond what is left"
    with here(scene):
        spent, limit = verbs.status("held", scene.root).budget["cpu_hours"]
        assert spent >= limit == 2.5 * slowest / 3600
        verbs.add("held", ["budget.cpu_hours=1"], scene.root, detach=True)
    settle([(scene, "held")])
    assert scene.counts("held") == {"completed": 8}
    wait_until(lambda: _all_closed(scene), 30, "all jobs are closed")
    assert 8 * slowest / 3600 < scene.ledger.spent["held"]["cpu_hours"] < 16 * slowest / 3600


def _tick(scene: Scene) -> bool:
    with here(scene):
        verbs.tick(scene.root)
    return True


def _all_closed(scene: Scene) -> bool:
    return _tick(scene) and not scene.ledger.batches
