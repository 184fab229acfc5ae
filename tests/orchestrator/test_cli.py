"""The command line answers fast, takes one grammar, and ends every error in a message, an exit code and a next step."""

import json
import os
import resource
import statistics
import subprocess
import sys
import types
from argparse import Namespace
from pathlib import Path

import pytest

import orchestrator
from orchestrator import cli, completion, usage
from workers.errors import ConfigError, EigensweepError, Garbled, StoreError, UnknownName

HEAVY = ("torch", "numpy", "scipy", "pyarrow", "polars", "pandas", "hydra", "omegaconf", "submitit", "ray", "matplotlib", "rich", "psutil")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "orchestrator", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, timeout=60)


@pytest.fixture
def verbs(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """Stands in for orchestrator.verbs: a test gives the functions that it expects to be called."""
    fake = types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "orchestrator.verbs", fake)
    monkeypatch.setattr(orchestrator, "verbs", fake, raising=False)
    return fake


def raising(error: BaseException):
    def function(*_: object, **__: object) -> None:
        raise error

    return function


# -- speed --------------------------------------------------------------------------------------------------------------


def processor_seconds(*arguments: str, **environment: str) -> float:
    """Processor time of a whole command: other tests run beside it, and on a free machine it is the wall time (see benchmarks/)."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run(*arguments, **environment).returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize("arguments", [["--help"], ["submit", "--help"]])
def test_help_takes_less_than_a_tenth_of_a_second(arguments: list[str]) -> None:
    assert statistics.median(processor_seconds(*arguments) for _ in range(7)) < 0.1


def test_help_imports_nothing_heavy() -> None:
    code = (
        f"import sys; from orchestrator import cli; cli.main(['--help']); print([m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


# -- help ---------------------------------------------------------------------------------------------------------------


def test_overview_names_every_verb_and_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in usage.VERBS)
    assert "examples\n" in text


@pytest.mark.parametrize("verb", usage.VERBS)
def test_every_verb_has_help_with_examples_that_its_own_grammar_accepts(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    import shlex

    with pytest.raises(SystemExit) as leaving:
        cli.main([verb, "--help"])
    assert leaving.value.code == 0
    assert "examples:\n" in capsys.readouterr().out
    own = [line for line in usage.VERBS[verb].examples if line.startswith("eigensweep ")]
    assert own
    for line in own:
        words = shlex.split(line.partition(" > ")[0])
        name, rest = cli.take_verb(words[1:])
        parsed = usage.parser_of(name).parse_intermixed_args(rest)
        assert usage.sort(name, parsed.words)


def test_every_verb_has_a_command() -> None:
    from orchestrator import commands

    assert set(commands.COMMANDS) == set(usage.VERBS)


# -- grammar ------------------------------------------------------------------------------------------------------------


def test_words_are_told_apart_by_their_form() -> None:
    words = usage.sort("add", ["w1", "model.width=1,2", "+extra=3", "~old", "++x.y=z", "root=/tmp/s", "code=live"])
    assert words.names == ["w1"]
    assert words.settings == ["model.width=1,2", "+extra=3", "~old", "++x.y=z"]
    assert (words.root, words.live_code) == ("/tmp/s", True)


def test_a_selection_may_hold_equals_signs() -> None:
    assert usage.sort("resume", ["w1", "where=class='user_error' and width=64"]).where == "class='user_error' and width=64"


def test_flags_may_stand_between_words(verbs: types.SimpleNamespace) -> None:
    given = {}
    verbs.add = lambda name, settings, **options: given.update(options, name=name, settings=settings) or done()
    assert cli.main(["--root", "/tmp/s", "add", "w1", "--detach", "a=1", "--quiet", "b=2"]) == 0
    assert (given["name"], given["settings"], given["detach"], given["root"]) == ("w1", ["a=1", "b=2"], True, Path("/tmp/s"))


def done(**changes: object) -> object:
    from orchestrator.status import Status

    fields = dict(
        name="w1", root="/tmp/s", revision=1, total=4, counts={"completed": 4}, by_workload={"train": {"completed": 4}},
        by_axis=[("width", [(32, {"completed": 2}), (64, {"completed": 2})])], causes=[], num_diverged=0, broken={}, paused="",
        jobs=[], running=[], eta=(0.0, 0.0), watcher="", code="c", next="eigensweep report w1",
    )  # fmt: skip
    return Status(**(fields | changes))  # type: ignore[arg-type]


# -- errors -------------------------------------------------------------------------------------------------------------

WRONG = [
    (["pla"], 2, "no verb 'pla'; did you mean 'plan'?"),
    (["--root", "x"], 2, "no verb"),
    (["plan"], 2, "plan needs settings, for example: eigensweep plan"),
    (["add", "w1"], 2, "for example: eigensweep add w1 model.width=256"),
    (["plan", "w1"], 2, "did you mean name=w1?"),
    (["status", "w1", "w2"], 2, "status does not take the word 'w2'"),
    (["cancel", "w1", "width=64"], 2, "cancel takes where=... for a selection, got 'width=64'"),
    (["logs", "w1"], 2, "logs needs NAME and KEY; it is written: eigensweep logs NAME KEY"),
    (["submit", "a=1", "--detatch"], 2, "no flag '--detatch'; did you mean '--detach'?"),
    (["submit", "a=1", "code=fast"], 2, "code must be live or frozen, got 'fast'"),
    (["run", "w1"], 2, "run needs the task's key as well"),
    (["run", "w1", "k", "a=1"], 2, "run takes either NAME KEY or settings"),
    (["tick", "--every", "0"], 2, "--every takes a number of seconds above 0, got 0"),
    (["tick", "--every", "soon"], 2, "invalid float value: 'soon'"),
    (["retract", "w1"], 2, "retract needs a selection, for example: eigensweep retract w1"),
    (["completion", "bsh"], 2, "no completion for 'bsh'; did you mean 'bash'?"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), WRONG, ids=[" ".join(one[0]) for one in WRONG])
def test_a_wrong_command_says_what_is_right(arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == code
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert message in printed.err
    assert "eigensweep " in printed.err
    assert "Traceback" not in printed.err
    assert not printed.out


FAILURES = [
    (ConfigError("width must be above 0, got -1"), 2, "next: eigensweep plan --help"),
    (UnknownName("no model 'cnm'; did you mean 'cnn'?"), 2, "next: eigensweep plan --help"),
    (StoreError("no store at /nowhere"), 1, "next: eigensweep status w1"),
    (Garbled("x is truncated; run `eigensweep scrub`"), 1, "run `eigensweep scrub`"),
    (EigensweepError("the scheduler is silent"), 1, "next: eigensweep status w1"),
    (PermissionError(13, "Permission denied", "/root/store"), 1, "Permission denied: /root/store"),
]


@pytest.mark.parametrize(("error", "code", "hint"), FAILURES, ids=[type(one[0]).__name__ for one in FAILURES])
def test_an_error_of_a_verb_has_its_exit_code_and_a_next_step(
    error: Exception, code: int, hint: str, verbs: types.SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    verbs.plan = raising(error)
    assert cli.main(["plan", "name=w1", "a=1"]) == code
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert hint in printed


def test_debugging_lets_the_exception_through(verbs: types.SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EIGENSWEEP_DEBUG", "1")
    verbs.plan = raising(ConfigError("no"))
    with pytest.raises(ConfigError):
        cli.main(["plan", "a=1"])


def test_our_own_mistakes_keep_their_traceback(verbs: types.SimpleNamespace) -> None:
    verbs.plan = raising(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        cli.main(["plan", "a=1"])


def test_an_interrupt_exits_130_and_says_what_goes_on(verbs: types.SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    verbs.submit = raising(KeyboardInterrupt())
    assert cli.main(["submit", "sweep=s", "name=w1"]) == 130
    assert "next: eigensweep status w1 --watch, or eigensweep cancel w1" in capsys.readouterr().err


def test_a_store_is_asked_for_in_all_three_ways(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "orchestrator", "status", "w1"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert all(way in done.stderr for way in ("--root", "EIGENSWEEP_ROOT", "eigensweep.toml"))


def test_a_closed_pipe_is_no_error(root: Path) -> None:
    command = f"{sys.executable} -m orchestrator --help | head -1; exit ${{PIPESTATUS[1]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stderr == ""


# -- what verbs print ---------------------------------------------------------------------------------------------------


def test_failed_tasks_make_submit_exit_1(verbs: types.SimpleNamespace) -> None:
    verbs.submit = lambda *_, **__: done(counts={"completed": 3, "failed": 1})
    assert cli.main(["submit", "a=1"]) == 1


def test_scrub_exits_1_where_something_is_garbled(verbs: types.SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    from orchestrator.scrub import Finding, Scrubbed

    verbs.scrub = lambda **_: Scrubbed(num_files=2, problems=[Finding("commits/ab/x.json", "truncated", "run it again")])
    assert cli.main(["scrub"]) == 1
    assert "commits/ab/x.json: truncated; run it again" in capsys.readouterr().out
    verbs.scrub = lambda **_: Scrubbed(num_files=2)
    assert cli.main(["scrub"]) == 0


def test_json_is_json(verbs: types.SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    verbs.status = lambda *_, **__: done(eta=(float("nan"), 1.0))
    assert cli.main(["status", "w1", "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert (body["counts"], body["eta"], body["by_axis"][0][1][0]) == ({"completed": 4}, [None, 1.0], [32, {"completed": 2}])


def test_quiet_leaves_out_the_next_step(verbs: types.SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    verbs.status = lambda *_, **__: done()
    cli.main(["status", "w1", "--quiet"])
    assert "next:" not in capsys.readouterr().out


def test_watch_ends_when_nothing_is_left(verbs: types.SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = [done(counts={"running": 4}, refresh_seconds=0.0), done(counts={"pending": 2}, refresh_seconds=0.0), done()]
    verbs.status = lambda *_, **__: pictures.pop(0)
    assert cli.main(["status", "w1", "--watch"]) == 0
    assert not pictures
    assert "completed 4" in capsys.readouterr().out


def test_status_without_a_name_is_a_line_for_each_sweep(verbs: types.SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    def status(name: str, **_: object) -> object:
        if name == "half":
            raise UnknownName("its driver died between manifest and ledger")
        return done(name=name)

    verbs.sweeps = lambda root: ["a", "half", "longer"]
    verbs.status = status
    assert cli.main(["status"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["a", "longer", "next:"]


def test_logs_end_with_the_run_of_the_same_task(verbs: types.SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    verbs.logs = lambda *_, **__: iter(["one", "two"])
    assert cli.main(["logs", "w1", "k3f9"]) == 0
    assert capsys.readouterr() == ("one\ntwo\n", "next: eigensweep run w1 k3f9   # the same task in this process, for a debugger\n")


def test_resume_says_what_it_will_send_before_it_does(verbs: types.SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    order = []
    verbs.resumable = lambda name, where, **_: order.append(("resumable", where)) or ["k1  train width=64"]
    verbs.resume = lambda name, where, **_: order.append(("resume", where)) or done()
    assert cli.main(["resume", "w1", "where=width=64"]) == 0
    assert order == [("resumable", "width=64"), ("resume", "width=64")]
    assert "k1  train width=64" in capsys.readouterr().err
    assert cli.main(["resume", "w1", "--dry-run"]) == 0
    assert order[2:] == [("resumable", None)]


def test_retract_shows_what_and_asks(verbs: types.SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    calls = []
    verbs.retract = lambda name, where, **options: calls.append(options.get("dry_run", False)) or ["k1  train width=64"]
    assert cli.main(["retract", "w1", "where=width=64"]) == 2
    assert calls == [True]
    printed = capsys.readouterr().err
    assert "k1  train width=64" in printed
    assert "add --yes" in printed
    assert cli.main(["retract", "w1", "where=width=64", "--yes"]) == 0
    assert calls == [True, False]


def test_add_dry_run_only_plans(verbs: types.SimpleNamespace) -> None:
    planned = []
    verbs.plan_add = lambda *arguments, **_: planned.append(arguments) or plan()
    assert cli.main(["add", "w1", "width=256", "--dry-run", "--quiet"]) == 0
    assert planned == [("w1", ["width=256"])]


def plan(**changes: object) -> object:
    from orchestrator.plan import Plan

    fields = dict(
        name="w1", target="train", total=4, axes=[("width", "model.width", [32, 64])], counts={"completed": 2, "pending": 2},
        by_workload={"train": {"completed": 2, "pending": 2}}, stale=1, leaving=[], cost_hours=(0.1, 0.2), unknown_cost=0,
        walltime_seconds=(180.0, 360.0), num_jobs=1, slots=2, code="c", next="eigensweep status w1",
    )  # fmt: skip
    return Plan(**(fields | changes))  # type: ignore[arg-type]


def test_plan_ends_in_the_submit_of_the_same_words(verbs: types.SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    verbs.plan = lambda *_, **__: plan()
    cli.main(["plan", "name=w1", "seed=range(0,2)"])
    assert capsys.readouterr().out.endswith("next: eigensweep submit name=w1 'seed=range(0,2)'\n")


# -- status of a large sweep --------------------------------------------------------------------------------------------


@pytest.fixture
def large(root: Path) -> Path:
    """A store with one sweep of 10,000 tasks, 9,900 of them done."""
    from orchestrator import compose, ledger, sweep
    from orchestrator.store import Store

    store = Store.open(root)
    found = sweep.expand(compose.compose(["workload=noop", "index=range(0,1000)", "seconds=0,1,2,3,4,5,6,7,8,9", "name=large"]))
    assert store.write_manifest("large", 1, found.to_body())
    entry = {"kind": "revision", "sweep": "large", "revision": 1, "snapshot": "x", "code": "y", "retry": []}
    assert ledger.append(root, ledger.read(root), entry)
    for key in found.keys[:9_900]:
        (store.sweep_dir("large") / "done" / key).touch()
    return root


def test_status_of_ten_thousand_tasks_takes_less_than_a_fifth_of_a_second(large: Path) -> None:
    compiled = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(large.parent / "compiled")}
    arguments = ["status", "large", "--root", str(large)]
    assert "completed 9,900  pending 100" in run(*arguments, **compiled).stdout
    assert statistics.median(processor_seconds(*arguments, **compiled) for _ in range(7)) < 0.2


def test_tasks_are_listed_by_key_and_by_selection(large: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "large", "--root", str(large), "where=index=999 and seconds>7", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["state"], row["task"]) for row in rows] == [("pending", f"noop index=999 seconds={s}.0") for s in (8, 9)]


# -- completion ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_each_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", shell]) == 0
    assert "eigensweep" in capsys.readouterr().out


def completed(line: str, cwd: Path, **environment: str) -> set[str]:
    """What the shell would offer at the end of `line`: argcomplete's protocol, without a shell."""
    output = cwd / "completions"
    settings = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9"}
    settings |= {"_ARGCOMPLETE_STDOUT_FILENAME": str(output), "_ARGCOMPLETE_COMP_WORDBREAKS": " \t\n"}
    code = "from orchestrator.cli import main; main()"
    subprocess.run([sys.executable, "-c", code], env=os.environ | settings | environment, cwd=cwd, capture_output=True, timeout=60)
    return {word.strip() for word in output.read_text().split("\n")} if output.exists() else set()


def test_completion_offers_verbs_and_flags(tmp_path: Path) -> None:
    assert completed("eigensweep st", tmp_path) == {"status", "study"}
    assert "--watch" in completed("eigensweep status --", tmp_path)


def test_completion_offers_the_sweeps_of_the_store(tmp_path: Path, root: Path) -> None:
    from orchestrator.store import Store

    Store.open(root).write_manifest("demo_mlp", 1, {"keys": ["abc", "abd", "xyz"]})
    assert completion._words("demo", Namespace(verb="status", words=[], root=str(root))) == ["demo_mlp"]
    assert completion._words("ab", Namespace(verb="logs", words=["demo_mlp"], root=str(root))) == ["abc", "abd"]


def test_completion_offers_names_of_plug_ins() -> None:
    assert completion._words("model=", Namespace(verb="submit", words=["workload=train"], root=None)) == [
        f"model={name}" for name in ("cnn", "gpt_neox", "llama", "mlp", "pretrained", "random_features", "vit", "wide_resnet")
    ]
    assert completion._words("law=p", Namespace(verb="fit", words=["w1"], root=None)) == ["law=power"]


def test_completion_offers_the_settings_of_the_workload() -> None:
    assert "train_size=" in completion._words("train", Namespace(verb="plan", words=["workload=train"], root=None))


def test_completion_is_silent_where_there_is_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert completion._words("", Namespace(verb="report", words=[], root=None)) == []
