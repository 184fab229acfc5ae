"""What the end of a job says of its tasks: from its own records first, then from what its scheduler knows."""

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator import cost
from orchestrator.batches import Batch
from orchestrator.launchers.launcher import JobState
from orchestrator.ledger import UNCHARGED
from orchestrator.watch import Watch
from workers import taskdir

Event = dict[str, Any]

# what the ledger keeps of an attempt's end
_KEPT = ("class", "attempt", "message", "error", "seconds", "peak_memory_mib", "memory_limit_gib", "checkpoint", "difference", "host")
# an attempt that ended so is to be followed by another
_GOES_ON = ("interrupted", "timeout_progress")
_DISK_FULL = "the disk or the quota is full: free space, then resume"


def closing_entry(watch: Watch, tokens: list[str]) -> Event:
    """The ledger's entry for batches whose jobs have ended."""
    slowest: dict[str, float] = {}
    workloads: dict[str, dict[str, str]] = {}
    for token in tokens:
        name = watch.ledger.batches[token]["sweep"]
        if name not in workloads:
            sweep = watch.sweep(name)
            workloads[name] = {key: sweep.workload(index) for index, key in enumerate(sweep.keys)}
        for shape, seconds in _completed(watch, token, workloads[name]):
            slowest[shape] = max(seconds, slowest.get(shape, 0.0))
    return {"kind": "closed", "batches": [_closing(watch, token) for token in tokens], "slowest": slowest}


def _completed(watch: Watch, token: str, workloads: Mapping[str, str]) -> Iterator[tuple[str, float]]:
    shape = watch.ledger.batches[token].get("request", {}).get("shape")
    if shape:
        for key, events in watch.batch(token).ended.items():
            if key in workloads and events[-1]["class"] in ("completed", "diverged"):
                # a member of an ensemble took its share of the time of all
                yield taskdir.shape_name(workloads[key], shape), events[-1]["seconds"] / events[-1].get("members", 1)


def _closing(watch: Watch, token: str) -> Event:
    entry, batch, job = watch.ledger.batches[token], watch.batch(token), watch.jobs.get(token)
    outcomes: dict[str, list[Event]] = {}
    for key in entry["keys"]:
        if found := [_kept(entry, token, event) for event in _charged(watch, token, key)]:
            outcomes[key] = found
    closing: Event = {"token": token, "sweep": entry["sweep"], "outcomes": outcomes}
    if why := _never_began(watch, token):
        lost = {"class": "never_started", "message": f"{why}; see {_log(batch)}", "code": entry["code"], "token": token}
        closing["outcomes"] = outcomes | {key: [lost] for key in entry["keys"] if key not in batch.ended}
    if batch.over == "disk_full" or any(one["class"] == "disk_full" for ones in outcomes.values() for one in ones):
        closing["pause"] = _DISK_FULL
    if job is not None and job.cause == "cancelled" and not batch.is_over:
        # one that its warning has stopped at a checkpoint was cancelled like those that had not begun
        left = [key for key in entry["keys"] if key not in batch.ended or batch.ended[key][-1]["class"] in _GOES_ON]
        # by scancel; those that `cancel` named are cancelled already, unless they were resumed since
        closing["cancelled"] = [key for key in left if key not in entry.get("told", ())]
    if hosts := _lost_hosts(batch, job):
        closing["lost_hosts"] = hosts
    closing["job"] = cost.job_record(entry, batch, job)
    return closing


# -- attempts -----------------------------------------------------------------------------------------------------------


def _charged(watch: Watch, token: str, key: str) -> Iterator[Event]:
    """The ends of a task's attempts that say something against it."""
    batch, job = watch.batch(token), watch.jobs.get(token)
    for event in batch.ended.get(key, []):
        if event["class"] not in UNCHARGED or event.get("difference"):
            yield event
    entry = watch.ledger.batches[token]
    name = watch.ledger.name_of(key)
    unended = key in batch.started or any(start["key"] == key for _, start in batch.lost)
    if not unended or watch.ledger.is_cancelled(entry["sweep"], key) or taskdir.is_committed(watch.store.root, name):
        return
    causes = job.earlier if job is not None else ()
    for run, start in batch.lost:
        if start["key"] == key:
            yield from _left(watch, token, start, batch.earlier[run].cause(causes))
    if key in batch.started:
        yield from _left(watch, token, batch.started[key], job.cause if job is not None else "")


def _left(watch: Watch, token: str, start: Event, cause: str) -> Iterator[Event]:
    """How an attempt ended that its job left unended: by what the scheduler says of the job, and by whether it had got further."""
    progressed = taskdir.has_progressed(watch.store.root, watch.ledger.name_of(start["key"]), start["attempt"])
    if cause == "timeout" and progressed:
        cause = "timeout_progress"
    if cause in ("preempted", "cancelled") or (not cause and progressed and watch.batch(token).lost):
        return
    job = watch.jobs.get(token)
    said = f"its job {job.job_id} ended: {job.reason}" if job is not None and job.reason else "its job died and left no word"
    event = start | {"class": cause or "killed", "message": said, "host": start.get("host") or watch.batch(token).host}
    if cause == "host_oom":
        request = watch.ledger.batches[token].get("request", {})
        event |= {"memory_limit_gib": request.get("memory_gib", 0.0) / max(1, request.get("slots", 1))}
        event |= {"peak_memory_mib": job.peak_memory_mib} if job is not None and job.peak_memory_mib else {}
    yield event


def _kept(entry: Event, token: str, event: Event) -> Event:
    kept = {name: event[name] for name in _KEPT if event.get(name) not in (None, "")} | {"code": entry["code"], "token": token}
    if "error" in kept:  # its traceback stays with the batch: every reader of the ledger would pay for it
        kept["error"] = {name: value for name, value in kept["error"].items() if name != "traceback"}
    return kept


# -- jobs ---------------------------------------------------------------------------------------------------------------


def _never_began(watch: Watch, token: str) -> str:
    """Why a job that was started came to nothing; charged to its whole batch, so that it is not sent again for ever. Empty: it did not."""
    entry, batch, job = watch.ledger.batches[token], watch.batch(token), watch.jobs.get(token)
    if batch.over == "never_started":
        # no child starts there: charged to the whole batch, or each job that is sent again would use up the budget of a few tasks only
        return "no process started for any task"
    if batch.over or batch.started or batch.ended or batch.lost:
        return ""
    if batch.run < 0 and job is None:
        return ""
    if (job is not None and job.cause in ("preempted", "cancelled", "node_failure")) or entry["sweep"] in watch.ledger.paused:
        return ""
    if watch.ledger.is_cancelled(entry["sweep"], entry["keys"][0]):
        return ""
    said = f" ({job.reason}, exit code {job.exit_code})" if job is not None and job.reason else ""
    return f"its job died before it began a task{said}"


def _log(batch: Batch) -> str:
    """What the job printed itself; that of an array's element stands with its submission."""
    base, _, element = batch.token.partition("/")
    return str(taskdir.batch_dir(batch.root, base) / (f"log-{element}" if element else "log"))


def _lost_hosts(batch: Batch, job: JobState | None) -> list[Event]:
    """Hosts that failed under the job: when, by their own clocks, and the keys that were at work there."""
    found: list[Event] = []
    if job is None:
        return found
    for run, earlier in enumerate(batch.earlier):
        if earlier.cause(job.earlier) == "node_failure" and earlier.host:
            keys = sorted(start["key"] for one, start in batch.lost if one == run)
            found.append({"host": earlier.host, "time": earlier.last_sign, "keys": keys})
    if job.cause == "node_failure":
        hosts = job.nodes or tuple(filter(None, [batch.host]))
        found += [{"host": host, "time": batch.last_sign, "keys": sorted(batch.started)} for host in hosts]
    return found
