"""One idempotent step that anyone may take at any time: close what ended, cure it, submit what became ready, compact what is finished."""

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from orchestrator import batches as batch_files
from orchestrator import budget, code
from orchestrator import ledger as ledgers
from orchestrator.closing import closing_entry
from orchestrator.estimates import expected_seconds
from orchestrator.launchers.launcher import ENDED, Launcher, SchedulerSilent, Submission, SubmissionRefused, SubmissionUnknown
from orchestrator.states import SweepStates
from orchestrator.watch import Watch
from workers import files, taskdir
from workers.processes import Process
from workers.taskdir import Task, job_path

SETTLE_PAUSE_SECONDS = 2.0


@dataclass(slots=True)
class Done:
    """What one tick did."""

    closed: int = 0
    submitted: int = 0
    settled: int = 0
    manifest: int | None = None

    @property
    def anything(self) -> bool:
        """Whether it changed what is at work."""
        return bool(self.closed or self.submitted or self.settled)


def tick(watch: Watch, names: Iterable[str] | None = None) -> Done:
    """Reconcile the scheduler with the files and send what may run, for the sweeps `names` (default: all that are not settled)."""
    done = Done()
    watch.refresh().look()
    _adopt(watch)
    done.closed = _close_ended(watch)
    wanted = [n for n in (names if names is not None else sorted(watch.ledger.sweeps)) if n not in watch.ledger.settled]
    for name in wanted:
        done.submitted += _submit_ready(watch, name)
        done.settled += _settle(watch, name)
    # a job's own tick, right after it, compacts what it committed, and nobody has to wait for that
    if (done.settled and not watch.saw_job_that_ticks) or (names is None and (done.closed or not watch.ledger.batches)):
        from orchestrator.collect import compact

        done.manifest = compact(watch.store, watch.ledger)
    watch.doubts.save()
    return done


def settle(watch: Watch, most_seconds: float, report: Callable[[Done], None] = lambda done: None) -> Done:
    """Tick until no job's end is in doubt any more, for at most so long: where nobody may look again after it."""
    deadline = time.monotonic() + most_seconds
    while True:
        done = tick(watch)
        report(done)
        if not watch.doubts.unsettled or time.monotonic() > deadline:
            return done
        time.sleep(SETTLE_PAUSE_SECONDS)


def open_batches(watch: Watch, name: str) -> list[str]:
    """Tokens of the sweep's batches that are not closed."""
    return [token for token, entry in watch.ledger.batches.items() if entry["sweep"] == name]


def is_due(watch: Watch, name: str) -> bool:
    """Whether a tick could change something for the sweep: one of its batches ended, or it has none at work."""
    tokens = open_batches(watch, name)
    if any(watch.batch(token).is_over for token in tokens):
        return True
    watch.look(at_once=False)
    return not tokens or any(_seems_ended(watch, token) for token in tokens)


# -- closing ------------------------------------------------------------------------------------------------------------


def _close_ended(watch: Watch) -> int:
    """Record in one entry the end of each batch whose job is over, dead, or never began; unknown means alive."""
    while ended := _ended(watch):
        for token in ended:
            watch.batch(token).refresh()
        if ledgers.append(watch.store.root, watch.ledger, closing_entry(watch, ended)):
            for token in ended:
                watch.forget(token)
            return len(ended)
        watch.refresh()
    return 0


def _ended(watch: Watch) -> list[str]:
    """Batches whose jobs will do no more.

    A job that begins, or that its scheduler starts again, after this finds the fence; one that has begun meanwhile is alive.
    """
    seeming = [token for token in watch.ledger.batches if _seems_ended(watch, token)]
    unsure = {token: watch.batch(token) for token in seeming if _needs_fence(watch, token)}
    batch_files.fence(list(unsure.values()))
    return [token for token in seeming if token not in unsure or unsure[token].is_fenced]


def _needs_fence(watch: Watch, token: str) -> bool:
    batch = watch.batch(token)
    return not batch.is_over and (batch.run < 0 or watch.launcher(watch.ledger.batches[token]["launcher"]).restarts)


def _seems_ended(watch: Watch, token: str) -> bool:
    entry, batch = watch.ledger.batches[token], watch.batch(token)
    if batch.is_over or batch.is_fenced:
        return True
    launcher = watch.launcher(entry["launcher"])
    job = watch.jobs.get(token)
    if token in watch.silent or (job is not None and job.state != ENDED):
        watch.doubts.forget(token)
        return False
    if batch.run < 0 and job is None and _may_yet_submit(entry["driver"], launcher):
        return False
    return not (job is None or job.doubtful) or _is_believed(watch, token, launcher)


def _is_believed(watch: Watch, token: str, launcher: Launcher) -> bool:
    """Whether it has looked so for long enough, with no heartbeat in between."""
    if not launcher.doubt_seconds:
        return True
    job, batch = watch.jobs.get(token), watch.batch(token)
    mark = f"{job.reason if job else 'no record'} {batch.run} {batch.heartbeat()}"
    return watch.doubts.is_confirmed(token, mark, launcher.doubt_seconds)


def _may_yet_submit(driver: str, launcher: Launcher) -> bool:
    """Whether the driver that won the entry may still be about to start the job.

    Of a driver on another host nothing is known: it is given up after the doubt, where there is one, and else never.
    """
    process = Process.parse(driver)
    if not process.is_here:
        return not launcher.doubt_seconds
    return process.alive and process.pid != os.getpid()


# -- submitting ---------------------------------------------------------------------------------------------------------


def _submit_ready(watch: Watch, name: str) -> int:
    """Send every task that may run; after a lost race everything is read and decided again."""
    sent = 0
    watch.waiting.pop(name, None)
    while name not in watch.ledger.paused and name not in watch.waiting:
        tasks = ready_tasks(watch, name)
        if not tasks or _is_over_budget(watch, name):
            break
        launcher = watch.launcher(watch.sweep(name).launcher)
        seconds = expected_seconds(watch.sweep(name), watch.ledger.slowest)
        try:
            submissions = _affordable(watch, name, launcher.cut(tasks, seconds, watch.ledger.bad_hosts()))
        except SchedulerSilent as error:
            watch.waiting[name] = str(error)
            break
        if not submissions:
            watch.waiting.setdefault(name, "no more of your jobs may be queued now: a limit of the cluster is reached")
            break
        for submission in _independent(submissions):
            token = _win_submission(watch, name, submission)
            if token is None:
                break
            # as long as no entry comes between, what was decided holds for the next submission too
            if not _launch(watch, token, submission, launcher):
                break
            sent += sum(map(len, submission.jobs))
        watch.refresh()
    return sent


def _is_over_budget(watch: Watch, name: str) -> bool:
    """Whether what the sweep has cost forbids to send more; then it waits for the user."""
    reason = budget.over_budget(watch, name)
    if reason:
        _append(watch, {"kind": "pause", "sweep": name, "reason": reason})
    return bool(reason)


def _affordable(watch: Watch, name: str, submissions: list[Submission]) -> list[Submission]:
    """The jobs that the sweep's budget has room for now; when some have ended, it may have room for more."""
    chosen, held = budget.affordable(watch, name, submissions)
    if held:
        watch.waiting[name] = held
    return chosen


def _independent(submissions: list[Submission]) -> Iterator[Submission]:
    """The first, and those that need nothing of what the others compute."""
    owner = {task.commit_name: number for number, one in enumerate(submissions) for job in one.jobs for task in job}
    for number, one in enumerate(submissions):
        tasks = (task for job in one.jobs for task in job)
        if number == 0 or all(owner.get(needed, number) == number for task in tasks for needed in task.inputs.values()):
            yield one


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
        halvings=prospect.halvings,
        gpu_type=prospect.gpu_type,
    )


def _win_submission(watch: Watch, name: str, submission: Submission) -> str | None:
    """Write the batches and link their entry under the ledger's next number; None: another process was first, and ours are removed."""
    root, info = watch.store.root, watch.ledger.sweeps[name]
    token = f"{name}-{secrets.token_hex(6)}"
    body = {
        "token": token,
        "sweep": name,
        "snapshot": info["snapshot"],
        "code": info["code"],
        "launcher": watch.sweep(name).launcher,
        "request": submission.request,
    }
    batch_files.write(root, token, body | {"estimates": _estimates(watch, submission)}, submission.jobs)
    jobs = [[task.key for task in job] for job in submission.jobs]
    if ledgers.append(root, watch.ledger, body | {"kind": "submission", "jobs": jobs, "driver": str(Process.of_pid(os.getpid()))}):
        return token
    batch_files.remove(root, token)
    return None


def _estimates(watch: Watch, submission: Submission) -> dict[str, float]:
    """What is known of how long its tasks take, by shape name."""
    shapes = {taskdir.shape_name(task.workload, task.resources) for job in submission.jobs for task in job}
    return {shape: watch.ledger.slowest[shape] for shape in sorted(shapes) if shape in watch.ledger.slowest}


def _launch(watch: Watch, token: str, submission: Submission, launcher: Launcher) -> bool:
    """Start the jobs; False where the scheduler takes no more of them now, and the tasks are pending again."""
    root = watch.store.root
    snapshot = next(entry["snapshot"] for entry in watch.ledger.batches.values() if entry["token"] == token)
    code_path = code.path_of(watch.store, snapshot)
    try:
        job_id = launcher.submit(root, token, submission, code_path)
    except SubmissionRefused as refusal:
        _note_refusal(watch, token, refusal)
        return False
    except SubmissionUnknown as error:
        sweep = token.rpartition("-")[0]
        watch.waiting[sweep] = f"{error}; the jobs are looked for by their name, {token}"
        return False
    except BaseException:
        for batch in [batch for one, batch in watch.batches.items() if one.partition("/")[0] == token]:
            batch.fence()
        raise
    if launcher.restarts:
        _note_id(watch, token, job_id)
    return True


def _note_id(watch: Watch, base: str, job_id: str) -> None:
    with files.replacing(job_path(watch.store.root, base)) as path:
        path.write_bytes(files.encode({"job_id": job_id}))


def _adopt(watch: Watch) -> None:
    """Do for jobs that the scheduler has what their driver did not come to: it died right after they were taken, or had no answer."""
    found: dict[str, str] = {}
    for token, job in watch.jobs.items():
        if job.state != ENDED and token in watch.ledger.batches:
            found.setdefault(token.partition("/")[0], token)
    for base, token in found.items():
        entry = watch.ledger.batches[token]
        launcher = watch.launcher(entry["launcher"])
        known = not launcher.restarts or job_path(watch.store.root, base).exists()
        if not known and not _may_yet_submit(entry["driver"], launcher):
            job_id = watch.jobs[token].job_id.partition("_")[0]
            launcher.adopt(watch.store.root, base, job_id, code.path_of(watch.store, entry["snapshot"]))
            _note_id(watch, base, job_id)


def _note_refusal(watch: Watch, token: str, refusal: SubmissionRefused) -> None:
    """Nothing was queued: the batches are closed uncharged; where trying again would not help, the sweep waits for the user."""
    sweep = token.rpartition("-")[0]
    watch.waiting[sweep] = str(refusal)
    _append(watch, {"kind": "closed", "batches": [], "refused": [token]})
    with contextlib.suppress(OSError):
        batch_files.remove(watch.store.root, token)
    if not refusal.temporary:
        _append(watch, {"kind": "pause", "sweep": sweep, "reason": str(refusal)})


def _append(watch: Watch, entry: dict[str, Any]) -> None:
    while not ledgers.append(watch.store.root, watch.ledger, entry):
        watch.refresh()


def _settle(watch: Watch, name: str) -> bool:
    """Note that a sweep has nothing left to submit, so that later ticks need not look at it."""
    while name not in watch.ledger.settled and name not in watch.ledger.paused:
        if not watch.states(name).is_settled:
            return False
        if ledgers.append(watch.store.root, watch.ledger, {"kind": "settled", "sweep": name}):
            return True
        watch.refresh()
    return False
