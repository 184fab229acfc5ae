"""One idempotent step that anyone may take at any time: close what ended, cure it, submit what became ready, compact what is finished."""

import os
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from orchestrator import code
from orchestrator import ledger as ledgers
from orchestrator.batches import Batch
from orchestrator.ledger import UNCHARGED
from orchestrator.states import SweepStates
from orchestrator.watch import Watch
from workers import files, taskdir
from workers.processes import Process
from workers.taskdir import Task, batch_dir

# what the ledger keeps of an attempt's end
_KEPT = ("class", "attempt", "message", "error", "seconds", "peak_memory_mib", "memory_limit_gib", "checkpoint", "difference", "host")


@dataclass(slots=True)
class Done:
    """What one tick did."""

    closed: int = 0
    submitted: int = 0
    settled: int = 0
    manifest: int | None = None


def tick(watch: Watch, names: Iterable[str] | None = None) -> Done:
    """Reconcile the scheduler with the files and send what may run, for the sweeps `names` (default: all that are not settled)."""
    done = Done()
    watch.refresh()
    for token in list(watch.ledger.batches):
        done.closed += _close_if_ended(watch, token)
    wanted = [n for n in (names if names is not None else sorted(watch.ledger.sweeps)) if n not in watch.ledger.settled]
    for name in wanted:
        done.submitted += _submit_ready(watch, name)
        done.settled += _settle(watch, name)
    # a job's own tick, right after it, compacts what it committed, and nobody has to wait for that
    if (done.settled and not watch.saw_job_that_ticks) or (names is None and not watch.ledger.batches):
        from orchestrator.collect import compact

        done.manifest = compact(watch.store, watch.ledger)
    return done


def open_batches(watch: Watch, name: str) -> list[str]:
    """Tokens of the sweep's batches that are not closed."""
    return [token for token, entry in watch.ledger.batches.items() if entry["sweep"] == name]


def is_due(watch: Watch, name: str) -> bool:
    """Whether a tick could change something for the sweep: one of its batches ended, or it has none at work."""
    tokens = open_batches(watch, name)
    return not tokens or any(_has_ended(watch, watch.ledger.batches[token], watch.batches[token]) for token in tokens)


# -- closing ------------------------------------------------------------------------------------------------------------


def _close_if_ended(watch: Watch, token: str) -> bool:
    """Record the end of a batch whose job is over, dead, or never began; unknown means alive."""
    while (entry := watch.ledger.batches.get(token)) is not None:
        batch = watch.batches.setdefault(token, Batch(watch.store.root, token))
        if not _has_ended(watch, entry, batch):
            return False
        if ledgers.append(watch.store.root, watch.ledger, _closing_entry(watch, entry, batch.refresh())):
            del watch.batches[token]
            return True
        watch.refresh()
    return False


def _has_ended(watch: Watch, entry: dict[str, Any], batch: Batch) -> bool:
    if batch.over:
        return True
    # the receipt first: a job that links it after this is not taken for a dead one
    receipt = batch.receipt()
    job = watch.launcher(entry["launcher"]).states(watch.store.root, [batch.token]).get(batch.token)
    if job is not None and job.state != "ended":
        return False
    if receipt is not None:
        return True
    # it never began, as far as one can see; its driver may be about to start it
    return not _is_other_live_process(entry["driver"]) and batch.fence()


def _is_other_live_process(driver: str) -> bool:
    """Whether the process may still act: true for any other host, whose processes cannot be seen from here."""
    process = Process.parse(driver)
    return not process.is_here or (process.alive and process.pid != os.getpid())


def _closing_entry(watch: Watch, entry: dict[str, Any], batch: Batch) -> dict[str, Any]:
    outcomes = {}
    for key in entry["keys"]:
        outcome = _outcome(watch, entry, batch, key)
        if outcome is not None:
            outcomes[key] = outcome
    if _died_before_any_task(watch, entry, batch):
        outcomes = _never_started(entry, batch, "its job died before it began a task")
    elif batch.over == "never_started":
        # no child starts there: charged to the whole batch, or each job that is sent again would use up the budget of a few tasks only
        outcomes |= _never_started(entry, batch, "no process started for any task")
    full = batch.over == "disk_full" or any(one["class"] == "disk_full" for one in outcomes.values())
    pause = "the disk or the quota is full: free space, then resume" if full else ""
    return {"kind": "closed", "token": batch.token, "sweep": entry["sweep"], "outcomes": outcomes, "pause": pause}


def _never_started(entry: dict[str, Any], batch: Batch, why: str) -> dict[str, Any]:
    """The charge for every task of a batch that no attempt of it has ended."""
    lost = {"class": "never_started", "message": f"{why}; see {batch.folder / 'log'}", "code": entry["code"], "token": batch.token}
    return {key: lost for key in entry["keys"] if key not in batch.ended}


def _died_before_any_task(watch: Watch, entry: dict[str, Any], batch: Batch) -> bool:
    """Whether a job was started and came to nothing; charged to its whole batch, so that it is not sent again for ever."""
    if batch.over or batch.started or batch.ended:
        return False
    receipt = batch.receipt() or {}
    started = "fenced" not in receipt or batch.token in watch.launcher(entry["launcher"]).states(watch.store.root, [batch.token])
    return started and not watch.ledger.is_cancelled(entry["sweep"], entry["keys"][0]) and entry["sweep"] not in watch.ledger.paused


def _outcome(watch: Watch, entry: dict[str, Any], batch: Batch, key: str) -> dict[str, Any] | None:
    """How the last attempt of a task ended, if that says something against the task; None otherwise."""
    if key in batch.started:
        committed = taskdir.is_committed(watch.store.root, watch.ledger.name_of(key))
        if committed or watch.ledger.is_cancelled(entry["sweep"], key):
            return None
        event = batch.started[key] | {"class": "killed", "message": "its job died and left no word"}
    elif key in batch.ended:
        event = batch.ended[key][-1]
        if event["class"] in UNCHARGED and not event.get("difference"):
            return None
    else:
        return None
    kept = {name: event[name] for name in _KEPT if event.get(name) not in (None, "")} | {"code": entry["code"], "token": batch.token}
    if "error" in kept:  # its traceback stays with the batch: every reader of the ledger would pay for it
        kept["error"] = {name: value for name, value in kept["error"].items() if name != "traceback"}
    return kept


# -- submitting ---------------------------------------------------------------------------------------------------------


def _submit_ready(watch: Watch, name: str) -> int:
    """Send every task that may run; after a lost race everything is read and decided again."""
    if name in watch.ledger.paused:
        return 0
    sent = 0
    while True:
        tasks = ready_tasks(watch, name)
        if not tasks:
            return sent
        launcher = watch.launcher(watch.sweep(name).launcher)
        batches = launcher.batches(tasks)
        if not batches:
            return sent
        for batch in _independent(batches):
            token = _win_submission(watch, name, batch)
            if token is None:
                break
            # as long as no entry comes between, what was decided holds for the next batch too
            _launch(watch, token, launcher)
            sent += len(batch)
        watch.refresh()


def _independent(batches: list[list[Task]]) -> Iterator[list[Task]]:
    """The first batch, and those that need nothing of what the others compute."""
    owner = {task.commit_name: number for number, batch in enumerate(batches) for task in batch}
    for number, batch in enumerate(batches):
        if number == 0 or all(owner.get(needed, number) == number for task in batch for needed in task.inputs.values()):
            yield batch


def ready_tasks(watch: Watch, name: str) -> list[Task]:
    """Pending tasks whose inputs are committed or stand before them in this list; hints that are missing are made on the way."""
    sweep, states = watch.sweep(name), watch.states(name)
    open_ = [index for index, state in enumerate(states.states) if state in ("pending", "failed", "cancelled")]
    there = taskdir.committed(watch.store.root, (watch.ledger.name_of(sweep.keys[index]) for index in open_))
    chosen: set[int] = set()
    tasks = []
    for index in open_:
        if watch.ledger.name_of(sweep.keys[index]) in there:
            _repair_hint(watch, name, sweep.keys[index])
            chosen.add(index)
        elif states.states[index] == "pending" and all(states.states[i] == "completed" or i in chosen for i in sweep.inputs(index)):
            chosen.add(index)
            tasks.append(_task(watch, name, index, states))
    return tasks


def _repair_hint(watch: Watch, name: str, key: str) -> None:
    """Make the hint of a task that is committed: another sweep computed it, or a kill came between."""
    root, commit_name = watch.store.root, watch.ledger.name_of(key)
    files.ops.sync_dir(taskdir.commit_path(root, commit_name).parent)
    taskdir.write_hints(root, commit_name, [name], diverged=taskdir.is_diverged(root, commit_name))


def _task(watch: Watch, name: str, index: int, states: SweepStates) -> Task:
    sweep, ledger = watch.sweep(name), watch.ledger
    key = sweep.keys[index]
    prospect = states.prospects[index]
    task = sweep.task(index)
    return Task(
        key=key,
        workload=task.workload,
        version=task.version,
        settings=task.settings,
        inputs={field: ledger.name_of(input_key) for field, input_key in task.inputs.items()},
        content=task.content,
        resources=prospect.resources.to_plain(),
        sweeps=[name],
        generation=ledger.generations.get(key, 0),
        alone=prospect.alone,
        num_failed=ledger.num_failed.get(key, 0),
    )


def _win_submission(watch: Watch, name: str, tasks: list[Task]) -> str | None:
    """Write the batch and link its entry under the ledger's next number; None: another process was first, and ours is removed."""
    root, info = watch.store.root, watch.ledger.sweeps[name]
    token = f"{name}-{secrets.token_hex(6)}"
    folder = batch_dir(root, token)
    launcher = watch.sweep(name).launcher
    body = {"token": token, "sweep": name, "snapshot": info["snapshot"], "code": info["code"], "launcher": launcher}
    files.make_dirs(folder)
    files.publish(folder / "tasks.json", files.encode(body | {"tasks": [task.to_plain() for task in tasks]}))
    entry = body | {"kind": "submission", "keys": [task.key for task in tasks], "driver": str(Process.of_pid(os.getpid()))}
    if ledgers.append(root, watch.ledger, entry):
        return token
    files.ops.unlink(folder / "tasks.json")
    files.ops.rmdir(folder)
    return None


def _launch(watch: Watch, token: str, launcher: Any) -> None:
    snapshot = watch.ledger.batches[token]["snapshot"]
    code_path = code.path_of(watch.store, snapshot)
    try:
        launcher.submit(watch.store.root, [token], code_path)
    except BaseException:
        Batch(watch.store.root, token).fence()
        raise


def _settle(watch: Watch, name: str) -> bool:
    """Note that a sweep has nothing left to submit, so that later ticks need not look at it."""
    while name not in watch.ledger.settled and name not in watch.ledger.paused:
        if not watch.states(name).is_settled:
            return False
        if ledgers.append(watch.store.root, watch.ledger, {"kind": "settled", "sweep": name}):
            return True
        watch.refresh()
    return False
