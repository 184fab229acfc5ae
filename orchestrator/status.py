"""What a user sees of a sweep: states by axis, causes, what is left and for how long."""

import statistics
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from orchestrator import budget, where
from orchestrator.cures import REMEDIES
from orchestrator.jobs import jobs, silences
from orchestrator.states import STATES, SweepStates
from orchestrator.sweep import Sweep
from orchestrator.watch import Watch
from workers import taskdir


@dataclass(slots=True)
class Status:
    """One sweep at one moment. `counts`: state -> tasks; `eta`: seconds left, (low, high), None where nothing is known yet.

    `jobs`: some of those at work, `queue`: all of them by state and reason (the fields of `Job` and `Group` in `orchestrator.jobs`).
    `silent`: why a scheduler gave no answer. `waiting`: why nothing more is sent for now. `budget`: measure -> (spent, limit). `owner`:
    of a store that is another user's. `refresh_seconds`: so long it stays true.
    """

    name: str
    root: str
    revision: int
    total: int
    counts: dict[str, int]
    by_workload: dict[str, dict[str, int]]
    by_axis: list[tuple[str, list[tuple[Any, dict[str, int]]]]]
    causes: list[tuple[str, int, str, str]]
    num_diverged: int
    broken: dict[str, str]
    paused: str
    jobs: list[dict[str, Any]]
    running: list[str]
    eta: tuple[float, float] | None
    watcher: str
    code: str
    next: str
    differences: list[tuple[str, str]] = field(default_factory=list)
    queue: list[dict[str, Any]] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    waiting: str = ""
    budget: dict[str, tuple[float, float]] = field(default_factory=dict)
    owner: str = ""
    refresh_seconds: float = 1.0

    @property
    def is_settled(self) -> bool:
        """Whether nothing runs, waits or may run."""
        return not any(self.counts.get(state, 0) for state in ("running", "queued", "pending"))


def status(watch: Watch, name: str) -> Status:
    """The picture of a sweep as of the watch's last refresh."""
    sweep, states = watch.sweep(name), watch.states(name)
    counts = _count(states.states)
    causes = where.failed_causes(sweep, states, watch.ledger)
    keys = set(sweep.keys)
    mine = [token for token, entry in watch.ledger.batches.items() if entry["sweep"] == name or not keys.isdisjoint(entry["keys"])]
    paused = watch.ledger.paused.get(name, "")
    shown, groups = jobs(watch, mine)
    return Status(
        name=name,
        root=str(watch.store.root),
        revision=watch.ledger.sweeps[name]["revision"],
        total=len(sweep.keys),
        counts=counts,
        by_workload=_by_workload(sweep, states),
        by_axis=_by_axis(sweep, states),
        causes=causes,
        num_diverged=len(states.diverged),
        broken=states.broken,
        paused=paused,
        jobs=[asdict(job) for job in shown],
        running=_running(watch, sweep, states),
        eta=_eta(watch, sweep, states, mine),
        watcher=_watcher(watch, counts, mine),
        code=watch.ledger.sweeps[name]["code"],
        next=_next(name, counts, causes, paused),
        differences=_differences(watch, sweep),
        queue=[asdict(group) for group in groups],
        silent=silences(watch.silent, mine),
        waiting=watch.waiting.get(name, ""),
        budget=_budget(watch, name),
        owner="" if watch.store.is_mine else watch.store.owner,
        refresh_seconds=max([1.0, *(watch.launcher(watch.ledger.batches[token]["launcher"]).poll_seconds for token in mine)]),
    )


def _budget(watch: Watch, name: str) -> dict[str, tuple[float, float]]:
    if not watch.sweep(name).budget:
        return {}
    books = budget.account(watch, name)
    return {measure: (books.spent[measure], limit) for measure, limit in books.limits.items()}


def _differences(watch: Watch, sweep: Sweep) -> list[tuple[str, str]]:
    """(key, how) of results that a second attempt did not give again."""
    told = taskdir.differences(watch.store.root)
    names = {watch.ledger.name_of(key): key for key in sweep.keys} if told else {}
    return [(names[name], difference) for name, difference in told if name in names]


def _count(states: list[str]) -> dict[str, int]:
    counter = Counter(states)
    return {state: counter[state] for state in STATES if counter[state]}


def _by_workload(sweep: Sweep, states: SweepStates) -> dict[str, dict[str, int]]:
    groups: dict[str, list[str]] = {}
    for index, state in enumerate(states.states):
        groups.setdefault(sweep.workload(index), []).append(state)
    return {workload: _count(group) for workload, group in groups.items()}


def _by_axis(sweep: Sweep, states: SweepStates) -> list[tuple[str, list[tuple[Any, dict[str, int]]]]]:
    names = [axis.name for axis in sweep.axes if not axis.formula]
    groups: list[dict[Any, Counter[str]]] = [{} for _ in names]
    for index, state in enumerate(states.states):
        values = sweep.axis_values(index)
        for position, name in enumerate(names):
            if name in values:
                group = groups[position]
                value = values[name]
                if value not in group:
                    group[value] = Counter()
                group[value][state] += 1
    return [(name, [(value, dict(counter)) for value, counter in group.items()]) for name, group in zip(names, groups, strict=True)]


def _running(watch: Watch, sweep: Sweep, states: SweepStates) -> list[str]:
    """What runs now, in words, with its progress."""
    progress = {key: value for batch in watch.batches.values() for key, value in batch.progress.items()}
    found = []
    for index, state in enumerate(states.states):
        if state == "running":
            done, total, words = progress.get(sweep.keys[index], (0, 0, ""))
            share = f" {100 * done / total:.0f} %" if total else ""
            found.append(f"{where.describe(sweep, index)}{share}{f': {words}' if words else ''}")
            if len(found) == 8:
                break
    return found


def _eta(watch: Watch, sweep: Sweep, states: SweepStates, tokens: list[str]) -> tuple[float, float] | None:
    """Remaining work of each workload at the lower and upper quartile of what its tasks took, over the slots at work."""
    left = Counter(sweep.workload(i) for i, state in enumerate(states.states) if state in ("running", "queued", "pending"))
    if not left:
        return (0.0, 0.0)
    seconds: dict[str, list[float]] = {}
    workload_of = {key: sweep.workload(index) for index, key in enumerate(sweep.keys)}
    for token in tokens:
        for key, events in watch.batches[token].ended.items():
            if key in workload_of:
                seconds.setdefault(workload_of[key], []).append(events[-1]["seconds"])
    if set(left) - set(seconds):
        return None
    slots = max(1, sum(len(watch.batches[token].started) for token in tokens))
    low = high = 0.0
    for workload, number in left.items():
        quartiles = statistics.quantiles(seconds[workload], n=4) if len(seconds[workload]) > 1 else seconds[workload] * 3
        low, high = low + number * quartiles[0], high + number * quartiles[2]
    return (low / slots, high / slots)


def _watcher(watch: Watch, counts: dict[str, int], tokens: list[str]) -> str:
    """Who will take the next step without being asked; empty: nobody has to."""
    if not tokens and not counts.get("pending"):
        return ""
    if not watch.store.is_mine:
        return f"only {watch.store.owner}, whose store this is, can take it"
    first = {token.partition("/")[0]: watch.launcher(watch.ledger.batches[token]["launcher"]) for token in tokens}
    untended = {base: launcher.untended(watch.store.root, base) for base, launcher in first.items()}
    ticking = sum(1 for token in tokens if not untended[token.partition("/")[0]])
    if ticking:
        return f"each job ticks when it ends ({ticking:,} at work)"
    why = next(iter(untended.values()), "")
    return f"NOBODY{f', since {why}' if why else ''}: run `eigensweep tick --every 60 --root {watch.store.root}`, in tmux or by cron"


def _next(name: str, counts: dict[str, int], causes: list[tuple[str, int, str, str]], paused: str) -> str:
    if paused:
        return f"eigensweep resume {name}"
    if counts.get("failed"):
        cause = causes[0][0] if causes else "killed"
        remedy = REMEDIES.get(cause, "see its log, then `eigensweep resume {sweep}`").format(sweep=name)
        return f"eigensweep logs {name} {causes[0][3][:10] if causes else 'KEY'}   # {remedy}"
    if counts.get("running") or counts.get("queued"):
        return f"eigensweep status {name} --watch"
    if counts.get("pending") or counts.get("cancelled"):
        return f"eigensweep resume {name}"
    return f"eigensweep report {name}"
