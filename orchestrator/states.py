"""The state of every task of a sweep, from its hints, the ledger's fold and the open batches."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.batches import Batch
from orchestrator.cures import Means, Outcome, Prospect, broken_workloads, prospect
from orchestrator.ledger import UNCHARGED, Ledger
from orchestrator.sweep import Sweep

STATES = ("completed", "running", "queued", "pending", "failed", "blocked", "cancelled")


@dataclass(slots=True)
class SweepStates:
    """`states`, one of STATES a task in the sweep's order; `prospects` of the pending and the failed, by index.

    `diverged` counts completed tasks without a finite result. `broken`: workload -> the error that stopped its submissions.
    """

    states: list[str]
    prospects: dict[int, Prospect] = field(default_factory=dict)
    diverged: set[int] = field(default_factory=set)
    broken: dict[str, str] = field(default_factory=dict)
    outcomes: dict[str, list[Outcome]] = field(default_factory=dict)

    @property
    def is_settled(self) -> bool:
        """Whether nothing runs, waits or may run."""
        return not {"running", "queued", "pending"} & set(self.states)


def sweep_states(sweep: Sweep, ledger: Ledger, done: set[str], batches: Mapping[str, Batch], means: Means) -> SweepStates:
    """States of all tasks; `done` are the names of the sweep's commits, `batches` the open ones by token."""
    found = SweepStates(states=[])
    in_batch = _open_keys(ledger, batches)
    info = ledger.sweeps.get(sweep.name, {})
    cancelled_keys = ledger.cancelled.get(sweep.name, [])
    cancelled = set(sweep.keys if cancelled_keys is None else cancelled_keys)
    found.outcomes = _outcomes(sweep, ledger, batches)
    found.broken = _broken(sweep, ledger, done, found.outcomes, info.get("code", ""))
    for index, key in enumerate(sweep.keys):
        name = ledger.name_of(key)
        if name in done:
            if f"{name}.diverged" in done:
                found.diverged.add(index)
            state = "completed"
        elif in_batch.get(key) == "running" or (key in in_batch and key not in cancelled):
            state = in_batch[key]
        elif key in cancelled:
            state = "cancelled"
        else:
            state = _waiting_state(index, sweep, found, info.get("code", ""), means)
        found.states.append(state)
    return found


def _waiting_state(index: int, sweep: Sweep, found: SweepStates, code: str, means: Means) -> str:
    """pending, failed or blocked; inputs stand before what needs them, so their states are known."""
    outcomes = found.outcomes.get(sweep.keys[index], [])
    can_halve = any(one["class"] == "cuda_oom" for one in outcomes) and sweep.halves_batches(index)
    found.prospects[index] = prospect(outcomes, sweep.resources(index), code, means, can_halve=can_halve)
    if found.prospects[index].failed:
        return "failed"
    for position in sweep.inputs(index):
        if found.states[position] in ("failed", "blocked", "cancelled"):
            return "blocked"
        if position in found.diverged and not sweep.accepts_diverged(index, position):
            return "blocked"
    return "failed" if sweep.workload(index) in found.broken else "pending"


def _open_keys(ledger: Ledger, batches: Mapping[str, Batch]) -> dict[str, str]:
    """key -> queued or running, for what an open batch still has to do."""
    states = {}
    for token, entry in ledger.batches.items():
        batch = batches.get(token)
        started = batch.started if batch else {}
        for key in entry["keys"]:
            states[key] = "running" if key in started else "queued"
    return states


def _outcomes(sweep: Sweep, ledger: Ledger, batches: Mapping[str, Batch]) -> dict[str, list[Outcome]]:
    """How the attempts of each task ended that had any, those in open batches included."""
    fresh: dict[str, list[Outcome]] = {}
    for batch in batches.values():
        for key, events in batch.ended.items():
            if charged := [event for event in events if event["class"] not in UNCHARGED]:
                fresh.setdefault(key, []).extend(charged)
    found = {key: ledger.outcomes.get(key, []) + fresh.get(key, []) for key in sweep.keys}
    return {key: outcomes for key, outcomes in found.items() if outcomes}


def _broken(sweep: Sweep, ledger: Ledger, done: set[str], outcomes: Mapping[str, list[Outcome]], code: str) -> dict[str, str]:
    """Workloads that fail alike again and again, under the code that would run now and since the user last resumed the sweep."""
    if not outcomes:
        return {}
    completed: dict[str, int] = {}
    for index, key in enumerate(sweep.keys):
        if ledger.name_of(key) in done:
            completed[sweep.workload(index)] = completed.get(sweep.workload(index), 0) + 1
    workloads = {key: sweep.workload(index) for index, key in enumerate(sweep.keys) if key in outcomes}
    since = ledger.resumed.get(sweep.name, 0)
    failures = [
        one | {"workload": workloads[key]}
        for key, ones in outcomes.items()
        for one in ones
        if one.get("code", code) == code and one.get("number", since + 1) > since
    ]
    return broken_workloads(failures, completed)
