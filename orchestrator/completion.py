"""Shell completion: verbs, flags, sweep names, task keys and settings, without slowing down the command line itself."""

import argparse
import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from workers.errors import UnknownName, nearest

SHELLS = ("bash", "zsh", "fish")


def script(shell: str) -> str:
    """The script that a shell evaluates to complete `eigensweep`."""
    from argcomplete.shell_integration import shellcode

    if shell not in SHELLS:
        raise UnknownName(f"no completion for {shell!r}{nearest(shell, SHELLS)} There is {', '.join(SHELLS)}")
    return str(shellcode(["eigensweep"], shell=shell)).strip()


def complete() -> None:
    """Answer the shell's request and end the process; called only with _ARGCOMPLETE set."""
    import argcomplete

    argcomplete.autocomplete(_parser(), always_complete_options="long", append_space=True)


def _parser() -> argparse.ArgumentParser:
    """All verbs as one argparse parser, which is how argcomplete reads them."""
    from orchestrator.usage import VERBS, configure

    parser = argparse.ArgumentParser(prog="eigensweep")
    verbs = parser.add_subparsers(dest="verb")
    for name, verb in VERBS.items():
        one = verbs.add_parser(name, help=verb.summary)
        configure(one, verb)
        words: Any = next(action for action in one._actions if action.dest == "words")
        words.completer = _words
    return parser


def _words(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
    """What may stand at the word that begins with `prefix`; silence rather than an error."""
    from orchestrator.usage import SETTING, VERBS

    verb = VERBS[parsed_args.verb]
    before = [word for word in parsed_args.words or [] if not SETTING.match(word)]
    found: list[str] = []
    with contextlib.suppress(Exception):
        if len(before) < len(verb.names) and "=" not in prefix:
            found += _names(verb.names[len(before)].strip("[]"), before, parsed_args)
        if verb.where:
            found.append("where=")
        if verb.settings:
            found += _settings(prefix, parsed_args)
    return [word for word in found if word.startswith(prefix)]


def _names(kind: str, before: list[str], parsed: argparse.Namespace) -> list[str]:
    from orchestrator.store import Store

    if kind == "bash|zsh|fish":
        return list(SHELLS)
    if kind not in ("NAME", "KEY"):
        return []
    store = Store.open(Path(parsed.root) if parsed.root else None)
    if kind == "NAME":
        return list(store.sweep_names())
    return list(store.manifest(before[0])["keys"])


def _settings(prefix: str, parsed: argparse.Namespace) -> Iterable[str]:
    from orchestrator import compose, names

    name, equals, _ = prefix.partition("=")
    if parsed.verb == "fit":
        return [f"law={law}" for law in _laws()] if equals else ["law=", "x=", "y="]
    given, dirs = _given(parsed), [Path(folder) for folder in getattr(parsed, "config_dir", None) or []]
    if equals:
        return [f"{name}={choice}" for choice in compose.option_names(name, given, dirs)]
    if prefix.startswith("launcher."):
        return [f"{setting}=" for setting in names.launcher_setting_names(given)]
    own = ("name",) if parsed.verb == "add" else ("sweep", "workload", "launcher", "site", "name", "size", "code")
    return [f"{setting}=" for setting in (*own, *compose.setting_names(given, dirs))]


def _given(parsed: argparse.Namespace) -> list[str]:
    """The settings typed so far, after those that the sweep was made with where `add` grows it."""
    from orchestrator.store import Store

    words = list(parsed.words or [])
    typed = [word for word in words if "=" in word]
    if parsed.verb != "add" or not words:
        return typed
    return [*Store.open(Path(parsed.root) if parsed.root else None).manifest(words[0])["command"], *typed]


def _laws() -> Iterable[str]:
    from workers import plugins

    return plugins.names("laws", "orchestrator")
