"""One function per verb: hand the words to `verbs`, and print what comes back."""

import shlex
import sys
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator import show
from orchestrator.usage import Words
from workers.errors import ConfigError


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


def plan(call: Call) -> int:
    """Show what would run."""
    from orchestrator import verbs

    if call.flags.cfg:
        return _print_config(call)
    _need_settings(call)
    result = verbs.plan(call.words.settings, root=call.root, config_dirs=call.config_dirs)
    call.emit(result, lambda p: show.plan(p) + f"next: eigensweep submit {shlex.join(call.words.settings)}\n")
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
            detach=call.flags.detach,
            replace=call.flags.replace,
            retry=call.flags.retry,
            live_code=call.live_code,
            progress=progress.update,
        )
    call.emit(status, show.status)
    return _verdict(status)


def add(call: Call) -> int:
    """Grow a sweep."""
    from orchestrator import verbs

    _need_settings(call)
    with show.Progress(quiet=call.flags.quiet) as progress:
        status = verbs.add(
            call.name,
            call.words.settings,
            root=call.root,
            config_dirs=call.config_dirs,
            detach=call.flags.detach,
            dry_run=call.flags.dry_run,
            retry=call.flags.retry,
            live_code=call.live_code,
            progress=progress.update,
        )
    call.emit(status, show.plan if call.flags.dry_run else show.status)
    return _verdict(status)


def status(call: Call) -> int:
    """Where a sweep stands."""
    from orchestrator import verbs

    if call.flags.watch:
        return _watch(call)
    call.emit(verbs.status(call.name or None, root=call.root), show.status)
    return 0


def _watch(call: Call) -> int:
    import time

    from orchestrator import verbs

    with show.Progress(quiet=False, whole=True) as progress:
        while True:
            now = verbs.status(call.name or None, root=call.root)
            progress.update(now)
            if show.is_over(now):
                break
            time.sleep(2)
    call.emit(now, show.status)
    return 0


def logs(call: Call) -> int:
    """What a task printed."""
    from orchestrator import verbs

    name, key = call.words.names
    for text in verbs.logs(name, key, root=call.root, follow=call.flags.follow):
        sys.stdout.write(text)
        sys.stdout.flush()
    return 0


def cancel(call: Call) -> int:
    """Stop tasks."""
    from orchestrator import verbs

    call.emit(verbs.cancel(call.name, call.words.where, root=call.root), show.result)
    return 0


def resume(call: Call) -> int:
    """Send again what failed or was cancelled."""
    from orchestrator import verbs

    with show.Progress(quiet=call.flags.quiet) as progress:
        result = verbs.resume(call.name, call.words.where, root=call.root, detach=call.flags.detach, progress=progress.update)
    call.emit(result, show.result)
    return _verdict(result)


def run(call: Call) -> int:
    """One task in this process: NAME KEY of a sweep, or settings."""
    from orchestrator import verbs

    if call.flags.cfg:
        return _print_config(call)
    if call.words.names and call.words.settings:
        raise ConfigError("run takes either NAME KEY or settings: eigensweep run w1 KEY, or eigensweep run workload=train model.width=64")
    if len(call.words.names) == 1:
        raise ConfigError(f"run needs the task's key as well: eigensweep run {call.name} KEY (eigensweep status {call.name} shows keys)")
    if call.words.names:
        result = verbs.run(name=call.name, key=call.words.names[1], root=call.root)
    else:
        _need_settings(call)
        result = verbs.run(call.words.settings, root=call.root, config_dirs=call.config_dirs)
    call.emit(result, show.result)
    return 0


def fit(call: Call) -> int:
    """Fit a law."""
    from orchestrator import verbs

    call.emit(verbs.fit(call.name, call.words.settings, root=call.root), show.result)
    return 0


def report(call: Call) -> int:
    """Write the figures and the HTML file."""
    from orchestrator import verbs

    out = Path(call.flags.out) if call.flags.out else None
    call.emit(verbs.report(call.name, root=call.root, out=out), show.result)
    return 0


def retract(call: Call) -> int:
    """Take results back, after asking."""
    from orchestrator import verbs

    chosen = f"where {call.words.where}" if call.words.where else "all of them"
    if not call.flags.yes:
        _ask(f"take back results of {call.name} ({chosen})?", call)
    call.emit(verbs.retract(call.name, call.words.where, reason=call.flags.reason, root=call.root), show.result)
    return 0


def tick(call: Call) -> int:
    """Reconcile once, or again and again."""
    from orchestrator import verbs

    if call.flags.every is not None and call.flags.every <= 0:
        raise ConfigError(f"--every takes a number of seconds above 0, got {call.flags.every:g}")
    call.emit(verbs.tick(root=call.root, every=call.flags.every), show.result)
    return 0


def gc(call: Call) -> int:
    """Delete what nothing needs."""
    from orchestrator import verbs

    call.emit(verbs.gc(root=call.root, dry_run=call.flags.dry_run), show.result)
    return 0


def scrub(call: Call) -> int:
    """Verify the store."""
    from orchestrator import verbs

    call.emit(verbs.scrub(root=call.root), show.result)
    return 0


def init(call: Call) -> int:
    """Make a store."""
    from orchestrator import verbs

    root = call.root or (Path(call.name).expanduser() if call.name else None)
    call.emit(verbs.init(root=root), show.result)
    return 0


def completion(call: Call) -> int:
    """Print a shell's completion script."""
    from orchestrator import completion as scripts

    print(scripts.script(call.name))
    return 0


def _print_config(call: Call) -> int:
    from orchestrator import compose

    print(compose.compose(call.words.settings, call.config_dirs).cfg.rstrip("\n"))
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
    "report": report,
    "retract": retract,
    "tick": tick,
    "gc": gc,
    "scrub": scrub,
    "init": init,
    "completion": completion,
}
