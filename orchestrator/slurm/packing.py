"""Cuts tasks into jobs: equal shapes together, small tasks many to a job, and jobs into submissions; pure functions."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestrator.launchers.launcher import Submission
from workers.taskdir import Task, shape_name
from workers.workload import Resources

if TYPE_CHECKING:
    from orchestrator.launchers.slurm import Slurm

# a job whose tasks take less than this together costs more in waiting and starting than it saves
MIN_JOB_SECONDS = 60.0
MOST_CPU_SLOTS = 8
# what a task costs beyond its own work, and how far an estimate may be wrong
TASK_SECONDS = 0.05
DOUBT = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What a job may take of one node, and how long it may run; None: not known."""

    cpus: int | None = None
    memory_gib: float | None = None
    gpus: int | None = None
    minutes: int | None = None


@dataclass(slots=True)
class _Unit:
    """Tasks that stay together because each needs what one before it computes; they run one after another."""

    tasks: list[Task]
    seconds: float

    def add(self, task: Task, seconds: float) -> None:
        self.tasks.append(task)
        self.seconds += seconds


@dataclass(slots=True)
class _Bucket:
    """Units of one shape. `packed`: several of them share a job. `gpu_type`: empty where any will do."""

    resources: Resources
    packed: bool
    gpu_type: str = ""
    units: list[_Unit] = field(default_factory=list)


def cut(
    tasks: Sequence[Task],
    settings: "Slurm",
    node_of: Callable[[Resources, str], Node],
    seconds: Mapping[str, float],
    *,
    chunk: int = 1000,
    exclude: Sequence[str] = (),
) -> list[Submission]:
    """Submissions of at most `chunk` jobs, tasks in the order given (inputs first).

    A task whose inputs are in `tasks` goes into the job that computes all of them if its shape is theirs; else it is left out, for a
    time when they are committed. `node_of`: what a node has for a shape and a type of GPU. `seconds`: estimates by
    `taskdir.shape_name`; a shape without one takes its whole walltime.
    """
    found: list[Submission] = []
    order = {task.commit_name: number for number, task in enumerate(tasks)}
    for bucket in _buckets(tasks, settings, seconds):
        node = node_of(bucket.resources, bucket.gpu_type)
        slots = _slots(bucket, settings, node)
        jobs = _jobs(bucket.units, settings, slots) if bucket.packed else [[unit] for unit in bucket.units]
        request = _request(bucket, jobs, settings, min(slots, max(map(len, jobs))), node, exclude)
        each = [sorted((task for unit in job for task in unit.tasks), key=lambda task: order[task.commit_name]) for job in jobs]
        starts = range(0, len(each), chunk)
        # an array can be throttled, but not several together
        request["at_once"] = max(1, settings.max_jobs // len(starts))
        found += [Submission(jobs=each[start : start + chunk], request=request) for start in starts]
    return found


# -- which tasks belong together ----------------------------------------------------------------------------------------


def _buckets(tasks: Sequence[Task], settings: "Slurm", seconds: Mapping[str, float]) -> list[_Bucket]:
    """Shapes in the order of their first task."""
    shapes: dict[tuple[Any, ...], Resources] = {}
    buckets: dict[tuple[Any, ...], _Bucket] = {}
    # commit name -> bucket and unit of a task of this list; None: left out
    places: dict[str, tuple[_Bucket, _Unit] | None] = {}
    for task in tasks:
        shape = tuple(sorted(task.resources.items()))
        if shape not in shapes:
            shapes[shape] = Resources.from_plain(task.resources)
        estimate = estimate_of(task, seconds)
        packed = _is_packed(task, shapes[shape], settings, estimate)
        gpu_type = (task.gpu_type or settings.gpu_type or "") if shapes[shape].gpus else ""
        bucket = buckets.setdefault((shape, task.alone, packed, gpu_type), _Bucket(shapes[shape], packed, gpu_type))
        unit = _unit_of(task, bucket, places, settings, estimate)
        places[task.commit_name] = None if unit is None else (bucket, unit)
    return [bucket for bucket in buckets.values() if bucket.units]


def _unit_of(
    task: Task, bucket: _Bucket, places: Mapping[str, tuple[_Bucket, _Unit] | None], settings: "Slurm", estimate: float
) -> _Unit | None:
    """The unit that the task joins or begins; None: it waits for its inputs."""
    needed = [places[name] for name in task.inputs.values() if name in places]
    if not needed:
        bucket.units.append(_Unit([task], estimate))
        return bucket.units[-1]
    first = needed[0]
    if first is None or not bucket.packed or first[0] is not bucket or any(one is None or one[1] is not first[1] for one in needed):
        return None
    unit = first[1]
    longest = 60 * settings.job_minutes
    if len(unit.tasks) >= (settings.tasks_per_job or math.inf) or unit.seconds + estimate > longest:
        return None
    unit.add(task, estimate)
    return unit


def estimate_of(task: Task, seconds: Mapping[str, float]) -> float:
    """Seconds that a task may take: as its shape's slowest did, else its walltime."""
    known = seconds.get(shape_name(task.workload, task.resources))
    return max(TASK_SECONDS, 60 * float(task.resources["walltime_minutes"]) if known is None else known)


def _is_packed(task: Task, resources: Resources, settings: "Slurm", estimate: float) -> bool:
    """Whether the task shares its job: where the user says so, else where at least two of its length follow each other in a slot."""
    if task.alone or resources.nodes > 1 or settings.pack == "never":
        return False
    shares_gpu = resources.gpus == 1 and settings.tasks_per_gpu > 1
    if settings.pack == "always" or (settings.slots or 1) > 1 or (settings.tasks_per_job or 1) > 1 or shares_gpu:
        return True
    return 2 * estimate <= 60 * settings.job_minutes


# -- how many to a job --------------------------------------------------------------------------------------------------


def _slots(bucket: _Bucket, settings: "Slurm", node: Node) -> int:
    """Tasks at once in a job, as far as a node has room for them."""
    if not bucket.packed:
        return 1
    wanted = settings.slots or (settings.tasks_per_gpu if bucket.resources.gpus else MOST_CPU_SLOTS)
    return next((slots for slots in range(wanted, 1, -1) if fits(slots, bucket.resources, settings, node)), 1)


def fits(slots: int, resources: Resources, settings: "Slurm", node: Node) -> bool:
    """Whether a node has room for so many tasks at once; the job's own memory is no reason against a single one."""
    return (
        slots * resources.cpus <= _known(node.cpus)
        and slots * resources.memory_gib + settings.memory_overhead_gib * (slots > 1) <= _known(node.memory_gib)
        and _gpus(slots, resources, settings) <= _known(node.gpus)
    )


def _known(limit: float | None) -> float:
    return math.inf if limit is None else limit


def _gpus(slots: int, resources: Resources, settings: "Slurm") -> int:
    """GPUs of a node for so many tasks at once; only tasks of one GPU can share it."""
    return math.ceil(slots / settings.tasks_per_gpu) if resources.gpus == 1 else slots * resources.gpus


def _jobs(units: list[_Unit], settings: "Slurm", slots: int) -> list[list[_Unit]]:
    """Units in order, in jobs of about equal work."""
    if settings.tasks_per_job:
        return list(_by_count(units, settings.tasks_per_job))
    total = sum(unit.seconds for unit in units)
    fewest = math.ceil(total / slots / (60 * settings.job_minutes))
    widest = max(1, math.floor(total / MIN_JOB_SECONDS))
    filled = math.ceil(len(units) / slots)
    num_jobs = min(len(units), max(fewest, min(settings.max_jobs, widest, filled)))
    return list(_by_work(units, total, num_jobs))


def _by_count(units: list[_Unit], most: int) -> Iterator[list[_Unit]]:
    job: list[_Unit] = []
    for unit in units:
        if job and sum(len(one.tasks) for one in job) + len(unit.tasks) > most:
            yield job
            job = []
        job.append(unit)
    yield job


def _by_work(units: list[_Unit], total: float, num_jobs: int) -> Iterator[list[_Unit]]:
    """Each unit goes where the middle of its work lies, so that no job has more than its share and one unit."""
    job: list[_Unit] = []
    number, before = 0, 0.0
    for unit in units:
        middle = (before + unit.seconds / 2) / total
        if job and int(middle * num_jobs) > number:
            yield job
            job = []
        number = int(middle * num_jobs)
        before += unit.seconds
        job.append(unit)
    yield job


# -- what a job asks for ------------------------------------------------------------------------------------------------


def _request(bucket: _Bucket, jobs: list[list[_Unit]], settings: "Slurm", slots: int, node: Node, exclude: Sequence[str]) -> dict[str, Any]:
    """What each job of a shape asks for, of one node where it has several."""
    resources = bucket.resources
    return {
        "nodes": resources.nodes,
        "cpus": slots * resources.cpus,
        "gpus": _gpus(slots, resources, settings),
        "gpu_type": bucket.gpu_type,
        "memory_gib": _memory_gib(slots, resources, settings, node),
        "minutes": _minutes(resources, jobs, slots, settings, node),
        "slots": slots,
        "cpus_per_slot": resources.cpus,
        "tasks_per_gpu": settings.tasks_per_gpu if resources.gpus == 1 and bucket.packed else 1,
        "exclude": list(exclude),
        "shape": resources.to_plain(),
        "packed": bucket.packed,
    }


def _memory_gib(slots: int, resources: Resources, settings: "Slurm", node: Node) -> float:
    """With what the job's own process takes, but not more than the node has where the tasks fit on it."""
    tasks = slots * resources.memory_gib
    return max(tasks, min(tasks + settings.memory_overhead_gib, _known(node.memory_gib)))


def _minutes(resources: Resources, jobs: list[list[_Unit]], slots: int, settings: "Slurm", node: Node) -> int:
    """So long that the last task to start still has its whole walltime, but not longer than the partition allows."""
    waits = max(_queue_seconds(job, slots) for job in jobs)
    minutes = math.ceil(resources.walltime_minutes + DOUBT * waits / 60 + settings.overhead_minutes)
    return max(math.ceil(resources.walltime_minutes), min(minutes, int(_known(node.minutes)) if node.minutes else minutes))


def _queue_seconds(job: list[_Unit], slots: int) -> float:
    """How long the last task waits for its turn."""
    if len(job) <= slots and all(len(unit.tasks) == 1 for unit in job):
        return 0.0
    return max(sum(unit.seconds for unit in job) / slots, max(unit.seconds for unit in job))
