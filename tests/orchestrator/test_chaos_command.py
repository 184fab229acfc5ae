"""`eigensweep chaos` hits running tasks, keeps to its own processes, and sees what is wrong with a result."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator import cli, verbs
from orchestrator.chaos import balloon, compare, faults, reach, trial
from orchestrator.chaos.faults import Fault
from orchestrator.chaos.scene import Scene
from orchestrator.chaos.strike import strike
from orchestrator.chaos.trial import Demands
from orchestrator.store import Store
from workers.errors import ConfigError
from workers.processes import start_ticks
from workers.taskdir import Commit

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a trial goes; its jobs have slots of their own."""
    (tmp_path / "runtime").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    return tmp_path / "trial"


def chaos(capsys: pytest.CaptureFixture[str], folder: Path, *words: str, code: int = 0) -> dict[str, Any]:
    """The command's report."""
    assert cli.main(["chaos", "--folder", str(folder), "--json", *words]) == code, capsys.readouterr()
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


# -- whole trials -------------------------------------------------------------------------------------------------------


def test_a_sweep_under_kills_ooms_and_without_a_driver_ends_as_in_calm(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["workload=noop", "name=w", "index=range(0,60)", "seconds=0.3", "launcher.slots=6", "launcher.memory_gib=1.6"]
    report = chaos(capsys, folder, *words, "--kill", "10%", "--oom", "5%", "--driver-kill-seconds", "1.5", "--quiet")
    hits = {fault["kind"]: fault["hits"] for fault in report["faults"]}
    assert hits["kill"] >= 6
    assert hits["oom"] >= 3
    assert hits["driver kill"] >= 2
    assert [(table["table"], table["rows"], table["difference"]) for table in report["tables"]] == [("tasks", 60, ""), ("scalars", 180, "")]
    assert report["wrong_commits"] == []
    assert report["ends"]["completed"] == 60
    assert report["lost"]["kill"] > 0
    assert report["useful_seconds"] >= 60 * 0.3
    # the same folder again: the calm run is there, the chaos run is a new one
    assert (folder / "calm" / "store.json").exists()
    assert trial.plan("", words, None, folder, Demands()).chaos == folder / "chaos-2"


@pytest.mark.slow
def test_training_kernels_and_spectra_among_many_short_tasks_end_as_in_calm(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--tasks", "60", "--task-seconds", "0.2-1", "--kill", "20%", "--oom", "5%", "--driver-kill-seconds", "3"]
    report = chaos(capsys, folder, *words, "launcher.slots=6", "--quiet")
    assert {fault["kind"]: fault["hits"] >= fault["wanted"] for fault in report["faults"]} == {
        "kill": True,
        "oom": True,
        "driver kill": True,
    }
    compared = {(table["sweep"], table["table"]): table for table in report["tables"]}
    assert compared["digits", "spectra"]["rows"] > 0
    assert not any(table["difference"] for table in report["tables"])


def test_the_calm_run_may_be_a_finished_sweep_which_is_only_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store.init(folder.parent / "store")
    verbs.submit(["workload=noop", "name=w", "index=range(0,6)", "seconds=0.2", "launcher=inline"], store.root)
    before = {path: path.stat().st_mtime_ns for path in store.root.rglob("*") if path.is_file()}
    report = chaos(
        capsys, folder, "w", "launcher=local", "launcher.slots=2", "--root", str(store.root), "--kill", "2", "--oom", "0", "--quiet"
    )
    assert [table["difference"] for table in report["tables"]] == ["", ""]
    assert {path: path.stat().st_mtime_ns for path in store.root.rglob("*") if path.is_file()} == before
    assert not (folder / "calm").exists()


def test_a_sweep_that_is_not_finished_is_no_calm_run(folder: Path, store: Path) -> None:
    verbs.submit(["workload=noop", "name=w", "index=range(0,4)", "fail=exception", "launcher=inline"], store)
    with pytest.raises(ConfigError, match="w has no calm run yet, 0 of 4 tasks are done; next: eigensweep logs"):
        trial.plan("w", [], store, folder, Demands())


def test_ctrl_c_ends_the_jobs_and_the_driver(folder: Path) -> None:
    def stop(moment: Any) -> None:
        if moment.running:
            raise KeyboardInterrupt

    planned = trial.plan(
        "",
        ["workload=noop", "name=w", "index=range(0,4)", "seconds=60", "launcher.slots=2", "launcher.grace_seconds=1"],
        None,
        folder,
        Demands(),
    )
    with pytest.raises(KeyboardInterrupt, match="stopped; the trial's jobs were told to end, its stores stay in"):
        verbs.chaos(planned, stop)
    deadline = time.monotonic() + 20
    while (left := _processes_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left
    assert verbs.status("w", folder / "calm").counts == {"cancelled": 4}


def _processes_of(folder: Path) -> list[str]:
    """Command lines that name the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().decode(errors="replace").split("\0")
            if any(str(folder) in word for word in words):
                found.append(" ".join(words))
    return found


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """An empty store."""
    return Store.init(tmp_path / "store").root


# -- what would be done -------------------------------------------------------------------------------------------------


def test_a_dry_run_shows_sweeps_faults_and_folders_and_makes_none(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["chaos", "--dry-run", "--folder", str(folder), "--driver-kill-seconds", "7", "--seed", "3"]) == 0
    out = capsys.readouterr().out
    assert "500 tasks, 37 min of task time, twice by launcher=local" in out
    assert "12 tasks: eigensweep submit sweep=digits" in out
    assert "until 25 running tasks are hit" in out
    assert "every 7 s" in out
    assert "seed 3" in out
    assert not folder.exists()


def test_without_a_folder_the_stores_go_beside_the_users(store: Path) -> None:
    assert trial.plan("", [], store, None, Demands()).folder == store.with_name("store-chaos")


def test_a_trial_inside_a_store_is_refused(store: Path) -> None:
    with pytest.raises(ConfigError, match="is in the store .*; chaos keeps out of stores: give another --folder"):
        trial.plan("", [], store, store / "trial", Demands())


@pytest.mark.parametrize(
    ("demands", "message"),
    [
        ({"kill": "half"}, "--kill takes a share of the tasks such as 5%, or a number of running tasks to hit such as 25, got 'half'"),
        ({"oom": "200%"}, "--oom takes a share of the tasks"),
        ({"kill": "2.5"}, "--kill takes a share of the tasks"),
        ({"preempt": "2%"}, "--preempt needs a scheduler that takes jobs off their nodes, and launcher=local has none: leave it out"),
        ({"power_cuts": 2}, "--power-cuts needs launcher=slurm on the development cluster"),
        ({"tasks": 12}, "--tasks takes a number above 12, of which 12 train and compute spectra, got 12"),
        ({"task_seconds": "8-1"}, "--task-seconds takes a range such as 1-8, got '8-1'"),
        ({"driver_kill_seconds": -1}, "take numbers from 0"),
    ],
)
def test_a_wrong_demand_is_refused_before_anything_is_written(folder: Path, demands: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        trial.plan("", [], None, folder, Demands(**demands))
    assert not folder.exists()


def test_power_is_cut_on_the_development_cluster_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EIGENSWEEP_CLUSTER", raising=False)
    with pytest.raises(
        ConfigError, match="--power-cuts is for the development cluster alone: run it from a checkout .* EIGENSWEEP_CLUSTER"
    ):
        reach.Power.of_development_cluster()


def test_the_same_seed_plans_the_same_faults_and_all_before_the_end() -> None:
    one, other, third = (faults.planned({"kill": 25, "oom": 0}, seed) for seed in (1, 1, 2))
    assert one == other
    assert one != third
    assert [fault.kind for fault in one] == ["kill"]
    assert all(faults.FIRST <= when <= faults.LAST for when in one[0].when)


# -- who is hit ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def job(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that stands for a job, with a child that writes to log-0."""
    code = (
        "import subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'],"
        f" stdout=open({str(tmp_path / 'log-0')!r}, 'w')); print(child.pid, flush=True); child.wait(); time.sleep(60)"
    )
    job = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    yield job
    job.kill()
    job.wait()


def test_a_strike_hits_the_child_of_that_job_and_that_log_alone(job: "subprocess.Popen[str]") -> None:
    assert job.stdout is not None
    child, start = int(job.stdout.readline()), start_ticks(job.pid)
    assert not strike(job.pid, start + 1, "log-0", signal.SIGKILL)  # its id was given to another process
    assert not strike(job.pid, 0, "log-0", signal.SIGKILL)
    assert not strike(os.getpid(), start_ticks(os.getpid()), "log-0", signal.SIGKILL)  # not its child
    assert not strike(job.pid, start, "log-1", signal.SIGKILL)
    assert not strike(job.pid, start, "log-0", balloon.SIGNAL)  # it has no balloon, and would just die
    assert start_ticks(child)
    assert strike(job.pid, start, "log-0", signal.SIGKILL)
    deadline = time.monotonic() + 10
    while start_ticks(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not start_ticks(child)


def test_a_job_of_another_name_is_not_requeued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = _scheduler(tmp_path, monkeypatch, squeue='case "$*" in *%A*) echo 17;; *) echo w-ab12;; esac')
    receipt = {"token": "w-other/3", "slurm": {"job_id": "12_3", "restart": 0}}
    assert not reach.requeue(receipt)
    assert not said.exists()
    assert reach.requeue(receipt | {"token": "w-ab12/3"})
    assert said.read_text() == "requeue 12_3\n"  # 17 might be the whole array
    assert not reach.requeue({"token": "w-ab12"})  # no job of a scheduler


def test_a_task_on_another_host_is_reached_in_its_own_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = _scheduler(tmp_path, monkeypatch, squeue="exit 1")
    receipt = {"job": "elsewhere:boot:4:5", "host": "elsewhere", "pid": 4, "pid_start": 5, "token": "w-1", "slurm": {"job_id": "17"}}
    assert reach.signal_task(receipt, "log-2", signal.SIGKILL)
    words = said.read_text().split()
    assert {"--jobid=17", "--overlap", "--nodelist=elsewhere"} < set(words)
    assert words[-5:] == ["orchestrator.chaos.strike", "4", "5", "log-2", "9"]
    assert not reach.signal_task(receipt | {"slurm": {}}, "log-2", signal.SIGKILL)
    assert not reach.signal_task({}, "log-2", signal.SIGKILL)


def _scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, squeue: str) -> Path:
    """squeue, and scontrol and srun that note what they are told."""
    said = tmp_path / "said"
    for name, text in {"squeue": squeue, "scontrol": f'echo "$@" >> {said}', "srun": f'echo "$@" >> {said}'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return said


def test_the_balloon_grows_at_its_signal_up_to_what_is_allowed_and_lets_another_sitecustomize_be(tmp_path: Path) -> None:
    hook, other = tmp_path / "hook", tmp_path / "other"
    hook.mkdir()
    other.mkdir()
    shutil.copyfile(balloon.__file__, hook / "sitecustomize.py")
    (hook / balloon.MOST_MIB).write_text("64")
    (other / "sitecustomize.py").write_text("import builtins\nbuiltins.others = 1\n")
    code = (
        "import os, time; peak = lambda: int(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0]) // 1024; before = peak();"
        f"os.kill(os.getpid(), {int(balloon.SIGNAL)}); time.sleep(0.1); print(peak() - before, others)"
    )
    environment = {**os.environ, "PYTHONPATH": f"{hook}{os.pathsep}{other}"}
    words = [sys.executable, "-c", code]
    child = subprocess.run([*words, "workers.child"], env=environment, capture_output=True, text=True, timeout=60)
    grown, others = child.stdout.split()
    assert 60 <= int(grown) <= 90, child.stderr
    assert others == "1"
    # only the children of a job have it: everyone else just dies of the signal
    assert subprocess.run(words, env=environment, capture_output=True, timeout=60).returncode == -balloon.SIGNAL


# -- what counts --------------------------------------------------------------------------------------------------------


def test_an_attempt_that_committed_before_the_blow_was_not_hit(tmp_path: Path) -> None:
    scene = _scene(tmp_path, ("a", ""), ("b", "completed"), ("c", "killed"), ("d", "host_oom"))
    scene.strike(list(scene.attempts.values()), "kill")
    assert {one.key: faults.is_hit(one) for one in scene.attempts.values()} == {"a": True, "b": False, "c": True, "d": True}
    scene.strike(list(scene.attempts.values()), "oom")
    assert [one.key for one in scene.attempts.values() if faults.is_hit(one)] == ["d"]


def test_a_fault_strikes_until_as_many_running_tasks_are_hit(tmp_path: Path) -> None:
    scene = _scene(tmp_path, ("a", "killed"), ("b", "completed"), ("c", ""))
    fault = Fault(kind="kill", wanted=2, when=[0.1, 0.5])
    assert not fault.due(0.05, scene)
    assert fault.due(0.2, scene)
    scene.strike([scene.attempts["a-try"]], "kill")
    assert not fault.due(0.2, scene)
    assert fault.due(0.6, scene)
    scene.strike([scene.attempts["b-try"]], "kill")  # missed
    assert fault.due(0.6, scene)
    scene.strike([scene.attempts["c-try"]], "kill")  # no word yet
    assert not fault.due(1.0, scene)


def test_records_are_read_on_and_a_restarted_job_is_another_run(tmp_path: Path) -> None:
    scene = _scene(tmp_path, ("a", ""), ("b", ""))
    assert {one.key for one in scene.running()} == {"a", "b"}
    rerun = tmp_path / "batches" / "w-1" / "3" / "run-1"
    rerun.mkdir()
    _write(rerun / "attempts.jsonl", [_start("a", "a-again", "run-1/log-4")])
    running = {one.key: one for one in scene.refresh().running()}
    assert (running["a"].name, running["a"].run, running["a"].log) == ("a-again", 1, "log-4")
    assert scene.in_the_same_job(running["a"]) == [running["a"]]
    with (rerun / "attempts.jsonl").open("a") as file:
        file.write(json.dumps({"event": "end", "key": "a", "attempt": "a-again", "class": "completed", "seconds": 2.0}) + '\n{"event": "e')
    assert {one.key for one in scene.refresh().running()} == {"b"}


def test_a_blow_that_came_too_late_falls_on_the_next_task_of_that_child(tmp_path: Path) -> None:
    scene = _scene(tmp_path, ("a", "completed"), ("b", "host_oom"), ("c", "killed"))
    for number, one in enumerate(scene.attempts.values()):
        one.begun += number
    scene.strike([scene.attempts["a-try"]], "oom")
    scene.pass_on("kill", "killed")
    assert scene.attempts["b-try"].by == ""
    scene.pass_on("oom", "host_oom")
    assert {one.key: one.by for one in scene.attempts.values()} == {"a": "", "b": "oom", "c": ""}


def test_waste_is_what_lost_attempts_had_spent_by_the_fault_that_struck_them(tmp_path: Path) -> None:
    scene = _scene(tmp_path, ("a", "killed"), ("b", "completed"), ("c", "killed"), ("d", ""))
    scene.strike([scene.attempts["a-try"], scene.attempts["d-try"]], "kill")
    scene.attempts["d-try"].seen -= 4.0  # left no word: from when it was first seen until it was struck
    lost = faults.lost_seconds(scene.attempts.values())
    assert lost["kill"] == pytest.approx(1.5 + 4.0, abs=0.5)
    assert lost[faults.BESIDE] == 1.5


def _scene(root: Path, *ends: tuple[str, str]) -> Scene:
    """One attempt a key, ended or not."""
    folder = root / "batches" / "w-1" / "3"
    folder.mkdir(parents=True)
    events = []
    for key, end in ends:
        events.append(_start(key, f"{key}-try", "log-0"))
        if end:
            events.append({"event": "end", "key": key, "attempt": f"{key}-try", "class": end, "seconds": 1.5, "message": ""})
    _write(folder / "attempts.jsonl", events)
    return Scene(root).refresh()


def _start(key: str, attempt: str, log: str) -> dict[str, Any]:
    return {"event": "start", "key": key, "attempt": attempt, "slot": 0, "log": [log, 0], "time": 100.0}


def _write(path: Path, events: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(event) + "\n" for event in events))


# -- comparison ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """The same sweep in two stores."""
    roots = (Store.init(tmp_path / "calm").root, Store.init(tmp_path / "chaos").root)
    for root in roots:
        verbs.submit(["workload=noop", "name=w", "index=range(0,3)", "launcher=inline"], root)
    return roots


def test_equal_results_differ_nowhere(two: tuple[Path, Path]) -> None:
    assert [(one.table, one.rows, one.difference) for one in compare.compare("w", *two)] == [("tasks", 3, ""), ("scalars", 9, "")]
    assert compare.wrong_commits(Store.open(two[1]), ["w"], Scene(two[1]).refresh()) == []


def test_one_other_value_is_found_and_named(two: tuple[Path, Path]) -> None:
    (commit, path) = _a_commit(two[1])
    scalars = commit.rows["scalars"] | {"value": [0.0, 0.0, 1e-300]}
    path.unlink()
    path.write_bytes(dataclasses.replace(commit, rows={"scalars": scalars}).encode())
    shutil.rmtree(two[1] / "dataset")
    (two[1] / "dataset").mkdir()
    difference = next(one.difference for one in compare.compare("w", *two) if one.table == "scalars")
    assert f"of task {commit.key}" in difference
    assert "values of value, first" in difference


def test_missing_foreign_and_doubled_commits_are_wrong(two: tuple[Path, Path]) -> None:
    commit, path = _a_commit(two[1])
    path.rename(path.with_stem("0" * 32))
    scene = Scene(two[1]).refresh()
    again = next(iter(scene.attempts.values()))
    scene.attempts["again"] = dataclasses.replace(again, name="again")
    assert compare.wrong_commits(Store.open(two[1]), ["w"], scene) == [
        f"not committed: {commit.key}",
        f"committed, but no task of the sweep: {'0' * 32}",
        f"committed by 2 attempts, as they say: {again.key}",
    ]


def _a_commit(root: Path) -> tuple[Commit, Path]:
    from workers.taskdir import decode_commit

    path = sorted(root.glob("commits/*/*.json"))[0]
    return decode_commit(path.read_bytes(), path), path
