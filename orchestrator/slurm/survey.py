"""What scontrol and sacctmgr print about a cluster, as plain values; what is not there, or forbidden, is left out."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.slurm.times import seconds

Plain = dict[str, Any]

CONFIG = ["scontrol", "show", "config"]
PARTITIONS = ["scontrol", "--oneliner", "--all", "show", "partition"]
NODES = ["scontrol", "--oneliner", "--all", "show", "node"]
QOS_FIELDS = "Name MaxWall MaxSubmitPU MaxSubmitPA GrpSubmit MaxTRES MaxTRESPU MaxTRESPA GrpTRES MaxTRESPerNode".split()
QOS = ["sacctmgr", "--noheader", "--parsable2", "show", "qos", f"format={','.join(QOS_FIELDS)}"]
USER_FIELDS = "DefaultAccount Cluster Account Partition GrpSubmit MaxSubmit MaxWall GrpTRES MaxTRES MaxTRESPerNode QOS DefaultQOS".split()

_GONE = frozenset("DOWN DRAIN DRAINED DRAINING FAIL FAILING ERROR INVAL INVALID_REG FUTURE NOT_RESPONDING NO_RESPOND UNKNOWN".split())
_GPU = re.compile(r"gpu(?::([\w.-]+))?:(\d+)(?![\w.])")
_UNITS = {"K": 2.0**-20, "M": 2.0**-10, "G": 1.0, "T": 2.0**10, "P": 2.0**20}


def user(name: str) -> list[str]:
    """The command that lists a user's associations."""
    return ["sacctmgr", "--noheader", "--parsable2", "show", "user", name, "withassoc", f"format={','.join(USER_FIELDS)}"]


def config(text: str) -> Plain:
    """From `scontrol show config`: name, longest array, what accounting enforces."""
    found = {key.strip(): value.strip() for key, mark, value in (line.partition("=") for line in text.splitlines()) if mark}
    return {
        "name": found.get("ClusterName", ""),
        "max_array_size": _count(found.get("MaxArraySize", "")),
        "enforced": words(found.get("AccountingStorageEnforce", "")) or [],
    }


def partitions(text: str) -> Iterator[Plain]:
    """From `scontrol -o show partition`, without what the nodes tell."""
    for line in text.splitlines():
        found = _pairs(line)
        if "PartitionName" not in found:
            continue
        most = found.get("MaxMemPerNode", "")
        yield {
            "name": found["PartitionName"],
            "state": found.get("State", "UP"),
            "default": found.get("Default") == "YES",
            "max_minutes": minutes(found.get("MaxTime", "")),
            "max_nodes": _count(found.get("MaxNodes", "")),
            "max_cpus_per_node": _count(found.get("MaxCPUsPerNode", "")),
            "max_memory_gib": int(most) / 1024 if most.isdecimal() else None,
            "accounts": words(found.get("AllowAccounts", "")),
            "denied_accounts": words(found.get("DenyAccounts", "")) or [],
            "qos": words(found.get("AllowQos", "")),
            "denied_qos": words(found.get("DenyQos", "")) or [],
            "groups": words(found.get("AllowGroups", "")),
            "own_qos": "" if found.get("QoS", "N/A") == "N/A" else found["QoS"],
            "total": _totals(found),
        }


def _totals(found: Mapping[str, str]) -> Plain:
    """What all nodes of a partition have together, for where the nodes themselves are not shown."""
    tres = amounts(found.get("TRES", ""))
    gpus = {key.partition(":")[2]: int(number) for key, number in tres.items() if key.startswith("gres/gpu")}
    if len(gpus) > 1:
        gpus.pop("", None)
    nodes = _count(found.get("TotalNodes", "")) or 0
    return {"nodes": nodes, "cpus": _count(found.get("TotalCPUs", "")) or 0, "memory_gib": tres.get("mem", 0.0), "gpus": gpus}


def nodes(text: str) -> Iterator[Plain]:
    """From `scontrol -o show node`."""
    for line in text.splitlines():
        found = _pairs(line)
        if "NodeName" not in found:
            continue
        memory = (_count(found.get("RealMemory", "")) or 0) - (_count(found.get("MemSpecLimit", "")) or 0)
        yield {
            "partitions": words(found.get("Partitions", "")) or [],
            "is_free": not _GONE.intersection(re.split(r"\W+", found.get("State", ""))),
            "cpus": _count(found.get("CPUEfctv", "")) or _count(found.get("CPUTot", "")) or 0,
            "memory_gib": memory / 1024,
            "gpus": gpus(found.get("Gres", "")),
            "features": words(found.get("AvailableFeatures", "")) or [],
        }


def gpus(text: str) -> dict[str, int]:
    """Number by type from `gpu:a100:2(S:0-1),shard:4`; the type of `gpu:2` is empty."""
    found: dict[str, int] = {}
    for part in text.split(","):
        if match := _GPU.match(part):
            found[match[1] or ""] = found.get(match[1] or "", 0) + int(match[2])
    return found


def qos(text: str) -> Iterator[Plain]:
    """From `sacctmgr show qos`."""
    for parts in _table(text, len(QOS_FIELDS)):
        name, wall, submit_user, submit_account, submit_all, *most, per_node = parts
        yield {
            "name": name,
            "max_minutes": minutes(wall),
            "max_submit": _least(submit_user, submit_account, submit_all),
            "most": _smallest(most),
            "most_per_node": amounts(per_node),
        }


def associations(text: str, cluster: str) -> Iterator[Plain]:
    """From `sacctmgr show user withassoc`: the accounts through which the user may submit to this cluster."""
    for parts in _table(text, len(USER_FIELDS)):
        default, own_cluster, account, partition, submit_all, submit_user, wall, most_all, most, per_node, own_qos, default_qos = parts
        if account and own_cluster == cluster:
            yield {
                "account": account,
                "is_default": account == default,
                "partition": partition,
                "max_submit": _least(submit_user, submit_all),
                "max_minutes": minutes(wall),
                "most": _smallest([most_all, most]),
                "most_per_node": amounts(per_node),
                "qos": words(own_qos) or [],
                "default_qos": default_qos,
            }


def amounts(text: str) -> dict[str, float]:
    """`cpu=4,mem=10G,gres/gpu:a100=2` as numbers, memory in GiB."""
    found = {}
    for part in text.split(","):
        name, _, amount = part.partition("=")
        if match := re.fullmatch(r"(\d+(?:\.\d+)?)([KMGTP]?)", amount):
            # without a unit memory is in MiB
            found[name] = float(match[1]) * (_UNITS[match[2] or "M"] if name == "mem" else 1.0)
    return found


def minutes(text: str) -> int | None:
    """Whole minutes of a limit such as `1-00:00:00`; None: there is none."""
    found = seconds(text)
    return None if found is None else int(found // 60)


def words(text: str) -> list[str] | None:
    """A list with commas; None for all, and where nothing is said."""
    return None if text in ("", "ALL", "(null)", "N/A", "none") else [word for word in text.split(",") if word]


def _pairs(line: str) -> dict[str, str]:
    """Keys and values of a line of scontrol; of a text with spaces only its beginning.

    The first of a name counts: a reason, at the end, is free text.
    """
    found: dict[str, str] = {}
    for word in line.split():
        key, _, value = word.partition("=")
        found.setdefault(key, value)
    return found


def _table(text: str, width: int) -> Iterator[list[str]]:
    return (parts for line in text.splitlines() if len(parts := line.split("|")) == width)


def _count(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def _least(*texts: str) -> int | None:
    return min((int(text) for text in texts if text.isdecimal()), default=None)


def _smallest(texts: list[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for one in map(amounts, texts):
        found |= {name: min(amount, found.get(name, amount)) for name, amount in one.items()}
    return found
