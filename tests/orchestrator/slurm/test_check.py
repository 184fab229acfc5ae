"""What a cluster would refuse is refused before, with what it offers; `tests/slurm` asks the real sbatch the same."""

import grp
import os
from pathlib import Path

import pytest

from orchestrator.launchers.slurm import Slurm
from orchestrator.slurm import recent, visibility
from orchestrator.slurm.check import MOST_SCRIPT_BYTES, check, problems
from orchestrator.slurm.inventory import Association, Cluster, NodeKind, Partition, Qos
from orchestrator.slurm.visibility import unseen

REQUEST = {"nodes": 1, "cpus": 1, "gpus": 0, "memory_gib": 0.1, "minutes": 5, "slots": 1, "packed": False}


@pytest.fixture
def cluster(recorded_slurm) -> Cluster:
    recent.forget()
    return Cluster.read()


def found(cluster: Cluster, **asked: object) -> list[str]:
    return problems(cluster, REQUEST | {name: asked.pop(name) for name in list(asked) if name in REQUEST}, **asked)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"partition": "high"},
        {"partition": "small,debug", "memory_gib": 1},
        {"account": "tiny"},
        {"partition": "ml", "account": "ml"},
        {"qos": "short", "minutes": 2},
        {"constraint": "rack1&a100"},
        {"constraint": "rack1|rack2"},
        {"constraint": "[rack1*1&rack2*1]", "nodes": 2},
        {"gpus": 2, "gpu_type": "a100"},
        {"nodes": 2, "gpus": 2, "gpu_type": "a100"},
        {"nodes": 4, "cpus": 4, "memory_gib": 4000 / 1024, "minutes": 24 * 60},
        {"num_jobs": 10_001},
        {"partition": "closed"},  # it may be opened again
    ],
)
def test_what_a_cluster_takes_is_not_refused(cluster: Cluster, asked: dict[str, object]) -> None:
    assert found(cluster, **asked) == []


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"partition": "debgu"}, "no partition 'debgu' on this cluster; did you mean 'debug'? There is cancel, closed, debug, grace"),
        ({"partition": "debug,xyz"}, "no partition 'xyz' on this cluster. There is"),
        (
            {"account": "physic"},
            "no account 'physic' among yours; did you mean 'physics'? There is ml, physics, root, tiny: launcher.account=...",
        ),
        ({"qos": "shrt"}, "no QOS 'shrt' on this cluster; did you mean 'short'? There is normal, short: launcher.qos=..."),
        ({"constraint": "rack3&a100"}, "no feature 'rack3' on this cluster; did you mean 'rack2'? There is a100, rack1, rack2, v100"),
        (
            {"gpu_type": "a10", "gpus": 1},
            "no GPU type 'a10' on this cluster; did you mean 'a100'? There is a100, v100: launcher.gpu_type=...",
        ),
        (
            {"gpu_type": "a100", "gpus": 3},
            "3 GPUs of type 'a100' on one node is more than a node of partition 'debug' has (2 GPUs; there: 2 a100",
        ),
        ({"gpus": 3}, "3 GPUs on one node is more than a node of partition 'debug' has (2 GPUs; there: 2 a100, 2 v100): ask for less"),
        (
            {"memory_gib": 9},
            "9 GiB on one node is more than a node of partition 'debug' has (3.906 GiB): ask for less, resources.memory_gib=...",
        ),
        ({"cpus": 5}, "5 CPUs on one node is more than a node of partition 'debug' has (4 CPUs): ask for less, resources.cpus=..."),
        ({"nodes": 5}, "5 nodes for a job is more than partition 'debug' has for one (4): ask for less, resources.nodes=..."),
        ({"partition": "short"}, "5 min is more than partition 'short' allows (1 min): ask for less, resources.walltime_minutes=..."),
        ({"minutes": 3000}, "50 h is more than partition 'debug' allows (24 h)"),
        ({"partition": "small", "memory_gib": 1}, "1 GiB on one node is more than a node of partition 'small' has (0.4883 GiB)"),
        ({"partition": "ml"}, "partition 'ml' does not take account 'physics'; it takes ml: launcher.account=ml"),
        ({"qos": "short"}, "5 min is more than QOS 'short' allows (2 min)"),
        (
            {"constraint": "rack1&rack2"},
            "a job asks for 1 node with 1 CPU, 0.1 GiB, 'rack1&rack2', and partition 'debug' has 0 such; it has 1 node of",
        ),
        ({"gpu_type": "v100", "gpus": 1, "constraint": "a100"}, "1 GPU, GPU type 'v100', 'a100', and partition 'debug' has 0 such"),
        (
            {"nodes": 3, "gpus": 1, "gpu_type": "a100"},
            "a job asks for 3 nodes with 1 CPU, 0.1 GiB, 1 GPU, GPU type 'a100', and partition 'debug' has 2",
        ),
        ({"num_jobs": 10_002}, "an array of 10002 jobs is longer than the cluster takes (MaxArraySize 10001): launcher.chunk=..."),
        ({"script_bytes": MOST_SCRIPT_BYTES + 1}, "bytes, more than SLURM takes (4194304): shorten launcher.setup"),
    ],
)
def test_what_a_cluster_would_refuse_is_refused_with_what_it_offers(cluster: Cluster, asked: dict[str, object], told: str) -> None:
    (problem,) = found(cluster, **asked)
    assert told in problem


def test_everything_that_is_wrong_is_told_at_once(cluster: Cluster) -> None:
    assert len(found(cluster, account="x", qos="y", constraint="z", gpu_type="w")) == 4
    assert len(found(cluster, cpus=9, memory_gib=99, gpus=9, nodes=9, minutes=9999)) == 5


def test_another_partition_is_named_where_one_would_do(cluster: Cluster) -> None:
    (problem,) = found(cluster, partition="short")
    assert problem.endswith("; or choose another partition: launcher.partition=debug (debug, low, cancel, grace, high, small would do)")
    (problem,) = found(cluster, nodes=5)
    assert "another partition" not in problem


def test_what_is_not_enforced_or_not_known_is_not_refused(recorded_slurm) -> None:
    recorded_slurm.says("scontrol", "AccountingStorageEnforce = none\nClusterName = scheduler\n", to="config")
    recent.forget()
    cluster = Cluster.read()
    assert found(cluster, account="any", qos="any") == []
    recorded_slurm.says("scontrol", "", err="denied", code=1, to="node")
    recent.forget()
    assert found(Cluster.read(), constraint="any", gpus=1) == []


def test_a_profile_is_checked_as_far_as_it_goes() -> None:
    cluster = Cluster.from_profile({"gpu": {"nodes": 2, "cpus_per_node": 8, "memory_gib": 32, "gpus": {"a100": 4}, "max_minutes": 60}})
    assert found(cluster, gpus=4, gpu_type="a100", account="any", qos="any", constraint="any") == []
    assert "33 GiB on one node" in found(cluster, memory_gib=33)[0]
    assert "no GPU type 'h100'" in found(cluster, gpus=1, gpu_type="h100")[0]


def test_a_cluster_without_a_default_partition_wants_one_named() -> None:
    two = {name: {"nodes": 2, "cpus_per_node": 8, "memory_gib": 32} for name in ("a", "b")}
    (problem,) = found(Cluster.from_profile(two))
    assert problem == "the cluster has no default partition: choose one, launcher.partition=...; it has a, b"


def cluster_of(partition: dict[str, object], **more: object) -> Cluster:
    """One partition `p` of two nodes."""
    given: dict[str, object] = {"nodes": 2, "cpus_per_node": 8, "memory_gib": 32.0, "default": True}
    kind = NodeKind(partitions=("p",), nodes=2, free=2, cpus=8, memory_gib=32.0, gpus=more.pop("gpus", {}), features=())  # type: ignore[arg-type]
    return Cluster(partitions={"p": Partition.from_plain(given | partition)}, kinds=(kind,), **more)  # type: ignore[arg-type]


OWN = Association(account="physics", is_default=True, qos=("normal",), most={"gres/gpu": 4.0, "cpu": 10.0}, most_per_node={"mem": 8.0})


@pytest.mark.parametrize(
    ("cluster", "asked", "told"),
    [
        (cluster_of({"state": "INACTIVE"}), {}, "partition 'p' takes no jobs now, it is INACTIVE: choose another"),
        (
            cluster_of({"denied_accounts": ["physics"]}, associations=(OWN,)),
            {},
            "does not take account 'physics'; it takes all but physics: choose another",
        ),
        (cluster_of({"qos": ["long"]}), {"qos": "short"}, "partition 'p' does not take qos 'short'; it takes long: launcher.qos=long"),
        (
            cluster_of({}, enforced=("qos",), associations=(OWN,)),
            {"qos": "long"},
            "QOS 'long' is not for your account. It may use normal: launcher.qos=...",
        ),
        (
            cluster_of({}, enforced=("limits",), associations=(OWN,)),
            {"cpus": 6, "nodes": 2},
            "12 CPUs is more than account 'physics' allows (10 CPUs)",
        ),
        (
            cluster_of({}, enforced=("limits",), associations=(OWN,)),
            {"memory_gib": 9},
            "9 GiB on one node is more than account 'physics' allows (8 GiB)",
        ),
        (
            cluster_of({}, enforced=("safe",), qos={"normal": Qos(name="normal", most={"node": 1.0})}),
            {"nodes": 2},
            "2 nodes is more than QOS 'normal'",
        ),
        (cluster_of({}, gpus={"": 2}), {"gpus": 1, "gpu_type": "a100"}, "it names no types of its GPUs, so leave launcher.gpu_type out"),
        (cluster_of({}), {"gpus": 1, "gpu_type": "a100"}, "no GPU type 'a100' on this cluster: it has no GPUs"),
        (cluster_of({}), {"gpus": 1}, "1 GPU on one node is more than a node of partition 'p' has (0 GPUs)"),
        (cluster_of({"max_nodes": 1}), {"nodes": 2}, "2 nodes for a job is more than partition 'p' has for one (1)"),
    ],
)
def test_other_clusters_refuse_other_things(cluster: Cluster, asked: dict[str, object], told: str) -> None:
    (problem,) = found(cluster, **asked)
    assert told in problem


def test_a_partition_of_other_groups_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = grp.getgrgid(os.getgid()).gr_name
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    assert found(cluster_of({"groups": [mine]})) == []
    (problem,) = found(cluster_of({"groups": ["no-such-group"]}))
    assert problem == "partition 'p' is for the groups no-such-group, and you are in none: choose another, launcher.partition=..."


def test_a_launcher_is_checked_by_its_settings_and_by_what_sbatch_takes_from_the_environment(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert check(cluster, Slurm(partition="debug", account="tiny"), REQUEST) == []
    assert "no QOS 'shrt'" in check(cluster, Slurm(qos="shrt"), REQUEST)[0]
    monkeypatch.setenv("SBATCH_PARTITION", "debgu")
    assert "no partition 'debgu'" in check(cluster, Slurm(), REQUEST)[0]
    assert check(cluster, Slurm(partition="debug"), REQUEST) == []


# -- what the nodes see -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/tmp/x/store", "/dev/shm/store", "/run/user/0/store"])
def test_a_folder_that_each_host_has_for_itself_is_not_seen(path: str) -> None:
    folder = "/" + path.split("/")[1]
    assert unseen(Path(path)) == f"{path} is in {folder}, of which each node has its own"


def test_a_file_system_in_memory_is_not_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(visibility, "_OWN_FOLDERS", ())
    lines = [
        "22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw",
        "23 22 0:20 / /scratch/in\\040memory rw - tmpfs tmpfs rw",
        "24 22 0:21 / /scratch/lustre rw - lustre mds rw",
        "25 22 0:22 / /over rw - tmpfs none rw",
        "26 22 0:23 / /over rw - nfs4 server:/x rw",
    ]
    (tmp_path / "mountinfo").write_text("\n".join(lines))
    monkeypatch.setattr(visibility, "_MOUNTS", tmp_path / "mountinfo")
    assert unseen(Path("/scratch/in memory/a/store")) == "/scratch/in memory/a/store is on /scratch/in memory, a tmpfs of this host alone"
    assert unseen(Path("/scratch/lustre/store")) == unseen(Path("/over/store")) == unseen(Path("/home/store")) == ""


def test_the_folders_that_a_site_names_settle_it(cluster: Cluster, tmp_path: Path) -> None:
    assert unseen(tmp_path / "store", [str(tmp_path)]) == ""
    assert unseen(Path("/home/x"), ["/work", "/scratch"]) == "/home/x is in none of the folders that the nodes see (/work, /scratch)"
    (problem,) = found(cluster, root=Path("/tmp/store"))
    assert problem.startswith("the nodes do not see the store: /tmp/store is in /tmp") and "launcher.shared=[DIR]" in problem
    assert found(cluster, root=tmp_path, shared=[str(tmp_path)]) == []
