"""Every cause of failure from submit to cure, with real processes, limits and signals."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator import verbs
from orchestrator.store import Store
from tests.faults.stage import Stage, points, wait_for
from workers import files, limits, taskdir
from workers.errors import DiskFull, Garbled, StoreError
from workers.workloads.noop import Noop

CGROUPS = limits.hierarchy() is not None
LIMITS = [pytest.param("cgroup", marks=pytest.mark.skipif(not CGROUPS, reason="no memory cgroup may be made here")), "watchdog"]
NOOP = ("workload=noop", "name=w")


# -- exceptions -----------------------------------------------------------------------------------------------------


def test_an_exception_is_not_retried_and_says_where_it_was_raised(stage: Stage) -> None:
    axes = points(index=range(6), fail=["none", "exception", "none", "none", "exception", "none"])
    status = stage.submit(*NOOP, *axes)
    assert status.counts == {"completed": 4, "failed": 2}
    assert status.causes[0][:3] == ("user_error", 2, "an exception, as `fail=exception` asks")
    assert "then `eigensweep resume w`" in status.next
    assert set(stage.starts().values()) == {1}
    shown = stage.logs("w", status.causes[0][3])
    assert "Traceback" in shown
    assert 'raise RuntimeError("an exception, as `fail=exception` asks")' in shown
    # submitting again sends nothing, retrying sends the failed alone
    stage.submit(*NOOP, *axes)
    assert sum(stage.starts().values()) == 6
    stage.submit(*NOOP, *axes, retry=True)
    assert sum(stage.starts().values()) == 8
    assert {number for number, classes in stage.classes().items() if len(classes) == 2} == {1, 4}


def test_the_same_error_again_and_again_stops_its_workload_alone(stage: Stage) -> None:
    words = ["workload=fault_package.after", "index=range(0,30)", "fail=exception", "name=w", "launcher.slots=1"]
    status = stage.submit(*words)
    assert 3 <= sum(stage.starts().values()) <= 6
    assert status.counts == {"failed": 30, "blocked": 30}
    assert status.broken == {"noop": "an exception, as `fail=exception` asks"}
    other = stage.submit("workload=noop", "name=other", "index=range(100,103)")
    assert other.counts == {"completed": 3}


def test_resume_after_a_change_of_the_code_runs_only_what_failed(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "own_study"
    package.mkdir()
    (package / "__init__.py").touch()
    source = package / "halves.py"
    source.write_text(HALVES.replace("BROKEN", "index % 3 == 1"))
    monkeypatch.syspath_prepend(str(tmp_path))
    words = ["workload=own_study.halves", "index=range(0,6)", "name=w"]
    assert stage.submit(*words).counts == {"completed": 4, "failed": 2}
    source.write_text(HALVES.replace("BROKEN", "False"))
    assert stage.resume(where="class='user_error'").counts == {"completed": 6}
    numbers = stage.numbers()
    assert {numbers[key]: count for key, count in stage.starts().items()} == {0: 1, 1: 2, 2: 1, 3: 1, 4: 2, 5: 1}
    with pytest.raises(StoreError, match="2 different code fingerprints"):
        verbs.load("w", stage.root)
    assert len(stage.tables()["tasks"]) == 6


HALVES = '''
"""A user's own workload."""

from dataclasses import dataclass

from workers.workload import Resources, Row, Workload


@dataclass(frozen=True, kw_only=True)
class Halves(Workload):
    """Half the index."""

    index: int = 0

    def resources(self):
        return Resources(memory_gib=0.25)

    def run(self, context):
        index = self.index
        if BROKEN:
            raise ValueError("a mistake")
        yield Row(name="half", value=index / 2)
'''


# -- numbers --------------------------------------------------------------------------------------------------------


def test_a_nan_is_committed_and_blocks_only_what_does_not_accept_it(stage: Stage) -> None:
    axes = points(index=[0, 1], fail=["none", "nan"])
    status = stage.submit("workload=fault_package.after", "name=w", *axes)
    assert status.counts == {"completed": 3, "blocked": 1}
    assert status.num_diverged == 1
    assert stage.classes() | {1001: []} == {0: ["completed"], 1000: ["completed"], 1: ["diverged"], 1001: []}
    again = stage.submit("workload=fault_package.tolerant", "name=t", *axes)
    assert again.counts == {"completed": 4}
    diverged = {row["index"]: row["value"] for row in stage.tables("t")["scalars"] if row["name"] == "diverged"}
    assert diverged == {0: 0.0, 1: 1.0}
    assert [stage.classes(name="t")[n] for n in (0, 1)] == [["completed"], ["diverged"]], "the no-ops were shared"


# -- memory ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", LIMITS)
def test_a_task_out_of_memory_is_tried_alone_with_more_and_fails_only_where_that_is_not_enough(stage: Stage, by: str) -> None:
    axes = points(index=range(4), memory_mib=[0, 300, 0, 0], fail=["none", "none", "oom", "none"])
    shape = ["resources.memory_gib=0.2", "launcher.memory_gib=0.6", "launcher.slots=3", f"launcher.limit_memory_by={by}", "seconds=0.3"]
    status = stage.submit(*NOOP, *axes, *shape)
    assert stage.classes() == {0: ["completed"], 1: ["host_oom", "completed"], 2: ["host_oom", "host_oom"], 3: ["completed"]}
    assert status.counts == {"completed": 3, "failed": 1}
    assert status.causes[0][0] == "host_oom"
    numbers = stage.numbers()
    for token in stage.tokens()[1:]:
        for task in files.read(stage.folder(token) / "tasks.json")["tasks"]:
            assert task["alone"]
            assert task["resources"]["memory_gib"] == pytest.approx(0.6)
    assert [round(e["memory_limit_gib"], 3) for e in stage.events("end") if numbers[e["key"]] == 1] == [0.2, 0.6]
    assert all(count == 1 for key, count in stage.starts().items() if numbers[key] in (0, 3))


# -- what is tried again --------------------------------------------------------------------------------------------


def test_kills_and_cuda_oom_are_retried_up_to_their_budget(stage: Stage) -> None:
    axes = points(index=range(5), fail=["kill", "kill", "cuda_oom", "cuda_oom", "none"], fail_first=[2, 0, 1, 0, 0])
    status = stage.submit(*NOOP, *axes)
    # once beside others, once alone with the whole GPU, then with smaller micro-batches, where the workload has them
    number_of_cuda_ooms = 4 if Noop.halves_batches else 2
    assert stage.classes() == {
        0: ["killed", "killed", "completed"],
        1: ["killed"] * 4,
        2: ["cuda_oom", "completed"],
        3: ["cuda_oom"] * number_of_cuda_ooms,
        4: ["completed"],
    }
    assert status.counts == {"completed": 3, "failed": 2}
    assert {cause[0] for cause in status.causes} == {"killed", "cuda_oom"}
    assert stage.resume(where="class='killed'").counts == {"completed": 3, "failed": 2}
    assert len(stage.classes()[1]) == 8, "resume renews the budget"
    assert len(stage.classes()[3]) == 4


def test_a_time_limit_is_met_again_and_again_where_there_is_progress_and_twice_where_there_is_none(stage: Stage) -> None:
    axes = points(index=[0, 1], progress=[True, False], fail=["none", "hang"], seconds=[2.5, 0])
    status = stage.submit(*NOOP, *axes, "resources.walltime_minutes=0.03", "launcher.grace_seconds=1")
    assert status.counts == {"completed": 1, "failed": 1}
    slow, stuck = stage.classes()[0], stage.classes()[1]
    assert slow == ["timeout_progress"] * (len(slow) - 1) + ["completed"]
    assert len(slow) >= 3
    assert stuck == ["timeout", "timeout"]
    numbers = stage.numbers()
    ends = {number: [e for e in stage.events("end") if numbers[e["key"]] == number] for number in (0, 1)}
    assert [e["resumed_at"] for e in ends[0][1:]] == [e["checkpoint"] for e in ends[0][:-1]], "each goes on where the last stopped"
    assert [round(e["seconds"] / 1.8) for e in ends[1]] == [1, 2], "twice the time, once"
    shown = stage.logs("w", ends[1][0]["key"])
    assert "Current thread" in shown
    assert "in _hang" in shown


# -- a full disk ----------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("no file system may be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("room_kib", [40, 80, 100, 160, 700])
def test_a_full_disk_pauses_the_sweep_and_nothing_is_lost(stage: Stage, small_disk: Path, room_kib: int) -> None:
    stage.root = Store.init(small_disk / "store").root
    stage.submit("workload=noop", "name=before", "index=1000,1001")  # its code is frozen from now on
    stage.wait_until_quiet()
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    with (small_disk / "ballast").open("wb") as ballast:
        ballast.write(os.urandom(max(0, free - room_kib * 1024)))
    status = None
    # there may be no room for the entry that pauses the sweep either
    with contextlib.suppress(DiskFull):
        status = stage.submit(*NOOP, "index=range(0,150)")
    assert status is not None or room_kib < 700
    if status is not None:
        assert "the disk or the quota is full: free space" in status.paused
        assert status.next == "eigensweep resume w"
        assert status.counts.get("completed", 0) < 150
    stage.wait_until_quiet()
    kept = {path.name: path.read_bytes() for path in (stage.root / "commits").rglob("*.json") if path.name[0] != "."}
    subprocess.run(["mount", "-o", "remount,size=32m", str(small_disk)], check=True)
    assert stage.resume().counts == {"completed": 150}
    assert len(stage.tables()["tasks"]) == 150
    for name, data in kept.items():
        assert (stage.root / "commits" / name[:2] / name).read_bytes() == data
    assert stage.tables("before")["tasks"]
    assert not verbs.scrub(stage.root).problems
    stage.wait_until_quiet()


# -- terminals ------------------------------------------------------------------------------------------------------

LONG = (*NOOP, "index=0,1", "progress=true", "launcher.slots=2")


def test_ctrl_c_checkpoints_what_runs_and_resume_goes_on_from_there(stage: Stage) -> None:
    driver = stage.start("submit", *LONG, "seconds=4")
    stage.wait_for_running(2)
    wait_for(lambda: len(list(stage.root.glob("tasks/*/*/attempts/*/checkpoint-*.json"))) >= 2, "a checkpoint of each")
    os.killpg(driver.pid, signal.SIGINT)
    output, _ = driver.communicate(timeout=30)
    assert driver.returncode == 130, output
    assert "eigensweep resume w" in output
    assert not stage.jobs()
    assert [e["class"] for e in stage.events("end")] == ["interrupted"] * 2
    assert all(e["checkpoint"] for e in stage.events("end"))
    status = stage.status()
    assert "stopped by Ctrl-C" in status.paused
    assert status.counts == {"pending": 2}
    stage.wait_until_quiet()
    assert stage.resume().counts == {"completed": 2}
    assert all(e["resumed_at"] for e in stage.events("end")[2:])


def test_a_terminal_that_closes_takes_its_driver_and_nothing_else(stage: Stage) -> None:
    driver = stage.start("submit", *LONG, "seconds=8")
    stage.wait_for_running(2)
    os.killpg(driver.pid, signal.SIGHUP)
    driver.wait(10)
    assert len(stage.running()) == 2
    for pid in stage.processes():
        os.kill(pid, signal.SIGHUP)
    stage.wait_until_settled()
    assert stage.status().counts == {"completed": 2}
    assert set(stage.starts().values()) == {1}


def test_a_detached_sweep_is_driven_to_its_end_by_its_jobs_alone(stage: Stage) -> None:
    axes = points(index=[0, 1], fail=["kill", "none"], fail_first=[1, 0], seconds=[1.0, 0.0])
    output = stage.command("submit", "--detach", "workload=fault_package.after", "name=w", *axes)
    assert "eigensweep status w --watch" in output
    assert len(stage.running()) <= 2
    assert "w" not in stage.ledger.settled
    stage.wait_until_settled()
    assert stage.status().counts == {"completed": 4}
    assert stage.classes()[0] == ["killed", "completed"]
    assert len(stage.tokens()) == 2


# -- cancel, retract ------------------------------------------------------------------------------------------------


def test_cancel_ends_what_it_selects_and_leaves_the_others_alone(stage: Stage) -> None:
    axes = points(index=range(4), seconds=[1, 1, 3, 3])
    stage.submit(*NOOP, *axes, "progress=true", "launcher.slots=4", detach=True)
    stage.wait_for_running(4)
    output = stage.command("cancel", "w", "where=index >= 2")
    assert "index=2" in output
    assert "index=0" not in output
    stage.wait_until_settled()
    assert stage.status().counts == {"completed": 2, "cancelled": 2}
    assert stage.classes() == {0: ["completed"], 1: ["completed"], 2: ["cancelled"], 3: ["cancelled"]}
    assert stage.resume(where="index=2").counts == {"completed": 3, "cancelled": 1}
    assert stage.classes()[2] == ["cancelled", "completed"]


def test_what_is_retracted_is_computed_again_with_all_that_stands_on_it(stage: Stage) -> None:
    words = ["workload=fault_package.after", "index=range(0,4)", "name=w"]
    stage.submit(*words)
    tables = stage.tables()
    verbs.retract("w", "index=1 and workload='noop'", "a trial", stage.root)
    assert stage.status().counts == {"completed": 6, "pending": 2}
    assert {row["index"] for row in stage.tables()["scalars"]} == {0, 2, 3}
    assert stage.submit(*words).counts == {"completed": 8}
    numbers = stage.numbers()
    assert {numbers[key] for key, count in stage.starts().items() if count == 2} == {1, 1001}
    again = stage.tables()
    assert again["scalars"] == tables["scalars"]
    assert {row["generation"] for row in again["tasks"] if row["index"] == 1} == {1}


# -- files that cannot be trusted -----------------------------------------------------------------------------------

HARM: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "a byte short": lambda data: data[:-2],
    "a changed digit": lambda data: data.replace(b'"0', b'"1', 1) if b'"0' in data else data[:-3] + b"7" + data[-2:],
    "a flipped bit": lambda data: data[: len(data) * 2 // 3] + bytes([data[len(data) * 2 // 3] ^ 1]) + data[len(data) * 2 // 3 + 1 :],
    "noise": lambda data: os.urandom(len(data)),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a finished sweep of two no-ops and what stands on them, copied by those that harm it."""
    root = Store.init(tmp_path_factory.mktemp("finished") / "store").root
    stage = Stage(root)
    runtime, path = os.environ.get("XDG_RUNTIME_DIR"), os.environ.get("PYTHONPATH")
    os.environ |= {"XDG_RUNTIME_DIR": str(root.parent), "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    try:
        stage.submit("workload=fault_package.after", "index=0,1", "name=w")
        stage.wait_until_quiet()
    finally:
        for name, value in (("XDG_RUNTIME_DIR", runtime), ("PYTHONPATH", path)):
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    return root


@pytest.fixture
def harmed(stage: Stage, finished: Path) -> Stage:
    """A copy."""
    subprocess.run(["cp", "-a", f"{finished}/.", str(stage.root)], check=True)
    return stage


@pytest.mark.parametrize("harm", HARM)
def test_a_garbled_commit_is_in_no_table_and_is_named(harmed: Stage, harm: str) -> None:
    for path in (harmed.root / "dataset").rglob("*.*"):
        path.unlink()  # else its rows are read from there
    number = {n: key for key, n in harmed.numbers().items()}
    path = taskdir.commit_path(harmed.root, number[0])
    damage(path, harm)
    (finding,) = [one for one in verbs.scrub(harmed.root).problems if "commits" in one.path]
    assert finding.path == str(path.relative_to(harmed.root))
    assert "retract" in finding.cure
    results = verbs.load("w", harmed.root, mixed_code=True)
    with pytest.warns(UserWarning, match=number[0]):
        rows = results.scalars()
    assert number[0] not in rows.collect()["key"].to_list()
    assert set(results.garbled) == {number[0]}
    with pytest.raises(Garbled, match=number[0]):
        harmed.commit(number[0])


def test_a_garbled_input_is_never_read_and_its_dependent_not_sent_for_ever(harmed: Stage) -> None:
    number = {n: key for key, n in harmed.numbers().items()}
    verbs.retract("w", "index=0 and workload='fault_package.after'", "a trial", harmed.root)
    damage(taskdir.commit_path(harmed.root, number[0]), "half")
    status = harmed.submit("workload=fault_package.after", "index=0,1", "name=w")
    assert status.counts.get("completed", 0) <= 3
    assert len(harmed.tokens()) <= 6
    assert any("scrub" in cause[2] or number[0] in cause[2] for cause in status.causes), status
    # the cure that scrub names
    verbs.retract("w", f"key='{number[0]}'", "garbled", harmed.root)
    assert harmed.submit("workload=fault_package.after", "index=0,1", "name=w", retry=True).counts == {"completed": 4}


def test_a_garbled_commit_whose_hint_is_lost_is_taken_back_and_computed_again(harmed: Stage) -> None:
    number = {n: key for key, n in harmed.numbers().items()}
    tables = harmed.tables()
    damage(taskdir.commit_path(harmed.root, number[1000]), "noise")
    (harmed.root / "sweeps" / "w" / "committed-000001.json").unlink()
    for path in (harmed.root / "dataset").rglob("*.*"):
        path.unlink()  # else its rows are read from there
    words = ["workload=fault_package.after", "index=0,1", "name=w"]
    harmed.submit(*words)
    assert set(harmed.starts().values()) == {1}, "its place is taken, so it is not sent"
    (finding,) = [one for one in verbs.scrub(harmed.root).problems if "commits" in one.path]
    assert "retract" in finding.cure
    assert len(verbs.retract("w", f"key='{number[1000]}'", "garbled", harmed.root)) == 1
    assert harmed.submit(*words).counts == {"completed": 4}
    assert harmed.tables()["scalars"] == tables["scalars"]


@pytest.mark.parametrize("harm", HARM)
def test_a_garbled_manifest_stops_every_verb_by_its_name(harmed: Stage, harm: str) -> None:
    path = harmed.root / "sweeps" / "w" / "manifest-000001.json"
    damage(path, harm)
    for verb in (harmed.status, harmed.resume, lambda: verbs.load("w", harmed.root)):
        with pytest.raises(Garbled, match=str(path)):
            verb()
    assert str(path.relative_to(harmed.root)) in [one.path for one in verbs.scrub(harmed.root).problems]
    assert not harmed.processes()


@pytest.mark.parametrize("harm", HARM)
def test_a_garbled_ledger_entry_stops_every_verb_by_its_name(harmed: Stage, harm: str) -> None:
    for path in (harmed.root / "dataset").glob("MANIFEST-*"):
        path.unlink()  # else what the entry said is known from there
    path = harmed.root / "ledger" / "00000002.json"
    damage(path, harm)
    for verb in (harmed.status, harmed.resume, lambda: verbs.load("w", harmed.root), lambda: verbs.tick(harmed.root)):
        with pytest.raises(Garbled, match=str(path)):
            verb()
    assert str(path.relative_to(harmed.root)) in [one.path for one in verbs.scrub(harmed.root).problems]
    assert "00000002.json" in harmed.command("status", "w", code=1) if harm == "half" else True
    assert not harmed.processes()


def test_a_garbled_list_of_tasks_is_not_run_and_its_tasks_are_sent_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator.launchers.local import Local

    submit, harmed = Local.submit, []

    def submit_after_damage(self: Local, root: Path, token: str, submission: Any, code_path: Path) -> Any:
        if not harmed:
            harmed.append(token)
            damage(stage.folder(token) / "tasks.json", "half")
        return submit(self, root, token, submission, code_path)

    monkeypatch.setattr(Local, "submit", submit_after_damage)
    assert stage.submit(*NOOP, "index=0,1").counts == {"completed": 2}
    (token,) = harmed
    assert "tasks.json" in (stage.folder(token) / "log").read_text()
    assert "scrub" in (stage.folder(token) / "log").read_text()
    assert stage.status().num_diverged == 0
    assert f"batches/{token}/tasks.json" in [one.path for one in verbs.scrub(stage.root).problems]
    stage.wait_until_quiet()


def damage(path: Path, harm: str) -> None:
    """Another content under the same name (not through the same inode: a store is copied by links elsewhere)."""
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(HARM[harm](data))
    assert path.read_bytes() != data


# -- inodes ---------------------------------------------------------------------------------------------------------


def test_a_packed_task_costs_at_most_two_inodes(stage: Stage) -> None:
    stage.submit("workload=noop", "name=one", "index=0")
    stage.wait_until_quiet()
    before = num_inodes(stage.root)
    stage.submit("workload=noop", "name=many", "index=range(1,401)")
    stage.wait_until_quiet()
    per_task = (num_inodes(stage.root) - before) / 400
    print(f"{per_task:.2f} inodes a task")
    assert per_task <= 2
    assert not list(stage.root.glob("tasks/*"))


def num_inodes(root: Path) -> int:
    """Files and folders, each inode once."""
    return len({path.lstat().st_ino for path in root.rglob("*")})
