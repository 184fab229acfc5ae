"""Ray on the nodes of one allocation: all of them work, one that is lost costs no call, and nothing is left on any."""

import sys
from pathlib import Path

import pytest
from batches import PYTHONPATH
from ray_here import needs_ray

from tests.slurm.cluster import Cluster, wait_until

pytestmark = [needs_ray, pytest.mark.slow]

DRIVER = """
import os, sys
from workers.allocation import expand
from workers.sharded.pool import Call
from workers.sharded.ray_cluster import ray_cluster
from workers.sharded.ray_pool import RayPool
nodes, folder = expand(os.environ["SLURM_JOB_NODELIST"]), sys.argv[1]
with ray_cluster(nodes, cpus_per_node=1) as cluster, RayPool(len(nodes)) as pool:
    assert cluster.nodes == nodes, cluster.nodes
    open(folder + "/pid", "w").write(str(os.getpid()))
    calls = [Call({"folder": folder, "number": n}) for n in range(9)]
    seen = []
    assert sorted(pool.run("pool_calls:wait", calls, report=seen.append)) == [(n, n) for n in range(9)]
    print(f"redone={seen[-1].redone} hosts={sorted(pool.hosts())}", flush=True)
"""


def submit(cluster: Cluster, shared: Path, num_nodes: int, then: str) -> str:
    """A job that goes on when a node of it is lost."""
    (shared / "driver.py").write_text(DRIVER)
    script = f"export PYTHONPATH={PYTHONPATH}\n{sys.executable} -P driver.py {shared} > out 2> err\n{then}"
    return cluster.sbatch(script, f"--nodes={num_nodes}", "--ntasks-per-node=1", "--no-kill", "--mem=2500M", f"--chdir={shared}")


def wait_for_work(shared: Path, count: int) -> None:
    """Until so many calls have begun; what the driver said, if they never do."""
    wait_until(lambda: len(list(shared.glob("began-*"))) == count, 120, "all workers at work")


def leftovers(cluster: Cluster, node: str) -> str:
    return cluster.on(
        node, "sh", "-c", "ls -d /tmp/r[0-9]*_* 2>/dev/null; pgrep -fl '[r]aylet|[g]cs_server|[r]ay_node|[r]ay::'", check=False
    ).strip()


def test_a_node_that_loses_its_power_costs_no_call(cluster, shared):
    job = submit(cluster, shared, 3, "")
    wait_for_work(shared, 3)
    nodes = cluster.exec("scontrol", "show", "hostnames", cluster.exec("squeue", "-h", "-j", job, "-o", "%N").strip()).split()
    cluster.kill_node(nodes[-1])
    (shared / "go").touch()
    cluster.wait_for(job, "COMPLETED", "", seconds=120)
    assert f"redone=1 hosts={nodes[:2]}" in (shared / "out").read_text(), (shared / "err").read_text()
    assert not any(leftovers(cluster, node) for node in nodes[:2])


def test_nothing_is_left_on_any_node_when_the_driver_is_killed(cluster, shared):
    job = submit(cluster, shared, 2, f"while [ ! -e {shared}/go ]; do sleep 0.1; done")
    wait_for_work(shared, 2)
    nodes = cluster.exec("scontrol", "show", "hostnames", cluster.exec("squeue", "-h", "-j", job, "-o", "%N").strip()).split()
    assert all(leftovers(cluster, node) for node in nodes)
    cluster.on(nodes[0], "kill", "-9", (shared / "pid").read_text())
    wait_until(lambda: not any(leftovers(cluster, node) for node in nodes), 30, "nothing is left, though the job goes on")
    assert cluster.state(job) == "RUNNING"
    (shared / "go").touch()
    cluster.wait_for(job, "COMPLETED", "", seconds=60)
