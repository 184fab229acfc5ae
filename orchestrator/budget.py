"""What a sweep may spend and has spent, and which of its jobs the rest is enough for."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator import cost
from orchestrator.cost import Hours
from orchestrator.estimates import expected_seconds
from orchestrator.launchers.launcher import Submission
from orchestrator.watch import Watch
from workers import taskdir


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
        return cost.add(self.closed, self.at_work)

    @property
    def left(self) -> Hours:
        """Of each limit; below 0 where more was spent."""
        return {measure: limit - self.spent[measure] for measure, limit in self.limits.items()}

    def exceeded(self) -> str:
        """The first limit that is used up, in words; empty: none."""
        for measure, limit in self.limits.items():
            if self.spent[measure] >= limit:
                return f"{self.spent[measure]:.4g} of {limit:g} {cost.WORDS[measure]} are spent (budget.{measure})"
        return ""

    def has_room(self, hours: Mapping[str, float]) -> bool:
        """Whether what is at work and so much more would end within the limits."""
        then = cost.add(self.closed, self.expected, hours)
        return all(then[measure] <= limit for measure, limit in self.limits.items())


def account(watch: Watch, name: str) -> Account:
    """The account of a sweep: of the jobs that it sent itself, as of the watch's last look.

    A job at work is expected to take as long as its tasks' estimates make it (`orchestrator.estimates`), or until its time limit.
    """
    sweep, ledger = watch.sweep(name), watch.ledger
    workloads = {key: sweep.workload(index) for index, key in enumerate(sweep.keys)} if sweep.budget else {}
    estimates = expected_seconds(sweep, ledger.slowest) if sweep.budget else {}
    at_work: list[Hours] = []
    expected: list[Hours] = []
    for token, entry in ledger.batches.items():
        if entry["sweep"] == name:
            batch, job = watch.batch(token), watch.jobs.get(token)
            at_work.append(cost.of_batch(entry, batch, job))
            named = [workloads.get(key, "") for key in entry["keys"]]
            later = cost.of_job(entry.get("request") or {}, job_seconds(entry.get("request") or {}, named, estimates))
            expected.append({measure: max(hours, later.get(measure, 0.0)) for measure, hours in at_work[-1].items()})
    return Account(
        limits=dict(sweep.budget), closed=cost.add(ledger.spent.get(name, {})), at_work=cost.add(*at_work), expected=cost.add(*expected)
    )


def job_seconds(request: Mapping[str, Any], workloads: Sequence[str], estimates: Mapping[str, float]) -> float:
    """How long a job with a task of each of these workloads should take: one after another in its slots, within its time limit."""
    if "minutes" not in request:
        return 0.0
    shape = request.get("shape") or {}
    walltime = 60.0 * shape.get("walltime_minutes", request["minutes"])
    each: dict[str, float] = {workload: estimates.get(taskdir.shape_name(workload, shape), walltime) for workload in set(workloads)}
    seconds = [each[workload] for workload in workloads]
    slots: int = max(1, request.get("slots", 1))
    limit: float = 60.0 * request["minutes"]
    return min(limit, max(sum(seconds) / slots, *seconds, 0.0))


def over_budget(watch: Watch, name: str) -> str:
    """Why nothing more of the sweep may be sent, with what to do; empty: it may."""
    if not watch.sweep(name).budget:
        return ""
    reason = account(watch, name).exceeded()
    return f"{reason}; {_more(name)}" if reason else ""


def shortfalls(watch: Watch, name: str, limits: Hours, estimates: Mapping[str, tuple[float, float]]) -> list[str]:
    """Where what is left to do may cost more than what the budget leaves, in words; `estimates`: (low, high) by measure."""
    spent = account(watch, name).spent if name in watch.ledger.sweeps else cost.add()
    found = []
    for measure, limit in limits.items():
        (low, high), left = estimates.get(measure, (0.0, 0.0)), max(0.0, limit - spent[measure])
        if high > left:
            found.append(
                f"the budget may not do: {left:.4g} of {limit:g} {cost.WORDS[measure]} are left, and what is to run may take {low:.4g} to "
                f"{high:.4g}; nothing more is sent once budget.{measure} is spent"
            )
    return found


def affordable(watch: Watch, name: str, submissions: list[Submission]) -> tuple[list[Submission], str]:
    """Those of the jobs that the budget has room for beside what is at work, and in words what it has no room for.

    Where nothing is at work, one job may go beyond what is left: how long it takes is a guess, until one of its kind has ended.
    """
    if not watch.sweep(name).budget:
        return submissions, ""
    books = account(watch, name)
    if books.exceeded():
        return [], over_budget(watch, name)
    estimates = expected_seconds(watch.sweep(name), watch.ledger.slowest)
    chosen: list[Submission] = []
    held = 0
    for one in submissions:
        fitting = 0
        for hours in _of_jobs(one, estimates):
            if not books.has_room(hours) and any(books.expected.values()):
                break
            books = replace(books, expected=cost.add(books.expected, hours))
            fitting += 1
        held += len(one.jobs) - fitting
        if fitting:
            chosen.append(replace(one, jobs=one.jobs[:fitting]))
    return chosen, f"{held} jobs wait for what is left of the budget; {_more(name)}" if held else ""


def _of_jobs(submission: Submission, estimates: Mapping[str, float]) -> Iterator[Hours]:
    for job in submission.jobs:
        yield cost.of_job(submission.request, job_seconds(submission.request, [task.workload for task in job], estimates))


def _more(name: str) -> str:
    return f"`eigensweep add {name} budget.MEASURE=HOURS` raises it, `eigensweep cost {name}` shows what it was spent on"
