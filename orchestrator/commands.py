"""One function per verb: hand the words to `verbs`, and print what comes back."""

import contextlib
import shlex
import sys
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator import show
from orchestrator.usage import Words
from workers.errors import ConfigError, UnknownName


@dataclass(kw_only=True)
class Call:
    """One command as given."""

    verb: str
    words: Words
    flags: Namespace

    @property
    def name(self) -> str:
        """The first plain word: a sweep's name."""
        return self.words.names[0] if self.words.names else ""

    @property
    def root(self) -> Path | None:
        """The store, where --root or root= names one."""
        given = self.flags.root or self.words.root
        return Path(given).expanduser() if given else None

    @property
    def config_dirs(self) -> list[Path]:
        """The folders of --config-dir."""
        return [Path(folder) for folder in self.flags.config_dir]

    @property
    def detach(self) -> bool | None:
        """Whether to return as soon as the jobs are sent; None: as the launcher is used to."""
        if self.flags.detach and self.flags.follow:
            raise ConfigError("--detach and --follow contradict each other; give one of them")
        return True if self.flags.detach else False if self.flags.follow else None

    @property
    def live_code(self) -> bool:
        """Whether the source is not to be frozen."""
        return self.words.live_code or bool(self.flags.live_code)

    def emit(self, result: Any, text: Callable[[Any], str] = show.fields) -> None:
        """Print a result: as JSON with --json, without its `next:` line with --quiet."""
        if getattr(self.flags, "json", False):
            print(show.as_json(result))
        else:
            lines = text(result).rstrip("\n").split("\n")
            print("\n".join(line for line in lines if not (self.flags.quiet and line.startswith("next: "))))

    def tell(self, note: str) -> None:
        """A note beside the result."""
        if not self.flags.quiet:
            print(f"note: {note}", file=sys.stderr)


def plan(call: Call) -> int:
    """Show what would run."""
    from orchestrator import verbs

    if call.flags.cfg:
        return _print_config(call)
    _need_settings(call)
    every = call.verb == "submit"
    result = verbs.plan(call.words.settings, root=call.root, config_dirs=call.config_dirs, every_script=every)
    submitting = result.counts.get("pending") and not result.leaving
    following = f"eigensweep submit {shlex.join(call.words.settings)}" if submitting else result.next
    call.emit(result, lambda one: f"{show.plan(one, every_script=every)}next: {following}\n")
    return 0


def submit(call: Call) -> int:
    """Send what is not done, and follow it."""
    from orchestrator import verbs

    if call.flags.cfg:
        return _print_config(call)
    _need_settings(call)
    if call.flags.dry_run:
        return plan(call)
    with show.Progress(quiet=call.flags.quiet) as progress:
        status = verbs.submit(
            call.words.settings,
            root=call.root,
            config_dirs=call.config_dirs,
            detach=call.detach,
            replace=call.flags.replace,
            retry=call.flags.retry,
            live_code=call.live_code,
            progress=progress.update,
            tell=call.tell,
        )
    call.emit(status, show.status)
    return _verdict(status)


def add(call: Call) -> int:
    """Grow a sweep."""
    from orchestrator import verbs

    _need_settings(call)
    if call.flags.dry_run:
        planned = verbs.plan_add(call.name, call.words.settings, root=call.root, config_dirs=call.config_dirs, every_script=True)
        call.emit(
            planned, lambda one: f"{show.plan(one, every_script=True)}next: eigensweep add {call.name} {shlex.join(call.words.settings)}\n"
        )
        return 0
    with show.Progress(quiet=call.flags.quiet) as progress:
        status = verbs.add(
            call.name,
            call.words.settings,
            root=call.root,
            config_dirs=call.config_dirs,
            detach=call.detach,
            retry=call.flags.retry,
            live_code=call.live_code,
            progress=progress.update,
            tell=call.tell,
        )
    call.emit(status, show.status)
    return _verdict(status)


def status(call: Call) -> int:
    """Where a sweep stands; without a name, all of them in a line each; with a selection, its tasks."""
    from orchestrator import verbs

    if not call.name:
        return _all_sweeps(call)
    if call.flags.keys or call.words.where:
        return _tasks(call)
    if call.flags.watch:
        return _watch(call)
    call.emit(verbs.status(call.name, root=call.root), show.status)
    return 0


def _all_sweeps(call: Call) -> int:
    from orchestrator import verbs

    found = []
    for name in verbs.sweeps(call.root):
        # a manifest whose driver died before it told the ledger is no sweep yet
        with contextlib.suppress(UnknownName):
            found.append(verbs.status(name, root=call.root, reconcile=False))
    call.emit(found, show.sweeps)
    return 0


def _tasks(call: Call) -> int:
    """Key, state and settings of the selected tasks, one a line: what `logs` and `run` take."""
    from orchestrator import where
    from orchestrator.store import Store
    from orchestrator.watch import Watch

    watch = Watch.of(Store.open(call.root))
    sweep, states = watch.sweep(call.name), watch.states(call.name)
    chosen = where.select(sweep, states, call.words.where)
    rows = [{"key": sweep.keys[i], "state": states.states[i], "task": where.describe(sweep, i)} for i in chosen]
    call.emit(rows, lambda rows: show.tasks(rows, call.name))
    return 0


def _watch(call: Call) -> int:
    import time

    from orchestrator import verbs

    with show.Progress(quiet=False, whole=True) as progress:
        while not (now := verbs.status(call.name, root=call.root)).is_settled:
            progress.update(now)
            time.sleep(now.refresh_seconds)
    call.emit(now, show.status)
    return 0


def logs(call: Call) -> int:
    """What a task printed."""
    from orchestrator import verbs

    name, key = call.words.names
    for line in verbs.logs(name, key, root=call.root, follow=call.flags.follow):
        print(line.rstrip("\n"), flush=call.flags.follow)
    if not call.flags.quiet:
        print(f"next: eigensweep run {name} {key}   # the same task in this process, for a debugger", file=sys.stderr)
    return 0


def cancel(call: Call) -> int:
    """Stop tasks."""
    from orchestrator import verbs

    found = verbs.cancel(call.name, call.words.where, root=call.root)
    following = f"eigensweep {'resume' if found else 'status'} {call.name}"
    call.emit(found, lambda lines: show.listed("cancelled", lines, following))
    return 0


def resume(call: Call) -> int:
    """Send again what failed or was cancelled, after saying what that is."""
    from orchestrator import verbs

    if call.flags.dry_run or not call.flags.quiet:
        found = verbs.resumable(call.name, call.words.where, root=call.root)
        if call.flags.dry_run:
            call.emit(found, lambda lines: show.listed("would be sent", lines, f"eigensweep resume {call.name}"))
            return 0
        print(show.listed("to be sent", found, "").rstrip("\n"), file=sys.stderr)
    with show.Progress(quiet=call.flags.quiet) as progress:
        status = verbs.resume(call.name, call.words.where, root=call.root, detach=call.detach, progress=progress.update)
    call.emit(status, show.status)
    return _verdict(status)


def run(call: Call) -> int:
    """One task in this process: NAME KEY of a sweep, or settings."""
    from orchestrator import verbs

    if call.flags.cfg:
        return _print_config(call)
    if call.words.names and call.words.settings:
        raise ConfigError("run takes either NAME KEY or settings: eigensweep run w1 KEY, or eigensweep run workload=train model.width=64")
    if len(call.words.names) == 1:
        raise ConfigError(f"run needs the task's key as well: eigensweep run {call.name} KEY (eigensweep status {call.name} --keys)")
    if call.words.names:
        commit = verbs.run_key(call.name, call.words.names[1], root=call.root, report=_report(call))
    else:
        _need_settings(call)
        commit = verbs.run(call.words.settings, root=call.root, config_dirs=call.config_dirs, report=_report(call))
    call.emit(commit, show.commit)
    return 0


def _report(call: Call) -> Callable[[dict[str, Any]], None]:
    """Prints what a task says while it runs in this process."""

    def report(message: dict[str, Any]) -> None:
        if not call.flags.quiet:
            print("  ".join(f"{name}={show.scalar(value)}" for name, value in message.items()), file=sys.stderr)

    return report


def fit(call: Call) -> int:
    """Fit a law to a sweep, or to a table in a file."""
    from orchestrator import verbs

    words = [*call.words.settings, *([f"where={call.words.where}"] if call.words.where else [])]
    out = Path(call.flags.out).expanduser() if call.flags.out else None
    if _is_file(call.name):
        found = verbs.fit_file(call.name, words, out, mixed_code=call.flags.mixed_code)
        following = f"eigensweep fit {shlex.join([call.name, *words])} --out DIR   # figures, fits.csv, fits.parquet"
    else:
        found = verbs.fit(call.name, words, call.root, out, mixed_code=call.flags.mixed_code)
        following = f"eigensweep report {call.name}"
    if found.files:
        following = f"open {found.files[-1]} in a browser"
    call.emit(found, lambda one: f"{show.fits(one)}next: {following}\n")
    return 0


def _is_file(name: str) -> bool:
    """Whether a word is a table in a file rather than a sweep, by its form alone: what lies in this folder does not change what it says."""
    return name.endswith((".parquet", ".csv")) or "/" in name


def cost(call: Call) -> int:
    """What a sweep has cost."""
    from orchestrator import show_cost, verbs

    call.emit(verbs.cost(call.name, root=call.root, by=call.flags.by), show_cost.cost)
    return 0


def report(call: Call) -> int:
    """Write the figures and the HTML file."""
    from orchestrator import verbs

    out = Path(call.flags.out).expanduser() if call.flags.out else None
    path = verbs.report(call.name, root=call.root, out=out, mixed_code=call.flags.mixed_code)
    call.emit(path, lambda one: f"report {one}\nnext: open {one} in a browser\n")
    return 0


def study(call: Call) -> int:
    """Without a name, all studies; else submit one's sweeps and write its page."""
    from orchestrator import show_study, verbs

    if not call.name:
        call.emit(show_study.all_studies(), show_study.listed)
        return 0
    out = Path(call.flags.out).expanduser() if call.flags.out else None
    settings = call.words.settings
    if call.flags.dry_run:
        call.emit(verbs.plan_study(call.name, settings, call.root, call.config_dirs, every_script=True), show_study.plans)
        return 0
    if call.flags.page:
        page = verbs.study_page(call.name, settings, call.root, out, mixed_code=call.flags.mixed_code)
        call.emit(page, show_study.page)
        return 0
    with show.Progress(quiet=call.flags.quiet) as progress:
        found = verbs.study(
            call.name,
            settings,
            call.root,
            call.config_dirs,
            out,
            mixed_code=call.flags.mixed_code,
            detach=call.detach,
            retry=call.flags.retry,
            live_code=call.live_code,
            progress=progress.update,
        )
    call.emit(found, lambda one: show_study.studied(one, call.name, settings))
    return max(map(_verdict, found.sweeps.values()), default=0)


def deploy(call: Call) -> int:
    """Let robots act by a policy."""
    from orchestrator import deploy as deploying
    from orchestrator.show_progress import bar

    with bar("slices", quiet=call.flags.quiet) as progress:
        found = deploying.deploy(
            call.words.names, call.words.settings, root=call.root, save=call.flags.save, rig=call.flags.rig, progress=progress
        )
    call.emit(found)
    return 0


def retract(call: Call) -> int:
    """Take results back, after showing which and asking."""
    from orchestrator import verbs

    if not call.words.where:
        raise ConfigError(f"retract needs a selection, for example: eigensweep retract {call.name} where='width=64' (where=true takes all)")
    if call.flags.dry_run or not call.flags.yes:
        found = verbs.retract(call.name, call.words.where, root=call.root, dry_run=True)
        if call.flags.dry_run or not found:
            call.emit(found, lambda lines: show.listed("would be taken back", lines, f"eigensweep status {call.name}"))
            return 0
        print(show.listed("to be taken back, with all that was computed from it", found, "").rstrip("\n"), file=sys.stderr)
        _ask("take these results back?", call)
    found = verbs.retract(call.name, call.words.where, reason=call.flags.reason, root=call.root)
    call.emit(found, lambda lines: show.listed("taken back", lines, f"eigensweep resume {call.name}"))
    return 0


def tick(call: Call) -> int:
    """Reconcile once, or again and again."""
    from orchestrator import verbs

    every = call.flags.every
    if every is not None and every <= 0:
        raise ConfigError(f"--every takes a number of seconds above 0, got {every:g}")
    # each round of many is reported as it happens; a single one is the result
    each = (lambda done: print(show.done(done), flush=True)) if every and not (call.flags.quiet or call.flags.json) else lambda done: None
    last = verbs.tick(root=call.root, every=every, report=each, settle=call.flags.settle)
    call.emit(last, lambda one: f"{show.done(one)}\nnext: eigensweep status\n")
    return 0


def gc(call: Call) -> int:
    """Delete what nothing needs."""
    from orchestrator import verbs

    found = verbs.gc(root=call.root, dry_run=call.flags.dry_run)
    call.emit(found, lambda one: show.fields(one) + ("next: eigensweep gc\n" if call.flags.dry_run else "next: eigensweep status\n"))
    return 0


def scrub(call: Call) -> int:
    """Verify the store; exit code 1 where something is wrong."""
    from orchestrator import verbs

    found = verbs.scrub(root=call.root)
    call.emit(found, show.fields)
    return 1 if found.problems else 0


def chaos(call: Call) -> int:
    """A trial: calm run, chaos run, comparison; exit code 1 where they differ."""
    from orchestrator import verbs
    from orchestrator.chaos import text

    names = ("tasks", "task_seconds", "kill", "oom", "preempt", "power_cuts", "driver_kill_seconds", "seed")
    demands = {name: getattr(call.flags, name) for name in names}
    trial = verbs.plan_chaos(
        call.name, call.words.settings, root=call.root, folder=call.flags.folder, config_dirs=call.config_dirs, **demands
    )
    if call.flags.dry_run:
        call.emit(trial, text.plan)
        return 0
    with text.Progress(quiet=call.flags.quiet) as progress:
        report = verbs.chaos(trial, progress.update)
    call.emit(report, text.report)
    return 0 if report.is_good else 1


def init(call: Call) -> int:
    """Make a store."""
    from orchestrator import verbs

    root = call.root or (Path(call.name).expanduser() if call.name else None)
    store = verbs.init(root)  # type: ignore[arg-type]
    named = root is None
    following = "eigensweep plan sweep=width_scaling" if named else f"export EIGENSWEEP_ROOT={shlex.quote(str(store.root))}"
    call.emit({"root": store.root}, lambda one: f"store {one['root']}\nnext: {following}\n")
    return 0


def completion(call: Call) -> int:
    """Print a shell's completion script."""
    from orchestrator import completion as scripts

    print(scripts.script(call.name))
    return 0


def _print_config(call: Call) -> int:
    from orchestrator import verbs
    from orchestrator.chosen import Choices
    from orchestrator.compose import compose

    # the store is opened where a setting is chosen from it alone
    choices = Choices(lambda name, mixed: verbs.load(name, call.root, mixed_code=mixed))
    print(compose(call.words.settings, call.config_dirs, choices=choices).cfg.rstrip("\n"))
    return 0


def _need_settings(call: Call) -> None:
    if not call.words.settings:
        example = (
            f"eigensweep add {call.name} model.width=256" if call.verb == "add" else f"eigensweep {call.verb} sweep=width_scaling name=w1"
        )
        raise ConfigError(f"{call.verb} needs settings, for example: {example}")


def _ask(question: str, call: Call) -> None:
    if not sys.stdin.isatty():
        raise ConfigError(f"{call.verb} asks before it acts, and there is no terminal to ask on; add --yes")
    if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        raise ConfigError("nothing was changed")


def _verdict(status: Any) -> int:
    """1 where tasks have failed, so that scripts see it."""
    counts = getattr(status, "counts", {})
    return 1 if counts.get("failed", 0) or counts.get("blocked", 0) else 0


COMMANDS: dict[str, Callable[[Call], int]] = {
    "plan": plan,
    "submit": submit,
    "add": add,
    "status": status,
    "logs": logs,
    "cancel": cancel,
    "resume": resume,
    "run": run,
    "fit": fit,
    "cost": cost,
    "report": report,
    "study": study,
    "deploy": deploy,
    "retract": retract,
    "tick": tick,
    "gc": gc,
    "scrub": scrub,
    "chaos": chaos,
    "init": init,
    "completion": completion,
}
