"""Shell completion: verbs, flags, sweep names, task keys and settings, without slowing down the command line itself."""

import argparse
import contextlib
import dataclasses
from collections.abc import Callable, Iterable
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
            found += _quietly(lambda: _names(verb.names[len(before)].strip("[]"), before, parsed_args))
        if verb.where:
            found.append("where=")
        if verb.settings:
            found += _settings(prefix, parsed_args)
    return [word for word in found if word.startswith(prefix)]


def _names(kind: str, before: list[str], parsed: argparse.Namespace) -> list[str]:
    from orchestrator.store import Store

    if kind == "bash|zsh|fish":
        return list(SHELLS)
    if kind == "STUDY":
        from orchestrator.study import names

        return list(names())
    if kind == "NAME|FILE":
        return [*_quietly(lambda: _names("NAME", before, parsed)), *(path.name for path in _tables(Path()))]
    if kind == "POLICY|NAME":
        return [*_quietly(lambda: _names("NAME", before, parsed)), *(path.name for path in sorted(Path().glob("*.safetensors")))]
    if kind not in ("NAME", "KEY"):
        return []
    store = Store.open(Path(parsed.root) if parsed.root else None)
    if kind == "NAME":
        return list(store.sweep_names())
    return list(store.manifest(before[0])["keys"])


def _tables(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in (".parquet", ".csv"))


def _quietly(names: Callable[[], Iterable[str]]) -> list[str]:
    with contextlib.suppress(Exception):
        return list(names())
    return []


def _settings(prefix: str, parsed: argparse.Namespace) -> Iterable[str]:
    from orchestrator import compose, names

    name, equals, _ = prefix.partition("=")
    if parsed.verb == "deploy":
        from orchestrator import deploy

        return [] if equals else [f"{one}=" for one in deploy.names()]
    if parsed.verb == "fit":
        return _of_fit(name, parsed) if equals else _names_of_fit(parsed)
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


def _names_of_fit(parsed: argparse.Namespace) -> list[str]:
    """Names of options: the variables and parameters are those of the law that is typed."""
    from orchestrator import fit_options

    law = _typed_law(parsed)
    own = [*law.variables(), *(f"law.{field.name}" for field in dataclasses.fields(law))]
    own += [f"fixed.{name}" for name in law.parameters()] + [f"reference.{name}" for name in law.variables()]
    return [f"{name}=" for name in (*own, *(name for name in fit_options.OPTIONS if "<" not in name))]


def _of_fit(name: str, parsed: argparse.Namespace) -> list[str]:
    """Values of an option: laws, estimators, or the columns of the file or the sweep."""
    from orchestrator.fitting.estimators import ESTIMATORS
    from workers import plugins

    fixed = {"law": plugins.names("laws", "orchestrator"), "estimator": tuple(ESTIMATORS), "space": ("log", "linear")}
    columns = (*_typed_law(parsed).variables(), "y", "loss", "group", "weights")
    values = fixed[name] if name in fixed else _columns(parsed, numbers=name != "group") if name in columns else []
    return [f"{name}={value}" for value in values]


def _typed_law(parsed: argparse.Namespace) -> Any:
    from workers import plugins

    typed = dict(word.split("=", 1) for word in parsed.words or [] if "=" in word)
    return plugins.load("laws", typed.get("law", "power"), "orchestrator")()


def _columns(parsed: argparse.Namespace, *, numbers: bool) -> list[str]:
    """Of a file, from its head alone, those with `numbers` or all; of a sweep, its axes and scalars."""
    import polars as pl

    name = next(word for word in parsed.words if "=" not in word)
    if name.endswith((".parquet", ".csv")):
        schema = pl.read_parquet_schema(name) if name.endswith(".parquet") else pl.scan_csv(name, n_rows=1).collect_schema()
        return [column for column, type_ in schema.items() if type_.is_numeric() or not numbers]
    from orchestrator.results import load

    results = load(name, Path(parsed.root) if parsed.root else None, mixed_code=True)
    scalars = results.scalars().select(pl.col("name").unique()).collect()["name"]
    return [*results.axis_names, *sorted(scalars.to_list())]
