"""What a cluster is said to offer, from what SLURM really printed, from other versions of it, and from a profile."""

import os
import stat

import pytest

from orchestrator.launchers.launcher import SchedulerSilent
from orchestrator.slurm import recent, survey
from orchestrator.slurm.commands import calls
from orchestrator.slurm.inventory import Cluster, Partition
from workers.errors import ConfigError, UnknownName
from workers.processes import host_dir


@pytest.fixture(autouse=True)
def _forget() -> None:
    recent.forget()


# -- a real cluster -----------------------------------------------------------------------------------------------------


def test_partitions_of_a_real_cluster(recorded_slurm) -> None:
    cluster = Cluster.read()
    assert list(cluster.partitions) == "debug low cancel grace high short small ml closed".split()
    assert cluster.partitions["debug"] == Partition(
        nodes=4,
        cpus_per_node=4,
        memory_gib=4000 / 1024,
        gpus={"a100": 2, "v100": 2},
        features=("a100", "rack1", "rack2", "v100"),
        max_minutes=24 * 60,
        default=True,
    )
    assert cluster.default_partition == "debug"
    assert cluster.partitions["low"].max_minutes is None
    assert cluster.partitions["short"].max_minutes == 1
    assert cluster.partitions["small"].memory_gib == 500 / 1024
    assert cluster.partitions["ml"].accounts == ("ml",)
    assert cluster.partitions["closed"].state == "DOWN"
    assert cluster.max_array_size == 10_001


def test_nodes_that_are_alike_are_one_kind(recorded_slurm) -> None:
    kinds = Cluster.read().kinds
    assert [(kind.nodes, kind.free, kind.cpus, kind.gpus, kind.features) for kind in kinds] == [
        (1, 1, 4, {"a100": 2}, ("a100", "rack2")),
        (1, 1, 4, {"a100": 2}, ("a100", "rack1")),
        (1, 1, 4, {"v100": 2}, ("v100", "rack2")),
        (1, 1, 4, {"v100": 2}, ("v100", "rack1")),
    ]


def test_limits_follow_account_and_qos(recorded_slurm) -> None:
    cluster = Cluster.read()
    assert cluster.accounts == ("tiny", "physics", "ml", "root")
    assert set(cluster.qos or {}) == {"normal", "short"}
    assert cluster.max_submit is None
    assert cluster.most_submitted("tiny") == 5
    assert cluster.most_submitted(qos="short") == 10
    assert cluster.most_submitted("tiny", "short") == 5
    assert [one.max_minutes for one in cluster.limits(qos="short")] == [2, None]


def test_headroom_is_what_the_queue_leaves(recorded_slurm) -> None:
    cluster = Cluster.read()
    before = calls.copy()
    assert cluster.headroom() is None
    assert calls == before, "nobody is asked where there is no limit"
    recorded_slurm.says("squeue", "1\n2\n3\n")
    assert cluster.headroom("tiny") == 2
    recorded_slurm.says("squeue", "1\n" * 9)
    assert cluster.headroom("tiny") == 0


def test_limits_that_are_not_enforced_are_none(recorded_slurm) -> None:
    recorded_slurm.says("scontrol", "AccountingStorageEnforce = none\nClusterName = scheduler\n", to="config")
    cluster = Cluster.read()
    assert cluster.enforced == () and cluster.most_submitted("tiny") is None
    assert cluster.max_array_size == 1001


# -- other clusters -----------------------------------------------------------------------------------------------------


def test_a_cluster_that_forbids_all_but_its_partitions(recorded_slurm) -> None:
    for word in ("config", "node"):
        recorded_slurm.says("scontrol", err="slurm_load_node error: Access/permission denied", code=1, to=word)
    for word in ("qos", "user"):
        recorded_slurm.says("sacctmgr", err="sacctmgr: error: Problem talking to the database", code=1, to=word)
    cluster = Cluster.read()
    assert (cluster.qos, cluster.accounts, cluster.max_submit, cluster.enforced) == (None, None, None, ())
    # what the partition's nodes have together, by their number
    debug = cluster.partitions["debug"]
    assert (debug.nodes, debug.cpus_per_node, debug.memory_gib, debug.gpus) == (4, 4, 4000 / 1024, {"": 2})


def test_a_cluster_without_sacctmgr(recorded_slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded_slurm.remove("sacctmgr")
    tools = recorded_slurm.folder / "tools"
    tools.mkdir()
    for tool in ("sh", "cat"):
        (tools / tool).symlink_to(f"/bin/{tool}")
    monkeypatch.setenv("PATH", f"{recorded_slurm.folder / 'bin'}:{tools}")
    assert Cluster.read().accounts is None


def test_a_cluster_that_is_silent(recorded_slurm) -> None:
    recorded_slurm.says("scontrol", err="Unable to contact slurm controller (connect failure)", code=1, to="partition")
    with pytest.raises(SchedulerSilent, match="Unable to contact slurm controller"):
        Cluster.read()


def test_a_user_of_whom_accounting_knows_nothing_is_not_known_to_have_no_account(recorded_slurm) -> None:
    recorded_slurm.says("sacctmgr", "", to="user")
    assert Cluster.read().accounts is None


# fields as in SLURM 24.11 and later, on a cluster with other kinds of nodes
NODES = """\
NodeName=c1 Arch=x86_64 CoresPerSocket=64  CPUAlloc=0 CPUEfctv=126 CPUTot=128 AvailableFeatures=ib,zen4 \
Gres=gpu:nvidia_h100:4(S:0-1),shard:16 NodeAddr=c1 Port=6818 Version=24.11.0 OS=Linux 6.1 #1 SMP  RealMemory=1031000 \
AllocMem=0 FreeMem=22800 MemSpecLimit=7000 State=MIXED+PLANNED ThreadsPerCore=1 TmpDisk=0 Weight=1 Partitions=gpu
NodeName=c2 CPUEfctv=126 CPUTot=128 AvailableFeatures=ib,zen4 Gres=gpu:nvidia_h100:4(S:0-1),shard:16 RealMemory=1031000 MemSpecLimit=7000 \
State=IDLE+DRAIN Partitions=gpu Reason=disk full: RealMemory=9 is odd State=IDLE [root@2026-11-22T21:14:16]
NodeName=c3 CPUTot=8 AvailableFeatures=(null) Gres=(null) RealMemory=16000 State=DOWN* Partitions=cpu
NodeName=c4 CPUTot=8 AvailableFeatures=(null) Gres=gpu:a30:1,gpu:t4:2 RealMemory=16000 State=IDLE~ Partitions=cpu
"""
PARTITIONS = """\
PartitionName=gpu AllowGroups=hpc,ml DenyAccounts=guest DenyQos=debug Default=NO QoS=part_gpu MaxNodes=2 MaxTime=2-00:00:00 MinNodes=0 \
MaxCPUsPerNode=64 MaxCPUsPerSocket=UNLIMITED Nodes=c[1-2] Exclusive=NO State=UP TotalCPUs=256 TotalNodes=2 MaxMemPerNode=UNLIMITED \
TRES=cpu=252,mem=2000G,node=2,billing=252,gres/gpu=8,gres/gpu:nvidia_h100=8
PartitionName=cpu AllowGroups=ALL AllowAccounts=ALL AllowQos=normal,long Default=YES QoS=N/A MaxNodes=UNLIMITED MaxTime=UNLIMITED \
Nodes=c[3-4] State=UP TotalCPUs=16 TotalNodes=2 MaxMemPerCPU=2000
PartitionName=empty Default=NO MaxTime=UNLIMITED Nodes=(null) State=UP TotalCPUs=0 TotalNodes=0
"""


@pytest.fixture
def other_slurm(recorded_slurm):
    recorded_slurm.says("scontrol", NODES, to="node")
    recorded_slurm.says("scontrol", PARTITIONS, to="partition")
    return recorded_slurm


def test_other_versions_and_kinds_of_nodes(other_slurm) -> None:
    cluster = Cluster.read()
    gpu, cpu = cluster.partitions["gpu"], cluster.partitions["cpu"]
    assert (gpu.nodes, gpu.cpus_per_node, gpu.memory_gib, gpu.gpus, gpu.features) == (2, 64, 1000.0, {"nvidia_h100": 4}, ("ib", "zen4"))
    assert (gpu.max_minutes, gpu.max_nodes, gpu.own_qos) == (2 * 24 * 60, 2, "part_gpu")
    assert (gpu.groups, gpu.accounts, gpu.denied_accounts, gpu.denied_qos) == (("hpc", "ml"), None, ("guest",), ("debug",))
    assert (cpu.nodes, cpu.gpus, cpu.qos) == (2, {"a30": 1, "t4": 2}, ("normal", "long"))
    assert [(kind.nodes, kind.free, kind.cpus) for kind in cluster.kinds] == [(2, 1, 126), (1, 0, 8), (1, 1, 8), (0, 0, 0)]
    assert (cluster.partitions["empty"].nodes, cluster.partitions["empty"].cpus_per_node) == (0, 0)


def test_a_partition_has_limits_by_a_qos_of_its_own(other_slurm) -> None:
    other_slurm.says("sacctmgr", "normal|||||||||\npart_gpu|1-00:00:00|20|15||node=2|cpu=64,gres/gpu=4|gres/gpu=6||mem=500G\n", to="qos")
    cluster = Cluster.read()
    assert cluster.most_submitted(partition="gpu") == cluster.most_submitted(partition="cpu,gpu") == 15
    assert cluster.most_submitted(partition="cpu") is None
    limits = next(one for one in cluster.limits(partition="gpu") if one.max_minutes)
    assert limits.most == {"node": 2, "cpu": 64, "gres/gpu": 4} and limits.most_per_node == {"mem": 500}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("gpu:2", {"": 2}),
        ("gpu:a100:4(S:0-1)", {"a100": 4}),
        ("gpu:a100:2(S:0),gpu:a100:2(S:1),gpu:t4:1", {"a100": 4, "t4": 1}),
        ("shard:a100:8,craynetwork:4", {}),
        ("gpu:a100_3g.20gb:2", {"a100_3g.20gb": 2}),
        ("(null)", {}),
    ],
)
def test_gpus_are_counted_by_type(text: str, found: dict[str, int]) -> None:
    assert survey.gpus(text) == found


def test_amounts_have_their_units() -> None:
    assert survey.amounts("cpu=4,mem=512,node=1") == {"cpu": 4, "mem": 0.5, "node": 1}
    assert survey.amounts("mem=1.5T,gres/gpu:a100=2,billing=x,") == {"mem": 1536, "gres/gpu:a100": 2}


# -- kept for a while ---------------------------------------------------------------------------------------------------


def test_a_second_look_asks_nobody_and_neither_does_another_process(recorded_slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Cluster.read()
    before = calls.copy()
    assert Cluster.read() is first
    monkeypatch.setattr(recent, "_known", {})  # as another process begins
    assert Cluster.read() == first
    assert calls == before
    monkeypatch.setattr(recent, "_known", {})
    monkeypatch.setattr(recent, "HOST_SECONDS", -1.0)
    assert Cluster.read() == first
    assert calls.total() == before.total() + 5


def test_what_is_kept_is_of_one_cluster_and_of_this_user_alone(recorded_slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    Cluster.read()
    (path,) = host_dir().glob("slurm-*.json")
    assert stat.S_IMODE(host_dir().stat().st_mode) == 0o700
    monkeypatch.setenv("SLURM_CONF", "/etc/another.conf")
    before = calls.total()
    Cluster.read()
    assert calls.total() == before + 5
    # another user's file, or one that is broken, is none
    monkeypatch.setattr(recent, "_known", {})
    for path in host_dir().glob("slurm-*.json"):
        path.write_text("{")
    Cluster.read()
    assert calls.total() == before + 10
    monkeypatch.setattr(recent, "_known", {})
    if os.getuid() == 0:
        for path in host_dir().glob("slurm-*.json"):
            os.chown(path, 65534, 65534)
        Cluster.read()
        assert calls.total() == before + 15


# -- a profile ----------------------------------------------------------------------------------------------------------


def test_a_profile_stands_for_a_cluster() -> None:
    cluster = Cluster.from_profile({"gpu": {"nodes": 2, "cpus_per_node": 64, "memory_gib": 500, "gpus": {"a100": 4}, "max_minutes": 2880}})
    assert cluster.default_partition == "gpu"
    assert (cluster.max_array_size, cluster.max_submit, cluster.accounts) == (1001, None, None)
    (kind,) = cluster.kinds
    assert (kind.nodes, kind.cpus, kind.memory_gib, kind.gpus, kind.features) == (2, 64, 500.0, {"a100": 4}, None)


@pytest.mark.parametrize(
    ("partitions", "kind", "told"),
    [
        ({"gpu": {"nodes": 2}}, ConfigError, "partitions.gpu lacks cpus_per_node, memory_gib"),
        ({"gpu": 4}, ConfigError, "partitions.gpu must be keys and values such as {nodes: 4,"),
        ({"gpu": {"nodes": 2, "cpus_per_node": 4, "memory_gib": 9, "max_minuts": 3}}, UnknownName, "did you mean 'max_minutes'"),
        ({"gpu": {"nodes": 2, "cpus_per_node": 4, "memory_gib": "9G"}}, ConfigError, "memory_gib must be a number, got '9G'"),
        ({"gpu": {"nodes": -2, "cpus_per_node": 4, "memory_gib": 9}}, ConfigError, "nodes must be at least 0, got -2"),
    ],
)
def test_a_profile_that_cannot_be_is_refused(partitions: dict, kind: type[ConfigError], told: str) -> None:
    with pytest.raises(kind, match=told.replace("(", r"\(").replace("{", r"\{")):
        Cluster.from_profile(partitions)
