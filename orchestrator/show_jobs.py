"""The jobs of a sweep as `eigensweep status` prints them: sums by state and reason, what is wrong and how to mend it, and the first few."""

from collections.abc import Iterator, Sequence

from orchestrator.jobs import Group, Job

_MOST_RUNNING = 4
_MOST_WAITING = 2
_MOST_GROUPS = 6


def lines(jobs: Sequence[Job], groups: Sequence[Group]) -> Iterator[tuple[str, str]]:
    """(name, text) of each line."""
    if sum(group.jobs for group in groups) > 1:
        yield "jobs", ", ".join(_sum(group) for group in groups[:_MOST_GROUPS]) + (", ..." if len(groups) > _MOST_GROUPS else "")
    for group in groups:
        if group.explanation:
            yield ("note" if "nothing to mend" in group.explanation else "wrong"), _wrong(group)
    running = [job for job in jobs if job.state != "queued"]
    yield from (("job", _running(job)) for job in running[:_MOST_RUNNING])
    if len(running) > _MOST_RUNNING:
        yield "", f"... and {sum(group.jobs for group in groups if group.state != 'queued') - _MOST_RUNNING:,} more jobs"
    waiting = [job for job in jobs if job.state == "queued" and not job.explanation]
    yield from (("queue", _waiting(job)) for job in waiting[:_MOST_WAITING])


def _sum(group: Group) -> str:
    return f"{group.jobs:,} {group.state}{f' ({group.reason})' if group.reason else ''}"


def _wrong(group: Group) -> str:
    more = f" and {group.jobs - 1:,} more" if group.jobs > 1 else ""
    return f"{group.job_ids[0]}{more}, {group.reason or group.state}: {group.explanation}"


def _name(job: Job) -> str:
    """The scheduler's number where it has one, for its own commands; else the batch."""
    return job.job_id if job.job_id and ":" not in job.job_id else job.token


def _running(job: Job) -> str:
    facts = [f"{job.ended} of {job.total} ended", f"{job.running} running"]
    if job.seconds is not None and job.limit_seconds:
        facts.append(f"time {_clock(job.seconds)} of {_clock(job.limit_seconds)}")
    if job.peak_gib is not None and job.memory_gib:
        facts.append(f"memory {job.peak_gib:.2g} of {job.memory_gib:.3g} GiB a task")
    where = f" on {', '.join(job.nodes[:4])}{' ...' if len(job.nodes) > 4 else ''}" if job.nodes else ""
    again = f", its run {job.run + 1}" if job.run else ""
    return f"{_name(job)} ({job.launcher}){where}{again}: {', '.join(facts)}"


def _waiting(job: Job) -> str:
    facts = [f"waits{f' ({job.reason})' if job.reason else ''}"]
    if job.position:
        facts.append(f"place {job.position[0]:,} of {job.position[1]:,}")
    if job.start_estimate:
        facts.append(f"expected to start {job.start_estimate.replace('T', ' ')}")
    return f"{_name(job)} ({job.launcher}), {job.total} tasks: {', '.join(facts)}"


def _clock(seconds: float) -> str:
    """`0:12:40`, `3-04:00:00`: as schedulers write it."""
    days, rest = divmod(int(seconds), 86400)
    return f"{f'{days}-' if days else ''}{rest // 3600:{'02d' if days else 'd'}}:{rest // 60 % 60:02d}:{rest % 60:02d}"
