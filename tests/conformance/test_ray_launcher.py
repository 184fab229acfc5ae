"""The suite for every launcher, on a Ray cluster that is there; and what only this launcher does."""

import os
import signal
import time

import pytest
from batches import REPOSITORY, Batch, act, is_gone, noop, own_slots, wait_for  # noqa: F401
from ray_here import held, needs_ray, ray_here  # noqa: F401

from orchestrator.batches import write as write_batches
from orchestrator.launchers import ray as module
from orchestrator.launchers.launcher import (
    ENDED,
    QUEUED,
    RUNNING,
    SchedulerSilent,
    SubmissionRefused,
    SubmissionUnknown,
)
from orchestrator.launchers.ray import Ray
from tests.conformance.test_launchers import (  # noqa: F401
    TOKEN,
    _tests_on_the_path,
    state,
    submit,
    test_a_batch_runs_inputs_first_and_is_told_to_have_ended,
    test_a_batch_submitted_twice_runs_once,
    test_a_batch_that_nobody_submitted_has_no_record,
    test_batches_carry_every_task_once,
    test_cancelling_what_has_ended_or_never_was_does_nothing,
    test_every_launcher_is_a_file_of_settings_that_reads_back,
    wait_for_end,
)
from workers import files, taskdir
from workers.processes import Process

pytestmark = [needs_ray, pytest.mark.usefixtures("own_slots", "ray_here")]


@pytest.fixture
def launcher() -> Ray:
    return Ray(address=held().address, max_jobs=1, slots=2, grace_seconds=0.5)


def receipt(batch: Batch) -> Process:
    return Process.parse(files.read(batch.folder / "receipt.json")["job"])


def test_a_job_runs_until_its_tasks_end_and_then_ticks(launcher, root, tmp_path):
    file = tmp_path / "go"
    batch = submit(launcher, root, [act(1, "wait", file=str(file))])
    batch.wait_for_start(1)
    found = launcher.states(root, [TOKEN])[TOKEN]
    assert (found.state, found.nodes) == (RUNNING, (receipt(batch).host,))
    file.touch()
    wait_for_end(launcher, batch)
    assert batch.end(1)["class"] == "completed"


@pytest.mark.slow
def test_a_job_for_which_there_is_no_room_yet_is_queued_and_ends_at_once_when_it_is_cancelled(launcher, root, tmp_path):
    file = tmp_path / "go"
    tokens = [f"s-{number:012x}" for number in range(3)]
    batches = [submit(launcher, root, [act(n, "wait", file=str(file))], token) for n, token in enumerate(tokens)]
    wait_for(lambda: sum(batch.started(n) for n, batch in enumerate(batches)) == 2, "two jobs to fill the nodes")
    states = launcher.states(root, tokens)
    (waiting,) = [token for token in tokens if states[token].state == QUEUED]
    assert states[waiting].reason == "waits for room in Ray"
    launcher.cancel(root, [waiting])
    assert launcher.states(root, [waiting])[waiting].reason == "ended before it began"
    file.touch()
    for batch in batches:
        wait_for_end(launcher, batch)
    assert sum(bool(batch.outcomes()) for batch in batches) == 2


def test_a_killed_job_is_told_to_be_dead(launcher, root):
    batch = submit(launcher, root, [noop(1, seconds=600)])
    batch.wait_for_start(1)
    receipt(batch).signal(signal.SIGKILL)
    wait_for_end(launcher, batch)
    found = launcher.states(root, [TOKEN])[TOKEN]
    assert (found.state, found.reason) == (ENDED, "killed")
    assert batch.outcomes() == {}


@pytest.mark.slow
def test_a_job_dies_with_its_actor(launcher, root):
    batch = submit(launcher, root, [noop(1, seconds=600)])
    batch.wait_for_start(1)
    launcher._ask("end", names=[module._name(root, TOKEN)])
    wait_for(lambda: is_gone(receipt(batch).pid), "the job to end")
    assert state(launcher, batch) == ENDED


def test_cancel_warns_a_job_once_and_kills_it_after_the_grace(root, monkeypatch):
    patient = Ray(address=held().address, max_jobs=1, grace_seconds=600.0)
    batch = submit(patient, root, [noop(1, fail="hang")])
    batch.wait_for_start(1)
    patient.cancel(root, [TOKEN])
    wait_for(lambda: "SIGTERM received" in batch.log(), "the warning")
    patient.cancel(root, [TOKEN])
    assert not is_gone(receipt(batch).pid)
    assert batch.log().count("SIGTERM received") == 1, "a second signal would have killed the tasks at once"
    monkeypatch.setattr(module._processes, "JOB_GRACE_SECONDS", 0.0)
    Ray(address=held().address, grace_seconds=0.0).cancel(root, [TOKEN])
    wait_for(lambda: is_gone(receipt(batch).pid), "the job to be killed")


def test_what_no_node_could_ever_run_is_refused_with_what_the_nodes_have(root):
    large = Ray(address=held().address, slots=64)
    with pytest.raises(SubmissionRefused, match=r"no node .* a job with 64 CPUs, .* they have 2 CPUs, .*launcher\.slots"):
        submit(large, root, [noop(1)])


def test_a_ray_that_is_not_there_refuses_jobs_and_says_nothing_of_those_it_had(root):
    nowhere = Ray(address="127.0.0.1:1")
    with pytest.raises(SubmissionRefused, match=r"'127\.0\.0\.1:1'.*ray status"):
        submit(nowhere, root, [noop(1)])
    with pytest.raises(SchedulerSilent, match=r"127\.0\.0\.1:1"):
        nowhere.states(root, [TOKEN])


def test_an_answer_that_does_not_come_leaves_it_open_whether_the_job_is_queued(root, monkeypatch):
    monkeypatch.setattr(module, "_ORDERS", "platform")  # a module that runs, and gives no answer
    with pytest.raises(SubmissionUnknown, match="gives no answer"):
        submit(Ray(address=held().address), root, [noop(1)])
    monkeypatch.setattr(module, "_ORDERS", "http.server")  # one that never ends
    with pytest.raises(SchedulerSilent, match="gives no answer within 2 s"):
        Ray(address="0", answer_seconds=2.0).states(root, [TOKEN])


def test_without_an_address_a_job_has_a_ray_of_its_own_that_is_gone_with_it(root, tmp_path):
    own = Ray(slots=1)
    file = tmp_path / "go"
    batch = submit(own, root, [act(1, "wait", file=str(file))])
    batch.wait_for_start(1)
    assert state(own, batch) == RUNNING
    holder = Process.parse(files.read(batch.folder / "job.json")["job_id"])
    file.touch()
    wait_for_end(own, batch)
    wait_for(lambda: not holder.alive, "its Ray to end")
    assert batch.end(1)["class"] == "completed"


def test_jobs_are_of_equal_length_and_keep_tasks_together_that_stand_on_one_another():
    tasks = [noop(0), noop(1), noop(2, inputs={"a": 1}), noop(3), noop(4), noop(5, inputs={"a": 4}), noop(6)]
    for seconds in ({}, {taskdir.shape_name("noop", tasks[0].resources): 0.0}):
        (one,) = Ray(address="auto", max_jobs=3).cut(tasks, seconds)
        jobs = [[task.key for task in job] for job in one.jobs]
        assert sorted(map(len, jobs)) == [2, 2, 3]
        assert any({tasks[1].key, tasks[2].key} <= set(job) for job in jobs)
        for job in jobs:
            assert job == [task.key for task in tasks if task.key in job], "inputs first"


def test_jobs_that_ask_for_different_things_are_submitted_apart():
    tasks = [noop(0), noop(1, resources={"memory_gib": 2.0}), noop(2), noop(3, resources={"memory_gib": 2.0})]
    found = Ray(address="auto", max_jobs=3).cut(tasks, {})
    assert [(one.request["memory_gib"], len(one.jobs)) for one in found] == [(0.25, 2), (2.0, 2)]


def test_several_jobs_of_a_submission_run_beside_one_another(root, tmp_path):
    several = Ray(address=held().address, max_jobs=2)
    tasks = [act(n, "wait", file=str(tmp_path / "go")) for n in range(2)]
    (submission,) = several.cut(tasks, {})
    body = {"token": TOKEN, "sweep": "s", "snapshot": "x", "code": "c0de", "launcher": several.to_plain(), "request": submission.request}
    write_batches(root, TOKEN, body, submission.jobs)
    several.submit(root, TOKEN, submission, REPOSITORY)
    batches = [Batch(root, f"{TOKEN}/{number}") for number in range(2)]
    wait_for(lambda: all(sum(batch.started(n) for n in range(2)) for batch in batches), "both to run")
    (tmp_path / "go").touch()
    for batch in batches:
        wait_for_end(several, batch)
    assert sorted(outcome for batch in batches for outcome in batch.outcomes().values()) == ["completed"] * 2


def test_a_ray_of_our_own_has_one_job_on_all_cpus_of_this_machine():
    own = Ray(max_jobs=3)
    (one,) = own.cut([noop(n) for n in range(6)], {})
    assert one.request["slots"] == own.num_slots() == len(os.sched_getaffinity(0))
    assert Ray(address="auto", max_jobs=3, slots=2).num_slots() == 6


def test_a_job_asks_for_its_largest_task():
    tasks = [noop(1, resources={"cpus": 3}), noop(2, inputs={"a": 1}, resources={"memory_gib": 2.0, "gpus": 1})]
    (one,) = Ray(address="auto", slots=2).cut(tasks, {})
    assert one.request == {"slots": 3, "cpus_per_slot": 1, "memory_gib": 4.0, "gpus": 1}


def test_grace_is_counted_by_one_machine_s_clock(root):
    Batch.write(root, [noop(1)])
    module._note(root, TOKEN, job_id="x", cancelled_at=-1e9, boot="another machine's")
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    told = module._told(root, TOKEN)
    assert told is not None and told >= before
    assert module._told(root, TOKEN) == told
