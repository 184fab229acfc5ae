"""The verbs of the command line: what each is for, the words and flags it takes, and examples; parsing, but no doing."""

import argparse
import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from workers.errors import ConfigError, UnknownName, nearest

SETTING = re.compile(r"^(\+\+?|~)?[A-Za-z_][\w./@-]*=|^~[A-Za-z_][\w./@-]*$")


@dataclass(frozen=True, kw_only=True)
class Verb:
    """One verb: `names` are its plain words (`[X]` may be left out), `settings` and `where` say which other words it takes."""

    summary: str
    names: tuple[str, ...] = ()
    settings: str = ""
    where: bool = False
    flags: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    # a module whose `notes()` is what the help says last
    notes: str = ""

    def words(self) -> str:
        """The words as usage shows them."""
        return " ".join([*self.names, *([self.settings] if self.settings else []), *(["[where=...]"] if self.where else [])])


FLAGS: dict[str, dict[str, Any]] = {
    "--root": dict(metavar="DIR", help="the store; else root=DIR, EIGENSWEEP_ROOT, or the eigensweep.toml above this folder"),
    "--config-dir": dict(metavar="DIR", action="append", default=[], help="a folder of configs, searched after ./conf; may be given again"),
    "--quiet": dict(action="store_true", help="no progress and no `next:` line"),
    "--json": dict(action="store_true", help="the result as JSON on stdout"),
    "--detach": dict(action="store_true", help="return as soon as the jobs are sent (what a cluster's launcher does anyway)"),
    "--dry-run": dict(action="store_true", help="show what would be done; change nothing"),
    "--replace": dict(action="store_true", help="allow the new grid to drop points (their results stay in the store)"),
    "--retry": dict(action="store_true", help="run again what failed with a user error"),
    "--live-code": dict(action="store_true", help="run the source as it is when a task starts, not a frozen copy (also: code=live)"),
    "--cfg": dict(choices=["job"], help="print the composed config and stop"),
    "--watch": dict(action="store_true", help="show it again whenever it changes, until the sweep is over"),
    "--follow": dict(action="store_true", help="stay and show progress until the end"),
    "--yes": dict(action="store_true", help="do not ask"),
    "--keys": dict(action="store_true", help="list tasks with their keys (which ones: where=...)"),
    "--mixed-code": dict(action="store_true", help="use results of different code together"),
    "--reason": dict(metavar="TEXT", default="", help="why; kept in the ledger"),
    "--every": dict(metavar="SECONDS", type=float, help="tick again and again, this many seconds apart"),
    "--settle": dict(action="store_true", help="go on until it is certain which jobs have ended, two minutes at most"),
    "--by": dict(metavar="NAME", action="append", default=[], help="an axis, workload, cause or kind; may be given again; else all axes"),
    "--out": dict(metavar="DIR", help="where a report and tables of fits go; a report of a sweep otherwise to its folder in the store"),
    "--page": dict(action="store_true", help="submit nothing; write the page from what there is"),
    "--save": dict(
        metavar="FILE", action="append", default=[], help="H5MD (.h5md), a table (.parquet), an animation (.html, .gif); may be given again"
    ),
    "--rig": dict(
        metavar="ADDRESS", default="", help="of an experiment that moves the robots: host:port, or listen:host:port (docs/rig.md)"
    ),
    "--folder": dict(metavar="DIR", help="where the trial's stores go, seen by all nodes; else STORE-chaos beside the store"),
    "--tasks": dict(metavar="N", type=int, default=500, help="tasks of the trial's own sweep (500)"),
    "--task-seconds": dict(metavar="LOW-HIGH", default="1-8", help="how long its tasks take (1-8)"),
    "--kill": dict(metavar="SHARE", default="5%", help="SIGKILL of tasks: 5%% of all, or a number of running tasks to hit (5%%)"),
    "--oom": dict(metavar="SHARE", default="2%", help="tasks made to use more memory than they asked for (2%%)"),
    "--preempt": dict(metavar="SHARE", default="", help="tasks hit by requeues of their jobs; needs a scheduler (2%%)"),
    "--power-cuts": dict(metavar="N", type=int, default=0, help="nodes cut off; on the development cluster of a checkout only (0)"),
    "--driver-kill-seconds": dict(metavar="SECONDS", type=float, default=30.0, help="SIGKILL of the driver every so often; 0: never (30)"),
    "--seed": dict(metavar="N", type=int, default=0, help="of when and whom faults strike (0)"),
}
EVERYWHERE = ("--root", "--quiet")
_SUBMITTING = ("--config-dir", "--detach", "--follow", "--replace", "--retry", "--live-code", "--json")

VERBS: dict[str, Verb] = {
    "plan": Verb(
        summary="show what a sweep would run: done, to run, stale, jobs and cost; writes nothing",
        settings="KEY=VALUE ...",
        flags=("--config-dir", "--json", "--cfg"),
        examples=(
            "eigensweep plan sweep=width_scaling name=w1 model.width=32,64,128 'seed=range(0,4)'",
            "eigensweep plan sweep=width_scaling name=w1 site=example_gpu",
            "eigensweep plan workload=train name=iso flops=1e9,1e10 width=16,32,64 "
            "'sweep.derive.num_steps=\"flops / (6 * num_params * units_per_step)\"'",
            "eigensweep plan sweep=width_scaling --cfg job",
        ),
    ),
    "submit": Verb(
        summary="send a sweep's tasks that are not done, and show progress",
        settings="KEY=VALUE ...",
        flags=(*_SUBMITTING, "--dry-run", "--cfg"),
        examples=(
            "eigensweep submit sweep=width_scaling name=w1 model.width=32,64,128 'seed=range(0,4)'",
            "eigensweep submit sweep=width_scaling name=w1 --detach",
            "eigensweep submit sweep=width_scaling name=w1 site=example_gpu --dry-run",
        ),
    ),
    "add": Verb(
        summary="grow a sweep: only the new points run",
        names=("NAME",),
        settings="KEY=VALUE ...",
        flags=("--config-dir", "--detach", "--follow", "--retry", "--live-code", "--json", "--dry-run"),
        examples=("eigensweep add w1 model.width=256",),
    ),
    "status": Verb(
        summary="states by axis, causes of failure, what is left",
        names=("[NAME]",),
        where=True,
        flags=("--watch", "--keys", "--json"),
        examples=(
            "eigensweep status",
            "eigensweep status w1 --watch",
            "eigensweep status w1 where=\"state='failed'\"",
            "eigensweep status w1 --json",
        ),
    ),
    "logs": Verb(
        summary="what a task printed (the first characters of its key do)",
        names=("NAME", "KEY"),
        flags=("--follow",),
        examples=("eigensweep logs w1 k3f9", "eigensweep logs w1 k3f9 --follow"),
    ),
    "cancel": Verb(
        summary="stop tasks; what is committed stays",
        names=("NAME",),
        where=True,
        flags=("--json",),
        examples=("eigensweep cancel w1", "eigensweep cancel w1 where='width=256'"),
    ),
    "resume": Verb(
        summary="send again what failed or was cancelled, with fresh retry budgets",
        names=("NAME",),
        where=True,
        flags=("--detach", "--follow", "--dry-run", "--json"),
        examples=("eigensweep resume w1", "eigensweep resume w1 where=\"class='user_error'\""),
    ),
    "run": Verb(
        summary="run one task in this process, where a debugger works",
        names=("[NAME]", "[KEY]"),
        settings="KEY=VALUE ...",
        flags=("--config-dir", "--json", "--cfg"),
        examples=("eigensweep run workload=train model.width=64", "eigensweep run w1 k3f9", "python -m pdb -m orchestrator run w1 k3f9"),
    ),
    "fit": Verb(
        summary="fit a scaling law to a sweep's dataset, or to a table in a file",
        names=("NAME|FILE",),
        settings="law=LAW [VARIABLE=COLUMN ...] [y=COLUMN] [KEY=VALUE ...]",
        where=True,
        flags=("--out", "--mixed-code", "--json"),
        examples=(
            "eigensweep fit w1 law=power",
            "eigensweep fit w1 law=power x=width y=test_loss model=mlp",
            "eigensweep fit w1 law=chinchilla n=num_params d=train_size y=test_loss --out fits",
            "eigensweep fit runs.parquet law=chinchilla n=num_params d=tokens loss=val_loss estimator=hoffmann",
            "eigensweep fit runs.csv law=power x=flops y=loss law.irreducible=false weights=precision where='flops < 1e21' --json",
            "eigensweep fit runs.parquet law=chinchilla n=num_params d=tokens loss=val_loss fixed.E=1.8 num_bootstrap=4000 --out fits",
        ),
        notes="orchestrator.fit_help",
    ),
    "cost": Verb(
        summary="CPU-, GPU- and node-hours by axis value and cause, the wasted ones too",
        names=("NAME",),
        flags=("--by", "--json"),
        examples=("eigensweep cost w1", "eigensweep cost w1 --by width --by workload", "eigensweep cost w1 --json"),
    ),
    "report": Verb(
        summary="figures (PNG, PDF, CSV) and one HTML file that needs no network",
        names=("NAME",),
        flags=("--out", "--mixed-code", "--json"),
        examples=("eigensweep report w1", "eigensweep report w1 --out demo-report"),
    ),
    "study": Verb(
        summary="submit the sweeps of a study by its name, and write one page with what they found",
        names=("[STUDY]",),
        settings="[size=SIZE] [KEY=VALUE ...]",
        flags=(*(flag for flag in _SUBMITTING if flag != "--replace"), "--dry-run", "--page", "--out", "--mixed-code"),
        examples=(
            "eigensweep study",
            "eigensweep study data_selection size=small",
            "eigensweep study spectral_reach size=paper site=my_cluster --dry-run",
            "eigensweep study spectral_reach size=paper --page",
        ),
    ),
    "deploy": Verb(
        summary="let robots act by a trained policy, in simulation or in an experiment, and save what they did",
        names=("POLICY|NAME", "[KEY]"),
        settings="[KEY=VALUE ...]",
        flags=("--save", "--rig", "--json"),
        examples=(
            "eigensweep deploy policy.safetensors num_slices=3000 --save swarm.html --save swarm.h5md",
            "eigensweep deploy chemotaxis k3f9 temperature_kelvin=350 num_agents=20 seed=1",
            "eigensweep deploy policy.safetensors num_slices=600 --rig lab-pc:5555 --save run7.h5md",
        ),
    ),
    "retract": Verb(
        summary="take results back: the next dataset drops them, and they may run again",
        names=("NAME",),
        where=True,
        flags=("--reason", "--yes", "--dry-run", "--json"),
        examples=("eigensweep retract w1 where='width=32 and seed=1' --reason 'wrong labels'",),
    ),
    "tick": Verb(
        summary="reconcile scheduler and files once: collect, cure, submit what became ready",
        flags=("--every", "--settle", "--json"),
        examples=("eigensweep tick", "eigensweep tick --every 60"),
    ),
    "gc": Verb(
        summary="delete what no result needs: old datasets, abandoned attempts, unused code",
        flags=("--dry-run", "--json"),
        examples=("eigensweep gc --dry-run", "eigensweep gc"),
    ),
    "scrub": Verb(
        summary="verify every checksum in the store and name what cannot be trusted",
        flags=("--json",),
        examples=("eigensweep scrub",),
    ),
    "chaos": Verb(
        summary="try a cluster: run a sweep calmly and under faults, and compare",
        names=("[NAME]",),
        settings="[KEY=VALUE ...]",
        flags=(
            *("--folder", "--config-dir", "--tasks", "--task-seconds", "--kill", "--oom", "--preempt", "--power-cuts"),
            *("--driver-kill-seconds", "--seed", "--dry-run", "--json"),
        ),
        examples=(
            "eigensweep chaos --dry-run",
            "eigensweep chaos launcher=slurm launcher.partition=short --folder /scratch/me/trial",
            "eigensweep chaos --tasks 60 --task-seconds 0.2-1 --kill 20% --driver-kill-seconds 5",
            "eigensweep chaos w1 launcher=slurm",
        ),
    ),
    "init": Verb(
        summary="make a store, after trying what its file system can do",
        names=("[DIR]",),
        flags=("--json",),
        examples=("eigensweep init /scratch/me/store", "eigensweep init --root ./store"),
    ),
    "completion": Verb(
        summary="print the completion script of a shell",
        names=("bash|zsh|fish",),
        examples=('eval "$(eigensweep completion bash)"', "eigensweep completion fish > ~/.config/fish/completions/eigensweep.fish"),
    ),
}

OVERVIEW = """usage: eigensweep VERB [NAME] [KEY=VALUE ...] [where=SELECTION] [--flags]

Sweeps of training and kernel tasks: submit them, resume what failed, load one dataset, fit scaling laws.

{verbs}

words
  key=value          a setting, as in Hydra: model.width=32,64  'seed=range(0,4)'  +key=value  ~key
  where=SELECTION    some of a sweep's tasks: where="class='user_error' and width=64"
  --flags            behaviour; `eigensweep VERB --help` lists a verb's

examples
  eigensweep init ./store && export EIGENSWEEP_ROOT=$PWD/store
  eigensweep plan   sweep=width_scaling name=w1 model.width=32,64,128 'seed=range(0,4)'
  eigensweep submit sweep=width_scaling name=w1 model.width=32,64,128 'seed=range(0,4)'
  eigensweep add w1 model.width=256
  eigensweep status w1 --watch
  eigensweep resume w1 where="class='user_error'"
  eigensweep fit w1 law=power
  eigensweep fit runs.parquet law=chinchilla n=num_params d=tokens y=loss --out fits
  eigensweep report w1
"""


class Parser(argparse.ArgumentParser):
    """argparse, with errors as ConfigError that name the nearest flag; `notes`: a module that ends the help, imported for that alone."""

    notes: str = ""

    def format_help(self) -> str:
        """The help, and the verb's own notes."""
        return super().format_help() + (f"\n{importlib.import_module(self.notes).notes()}" if self.notes else "")

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the whole usage."""
        unknown = re.findall(r"(?<!\S)--[\w-]+", message) if message.startswith("unrecognized") else []
        if unknown:
            own = [option for action in self._actions for option in action.option_strings]
            hint = nearest(unknown[0], own)
            raise UnknownName(f"no flag {unknown[0]!r}{hint} It has: {', '.join(o for o in own if o.startswith('--'))}")
        raise ConfigError(message)


def overview() -> str:
    """The text of `eigensweep --help`."""
    width = max(map(len, VERBS))
    return OVERVIEW.format(verbs="verbs\n" + "\n".join(f"  {name:<{width}}  {verb.summary}" for name, verb in VERBS.items()))


def configure(parser: argparse.ArgumentParser, verb: Verb) -> None:
    """Add a verb's words and flags to a parser."""
    parser.add_argument("words", nargs="*", metavar="WORD", help=argparse.SUPPRESS)
    for flag in (*verb.flags, *EVERYWHERE):
        parser.add_argument(flag, **FLAGS[flag])


def parser_of(name: str) -> Parser:
    """The parser of one verb."""
    verb = VERBS[name]
    parser = Parser(
        prog=f"eigensweep {name}",
        usage=f"eigensweep {name} {verb.words()} [--flags]".replace("  ", " "),
        description=f"{verb.summary[0].upper()}{verb.summary[1:]}.",
        epilog="examples:\n" + "\n".join(f"  {example}" for example in verb.examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    configure(parser, verb)
    parser.notes = verb.notes
    return parser


@dataclass(kw_only=True)
class Words:
    """A command line's words, sorted by their grammar."""

    names: list[str]
    settings: list[str]
    where: str | None = None
    root: str | None = None
    live_code: bool = False


def sort(name: str, words: Sequence[str]) -> Words:
    """Tell names, settings and the selection apart; ConfigError where the verb does not take one, or lacks one."""
    verb, found = VERBS[name], Words(names=[], settings=[])
    for word in words:
        if verb.where and word.startswith("where="):
            found.where = word.removeprefix("where=")
        elif word.startswith("root="):
            found.root = word.removeprefix("root=")
        elif word.startswith("code=") and "--live-code" in verb.flags:
            found.live_code = _live(word)
        else:
            (found.settings if SETTING.match(word) else found.names).append(word)
    _check(name, verb, found)
    return found


def _live(word: str) -> bool:
    if word not in ("code=live", "code=frozen"):
        raise ConfigError(f"code must be live or frozen, got {word.removeprefix('code=')!r}")
    return word == "code=live"


def _check(name: str, verb: Verb, found: Words) -> None:
    if found.settings and not verb.settings:
        takes = "where=... for a selection" if verb.where else "no settings"
        raise ConfigError(f"{name} takes {takes}, got {found.settings[0]!r}")
    if len(found.names) > len(verb.names):
        extra = found.names[len(verb.names)]
        told = "a setting is written key=value" if verb.settings else "a selection is written where=..." if verb.where else "leave it out"
        raise ConfigError(
            f"{name} does not take the word {extra!r}: {told}; did you mean name={extra}?"
            if verb.settings and not verb.names
            else f"{name} does not take the word {extra!r}: {told}"
        )
    needed = [word for word in verb.names if not word.startswith("[")]
    if len(found.names) < len(needed):
        raise ConfigError(f"{name} needs {' and '.join(needed)}; it is written: eigensweep {name} {verb.words()}")
