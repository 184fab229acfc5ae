"""What became of jobs: one question to squeue and at most one to sacct, for all batches of all sweeps at once.

squeue is the authority on what is alive: a job that SLURM requeues is listed as completing or pending, never as ended, so what it lists
as ended is over. sacct, some seconds late, adds how the job ended, and what became of its runs before a requeue.
"""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from orchestrator.launchers.launcher import ENDED, QUEUED, RUNNING, JobState, SchedulerSilent
from orchestrator.slurm import reasons, sacct, squeue, times
from orchestrator.slurm.brackets import hosts
from orchestrator.slurm.sacct import Records, Run
from orchestrator.slurm.squeue import Listing, Row

# who cancelled a job, and whether a step of it ran out of memory, stands in sacct alone
_TOLD_BY_SACCT = frozenset(("FAILED", "CANCELLED"))
# with these words in sacct, and nothing in squeue, another run may be on its way
_BEFORE_A_REQUEUE = frozenset(("NODE_FAIL", "PREEMPTED", "REQUEUED"))


def states(
    names: Mapping[str, Sequence[str]],
    job_ids: Mapping[str, str],
    *,
    use_sacct: bool = True,
    uid: int | None = None,
    timeout_seconds: float = 60.0,
) -> dict[str, JobState]:
    """What SLURM knows of batches, by token; one that is absent has no record. Raises SchedulerSilent where squeue gives no answer.

    `names`: job name of each submission -> its tokens that are asked for, `NAME` itself or `NAME/3`. `job_ids`: SLURM's id by name,
    where it is known. `uid`: whose jobs they are; None: this user's. An exit code below zero is the signal that ended the job.
    """
    if not names:
        return {}
    user = os.getuid() if uid is None else uid
    listing = squeue.jobs(names, user, timeout_seconds)
    records = _records(names, {**job_ids, **listing.ids}, listing, user, timeout_seconds) if use_sacct else None
    found = {}
    for name, tokens in names.items():
        for token in tokens:
            row = listing.rows.get(token)
            runs = records.runs.get(token, []) if records else []
            if row is not None:
                found[token] = _listed(row, runs, user, lags=use_sacct, twin=listing.twins.get(token, ""))
            elif runs and runs[-1].has_ended:
                found[token] = _recorded(runs, user)
            elif records and not runs and "/" in token and (base := records.ids.get(name)):
                found[token] = _removed(f"{base}_{token.rpartition('/')[2]}")
    return found


def positions(found: Mapping[str, JobState], *, timeout_seconds: float = 60.0) -> dict[str, JobState]:
    """The same, waiting jobs with their place in the queue: one more squeue, on the jobs of all users. Raises SchedulerSilent."""
    waiting = {state.job_id for state in found.values() if state.state == QUEUED}
    places = squeue.places(waiting, timeout_seconds) if waiting else {}
    return {token: replace(state, position=places.get(state.job_id)) for token, state in found.items()}


def _records(names: Mapping[str, Sequence[str]], job_ids: Mapping[str, str], listing: Listing, user: int, seconds: float) -> Records | None:
    """What sacct adds, where it has anything to add; None: it gave no answer, and nothing is concluded from what it does not say."""
    wanted: dict[str, set[str]] = defaultdict(set)
    whole = set()
    for name, tokens in names.items():
        for token in tokens:
            row = listing.rows.get(token)
            if row is None or row.restarts or (not row.is_alive and row.word != "COMPLETED"):
                wanted[name].add(token)
            if row is None:
                whole.add(name)
    if not wanted:
        return None
    try:
        return sacct.records(wanted, job_ids, whole, own=user == os.getuid(), timeout_seconds=seconds)
    except SchedulerSilent:
        return None


def _listed(row: Row, runs: Sequence[Run], user: int, *, lags: bool, twin: str) -> JobState:
    """The state of a job that squeue lists. `lags`: sacct keeps records, though perhaps not yet of this job's end."""
    over = [run for run in runs if run.has_ended]
    earlier = tuple(run.cause(user) for run in over[: row.restarts]) if len(over) >= row.restarts else ()
    if not row.is_alive:
        run = over[row.restarts] if len(over) > row.restarts else None
        state = _ended(run or _as_run(row, user), row.reason, user, earlier)
        doubtful = lags and run is None and row.word in _TOLD_BY_SACCT or (row.word == "NODE_FAIL" and row.requeue != "0")
        return replace(state, exit_code=sacct.status(row.exit_code), doubtful=doubtful)
    waits = row.word in reasons.WAITING
    return JobState(
        state=QUEUED if waits else RUNNING,
        job_id=row.job_id,
        reason=row.reason if waits and row.reason not in ("None", "") else row.word,
        explanation=_twins(row, twin) if twin else reasons.waiting(row.word, row.reason, row.job_id),
        earlier=earlier,
        nodes=hosts(row.nodes),
        seconds=times.seconds(row.used),
        limit_seconds=times.seconds(row.limit),
        start_estimate=row.start_estimate if waits else "",
    )


def _recorded(runs: Sequence[Run], user: int) -> JobState:
    """The state of a job that squeue no longer lists."""
    *before, last = runs
    state = _ended(last, "", user, tuple(run.cause(user) for run in before if run.has_ended))
    return replace(state, doubtful=last.word in _BEFORE_A_REQUEUE)


def _ended(run: Run, reason: str, user: int, earlier: tuple[str, ...]) -> JobState:
    told = reasons.ended(run.word, reason, run.exit_code, run.nodes)
    return JobState(
        state=ENDED,
        job_id=run.job_id,
        reason=run.word,
        explanation=told if run.cancelled_by in (None, user) else reasons.cancelled_by(run.cancelled_by),
        exit_code=run.exit_code,
        peak_memory_mib=run.peak_memory_mib,
        cause=run.cause(user),
        earlier=earlier,
        nodes=run.nodes,
        seconds=run.seconds,
        limit_seconds=run.limit_seconds,
        energy_joules=run.energy_joules,
    )


def _as_run(row: Row, user: int) -> Run:
    """What squeue alone knows of an ended run; a job that was cancelled counts as cancelled by its user."""
    exit_code = sacct.status(row.exit_code)
    by_slurm = row.reason.startswith("DependencyNeverSatisfied")
    return Run(
        job_id=row.job_id,
        word=row.word,
        cancelled_by=user if row.word == "CANCELLED" and not by_slurm else None,
        exit_code=exit_code,
        out_of_memory=row.word == "OUT_OF_MEMORY",
        seconds=times.seconds(row.used),
        limit_seconds=times.seconds(row.limit),
        energy_joules=None,
        nodes=hosts(row.nodes),
        order=0,
    )


def _removed(job_id: str) -> JobState:
    """An element of which neither has a record, while both know its array: it was cancelled while it waited."""
    explanation = "SLURM keeps no record of an element of an array that is cancelled while it waits, and it has none of this one"
    return JobState(state=ENDED, job_id=job_id, reason="CANCELLED", explanation=explanation, cause="cancelled", doubtful=True)


def _twins(row: Row, twin: str) -> str:
    return f"SLURM has two jobs of the name {row.name}, {row.job_id} and {twin}, where there must be one: scancel {twin}"
