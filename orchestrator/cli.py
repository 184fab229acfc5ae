# PYTHON_ARGCOMPLETE_OK
"""The command line: `eigensweep VERB ...`; errors without tracebacks, exit codes, and what to do next."""

import gc
import os
import sys
from argparse import Namespace
from collections.abc import Sequence

from workers.errors import ConfigError, EigensweepError, UnknownName, nearest

_WITH_VALUE = (
    *("--root", "--config-dir", "--out", "--reason", "--every", "--cfg", "--by"),
    *(
        "--save",
        "--rig",
        "--folder",
        "--tasks",
        "--task-seconds",
        "--kill",
        "--oom",
        "--preempt",
        "--power-cuts",
        "--driver-kill-seconds",
        "--seed",
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 good, 1 failed, 2 a wrong command or setting, 130 interrupted."""
    if "_ARGCOMPLETE" in os.environ:
        from orchestrator import completion

        completion.complete()
    # a command builds many small objects and drops few: collecting them rarely is a twentieth of its time
    gc.set_threshold(100_000, 50, 50)
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(arguments)
    except EigensweepError as error:
        if _debugging():
            raise
        return _tell(str(error), _after_error(arguments, error), error.exit_code)
    except KeyboardInterrupt as interrupt:
        if str(interrupt):
            return _tell(str(interrupt), "", 130)
        return _tell("interrupted; what was sent goes on, what is committed stays", _after_interrupt(arguments), 130)
    except BrokenPipeError:
        # the reader of our output has gone (`eigensweep status | head`): say nothing, also not at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.filename is None or _debugging():
            raise
        return _tell(f"{error.strerror}: {error.filename}", "EIGENSWEEP_DEBUG=1 shows where", 1)


def _run(arguments: list[str]) -> int:
    from orchestrator import usage

    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage.overview(), end="")
        return 0
    if arguments[0] == "--version":
        print(_version())
        return 0
    name, rest = take_verb(arguments)
    parsed = usage.parser_of(name).parse_intermixed_args(rest)
    return _dispatch(name, parsed)


def take_verb(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The verb and everything else; --root DIR may stand before the verb."""
    from orchestrator.usage import VERBS

    index = 0
    while index < len(arguments) and arguments[index].startswith("-"):
        index += 2 if arguments[index] in _WITH_VALUE else 1
    if index >= len(arguments):
        raise ConfigError(f"no verb in {' '.join(arguments)!r}; there are {', '.join(VERBS)}")
    name = arguments[index]
    if name not in VERBS:
        raise UnknownName(f"no verb {name!r}{nearest(name, VERBS)} There are {', '.join(VERBS)}")
    return name, [*arguments[:index], *arguments[index + 1 :]]


def _dispatch(name: str, parsed: Namespace) -> int:
    from orchestrator import commands, usage
    from workers import files

    words = usage.sort(name, parsed.words)
    files.set_umask()
    # a user's own package is found from the folder in which the command runs, as with `python -m`
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    return commands.COMMANDS[name](commands.Call(verb=name, words=words, flags=parsed))


def _tell(message: str, hint: str, code: int) -> int:
    sys.stdout.flush()
    print(f"{'' if code == 130 else 'error: '}{message}", file=sys.stderr)
    if hint:
        print(f"next: {hint}", file=sys.stderr)
    return code


def _debugging() -> bool:
    return os.environ.get("EIGENSWEEP_DEBUG", "") not in ("", "0")


def _after_error(arguments: list[str], error: EigensweepError) -> str:
    """The command that helps; nothing where the message already names one."""
    from orchestrator.usage import VERBS

    if "eigensweep " in str(error):
        return ""
    verb = next((word for word in arguments if word in VERBS), "")
    if isinstance(error, ConfigError):
        return f"eigensweep {verb} --help".replace("  ", " ")
    return f"eigensweep status {_sweep_name(arguments)}".strip()


def _after_interrupt(arguments: list[str]) -> str:
    name = _sweep_name(arguments)
    return f"eigensweep status {name} --watch, or eigensweep cancel {name}" if name else "eigensweep status"


def _sweep_name(arguments: list[str]) -> str:
    """The sweep that a command was about, from its words alone."""
    from orchestrator.usage import VERBS, sort

    try:
        verb, rest = take_verb(arguments)
        plain = [word for word, before in zip(rest, ["", *rest], strict=False) if not word.startswith("-") and before not in _WITH_VALUE]
        words = sort(verb, plain)
    except ConfigError:
        return ""
    given = dict(word.split("=", 1) for word in words.settings if "=" in word)
    if words.names and "NAME" in VERBS[verb].names[0].strip("[]").split("|"):
        return words.names[0]
    return given.get("name", given.get("sweep", ""))


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"eigensweep {version('eigensweep')}"
    except PackageNotFoundError:
        return "eigensweep (not installed)"


if __name__ == "__main__":
    sys.exit(main())
