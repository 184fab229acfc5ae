"""What a cluster offers: partitions, kinds of nodes, accounts and limits; as SLURM describes it, or a site's profile."""

import math
import os
import pwd
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.launchers.launcher import SchedulerSilent
from orchestrator.slurm import recent, survey
from orchestrator.slurm.commands import call
from workers.errors import ConfigError
from workers.settings import Settings, setting

# where an association names none
_DEFAULT_QOS = "normal"


@dataclass(frozen=True, kw_only=True)
class NodeKind(Settings):
    """Nodes that are alike; `free` of them are not down or drained. `gpus`: number by type, "" where the cluster names none.

    None for `gpus` and `features`: not known.
    """

    partitions: tuple[str, ...]
    nodes: int = setting(low=0)
    free: int = setting(low=0)
    cpus: int = setting(low=0)
    memory_gib: float = setting(low=0)
    gpus: dict[str, int] | None = None
    features: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Partition(Settings):
    """What jobs may ask for in a partition. `cpus_per_node`, `memory_gib` and `gpus` are the most of any node; None: no limit, all."""

    nodes: int = setting(0, low=0)
    cpus_per_node: int = setting(0, low=0)
    memory_gib: float = setting(0.0, low=0, unit="GiB")
    gpus: dict[str, int] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    max_minutes: int | None = setting(None, low=0)
    max_nodes: int | None = setting(None, low=0)
    default: bool = False
    state: str = "UP"
    accounts: tuple[str, ...] | None = None
    denied_accounts: tuple[str, ...] = ()
    qos: tuple[str, ...] | None = None
    denied_qos: tuple[str, ...] = ()
    groups: tuple[str, ...] | None = None
    own_qos: str = ""


@dataclass(frozen=True, kw_only=True)
class Qos(Settings):
    """Limits of a quality of service. `most` of what a job may ask for, by SLURM's name (cpu, mem in GiB, gres/gpu, node)."""

    name: str
    max_minutes: int | None = None
    max_submit: int | None = None
    most: dict[str, float] = field(default_factory=dict)
    most_per_node: dict[str, float] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What a message calls it."""
        return f"QOS {self.name!r}"


@dataclass(frozen=True, kw_only=True)
class Association(Settings):
    """An account through which this user may submit, with its limits; `partition`: only there."""

    account: str
    partition: str = ""
    is_default: bool = False
    max_minutes: int | None = None
    max_submit: int | None = None
    most: dict[str, float] = field(default_factory=dict)
    most_per_node: dict[str, float] = field(default_factory=dict)
    qos: tuple[str, ...] = ()
    default_qos: str = ""

    @property
    def title(self) -> str:
        """What a message calls it."""
        return f"account {self.account!r}"


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What a cluster offers to this user.

    `enforced`: what its accounting insists on (associations, limits, qos). None for `qos` and `associations`: not known.
    """

    partitions: dict[str, Partition]
    kinds: tuple[NodeKind, ...]
    # SLURM's own, where nothing is known
    max_array_size: int = 1001
    enforced: tuple[str, ...] = ()
    qos: dict[str, Qos] | None = None
    associations: tuple[Association, ...] | None = None

    @classmethod
    def read(cls) -> "Cluster":
        """As SLURM describes it, at most some minutes ago. Raises SchedulerSilent."""
        return recent.answer("cluster", lambda: _read().to_plain(), cls.from_plain)

    @classmethod
    def from_profile(cls, partitions: Mapping[str, Any]) -> "Cluster":
        """From a site's own list, where there is no SLURM to ask: name -> nodes, cpus_per_node, memory_gib and other fields."""
        found = {name: _partition_of_profile(name, values) for name, values in partitions.items()}
        if len(found) == 1:
            found = {name: replace(one, default=True) for name, one in found.items()}
        return cls(partitions=found, kinds=tuple(_kind_of(name, one) for name, one in found.items()))

    @property
    def accounts(self) -> tuple[str, ...] | None:
        """Those of this user; None: not known."""
        return None if self.associations is None else tuple(dict.fromkeys(one.account for one in self.associations))

    @property
    def max_submit(self) -> int | None:
        """Jobs that the user may have queued and running at once, where they choose neither account nor QOS; None: no limit."""
        return self.most_submitted()

    def most_submitted(self, account: str | None = None, qos: str | None = None, partition: str | None = None) -> int | None:
        """The same for a choice of these; of several partitions the strictest counts."""
        names = (partition or "").split(",")
        limits = [one.max_submit for name in names for one in self.limits(account, qos, name)]
        return min((limit for limit in limits if limit is not None), default=None)

    def headroom(self, account: str | None = None, qos: str | None = None, partition: str | None = None) -> int | None:
        """How many more jobs the user may submit now, by one call of squeue; None: there is no limit. Raises SchedulerSilent."""
        most = self.most_submitted(account, qos, partition)
        if most is None:
            return None
        # all of the user's, also those that count towards other limits: rather too few than refused
        return max(0, most - len(call(["squeue", "--noheader", "--array", "--all", "--format=%A", f"--user={os.getuid()}"]).split()))

    def limits(self, account: str | None = None, qos: str | None = None, partition: str | None = None) -> "Iterator[Qos | Association]":
        """Those that SLURM applies to a job of this account, QOS and partition."""
        if not {"limits", "safe", "all"}.intersection(self.enforced):
            return
        own = self.association(account, partition)
        place = self.partitions.get(partition or self.default_partition)
        names = [qos or (own.default_qos if own else "") or _DEFAULT_QOS, place.own_qos if place else ""]
        yield from (self.qos[one] for one in names if self.qos and one in self.qos)
        if own:
            yield own

    def association(self, account: str | None = None, partition: str | None = None) -> Association | None:
        """The one that a job goes by; that of the partition itself comes first."""
        found = [one for one in self.associations or () if (one.account == account if account else one.is_default)]
        found = [one for one in found if one.partition in ("", partition or self.default_partition)]
        return max(found, key=lambda one: one.partition, default=None)

    @property
    def default_partition(self) -> str:
        """Where jobs go that choose none; empty: nowhere."""
        return next((name for name, one in self.partitions.items() if one.default), "")

    def to_plain(self) -> dict[str, Any]:
        """A JSON object that `from_plain` reads back."""
        return {
            "partitions": {name: one.to_plain() for name, one in self.partitions.items()},
            "kinds": [one.to_plain() for one in self.kinds],
            "max_array_size": self.max_array_size,
            "enforced": list(self.enforced),
            "qos": None if self.qos is None else {name: one.to_plain() for name, one in self.qos.items()},
            "associations": None if self.associations is None else [one.to_plain() for one in self.associations],
        }

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> "Cluster":
        """The cluster that `to_plain` wrote."""
        qos, associations = values["qos"], values["associations"]
        return cls(
            partitions={name: Partition.from_plain(one) for name, one in values["partitions"].items()},
            kinds=tuple(NodeKind.from_plain(one) for one in values["kinds"]),
            max_array_size=values["max_array_size"],
            enforced=tuple(values["enforced"]),
            qos=None if qos is None else {name: Qos.from_plain(one) for name, one in qos.items()},
            associations=None if associations is None else tuple(map(Association.from_plain, associations)),
        )


# -- from SLURM ---------------------------------------------------------------------------------------------------------


def _read() -> Cluster:
    questions = (survey.PARTITIONS, survey.NODES, survey.CONFIG, survey.QOS, survey.user(_user()))
    with ThreadPoolExecutor(len(questions)) as pool:
        partitions, nodes, config, qos, user = pool.map(_answer, questions)
    if isinstance(partitions, SchedulerSilent):
        raise partitions
    told = survey.config(_text(config))
    kinds = _kinds(list(survey.nodes(_text(nodes))))
    found = {one["name"]: one for one in survey.partitions(partitions)}
    kinds += [_average(name, one["total"]) for name, one in found.items() if not any(name in kind.partitions for kind in kinds)]
    own = [Association.from_plain(one) for one in survey.associations(_text(user), told["name"])]
    return Cluster(
        partitions={name: _partition(one, [kind for kind in kinds if name in kind.partitions]) for name, one in found.items()},
        kinds=tuple(kinds),
        enforced=tuple(told["enforced"]),
        qos={one["name"]: Qos.from_plain(one) for one in survey.qos(qos)} if isinstance(qos, str) else None,
        # none at all: rather hidden from this user than none
        associations=tuple(own) or None,
        **({"max_array_size": told["max_array_size"]} if told["max_array_size"] else {}),
    )


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _answer(argv: Sequence[str]) -> str | SchedulerSilent:
    try:
        return call(argv)
    except SchedulerSilent as error:
        return error


def _text(answer: str | SchedulerSilent) -> str:
    """Empty where there was none: a site may forbid all but the partitions."""
    return answer if isinstance(answer, str) else ""


def _kinds(nodes: Sequence[dict[str, Any]]) -> list[NodeKind]:
    """Equal nodes together."""
    alike: dict[str, dict[str, Any]] = {}
    total: Counter[str] = Counter()
    free: Counter[str] = Counter()
    for node in nodes:
        is_free = node.pop("is_free")
        name = repr(node)
        alike[name] = node
        total[name] += 1
        free[name] += is_free
    return [NodeKind.from_plain({**node, "nodes": total[name], "free": free[name]}) for name, node in alike.items()]


def _average(name: str, total: Mapping[str, Any]) -> NodeKind:
    """What a node has where a partition shows only what all have together."""
    nodes = max(1, total["nodes"])
    return NodeKind(
        partitions=(name,),
        nodes=total["nodes"],
        free=total["nodes"],
        cpus=math.ceil(total["cpus"] / nodes),
        memory_gib=total["memory_gib"] / nodes,
        # not every cluster counts its GPUs there
        gpus={gpu: math.ceil(number / nodes) for gpu, number in total["gpus"].items()} or None,
    )


def _partition(told: dict[str, Any], kinds: Sequence[NodeKind]) -> Partition:
    values = {key: value for key, value in told.items() if key not in ("name", "total", "max_cpus_per_node", "max_memory_gib")}
    most_cpus, most_memory = told["max_cpus_per_node"], told["max_memory_gib"]
    cpus = max((kind.cpus for kind in kinds), default=0)
    memory_gib = max((kind.memory_gib for kind in kinds), default=0.0)
    return Partition.from_plain(
        {
            **values,
            "nodes": sum(kind.nodes for kind in kinds),
            "cpus_per_node": cpus if most_cpus is None else min(cpus, most_cpus),
            "memory_gib": memory_gib if most_memory is None else min(memory_gib, most_memory),
            "gpus": _most_gpus(kinds),
            "features": sorted({feature for kind in kinds for feature in kind.features or ()}),
        }
    )


def _most_gpus(kinds: Sequence[NodeKind]) -> dict[str, int]:
    found: dict[str, int] = {}
    for kind in kinds:
        found |= {gpu: max(number, found.get(gpu, 0)) for gpu, number in (kind.gpus or {}).items()}
    return dict(sorted(found.items()))


# -- from a profile -----------------------------------------------------------------------------------------------------


def _partition_of_profile(name: str, values: Any) -> Partition:
    if not isinstance(values, Mapping):
        raise ConfigError(
            f"partitions.{name} must be keys and values such as {{nodes: 4, cpus_per_node: 64, memory_gib: 250}}, got {values!r}"
        )
    if missing := [key for key in ("nodes", "cpus_per_node", "memory_gib") if key not in values]:
        raise ConfigError(f"partitions.{name} lacks {', '.join(missing)}: what there is of it in the partition, and the most of any node")
    return Partition.from_plain(values, f"partitions.{name}")


def _kind_of(name: str, partition: Partition) -> NodeKind:
    return NodeKind(
        partitions=(name,),
        nodes=partition.nodes,
        free=partition.nodes,
        cpus=partition.cpus_per_node,
        memory_gib=partition.memory_gib,
        gpus=partition.gpus,
        features=partition.features or None,
    )
