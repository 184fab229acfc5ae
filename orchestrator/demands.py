"""What the large tasks of a plan take, a row for each kind: memory, disk, operations, hours; refuses those that could not run."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator import where
from orchestrator.launchers.launcher import Launcher
from orchestrator.sweep import Sweep
from workers import files, plugins, taskdir
from workers.errors import ConfigError, EigensweepError
from workers.workload import CostEstimate, Resources, Workload

_HEAD = ("tasks", "each", "runs on", "memory a node: needs, asked", "disk", "operations", "hours")


@dataclass(slots=True, kw_only=True)
class Demand:
    """Tasks of one kind on equal resources. Numbers are of one task: memory of its most loaded node, hours of clock; None: not known."""

    workload: str
    tasks: int
    what: str
    nodes: int
    cpus: int
    gpus: int
    memory_gib: float
    asked_gib: float
    disk_bytes: int
    flops: float | None
    hours: float | None


@dataclass(slots=True, kw_only=True)
class Demands:
    """Those of a plan, what all their files take, and what is free where the store lies."""

    rows: list[Demand]
    disk_bytes: int
    free_bytes: int


def demands(sweep: Sweep, resources: Mapping[int, Resources], launcher: Launcher, root: Path) -> Demands | None:
    """Of the large tasks among those with these `resources`, by position; None where there is none.

    ConfigError for tasks that could not run on what they ask for, or whose files have no room, with what would do.
    """
    estimates = dict(_estimates(sweep, resources, launcher))
    if not estimates:
        return None
    for index, (_, estimate) in estimates.items():
        if estimate.obstacle:
            elsewhere = "" if launcher.gangs or "resources.nodes" not in estimate.obstacle else _ONE_NODE.format(launcher.plugin_name())
            raise ConfigError(f"{where.describe(sweep, index)} cannot run: {estimate.obstacle}{elsewhere}")
    found = Demands(
        rows=_rows((sweep.workload(index), *both) for index, both in estimates.items()),
        disk_bytes=sum(estimate.disk_bytes for _, estimate in estimates.values()),
        free_bytes=shutil.disk_usage(root).free,
    )
    if found.disk_bytes > found.free_bytes:
        _refuse_disk(sweep, {index: estimate.disk_bytes for index, (_, estimate) in estimates.items()}, root, found.free_bytes)
    return found


_ONE_NODE = ". launcher={} runs a task on one node, launcher=slurm on several"


def _estimates(
    sweep: Sweep, resources: Mapping[int, Resources], launcher: Launcher
) -> Iterable[tuple[int, tuple[Resources, CostEstimate]]]:
    known = {name: _class(name) for name in {block.workload for block in sweep.blocks}}
    large = {name: cls for name, cls in known.items() if cls is not None and cls.estimate is not Workload.estimate}
    for index, given in resources.items() if large else ():
        if (cls := large.get(sweep.workload(index))) is not None:
            here = given if launcher.gangs else replace(given, nodes=1)
            estimate = cls.from_plain(sweep.task(index).settings).estimate(here)
            if estimate is not None:
                yield index, (here, estimate)


def _class(name: str) -> type[Workload] | None:
    try:
        found: type[Workload] = plugins.load("workloads", name)
    except (EigensweepError, ImportError):  # of the user's own, in an earlier sweep, and not to be had here
        return None
    return found


def _rows(estimates: Iterable[tuple[str, Resources, CostEstimate]]) -> list[Demand]:
    rows: dict[tuple[str, Resources, CostEstimate], int] = {}
    for one in estimates:
        rows[one] = rows.get(one, 0) + 1
    return [
        Demand(
            workload=workload,
            tasks=number,
            what=estimate.what,
            nodes=given.nodes,
            cpus=given.cpus,
            gpus=given.gpus,
            memory_gib=estimate.memory_gib,
            asked_gib=given.memory_gib,
            disk_bytes=estimate.disk_bytes,
            flops=estimate.flops,
            hours=None if estimate.seconds is None else estimate.seconds / 3600,
        )
        for (workload, given, estimate), number in rows.items()
    ]


def _refuse_disk(sweep: Sweep, needed: Mapping[int, int], root: Path, free: int) -> None:
    """ConfigError, unless earlier attempts have left so much of it that the rest has room: that is taken over by hard link."""
    left = sum(max(0, count - _published(sweep, index, root)) for index, count in needed.items())
    if left > free:
        raise ConfigError(
            f"the files of {len(needed)} tasks need {size(left)} of disk, and {size(free)} are free at {root} (a quota may leave less): "
            "make room there, or take a store on a larger file system (root=DIR), fewer points at a time, or smaller kernels (probe_size, "
            "outputs=traced, dtype=float32)"
        )


def _published(sweep: Sweep, index: int, root: Path) -> int:
    """Bytes of the parts that attempts of a task have published."""
    attempts = taskdir.task_dir(root, sweep.task(index).commit_name) / "attempts"
    sizes: dict[str, int] = {}
    for attempt in files.names(attempts):
        marks = [name for name in files.names(attempts / attempt) if name.endswith(".part.json")]
        parts = [attempts / attempt / name.removesuffix(".part.json") for name in marks]
        sizes |= {path.name: path.stat().st_size for path in parts if path.exists()}
    return sum(sizes.values())


# -- as text ------------------------------------------------------------------------------------------------------------------


def lines(found: Demands) -> list[str]:
    """A table, and what its figures rest on."""
    table = [_HEAD, *(_cells(row) for row in found.rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(_HEAD))]
    shown = ["  " + "  ".join(f"{cell:<{width}}" if i in (1, 2) else f"{cell:>{width}}" for i, (cell, width) in enumerate(zip(row, widths)))
             for row in table]  # fmt: skip
    shown.append(f"  disk in all {size(found.disk_bytes)}, free where the store lies {size(found.free_bytes)}")
    shown.append("  hours of clock for each task on what it asks for: a rough estimate, from speeds of one Xeon core (docs/kernel_cost.md)")
    if any(row.gpus for row in found.rows):
        shown.append("  GPUs are taken to be as fast as an H100 on paper: not measured")
    if any(row.what.endswith("scalapack") for row in found.rows):
        shown.append("  ScaLAPACK is taken to be installed on the nodes; where it is not, the task says so and its tiles stay")
    return shown


def _cells(row: Demand) -> Sequence[str]:
    each = f"{row.gpus} GPU" if row.gpus else f"{row.cpus} CPU"
    place = f"{row.nodes} node{'s' if row.nodes > 1 else ''} x {each}{'s' if (row.gpus or row.cpus) > 1 else ''}"
    memory = f"{row.memory_gib:.2f} of {row.asked_gib:.2f} GiB"
    operations = "?" if row.flops is None else counted(row.flops)
    hours = "?" if row.hours is None else f"{row.hours:,.2g}" if row.hours < 10 else f"{row.hours:,.0f}"
    return f"{row.tasks:,}", f"{row.workload}: {row.what}", place, memory, size(row.disk_bytes), operations, hours


def size(count: float) -> str:
    """`1.5 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:,.3g} TiB" if count < 1000 else f"{count:,.0f} TiB"


def counted(flops: float) -> str:
    """`2.1 TFLOP`."""
    for unit in ("", "K", "M", "G", "T", "P"):
        if flops < 1000:
            return f"{flops:.3g} {unit}FLOP"
        flops /= 1000
    return f"{flops:,.3g} EFLOP"
