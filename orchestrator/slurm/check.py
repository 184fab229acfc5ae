"""What a cluster would refuse of what jobs ask for, or leave waiting for ever: found before anything is submitted."""

import contextlib
import grp
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.slurm import constraint as expressions
from orchestrator.slurm.inventory import Cluster, NodeKind, Partition
from orchestrator.slurm.visibility import unseen
from workers.errors import nearest

if TYPE_CHECKING:
    from orchestrator.launchers.slurm import Slurm

# sbatch refuses longer ones (max_script_size)
MOST_SCRIPT_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What each job asks for; cpus, memory and GPUs of each of its nodes."""

    nodes: int = 1
    cpus: int = 1
    gpus: int = 0
    memory_gib: float = 0.0
    minutes: int = 0
    account: str | None = None
    qos: str | None = None
    constraint: str = ""
    gpu_type: str = ""

    def total(self) -> dict[str, float]:
        """What a whole job takes, by SLURM's names."""
        each = self.each()
        return {"node": self.nodes, **{name: self.nodes * amount for name, amount in each.items()}}

    def each(self) -> dict[str, float]:
        """What it takes of each node."""
        gpus = {"gres/gpu": self.gpus, **({f"gres/gpu:{self.gpu_type}": self.gpus} if self.gpu_type else {})}
        return {"cpu": self.cpus, "mem": self.memory_gib, **gpus}


def check(cluster: Cluster, settings: "Slurm", request: Mapping[str, Any]) -> list[str]:
    """What is wrong with jobs of these settings that each ask for this; empty: nothing."""
    return problems(
        cluster,
        request,
        partition=settings.partition or _of_environment("PARTITION"),
        account=settings.account or _of_environment("ACCOUNT"),
        qos=settings.qos or _of_environment("QOS"),
        constraint=settings.constraint or _of_environment("CONSTRAINT"),
        gpu_type=request.get("gpu_type") or settings.gpu_type,
    )


def _of_environment(name: str) -> str | None:
    """What sbatch itself takes where a script does not say."""
    return os.environ.get(f"SBATCH_{name}")


def problems(
    cluster: Cluster,
    request: Mapping[str, Any],
    *,
    partition: str | None = None,
    account: str | None = None,
    qos: str | None = None,
    constraint: str | None = None,
    gpu_type: str | None = None,
    num_jobs: int = 1,
    script_bytes: int = 0,
    root: Path | None = None,
    shared: Sequence[str] = (),
) -> list[str]:
    """What is wrong with jobs that each ask for `request` (nodes; of each node cpus, gpus, memory_gib; minutes); empty: nothing.

    `root`: the store, which the nodes must see; `shared`: folders that they do see, where that is known.
    """
    amounts = {name: request[name] for name in ("nodes", "cpus", "gpus", "memory_gib", "minutes") if name in request}
    asked = Asked(**amounts, account=account, qos=qos, constraint=constraint or "", gpu_type=gpu_type or "")
    found = [*_unknown_names(cluster, asked, partition), *_of_call(cluster, num_jobs, script_bytes), *_of_root(root, shared)]
    if found:
        return found
    refused = {name: _refusals(cluster, name, asked) for name in _words(partition) or [cluster.default_partition]}
    if not all(refused.values()):  # of several partitions, SLURM takes one that will do
        return []
    open_ones = [name for name, one in cluster.partitions.items() if name not in refused and one.state == "UP"]
    others = [name for name in open_ones if not _refusals(cluster, name, asked)]
    instead = f"; or choose another partition: launcher.partition={others[0]} ({', '.join(others)} would do)" if others else ""
    return list(dict.fromkeys(text + instead for texts in refused.values() for text in texts))


# -- names --------------------------------------------------------------------------------------------------------------


def _unknown_names(cluster: Cluster, asked: Asked, partition: str | None) -> Iterator[str]:
    names = _words(partition)
    for name in names:
        if name not in cluster.partitions:
            yield _unknown("partition", name, cluster.partitions)
    if not names and not cluster.default_partition:
        yield f"the cluster has no default partition: choose one, launcher.partition=...; it has {_list(cluster.partitions)}"
    if asked.account and cluster.enforced and cluster.accounts is not None and asked.account not in cluster.accounts:
        yield _unknown("account", asked.account, cluster.accounts, "among yours")
    if asked.qos and cluster.enforced and cluster.qos is not None and asked.qos not in cluster.qos:
        yield _unknown("QOS", asked.qos, cluster.qos, key="qos")
    elif (allowed := _qos_allowed(cluster, asked, names)) and asked.qos not in allowed:
        account = f"account {asked.account!r}" if asked.account else "your account"
        yield f"QOS {asked.qos!r} is not for {account}{nearest(str(asked.qos), allowed)} It may use {_list(allowed)}: launcher.qos=..."
    yield from _unknown_features(cluster.kinds, asked)


def _qos_allowed(cluster: Cluster, asked: Asked, names: Sequence[str]) -> Sequence[str]:
    """Those of the association, where the cluster insists on them; none: any."""
    own = cluster.association(asked.account, names[0] if names else None)
    return own.qos if asked.qos and own and {"qos", "safe", "all"}.intersection(cluster.enforced) else ()


def _unknown_features(kinds: Sequence[NodeKind], asked: Asked) -> Iterator[str]:
    if all(kind.features is not None for kind in kinds):
        offered = sorted({feature for kind in kinds for feature in kind.features or ()})
        for name in expressions.features(asked.constraint):
            if name not in offered:
                yield _unknown("feature", name, offered, key="constraint")
    types = sorted({gpu for kind in kinds for gpu in kind.gpus or {}})
    if asked.gpu_type and asked.gpu_type not in types and all(kind.gpus is not None for kind in kinds):
        yield _unknown(
            "GPU type", asked.gpu_type, [gpu for gpu in types if gpu], key="gpu_type", none=_NO_TYPES if types else "it has no GPUs"
        )


_NO_TYPES = "it names no types of its GPUs, so leave launcher.gpu_type out"


def _unknown(
    what: str, given: str, offered: Iterable[str], where: str = "on this cluster", *, key: str = "", none: str = "there is none"
) -> str:
    names = sorted(offered)
    if not names:
        return f"no {what} {given!r} {where}: {none}"
    return f"no {what} {given!r} {where}{nearest(given, names)} There is {_list(names)}: launcher.{key or what}=..."


def _words(text: str | None) -> list[str]:
    return [word for word in (text or "").split(",") if word]


def _list(names: Iterable[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:20]) + (f" and {len(shown) - 20} more" if len(shown) > 20 else "") or "none"


# -- one call of sbatch ---------------------------------------------------------------------------------------------------


def _of_call(cluster: Cluster, num_jobs: int, script_bytes: int) -> Iterator[str]:
    if num_jobs > cluster.max_array_size:
        yield f"an array of {num_jobs} jobs is longer than the cluster takes (MaxArraySize {cluster.max_array_size}): launcher.chunk=..."
    if script_bytes > MOST_SCRIPT_BYTES:
        yield f"the sbatch script has {script_bytes} bytes, more than SLURM takes ({MOST_SCRIPT_BYTES}): shorten launcher.setup"


def _of_root(root: Path | None, shared: Sequence[str]) -> Iterator[str]:
    if root is not None and (reason := unseen(root, shared)):
        yield f"the nodes do not see the store: {reason}; make one on a shared file system (eigensweep init DIR)" + (
            "" if shared else ", or, where the nodes do see it, say so: launcher.shared=[DIR]"
        )


# -- what a partition has -----------------------------------------------------------------------------------------------


def _refusals(cluster: Cluster, name: str, asked: Asked) -> list[str]:
    """Why such jobs would not run in a partition."""
    partition = cluster.partitions[name]
    kinds = [kind for kind in cluster.kinds if name in kind.partitions]
    found = [*_not_for_you(cluster, name, asked), *_too_much(name, partition, kinds, asked), *_beyond_limits(cluster, name, asked)]
    return found or list(_no_such_nodes(name, partition, kinds, asked))


def _not_for_you(cluster: Cluster, name: str, asked: Asked) -> Iterator[str]:
    one = cluster.partitions[name]
    if one.state in ("INACTIVE", "DRAIN"):
        yield f"partition {name!r} takes no jobs now, it is {one.state}: choose another, launcher.partition=..., or ask an administrator"
    own = cluster.association(asked.account, name)
    account = asked.account or (own.account if own else "")
    yield from _not_allowed(name, "account", account, one.accounts, one.denied_accounts, cluster.accounts)
    qos = asked.qos or (own.default_qos if own else "")
    yield from _not_allowed(name, "qos", qos, one.qos, one.denied_qos, list(cluster.qos or ()))
    if one.groups is not None and os.getuid() != 0 and not _my_groups().intersection(one.groups):
        yield f"partition {name!r} is for the groups {_list(one.groups)}, and you are in none: choose another, launcher.partition=..."


def _not_allowed(
    partition: str, key: str, given: str, allowed: Sequence[str] | None, denied: Sequence[str], own: Sequence[str] | None
) -> Iterator[str]:
    """A partition's own choice of accounts or QOS; where nothing is known of ours, nothing is concluded."""
    if not given or (given not in denied and (allowed is None or given in allowed)):
        return
    takes = f"it takes {_list(allowed)}" if allowed is not None else f"it takes all but {_list(denied)}"
    usable = [one for one in own or allowed or () if one not in denied and (allowed is None or one in allowed)]
    advice = f"launcher.{key}={usable[0]}" if usable else "choose another, launcher.partition=..."
    yield f"partition {partition!r} does not take {key} {given!r}; {takes}: {advice}"


def _my_groups() -> set[str]:
    names = set()
    for number in {os.getgid(), *os.getgroups()}:
        with contextlib.suppress(KeyError):
            names.add(grp.getgrgid(number).gr_name)
    return names


def _too_much(name: str, partition: Partition, kinds: Sequence[NodeKind], asked: Asked) -> Iterator[str]:
    where = f"partition {name!r}"
    if partition.max_minutes is not None and asked.minutes > partition.max_minutes:
        yield f"{_minutes(asked.minutes)} is more than {where} allows ({_minutes(partition.max_minutes)}): {_LESS_TIME}"
    most_nodes = min(partition.nodes, partition.nodes if partition.max_nodes is None else partition.max_nodes)
    if asked.nodes > most_nodes:
        yield f"{_amount('node', asked.nodes)} for a job is more than {where} has for one ({most_nodes}): {_LESS['node']}"
    most = {"cpu": partition.cpus_per_node, "mem": partition.memory_gib, "gres/gpu": _most_gpus(kinds, asked.gpu_type)}
    for key, amount in asked.each().items():
        if key in most and amount > most[key]:
            gpu_type = f" of type {asked.gpu_type!r}" if key == "gres/gpu" and asked.gpu_type else ""
            yield (
                f"{_amount(key, amount)}{gpu_type} on one node is more than a node of {where} has ({_amount(key, most[key])}"
                f"{_offered_gpus(partition) if key == 'gres/gpu' else ''}): {_LESS[key]}"
            )


def _most_gpus(kinds: Sequence[NodeKind], gpu_type: str) -> float:
    if any(kind.gpus is None for kind in kinds):
        return math.inf
    return max((_num_gpus(kind, gpu_type) for kind in kinds), default=0)


def _num_gpus(kind: NodeKind, gpu_type: str) -> float:
    """Of this type, or of all where none is asked for."""
    if kind.gpus is None:
        return math.inf
    return kind.gpus.get(gpu_type, 0) if gpu_type else sum(kind.gpus.values())


def _offered_gpus(partition: Partition) -> str:
    shown = [f"{number} {gpu}".strip() for gpu, number in partition.gpus.items()]
    return f"; there: {', '.join(shown)}" if shown else ""


def _beyond_limits(cluster: Cluster, name: str, asked: Asked) -> Iterator[str]:
    """What the account's and the QOS's limits do not allow for any job."""
    for limits in cluster.limits(asked.account, asked.qos, name):
        if limits.max_minutes is not None and asked.minutes > limits.max_minutes:
            yield f"{_minutes(asked.minutes)} is more than {limits.title} allows ({_minutes(limits.max_minutes)}): {_LESS_TIME}"
        for most, given, each in ((limits.most, asked.total(), ""), (limits.most_per_node, asked.each(), " on one node")):
            for key, amount in given.items():
                if amount > most.get(key, math.inf):
                    yield f"{_amount(key, amount)}{each} is more than {limits.title} allows ({_amount(key, most[key])}): {_less(key)}"


def _no_such_nodes(name: str, partition: Partition, kinds: Sequence[NodeKind], asked: Asked) -> Iterator[str]:
    """Each thing is there, but not together on enough nodes."""
    fit = [
        kind
        for kind in kinds
        if asked.cpus <= kind.cpus
        and asked.memory_gib <= kind.memory_gib
        and asked.gpus <= _num_gpus(kind, asked.gpu_type)
        and (kind.features is None or not asked.constraint or expressions.fits(asked.constraint, kind.features))
    ]
    num_fit = sum(kind.nodes for kind in fit)
    if num_fit < asked.nodes:
        parts = [_amount(key, amount) for key, amount in asked.each().items() if amount and ":" not in key]
        wanted = [f"GPU type {asked.gpu_type!r}"] * bool(asked.gpu_type) + [repr(asked.constraint)] * bool(asked.constraint)
        offered = "; ".join(sorted(_shown(kind) for kind in kinds[:_MOST_KINDS])) + ("; and others" if len(kinds) > _MOST_KINDS else "")
        yield (
            f"a job asks for {_amount('node', asked.nodes)} with {', '.join(parts + wanted)}, and partition {name!r} has {num_fit} such; "
            f"it has {offered}: ask for less, or leave out launcher.constraint or launcher.gpu_type"
        )


def _shown(kind: NodeKind) -> str:
    gpus = [_amount(f"gres/gpu:{gpu}", number) for gpu, number in (kind.gpus or {}).items()]
    return ", ".join(
        [
            f"{_amount('node', kind.nodes)} of {_amount('cpu', kind.cpus)}",
            _amount("mem", kind.memory_gib),
            *gpus,
            *sorted(kind.features or ()),
        ]
    )


# a message shows so many kinds of nodes at most
_MOST_KINDS = 8
_LESS_TIME = "ask for less, resources.walltime_minutes=... or launcher.job_minutes=..."
_LESS = {
    "cpu": "ask for less, resources.cpus=... or launcher.slots=...",
    "mem": "ask for less, resources.memory_gib=... or launcher.slots=...",
    "gres/gpu": "ask for less, resources.gpus=...",
    "node": "ask for less, resources.nodes=...",
}


def _less(key: str) -> str:
    return _LESS[key.partition(":")[0]]


def _amount(key: str, amount: float) -> str:
    kind, _, gpu_type = key.partition(":")
    if kind == "mem":
        return f"{amount:.4g} GiB"
    unit = {"cpu": "CPU", "gres/gpu": "GPU", "node": "node"}[kind] + "s" * (amount != 1)
    return f"{amount:.4g} {unit} {gpu_type}".strip()


def _minutes(minutes: int) -> str:
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.4g} h"
