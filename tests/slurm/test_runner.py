"""What runs on a node, under a real SLURM and without the orchestrator: memory of the whole job, warnings, runs and ranks."""

import os
import sys
from pathlib import Path
from typing import Any

from allocations import REQUEST
from batches import Batch, act, key, noop

from tests.slurm.cluster import REPOSITORY, Cluster, wait_until
from workers import taskdir
from workers.taskdir import Task


def submit(cluster: Cluster, root: Path, tasks: list[Task], token: str, *options: str, request: dict[str, Any], **terms: Any) -> Batch:
    """A batch as the launcher would submit it; its SLURM id stands in `environment`."""
    request = REQUEST | {"minutes": 3, "slots": 1, "cpus": 1, "memory_gib": 0.5} | request
    batch = Batch.write(root, tasks, token, **{"name": "slurm", "grace_seconds": 5.0} | terms, request=request)
    path = os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "tests")))
    script = f"export PYTHONPATH={path}\nexec {sys.executable} -P -m workers {root} {token}"
    words = [f"--job-name={token}", f"--time={request['minutes']}", f"--nodes={request['nodes']}", f"--cpus-per-task={request['cpus']}"]
    words += [f"--mem={round(1024 * request['memory_gib'])}M", f"--output={batch.folder / 'log'}", "--open-mode=append", "--requeue"]
    batch.environment["job"] = cluster.sbatch(script, *words, *options)
    return batch


def wait_for_end(batch: Batch, run: int = 0, seconds: float = 90) -> None:
    """Until its run has had its last word."""
    batch.run_number = run

    def over() -> bool:
        events = batch.events()
        return bool(events) and events[-1]["event"] == "over"

    wait_until(over, seconds, f"{batch.token} is over: {batch.log()}")


def test_who_fills_the_memory_of_a_job_is_known_by_its_cgroup(cluster: Cluster, shared: Path) -> None:
    """Nobody watches: the kernel kills, and what a task had started is as good as the task."""
    root = shared / "store"
    unwatched = {"limit_memory_by": "none"}
    room = {"memory_gib": 0.4}
    taker = [noop(1, fail="oom", resources=room), noop(2, seconds=8.0, memory_mib=100.0, resources=room)]
    parent = [act(3, "grandchild", resources=room), noop(4)]
    one = submit(cluster, root, taker, "s-00000000000a", request={"slots": 2, "cpus": 2, "memory_gib": 0.8}, **unwatched)
    other = submit(cluster, root, parent, "s-00000000000b", request=room, **unwatched)
    wait_for_end(one)
    assert one.outcomes() == {key(1): "host_oom", key(2): "completed"}
    assert "killed by the kernel: the job's memory was full" in one.end(1)["message"]
    wait_for_end(other)
    assert other.outcomes() == {key(3): "host_oom", key(4): "completed"}


def test_a_warned_job_goes_on_in_a_run_of_its_own(cluster: Cluster, shared: Path) -> None:
    root = shared / "store"
    task = noop(1, seconds=12.0, progress=True)
    batch = submit(cluster, root, [task], "s-00000000000c", request={})
    wait_until(lambda: list((root / "tasks").rglob("checkpoint-*.json")), 60, "a checkpoint")
    cluster.exec("scancel", "--batch", "--signal=USR1", batch.environment["job"])
    wait_for_end(batch)
    assert batch.over == "requeued"
    wait_for_end(batch, run=1)
    assert batch.end(1)["class"] == "completed"
    assert batch.end(1)["resumed_at"] > 0
    assert taskdir.run_dir(batch.folder, 1).is_dir()


def test_ranks_of_a_task_stand_on_all_nodes_and_end_with_it(cluster: Cluster, shared: Path) -> None:
    root = shared / "store"
    tasks = [act(1, "gang", file=str(shared / "rank"), resources={"nodes": 2, "cpus": 2}), noop(2)]
    batch = submit(cluster, root, tasks, "s-00000000000d", request={"nodes": 2, "cpus": 2, "cpus_per_slot": 2})
    stuck = [act(3, "ranks", file=str(shared / "pid"), resources={"nodes": 2})]
    deaf = submit(cluster, root, stuck, "s-00000000000e", request={"nodes": 2}, grace_seconds=1.0)
    wait_for_end(batch)
    assert set(batch.outcomes().values()) == {"completed"}
    said = [(shared / f"rank-{rank}").read_text().split() for rank in range(4)]
    assert [words[1:4] for words in said] == [["0", "0", "4"], ["1", "1", "4"], ["2", "0", "4"], ["3", "1", "4"]]
    assert said[0][0] == said[1][0] != said[2][0] == said[3][0]
    assert {words[4] for words in said} == {said[0][0]}
    wait_until((shared / "pid").exists, 60, "the stuck ranks run")
    cluster.exec("scancel", deaf.environment["job"])
    wait_until(lambda: not cluster.exec("squeue", "--noheader", "--steps"), 60, "no step is left")
