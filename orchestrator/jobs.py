"""What a user sees of the jobs at work: what their schedulers and their own files say of each, and all summed up by state and reason."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.batches import Batch
from orchestrator.launchers.launcher import ENDED, QUEUED, RUNNING, JobState
from orchestrator.watch import Watch

# so many jobs are described one by one: of those that wait for the user, that run, that are queued; all are in the groups
MOST_JOBS = (10, 30, 10)
_EXAMPLES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job. `reason`, `explanation`, `position`, `start_estimate`: as in `JobState`. `peak_gib`: the most that one of its tasks took so
    far; `memory_gib`: what each asked for."""

    token: str
    launcher: str
    job_id: str = ""
    state: str = QUEUED
    reason: str = ""
    explanation: str = ""
    running: int = 0
    ended: int = 0
    total: int = 0
    run: int = 0
    nodes: list[str] = field(default_factory=list)
    seconds: float | None = None
    limit_seconds: float | None = None
    peak_gib: float | None = None
    memory_gib: float | None = None
    position: tuple[int, int] | None = None
    start_estimate: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Jobs that are in one state for one reason: how many, the first of them, and what is wrong with the first."""

    state: str
    reason: str
    jobs: int
    tasks: int
    job_ids: list[str]
    explanation: str = ""


def jobs(watch: Watch, tokens: Iterable[str]) -> tuple[list[Job], list[Group]]:
    """Some of the jobs, those that wait for the user first, then what runs, then the queue; and all of them in groups."""
    found = sorted(((token, _state(watch, token)) for token in tokens), key=lambda pair: _rank(pair[1]))
    few = [[pair for pair in found if _rank(pair[1])[0] == kind][:most] for kind, most in enumerate(MOST_JOBS)]
    return [_job(watch, token, state) for kind in few for token, state in kind], _groups(watch, found)


def _state(watch: Watch, token: str) -> JobState:
    """As the scheduler says; where none was asked, or none answered, as the files tell."""
    state = watch.jobs.get(token)
    if state is None:
        batch = watch.batch(token)
        state = JobState(state=ENDED if batch.over else RUNNING if batch.run >= 0 else QUEUED, job_id="")
    return state


def _rank(state: JobState) -> tuple[int, int]:
    """Waits for the user, runs (or has just ended), is queued; then by place."""
    kind = 0 if state.explanation else 2 if state.state == QUEUED else 1
    return kind, state.position[0] if state.position else 1_000_000_000


def _job(watch: Watch, token: str, state: JobState) -> Job:
    batch, entry = watch.batch(token), watch.ledger.batches[token]
    return Job(
        token=token,
        launcher=entry["launcher"]["name"],
        running=len(batch.started),
        ended=sum(1 for key in entry["keys"] if key in batch.ended),
        total=len(entry["keys"]),
        run=max(0, batch.run),
        peak_gib=_peak_gib(batch, state),
        memory_gib=(entry.get("request") or {}).get("shape", {}).get("memory_gib"),
        **_told(state),
    )


def _told(state: JobState) -> dict[str, Any]:
    names = ("state", "job_id", "reason", "explanation", "seconds", "limit_seconds", "position", "start_estimate")
    return {name: getattr(state, name) for name in names} | {"nodes": list(state.nodes)}


def _peak_gib(batch: Batch, state: JobState) -> float | None:
    """By the tasks that have ended; the scheduler says it of jobs that have."""
    peaks = [event.get("peak_memory_mib") or 0.0 for events in batch.ended.values() for event in events]
    most: float = max([*peaks, state.peak_memory_mib or 0.0])
    return most / 1024 if most else None


def _groups(watch: Watch, found: Iterable[tuple[str, JobState]]) -> list[Group]:
    """In the order of `found`."""
    groups: dict[tuple[str, str], list[tuple[str, JobState]]] = {}
    for token, state in found:
        reason = "" if state.state == RUNNING and not state.explanation else state.reason
        groups.setdefault((state.state, reason), []).append((token, state))
    return [
        Group(
            state=state,
            reason=reason,
            jobs=len(own),
            tasks=sum(len(watch.ledger.batches[token]["keys"]) for token, _ in own),
            job_ids=[one.job_id or token for token, one in own[:_EXAMPLES]],
            explanation=own[0][1].explanation,
        )
        for (state, reason), own in groups.items()
    ]


def place_in_queues(watch: Watch, tokens: Iterable[str]) -> None:
    """Ask each scheduler for the places of the waiting jobs, which costs it more than their states; silence changes nothing."""
    by_launcher: dict[int, tuple[Any, dict[str, JobState]]] = {}
    for token in tokens:
        state = watch.jobs.get(token)
        if state is not None and state.state == QUEUED:
            launcher = watch.launcher(watch.ledger.batches[token]["launcher"])
            by_launcher.setdefault(id(launcher), (launcher, {}))[1][token] = state
    for launcher, waiting in by_launcher.values():
        watch.jobs.update(launcher.positions(waiting))


def silences(silent: Mapping[str, str], tokens: Iterable[str]) -> list[str]:
    """Why schedulers gave no answer, each once."""
    return list(dict.fromkeys(silent[token] for token in tokens if token in silent))
