"""What a submission would do: done, to run, stale, what leaves, and the cost. Writes nothing."""

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestrator import budget, cost, where
from orchestrator import code as code_of
from orchestrator.chosen import choices
from orchestrator.compose import Composed, compose
from orchestrator.cures import Means, Prospect
from orchestrator.demands import Demands, demands
from orchestrator.dispatch import Hours, Jobs, add_scripts, jobs_of
from orchestrator.estimates import expected_seconds
from orchestrator.launchers.launcher import Launcher
from orchestrator.states import SweepStates, sweep_states
from orchestrator.store import Store
from orchestrator.sweep import Sweep, expand
from orchestrator.watch import Watch
from workers import taskdir
from workers.errors import ConfigError
from workers.taskdir import Task


@dataclass(slots=True)
class Plan:
    """The difference between a sweep and the store. `stale`: done by other code. `leaving`: keys the name would lose.

    `cost_hours`: slot-hours of what is left, (low, high); `unknown_cost`: tasks whose time nobody knows yet. `jobs`: of a scheduler,
    by shape; `unchecked`: what could not be asked of it. `large`: what large tasks take.
    `notes`: on what was read from other sweeps. `derived`: axis -> the expression that its values follow from.
    """

    name: str
    target: str
    total: int
    axes: list[tuple[str, str, list[Any]]]
    counts: dict[str, int]
    by_workload: dict[str, dict[str, int]]
    stale: int
    leaving: list[str]
    cost_hours: tuple[float, float]
    unknown_cost: int
    walltime_seconds: tuple[float, float]
    num_jobs: int
    slots: int
    code: str
    jobs: list[Jobs] = field(default_factory=list)
    unchecked: str = ""
    large: Demands | None = None
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    derived: dict[str, str] = field(default_factory=dict)
    next: str = ""


@dataclass(slots=True)
class Planned:
    """A sweep as asked for, with the store as it is."""

    composed: Composed
    sweep: Sweep
    watch: Watch
    states: SweepStates
    leaving: list[str]
    unchecked: str = ""
    large: Demands | None = None

    @property
    def to_run(self) -> list[int]:
        """Positions of the tasks that are to be sent."""
        return [index for index, state in enumerate(self.states.states) if state == "pending"]

    def task(self, index: int) -> Task:
        """A task as a tick would send it."""
        return _task(self.watch, self.sweep, index, self.states.prospects[index])


def prepare(
    overrides: Sequence[str], store: Store, config_dirs: Sequence[Path] = (), grown: bool = False, *, submitting: bool = False
) -> Planned:
    """Compose, expand, compare, and check against what the scheduler offers; ConfigError before anything is written.

    `grown`: earlier tasks of the name stay in. `submitting`: the scheduler must be there.
    """
    composed = compose(overrides, config_dirs, choices=choices(store, _kept(overrides, store) if grown else ()))
    sweep = expand(composed)
    if not sweep.name:
        raise ConfigError(
            "the sweep has no name: add name=..., by which status, resume and load find it (or sweep=..., whose name it takes)"
        )
    watch = Watch.of(store)
    leaving: list[str] = []
    if sweep.name in watch.ledger.sweeps:
        earlier = watch.sweep(sweep.name)
        if grown:
            sweep = earlier.union(sweep)
            _refuse_alike(sweep)
        else:
            kept = set(sweep.keys)
            leaving = [key for key in earlier.keys if key not in kept]
    names = {watch.ledger.name_of(key) for key in sweep.keys}
    done = store.done(sweep.name)
    done |= taskdir.committed(store.root, names - done)
    launcher = watch.launcher(sweep.launcher)
    states = sweep_states(sweep, watch.ledger, done, watch.batches, Means.of(launcher))
    planned = Planned(composed, sweep, watch, states, leaving)
    prospects = {index: states.prospects[index] for index in planned.to_run}
    planned.large, planned.unchecked = check(watch, sweep, prospects, submitting=submitting)
    return planned


def _kept(overrides: Sequence[str], store: Store) -> Sequence[Mapping[str, Any]]:
    """What a sweep that grows has chosen before."""
    name = next((word.partition("=")[2] for word in overrides if word.startswith("name=")), "")
    return Watch.of(store).sweep(name).chosen if name else ()


def check(watch: Watch, sweep: Sweep, prospects: Mapping[int, Prospect], *, submitting: bool) -> tuple[Demands | None, str]:
    """What the large ones among these tasks, by index, take, and what the scheduler could not be asked.

    ConfigError for tasks that could not run: too little memory or disk, or jobs that the scheduler would never begin.
    """
    launcher = watch.launcher(sweep.launcher)
    large = demands(sweep, {index: one.resources for index, one in prospects.items()}, launcher, watch.store.root)
    one_of_each = {(one.resources, one.alone): (index, one) for index, one in prospects.items()}
    tasks = [replace(_task(watch, sweep, *found), inputs={}) for found in one_of_each.values()]
    return large, launcher.check_jobs(watch.store.root, tasks, submitting=submitting)


def _task(watch: Watch, sweep: Sweep, index: int, prospect: Prospect) -> Task:
    task, ledger = sweep.task(index, watch.ledger.generations), watch.ledger
    inputs = {name: ledger.name_of(key) for name, key in task.inputs.items()}
    return replace(task, inputs=inputs, resources=prospect.resources.to_plain(), alone=prospect.alone)


def _refuse_alike(sweep: Sweep) -> None:
    """Raise ConfigError where two points of a grown sweep have the same value on every axis: nobody could tell them apart."""
    seen: dict[tuple[str, str], str] = {}
    for index, key in enumerate(sweep.keys):
        if sweep.is_target(index):
            point = (sweep.workload(index), str(sweep.axis_values(index)))
            if point in seen:
                axes = ", ".join(axis.name for axis in sweep.axes)
                raise ConfigError(
                    f"{sweep.name!r} would hold two tasks that no axis tells apart: {where.describe(sweep, index)}, {seen[point][:10]} and "
                    f"{key[:10]}. `add` takes new values of the sweep's axes ({axes}); to vary another setting, submit all its "
                    "values, such as num_steps=100,200, under another name=... (what is done is not run again)"
                )
            seen[point] = key


def plan(
    overrides: Sequence[str], store: Store, config_dirs: Sequence[Path] = (), grown: bool = False, *, every_script: bool = False
) -> Plan:
    """The plan of a submission with these settings; `every_script`: not only the first of each shape."""
    return summarise(prepare(overrides, store, config_dirs, grown), every_script=every_script)


def summarise(planned: Planned, *, every_script: bool = False) -> Plan:
    """Counts and cost of what was prepared."""
    sweep, states, watch = planned.sweep, planned.states, planned.watch
    frozen = code_of.identify(watch.store, sweep.modules())
    done = [index for index, state in enumerate(states.states) if state == "completed"]
    commits = {index: taskdir.read_commit(watch.store.root, watch.ledger.name_of(sweep.keys[index])) for index in done}
    seconds = _seconds(sweep, planned.to_run, commits)
    known = [one for one in seconds.values() if one is not None]
    low, high = sum(one[0] for one in known), sum(one[1] for one in known)
    launcher = watch.launcher(sweep.launcher)
    jobs, num_jobs = _jobs(planned, launcher, seconds, frozen.path, every_script)
    slots = min(launcher.num_slots(), sum(one.jobs * one.request["slots"] for one in jobs) or launcher.num_slots())
    counts = dict(Counter(states.states))
    return Plan(
        name=sweep.name,
        target=sweep.target,
        total=len(sweep.keys),
        axes=[(axis.name, axis.path, list(axis.values)) for axis in sweep.axes],
        counts=counts,
        by_workload=_by_workload(sweep, states),
        stale=sum(1 for commit in commits.values() if commit.code != frozen.code),
        leaving=planned.leaving,
        cost_hours=(low / 3600, high / 3600),
        unknown_cost=len(seconds) - len(known),
        walltime_seconds=(low / slots, high / slots),
        num_jobs=num_jobs,
        slots=slots,
        code=frozen.code,
        jobs=jobs,
        unchecked=planned.unchecked,
        large=planned.large,
        warnings=budget.shortfalls(watch, sweep.name, sweep.budget, _estimates(sweep, seconds, jobs)),
        notes=planned.composed.notes,
        derived={axis.name: axis.formula for axis in sweep.axes if axis.formula},
        next=_next(sweep.name, counts, planned.leaving),
    )


def _jobs(
    planned: Planned, launcher: Launcher, seconds: Mapping[int, Hours | None], code_path: Path, every_script: bool
) -> tuple[list[Jobs], int]:
    """Jobs by shape where they go to a scheduler, and how many there are."""
    sweep, ledger = planned.sweep, planned.watch.ledger
    if not launcher.detaches:
        tasks = [sweep.task(index) for index in planned.to_run]
        return [], len(launcher.batches(tasks)) if tasks else 0
    by_key = {sweep.keys[index]: one for index, one in seconds.items()}
    expected = expected_seconds(sweep, ledger.slowest)
    found = jobs_of(launcher, [planned.task(index) for index in planned.to_run], by_key, expected, ledger.bad_hosts())
    add_scripts(launcher, planned.watch.store.root, sweep.name, code_path, found, every=every_script)
    return [jobs for jobs, _ in found], sum(jobs.jobs for jobs, _ in found)


def _estimates(sweep: Sweep, seconds: Mapping[int, Hours | None], jobs: list[Jobs]) -> dict[str, Hours]:
    """(low, high) of the hours that a budget may limit: of the jobs where they go to a scheduler, else of the tasks themselves."""
    if jobs:
        return {measure: _sum(getattr(one, measure) for one in jobs) for measure in cost.MEASURES}
    known = [(one, sweep.resources(index)) for index, one in seconds.items() if one is not None]
    return {
        "cpu_hours": _sum((low * asked.cpus / 3600, high * asked.cpus / 3600) for (low, high), asked in known),
        "gpu_hours": _sum((low * asked.gpus / 3600, high * asked.gpus / 3600) for (low, high), asked in known),
    }


def _sum(bands: Iterable[Hours]) -> Hours:
    listed = list(bands)
    return sum(low for low, _ in listed), sum(high for _, high in listed)


def _by_workload(sweep: Sweep, states: SweepStates) -> dict[str, dict[str, int]]:
    found: dict[str, Counter[str]] = {}
    for index, state in enumerate(states.states):
        found.setdefault(sweep.workload(index), Counter())[state] += 1
    return {workload: dict(counter) for workload, counter in found.items()}


def _seconds(sweep: Sweep, indices: list[int], commits: dict[int, taskdir.Commit]) -> dict[int, Hours | None]:
    """For each task the quartiles of what committed ones of its workload took, else half and double the workload's own estimate."""
    taken: dict[str, list[float]] = {}
    for commit in commits.values():
        taken.setdefault(commit.workload, []).append(commit.seconds)
    quartiles = {workload: _quartiles(seconds) for workload, seconds in taken.items()}
    found: dict[int, Hours | None] = {}
    for index in indices:
        estimate = sweep.estimated_seconds(index)
        guess = None if estimate is None else (estimate / 2, 2 * estimate)
        found[index] = quartiles.get(sweep.workload(index), guess)
    return found


def _quartiles(seconds: list[float]) -> Hours:
    if len(seconds) == 1:
        return seconds[0], seconds[0]
    first, _, last = statistics.quantiles(seconds, n=4)
    return first, last


def _next(name: str, counts: dict[str, int], leaving: list[str]) -> str:
    if leaving:
        return f"{len(leaving)} tasks would leave {name!r}: `eigensweep add` keeps them, `submit --replace` lets them go"
    if not counts.get("pending"):
        return f"eigensweep status {name}"
    return "the same with `submit` in place of `plan`"
