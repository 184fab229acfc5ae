"""Submits, grows, resumes, cancels and retracts; each is a revision or an entry in the ledger, followed by ticks."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from orchestrator import code, ledger, where
from orchestrator.cures import Prospect
from orchestrator.launchers.launcher import SchedulerSilent
from orchestrator.plan import Planned, check, prepare
from orchestrator.states import SweepStates
from orchestrator.status import Status, status
from orchestrator.store import Store
from orchestrator.sweep import Sweep
from orchestrator.tick import is_due, open_batches, tick
from orchestrator.watch import Watch
from workers import files, taskdir
from workers.errors import ConfigError

Progress = Callable[[Status], None]
POLL_SECONDS = 0.02
DETACHED_POLL_SECONDS = 0.5  # files on a shared file system are looked at less often


def submit(
    overrides: Sequence[str],
    store: Store,
    config_dirs: Sequence[Path] = (),
    *,
    grown: bool = False,
    replace: bool = False,
    retry: bool = False,
    live_code: bool = False,
    detach: bool | None = None,
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda note: None,
) -> Status:
    """Make the sweep the desired set under its name and send what is not done.

    `detach`: return as soon as the jobs are sent; None: as the launcher is used to (a cluster's jobs need nobody who waits).

    `grown`: what the name held before stays. `replace`: lets go of tasks that the grid no longer has (they stay in the store).
    `retry`: renews the budgets of failed tasks. `live_code`: jobs run the source as it is when they start. `tell` gets the notes on what
    was read from other sweeps.
    """
    activated = False
    while not activated:
        planned = prepare(overrides, store, config_dirs, grown, submitting=True)
        _refuse_to_drop(planned, replace)
        frozen = code.freeze(store, planned.sweep.modules(), live=live_code)
        watch, name = planned.watch, planned.sweep.name
        retried = [planned.sweep.keys[i] for i, state in enumerate(planned.states.states) if state == "failed"] if retry else []
        activated = _activate(watch, planned.sweep, frozen, retried, list(config_dirs))
    for note in planned.composed.notes:
        tell(note)
    return _send(watch, name, detach, progress)


def _send(watch: Watch, name: str, detach: bool | None, progress: Progress | None) -> Status:
    tick(watch, [name])
    if detach is None:
        detach = watch.launcher(watch.sweep(name).launcher).detaches
    return status(watch.refresh(), name) if detach else follow(watch, name, progress)


def add(name: str, overrides: Sequence[str], store: Store, config_dirs: Sequence[Path] = (), **options: Any) -> Status:
    """Grow a sweep: its own command with `overrides` in place of the same settings gives the new points."""
    return submit(grown_command(name, overrides, store), store, config_dirs or _config_dirs(name, store), grown=True, **options)


def grown_command(name: str, overrides: Sequence[str], store: Store) -> list[str]:
    """The overrides that a sweep was made with, those replaced that are given again."""
    given = [_path_of(one) for one in overrides]
    kept = [one for one in Watch.of(store).sweep(name).command if not any(_same_path(_path_of(one), path) for path in given)]
    return [one for one in kept if _path_of(one) != "name"] + list(overrides) + [f"name={name}"]


def resume(
    name: str,
    store: Store,
    expression: str | None = None,
    *,
    detach: bool | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Status:
    """Renew the budgets of failed and cancelled tasks that `expression` selects, lift a pause, and send what may run.

    It runs under the code as it is now and the settings of the manifest. ConfigError, with nothing written, where what would be sent
    could not run: too little memory or disk, or a scheduler that would never begin it.
    """
    watch = Watch.of(store)
    tick(watch, [])
    sweep, states = watch.sweep(name), watch.states(name)
    chosen = [i for i in where.select(sweep, states, expression) if states.states[i] in ("failed", "cancelled", "blocked")]
    if dry_run:
        return status(watch, name)
    _refuse_hopeless(watch, sweep, states, chosen)
    if chosen or name in watch.ledger.paused or not states.is_settled:
        frozen = code.freeze(store, sweep.modules())
        keys = [sweep.keys[index] for index in chosen]
        entry = {"kind": "resume", "sweep": name, "keys": keys, "all": expression is None, "snapshot": frozen.snapshot, "code": frozen.code}
        _append(watch, entry)
    return _send(watch, name, detach, progress)


def _refuse_hopeless(watch: Watch, sweep: Sweep, states: SweepStates, renewed: Sequence[int]) -> None:
    """Raise ConfigError where a task that would be sent, one of those `renewed` or a pending one, could not run."""
    pending = {index: states.prospects[index] for index, state in enumerate(states.states) if state == "pending"}
    prospects = pending | {index: Prospect(sweep.resources(index)) for index in renewed}
    if prospects:
        with contextlib.suppress(SchedulerSilent):  # what is sent waits for it
            check(watch, sweep, prospects, submitting=True)


def follow(watch: Watch, name: str, progress: Progress | None = None) -> Status:
    """Tick until the sweep has nothing left to do; the jobs go on without us if this process dies.

    Ctrl-C pauses the sweep: running tasks write a checkpoint and end, and nothing is lost. Jobs of a cluster, which need nobody who
    waits, go on.
    """
    try:
        _follow(watch, name, progress)
    except KeyboardInterrupt:
        if watch.launcher(watch.sweep(name).launcher).detaches:
            raise KeyboardInterrupt(f"the jobs go on: `eigensweep status {name} --watch`, or `eigensweep cancel {name}`") from None
        pause(watch, name, "stopped by Ctrl-C")
        raise KeyboardInterrupt(
            f"stopped; what ran has written its checkpoints, what is committed stays: `eigensweep resume {name}`"
        ) from None
    final = status(watch.refresh(), name)
    if progress is not None:
        progress(final)
    return final


def _follow(watch: Watch, name: str, progress: Progress | None) -> None:
    next_shown = 0.0
    launcher = watch.launcher(watch.sweep(name).launcher)
    while not _is_over(watch, name):
        if progress is not None and time.monotonic() >= next_shown:
            began = time.monotonic()
            progress(status(watch, name))
            # the picture of a large sweep costs more, so it is drawn less often: at most a fortieth of the time
            next_shown = time.monotonic() + max(0.25, 40 * (time.monotonic() - began))
        done = tick(watch, [name]) if is_due(watch.refresh(), name) else None
        # also after a tick that found nothing to do: what is left may run in a batch of another sweep
        if done is None or not done.anything:
            time.sleep(POLL_SECONDS if not launcher.detaches else DETACHED_POLL_SECONDS)


def _is_over(watch: Watch, name: str) -> bool:
    return name in watch.ledger.settled or (name in watch.ledger.paused and not open_batches(watch, name))


def pause(watch: Watch, name: str, reason: str) -> None:
    """Submit nothing more of the sweep until it is resumed, warn its jobs, and wait for their checkpoints."""
    _append(watch, {"kind": "pause", "sweep": name, "reason": reason})
    while tokens := open_batches(watch, name):
        # again and again: after its grace the launcher kills
        _cancel_jobs(watch, tokens)
        tick(watch, [name])
        time.sleep(POLL_SECONDS)


def cancel(name: str, store: Store, expression: str | None = None) -> list[int]:
    """Take tasks out of a sweep's work: waiting ones at once, running ones after their warning; committed ones stay."""
    watch = Watch.of(store)
    sweep, states = watch.sweep(name), watch.states(name)
    chosen = [i for i in where.select(sweep, states, expression) if states.states[i] not in ("completed", "cancelled")]
    chosen = [i for i in where.descendants(sweep, chosen) if states.states[i] != "completed"]
    keys = [sweep.keys[index] for index in chosen]
    if not keys:
        return []
    _append(watch, {"kind": "cancellation", "sweep": name, "keys": keys})
    _cancel_batches(watch, open_batches(watch, name), set(keys))
    tick(watch, [name])
    return chosen


def retract(name: str, expression: str, reason: str, store: Store, *, dry_run: bool = False) -> list[tuple[str, int]]:
    """Take back committed results and all that was computed from them, in every sweep; they count as not done from now on.

    (sweep, index) of each. The files stay; the next dataset drops the rows.
    """
    watch = Watch.of(store)
    sweep, states = watch.sweep(name), watch.states(name)
    chosen = where.select(sweep, states, expression)
    # a garbled commit whose hint is lost is not completed, and this is its cure
    there = taskdir.committed(store.root, [watch.ledger.name_of(sweep.keys[i]) for i in chosen if states.states[i] != "completed"])
    wrong = {sweep.keys[i] for i in chosen if states.states[i] == "completed" or watch.ledger.name_of(sweep.keys[i]) in there}
    # also what has left its sweep: it may come back
    earlier = {key for one in _every_revision(watch) for key in (one.keys[index] for index in _standing_on(one, wrong))}
    while True:
        reached = [(other, index) for other in sorted(watch.ledger.sweeps) for index in _standing_on(watch.sweep(other), wrong)]
        # all of them, also what is not done: an attempt at work, or a checkpoint, has read what was wrong
        names = {(other, index): watch.ledger.name_of(watch.sweep(other).keys[index]) for other, index in reached}
        done = {other: store.done(other) | there for other, _ in reached}
        found = [(other, index) for other, index in reached if names[other, index] in done[other]]
        if not names or dry_run:
            return found
        commits = sorted({*names.values(), *map(watch.ledger.name_of, earlier)})
        # held until the user says so: under the frozen code they would come out as wrong as they were
        held = sorted({other for other, _ in reached})
        if ledger.append(store.root, watch.ledger, {"kind": "retraction", "commits": commits, "sweeps": held, "reason": reason}):
            tick(watch, [])
            return found
        watch.refresh()


def _every_revision(watch: Watch) -> Iterator[Sweep]:
    for name in watch.ledger.sweeps:
        for revision in watch.store.revisions(name):
            yield Sweep.from_body(watch.store.manifest(name, revision))


def _standing_on(sweep: Sweep, keys: set[str]) -> list[int]:
    """Those tasks and all that needs them."""
    return where.descendants(sweep, [index for index, key in enumerate(sweep.keys) if key in keys])


def _refuse_to_drop(planned: Planned, replace: bool) -> None:
    if planned.leaving and not replace:
        earlier = planned.watch.sweep(planned.sweep.name)
        index_of = {key: index for index, key in enumerate(earlier.keys)}
        lost = "\n".join(f"  {key[:10]}  {where.describe(earlier, index_of[key])}" for key in planned.leaving[:10])
        more = f"\n  ... and {len(planned.leaving) - 10} more" if len(planned.leaving) > 10 else ""
        raise ConfigError(
            f"the sweep {planned.sweep.name!r} would lose {len(planned.leaving)} of its {len(earlier.keys)} tasks:\n{lost}{more}\n"
            f"Grow it with `eigensweep add {planned.sweep.name} ...`, let them go with --replace (results stay in the store), "
            "or give another name=..."
        )


def _activate(watch: Watch, sweep: Sweep, frozen: code.Frozen, retried: list[str], config_dirs: list[Path]) -> bool:
    """Link the next revision of the sweep and make it the active one; False: another driver was first, plan again on top of its tasks."""
    body = files.plain(sweep.to_body() | {"config_dirs": [str(path) for path in config_dirs]})
    before = watch.ledger.sweeps.get(sweep.name, {}).get("revision")
    while watch.ledger.sweeps.get(sweep.name, {}).get("revision") == before:
        revision = _revision_of(watch, sweep.name, body)
        if revision is None:
            revision = max(watch.store.revisions(sweep.name), default=0) + 1
            if not watch.store.write_manifest(sweep.name, revision, body):
                watch.refresh()
                continue
        entry = {"kind": "revision", "sweep": sweep.name, "revision": revision, "snapshot": frozen.snapshot, "code": frozen.code}
        active = watch.ledger.sweeps.get(sweep.name)
        unchanged = active == {k: entry[k] for k in ("revision", "snapshot", "code")}
        lifted = sweep.name in watch.ledger.cancelled or sweep.name in watch.ledger.paused
        if unchanged and not retried and not lifted and sweep.name in watch.ledger.settled:
            return True
        if ledger.append(watch.store.root, watch.ledger, entry | {"retry": retried}):
            return True
        watch.refresh()
    return False


def _revision_of(watch: Watch, name: str, body: dict[str, Any]) -> int | None:
    """The active revision, if it already says the same."""
    active = watch.ledger.sweeps.get(name)
    if active is None:
        return None
    same = watch.store.manifest(name, active["revision"]) == body
    return int(active["revision"]) if same else None


def _append(watch: Watch, entry: dict[str, Any]) -> None:
    while not ledger.append(watch.store.root, watch.ledger, entry):
        watch.refresh()


def _cancel_batches(watch: Watch, tokens: list[str], keys: set[str]) -> None:
    """Tell the jobs which of their tasks to drop; a job that has no other is ended."""
    chosen = {token: found for token in tokens if (found := [key for key in watch.ledger.batches[token]["keys"] if key in keys])}
    whole = [token for token, found in chosen.items() if len(found) == len(watch.ledger.batches[token]["keys"])]
    # a job that is ended before it begins needs no order; one whose id nobody knows may come yet, and cannot be ended
    known = {base for base in {token.partition("/")[0] for token in whole} if taskdir.job_path(watch.store.root, base).exists()}
    later = [
        token
        for token in whole
        if watch.launcher(watch.ledger.batches[token]["launcher"]).restarts
        and token.partition("/")[0] in known
        and watch.batch(token).refresh().run < 0
    ]
    for token in chosen.keys() - set(later):
        _order_to_drop(watch, token, chosen[token])
    try:
        _cancel_jobs(watch, whole)
    except SchedulerSilent as error:
        for token in later:
            _order_to_drop(watch, token, chosen[token])
        raise SchedulerSilent(f"{error}. The tasks are cancelled all the same: jobs that are queued drop them when they begin") from error


def _order_to_drop(watch: Watch, token: str, keys: list[str]) -> None:
    folder = taskdir.batch_dir(watch.store.root, token)
    files.make_dirs(folder)
    files.publish(folder / f"cancel-{watch.ledger.number:08d}.json", files.encode({"keys": keys}))


def _cancel_jobs(watch: Watch, tokens: list[str]) -> None:
    by_launcher: dict[int, list[str]] = {}
    for token in tokens:
        by_launcher.setdefault(id(watch.ledger.batches[token]["launcher"]), []).append(token)
    for group in by_launcher.values():
        with contextlib.suppress(ProcessLookupError):
            watch.launcher(watch.ledger.batches[group[0]]["launcher"]).cancel(watch.store.root, group)


def _config_dirs(name: str, store: Store) -> list[Path]:
    body = store.manifest(name, Watch.of(store).ledger.revision_of(name))
    return [Path(path) for path in body.get("config_dirs", [])]


def _path_of(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _same_path(one: str, other: str) -> bool:
    short, long = sorted((one, other), key=len)
    return short == long or long.endswith("." + short)


def keys_in_words(sweep: Sweep, indices: Iterable[int], most: int = 10) -> list[str]:
    """`KEY  train width=64` for the first of some tasks."""
    chosen = list(indices)
    lines = [f"{sweep.keys[index][:10]}  {where.describe(sweep, index)}" for index in chosen[:most]]
    return lines + ([f"... and {len(chosen) - most} more"] if len(chosen) > most else [])
