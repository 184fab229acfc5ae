"""What computing costs: CPU-, GPU- and node-hours of jobs and of attempts, and what a sweep's budget leaves for more.

A *job* costs what it asked for (its nodes, and of each so many CPUs and GPUs) times its elapsed time, all its runs together. An *attempt*
costs its seconds times what it kept from others: its CPUs, its GPUs (1/k of one that k tasks share) and, of the job's nodes, its share of
the slots. A node-hour is one node for an hour, however little of it the job asked for. What a job costs beyond its attempts (its start,
idle slots, runs that were killed) is its *overhead*. On the embedded launchers there are no jobs to be paid for: there a sweep costs what
its attempts cost, and node-hours are not counted.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from workers import taskdir
from workers.errors import ConfigError, UnknownName, nearest

if TYPE_CHECKING:
    from orchestrator.batches import Batch
    from orchestrator.launchers.launcher import JobState, Submission
    from orchestrator.watch import Watch

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What a sweep may spend, has spent (`closed` jobs, and those `at_work` so far), and will have spent when those at work have ended."""

    limits: Hours
    closed: Hours
    at_work: Hours
    expected: Hours

    @property
    def spent(self) -> Hours:
        """By all jobs so far."""
        return add(self.closed, self.at_work)

    @property
    def left(self) -> Hours:
        """Of each limit; below 0 where more was spent."""
        return {measure: limit - self.spent[measure] for measure, limit in self.limits.items()}

    def exceeded(self) -> str:
        """The first limit that is used up, in words; empty: none."""
        for measure, limit in self.limits.items():
            if self.spent[measure] >= limit:
                return f"{self.spent[measure]:.4g} of {limit:g} {WORDS[measure]} are spent (budget.{measure})"
        return ""

    def has_room(self, hours: Mapping[str, float]) -> bool:
        """Whether what is at work and so much more would end within the limits."""
        then = add(self.closed, self.expected, hours)
        return all(then[measure] <= limit for measure, limit in self.limits.items())


def account(watch: "Watch", name: str) -> Account:
    """The account of a sweep: of the jobs that it sent itself, as of the watch's last look.

    A job at work is expected to take as long as the slowest of its kind makes it, or until its time limit where none has ended yet.
    """
    sweep, ledger = watch.sweep(name), watch.ledger
    workloads = {key: sweep.workload(index) for index, key in enumerate(sweep.keys)} if sweep.budget else {}
    at_work: list[Hours] = []
    expected: list[Hours] = []
    for token, entry in ledger.batches.items():
        if entry["sweep"] == name:
            batch, job = watch.batch(token), watch.jobs.get(token)
            at_work.append(of_batch(entry, batch, job))
            named = [workloads.get(key, "") for key in entry["keys"]]
            later = of_job(entry.get("request") or {}, expected_seconds(entry.get("request") or {}, named, ledger.slowest))
            expected.append({measure: max(hours, later.get(measure, 0.0)) for measure, hours in at_work[-1].items()})
    return Account(limits=dict(sweep.budget), closed=add(ledger.spent.get(name, {})), at_work=add(*at_work), expected=add(*expected))


def expected_seconds(request: Mapping[str, Any], workloads: Sequence[str], slowest: Mapping[str, float]) -> float:
    """How long a job with a task of each of these workloads should take: one after another in its slots, within its time limit."""
    if "minutes" not in request:
        return 0.0
    shape = request.get("shape") or {}
    walltime = 60.0 * shape.get("walltime_minutes", request["minutes"])
    each: dict[str, float] = {workload: slowest.get(taskdir.shape_name(workload, shape), walltime) for workload in set(workloads)}
    seconds = [each[workload] for workload in workloads]
    slots: int = max(1, request.get("slots", 1))
    limit: float = 60.0 * request["minutes"]
    return min(limit, max(sum(seconds) / slots, *seconds, 0.0))


def over_budget(watch: "Watch", name: str) -> str:
    """Why nothing more of the sweep may be sent, with what to do; empty: it may."""
    if not watch.sweep(name).budget:
        return ""
    reason = account(watch, name).exceeded()
    return f"{reason}; {_more(name)}" if reason else ""


def shortfalls(watch: "Watch", name: str, limits: Hours, estimates: Mapping[str, tuple[float, float]]) -> list[str]:
    """Where what is left to do may cost more than what the budget leaves, in words; `estimates`: (low, high) by measure."""
    spent = account(watch, name).spent if name in watch.ledger.sweeps else add()
    found = []
    for measure, limit in limits.items():
        (low, high), left = estimates.get(measure, (0.0, 0.0)), max(0.0, limit - spent[measure])
        if high > left:
            found.append(
                f"the budget may not do: {left:.4g} of {limit:g} {WORDS[measure]} are left, and what is to run may take {low:.4g} to "
                f"{high:.4g}; nothing more is sent once budget.{measure} is spent"
            )
    return found


def affordable(watch: "Watch", name: str, submissions: list["Submission"]) -> tuple[list["Submission"], str]:
    """Those of the jobs that the budget has room for beside what is at work, and in words what it has no room for.

    Where nothing is at work, one job may go beyond what is left: how long it takes is a guess, until one of its kind has ended.
    """
    if not watch.sweep(name).budget:
        return submissions, ""
    books = account(watch, name)
    if books.exceeded():
        return [], over_budget(watch, name)
    chosen: list[Submission] = []
    held = 0
    for one in submissions:
        fitting = 0
        for hours in _of_jobs(one, watch.ledger.slowest):
            if not books.has_room(hours) and any(books.expected.values()):
                break
            books = replace(books, expected=add(books.expected, hours))
            fitting += 1
        held += len(one.jobs) - fitting
        if fitting:
            chosen.append(replace(one, jobs=one.jobs[:fitting]))
    return chosen, f"{held} jobs wait for what is left of the budget; {_more(name)}" if held else ""


def _of_jobs(submission: "Submission", slowest: Mapping[str, float]) -> Iterator[Hours]:
    for job in submission.jobs:
        yield of_job(submission.request, expected_seconds(submission.request, [task.workload for task in job], slowest))


def grown(ours: Mapping[str, float], theirs: Mapping[str, float]) -> Hours:
    """The budget of a sweep that grows: the larger of the two limits, where both have one."""
    return {measure: max(ours.get(measure, 0.0), theirs.get(measure, 0.0)) for measure in MEASURES if measure in ours or measure in theirs}


def _more(name: str) -> str:
    return f"`eigensweep add {name} budget.MEASURE=HOURS` raises it, `eigensweep cost {name}` shows what it was spent on"
