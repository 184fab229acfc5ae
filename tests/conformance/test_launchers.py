"""One suite for every launcher file: what is submitted runs once, its state is told, and nothing is made up."""

import os
import signal
from pathlib import Path

import pytest
from batches import REPOSITORY, Batch, act, is_gone, key, noop, own_slots, wait_for  # noqa: F401

from orchestrator.launchers import _processes
from orchestrator.launchers.launcher import ENDED, QUEUED, RUNNING, Launcher, Submission
from workers import files, plugins, taskdir
from workers.processes import Process
from workers.taskdir import Task

pytestmark = pytest.mark.usefixtures("own_slots")
NAMES = [name for name in plugins.names("launchers", "orchestrator") if name in ("local", "inline")]
TOKEN = "s-0123456789ab"


@pytest.fixture(params=NAMES)
def launcher(request: pytest.FixtureRequest) -> Launcher:
    return plugins.load("launchers", request.param, "orchestrator")()


@pytest.fixture
def local() -> Launcher:
    return plugins.load("launchers", "local", "orchestrator")(slots=2, grace_seconds=0.5)


@pytest.fixture(autouse=True)
def _tests_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY / "tests"))


def submit(launcher: Launcher, root: Path, tasks: list[Task], token: str = TOKEN) -> Batch:
    """Write the batch as a driver does and submit it."""
    (submission,) = launcher.cut(tasks, {})
    batch = Batch.write(root, tasks, token, request=submission.request, **launcher.to_plain())
    assert launcher.submit(root, token, submission, REPOSITORY)
    return batch


def state(launcher: Launcher, batch: Batch) -> str:
    return launcher.states(batch.root, [batch.token])[batch.token].state


def wait_for_end(launcher: Launcher, batch: Batch) -> None:
    wait_for(lambda: state(launcher, batch) == ENDED, f"the end of the job; {batch.log()}")


def test_every_launcher_is_a_file_of_settings_that_reads_back(launcher):
    assert type(launcher).from_plain(launcher.to_plain()) == launcher


def test_a_batch_runs_inputs_first_and_is_told_to_have_ended(launcher, root):
    batch = submit(launcher, root, [noop(1), noop(2, inputs={"a": 1}), noop(3, fail="exception"), noop(4, inputs={"a": 3})])
    wait_for_end(launcher, batch)
    assert batch.outcomes() == {key(1): "completed", key(2): "completed", key(3): "user_error"}
    assert batch.over == "finished"
    assert launcher.states(root, [TOKEN])[TOKEN].reason in ("finished", "COMPLETED")
    assert batch.end(3)["error"]["fingerprint"]


def test_a_batch_submitted_twice_runs_once(launcher, root):
    batch = submit(launcher, root, [noop(1)])
    wait_for_end(launcher, batch)
    before = batch.events()
    (submission,) = launcher.cut([noop(1)], {})
    launcher.submit(root, TOKEN, submission, REPOSITORY)
    wait_for_end(launcher, batch)
    assert batch.events() == before


def test_a_batch_that_nobody_submitted_has_no_record(launcher, root):
    Batch.write(root, [noop(1)], "s-000000000001")  # a scheduler remembers the names of jobs, so one that no other test has
    assert launcher.states(root, ["s-000000000001"]) == {}


def test_batches_carry_every_task_once(launcher):
    tasks = [noop(n) for n in range(5)]
    assert sorted(task.key for batch in launcher.batches(tasks) for task in batch) == sorted(task.key for task in tasks)
    assert launcher.batches([]) == []


def test_cancelling_what_has_ended_or_never_was_does_nothing(launcher, root):
    batch = submit(launcher, root, [noop(1)])
    wait_for_end(launcher, batch)
    launcher.cancel(root, [TOKEN, "s-ffffffffffff"])
    assert batch.is_committed(1)


# -- local ----------------------------------------------------------------------------------------------------------


def test_a_local_job_is_running_until_its_tasks_end_and_then_ticks(local, root, tmp_path):
    file = tmp_path / "go"
    batch = submit(local, root, [act(1, "wait", file=str(file))])
    batch.wait_for_start(1)
    assert state(local, batch) == RUNNING
    shell = Process.parse(files.read(batch.folder / "job.json")["job_id"])
    assert os.getsid(shell.pid) == shell.pid != os.getsid(0)
    file.touch()
    wait_for_end(local, batch)
    wait_for(lambda: not shell.alive, "the shell, with its tick, to end")
    assert batch.end(1)["class"] == "completed"


def test_a_local_job_without_a_free_slot_is_queued(local, root, tmp_path):
    file = tmp_path / "go"
    many = type(local)(slots=max(2, len(os.sched_getaffinity(0))))
    first = submit(many, root, [act(n, "wait", file=str(file)) for n in range(many.slots)])
    wait_for(lambda: all(first.started(n) for n in range(many.slots)), "all slots to be taken")
    second = submit(local, root, [noop(50)], "s-00000000000b")
    wait_for(lambda: files.names(second.folder).count("heartbeat.json"), "the second job")
    assert state(local, second) == QUEUED
    file.touch()
    wait_for_end(many, first)
    wait_for_end(local, second)
    assert second.end(50)["class"] == "completed"


def test_a_killed_local_job_is_told_to_be_dead(local, root):
    batch = submit(local, root, [noop(1, seconds=600)])
    batch.wait_for_start(1)
    job = Process.parse(files.read(batch.folder / "receipt.json")["job"])
    job.signal(signal.SIGKILL)
    wait_for_end(local, batch)
    found = local.states(root, [TOKEN])[TOKEN]
    assert (found.state, found.reason) == (ENDED, "killed")
    assert batch.outcomes() == {}


def test_cancel_warns_a_local_job_once_and_kills_it_after_the_grace(local, root, monkeypatch):
    patient = type(local)(slots=2, grace_seconds=600.0)
    batch = submit(patient, root, [noop(1, fail="hang")])
    batch.wait_for_start(1)
    job = Process.parse(files.read(batch.folder / "receipt.json")["job"])
    patient.cancel(root, [TOKEN])
    wait_for(lambda: "SIGTERM received" in batch.log(), "the warning")
    assert job.alive
    patient.cancel(root, [TOKEN])
    assert batch.log().count("SIGTERM received") == 1, "a second signal would have killed the tasks at once"
    monkeypatch.setattr(_processes, "JOB_GRACE_SECONDS", 0.0)
    type(local)(grace_seconds=0.0).cancel(root, [TOKEN])
    wait_for(lambda: is_gone(job.pid), "the job to be killed")
    assert state(local, batch) == ENDED


def test_a_job_whose_driver_died_before_noting_it_is_found(local, root, tmp_path):
    file = tmp_path / "go"
    batch = submit(local, root, [act(1, "wait", file=str(file))])
    (batch.folder / "job.json").unlink()
    assert state(local, batch) in (QUEUED, RUNNING)
    batch.wait_for_start(1)
    assert state(local, batch) == RUNNING
    file.touch()
    wait_for_end(local, batch)


def test_the_job_runs_the_frozen_code_before_the_caller_s(local, root, tmp_path):
    frozen = tmp_path / "frozen"
    (frozen / "job_package").mkdir(parents=True)
    source = (REPOSITORY / "tests/job_package/act.py").read_text()
    (frozen / "job_package/__init__.py").touch()
    (frozen / "job_package/act.py").write_text(source.replace("value=float(self.index)", "value=-1.0"))
    for package in ("workers", "orchestrator"):
        (frozen / package).symlink_to(REPOSITORY / package)
    batch = Batch.write(root, [act(5, "rows")], **local.to_plain())
    local.submit(root, TOKEN, Submission(jobs=[[act(5, "rows")]]), frozen)
    wait_for_end(local, batch)
    assert taskdir.read_commit(root, key(5)).rows["scalars"]["value"] == [-1.0]


# -- inline ---------------------------------------------------------------------------------------------------------


def test_an_inline_error_reaches_the_debugger(root):
    inline = plugins.load("launchers", "inline", "orchestrator")(raise_errors=True)
    with pytest.raises(KeyError, match="index 1"):
        submit(inline, root, [act(1, "fail")])
