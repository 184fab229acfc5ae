"""What computing costs: CPU-, GPU- and node-hours of jobs and of attempts.

A *job* costs what it asked for (its nodes, and of each so many CPUs and GPUs) times its elapsed time, all its runs together. An *attempt*
costs its seconds times what it kept from others: its CPUs, its GPUs (1/k of one that k tasks share) and, of the job's nodes, its share of
the slots. A node-hour is one node for an hour, however little of it the job asked for. What a job costs beyond its attempts (its start,
idle slots, runs that were killed) is its *overhead*. On the embedded launchers there are no jobs to be paid for: there a sweep costs what
its attempts cost, and node-hours are not counted.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from workers.errors import ConfigError, UnknownName, nearest

if TYPE_CHECKING:
    from orchestrator.batches import Batch
    from orchestrator.launchers.launcher import JobState

MEASURES = ("cpu_hours", "gpu_hours", "node_hours")
WORDS = {"cpu_hours": "CPU-hours", "gpu_hours": "GPU-hours", "node_hours": "node-hours"}

Hours = dict[str, float]


def of_job(request: Mapping[str, Any], seconds: float) -> Hours:
    """What a job costs that asked for `request` and lasted so long; empty where it asked no scheduler for anything."""
    if "cpus" not in request:
        return {}
    hours = request.get("nodes", 1) * seconds / 3600
    return {"cpu_hours": hours * request["cpus"], "gpu_hours": hours * request.get("gpus", 0), "node_hours": hours}


def of_attempt(end: Mapping[str, Any], request: Mapping[str, Any], resources: Mapping[str, Any] | None = None) -> dict[str, float | None]:
    """What an attempt costs, by its end record; where that lacks the share, by what its task asked for. None: not known."""
    seconds, asked = end.get("seconds"), request.get("shape") or resources or {}
    nodes = asked.get("nodes", 1)
    cpus, gpus, slots = end.get("cpus"), end.get("gpus"), end.get("slots")
    if cpus is None and "cpus" in asked:
        cpus, gpus = nodes * asked["cpus"], nodes * asked.get("gpus", 0) / request.get("tasks_per_gpu", 1)
    if seconds is None or cpus is None:
        return dict.fromkeys(MEASURES)
    hours = seconds / 3600
    share = request.get("nodes", 1) * (1 if slots is None else slots) / max(1, request.get("slots", 1)) if "cpus" in request else None
    return {"cpu_hours": hours * cpus, "gpu_hours": hours * (gpus or 0), "node_hours": None if share is None else hours * share}


def add(*several: Mapping[str, float | None]) -> Hours:
    """The sum; what is not known counts nothing."""
    return {measure: sum(one.get(measure) or 0.0 for one in several) for measure in MEASURES}


# -- batches ------------------------------------------------------------------------------------------------------------


def of_batch(entry: Mapping[str, Any], batch: "Batch", job: "JobState | None") -> Hours:
    """What a batch has cost so far: its job as its scheduler counts, else as it says itself; else its ended attempts."""
    request = entry.get("request") or {}
    if "cpus" in request:
        return of_job(request, seconds_of(batch, job))
    ends = [event for events in batch.ended.values() for event in events]
    return add(*(of_attempt(event, request) for event in ends))


def seconds_of(batch: "Batch", job: "JobState | None") -> float:
    """How long the job has lasted: the runs that it began anew by their own clocks, the newest one also by the scheduler's."""
    last = job.seconds if job is not None and job.seconds is not None else 0.0
    return batch.earlier_seconds + max(batch.seconds, last)


def job_record(entry: Mapping[str, Any], batch: "Batch", job: "JobState | None") -> dict[str, Any]:
    """What the ledger keeps of a job when its batch is closed."""
    facts: dict[str, Any] = {"seconds": round(seconds_of(batch, job), 3) or None}
    # a job that says itself that it is over is not asked for any more
    facts |= {"job_id": (batch.receipt.get("slurm") or {}).get("job_id"), "nodes": [batch.receipt.get("host")]}
    if job is not None:
        facts |= {"job_id": job.job_id, "reason": job.reason, "cause": job.cause, "earlier": list(job.earlier)}
        facts |= {"energy_joules": job.energy_joules, "nodes": list(job.nodes) or facts["nodes"]}
    facts["hours"] = {measure: round(hours, 6) for measure, hours in of_batch(entry, batch, job).items() if hours}
    return {name: value for name, value in facts.items() if value not in (None, [], [None], "", {})}


# -- budgets ------------------------------------------------------------------------------------------------------------


def checked_budget(values: Mapping[str, Any]) -> Hours:
    """`budget.gpu_hours=100`: numbers of hours that may be spent on a sweep. Raises ConfigError or UnknownName."""
    found = {}
    for name, value in values.items():
        if name not in MEASURES:
            raise UnknownName(f"no budget {name!r}{nearest(name, MEASURES)} There are {', '.join(f'budget.{one}' for one in MEASURES)}")
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise ConfigError(f"budget.{name} must be a number of hours above 0, got {value!r}; leave it out to spend without limit")
        found[name] = float(value)
    return found


def grown(ours: Mapping[str, float], theirs: Mapping[str, float]) -> Hours:
    """The budget of a sweep that grows: the larger of the two limits, where both have one."""
    return {measure: max(ours.get(measure, 0.0), theirs.get(measure, 0.0)) for measure in MEASURES if measure in ours or measure in theirs}
