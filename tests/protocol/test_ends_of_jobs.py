"""What a scheduler says of a job decides what becomes of the tasks that the job left unended."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator import submit
from orchestrator import tick as ticking
from orchestrator.code import Frozen
from orchestrator.compose import compose
from orchestrator.launchers.launcher import JobState, SchedulerSilent, SubmissionRefused, SubmissionUnknown
from orchestrator.store import Store
from orchestrator.sweep import expand
from orchestrator.watch import Watch
from tests.protocol.scripted import JOBS, ZOMBIES, Job, Scripted
from workers import files, taskdir
from workers.execute import Ended

FROZEN = Frozen(snapshot="snapshot", code="code", path=Path("/nowhere"))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    JOBS.clear()
    ZOMBIES.clear()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(submit.code, "freeze", lambda *arguments, **options: FROZEN)
    return Store.init(tmp_path / "store")


class Told:
    """What the scheduler says in the place of what is: token -> JobState."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.says: dict[str, JobState] = {}
        self.calls = 0
        real = Scripted.states

        def states(launcher: Scripted, root: Path, tokens: list[str]) -> dict[str, JobState]:
            self.calls += 1
            return real(launcher, root, tokens) | {token: self.says[token] for token in tokens if token in self.says}

        monkeypatch.setattr(Scripted, "states", states)

    def end(self, job: Job, cause: str, **more: Any) -> None:
        job.alive = job.listed = False
        self.says[job.token] = JobState(state="ended", job_id="7", reason=cause.upper(), cause=cause, **more)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    return Told(monkeypatch)


def sent(store: Store, index: str = "0,1,2", *words: str) -> Job:
    """A sweep of which one job carries the tasks (three at most)."""
    sweep = expand(compose(["name=a", "workload=noop", f"index={index}", "launcher=tests.protocol.scripted", *words]))
    submit._activate(Watch.of(store), sweep, FROZEN, [], [])
    ticking.tick(Watch.of(store), ["a"])
    return next(iter(JOBS.values()))


def run_one_and_leave_one(job: Job) -> None:
    job.begin()
    assert job.start_next()
    job.record(job.commit_running())
    assert job.start_next()


def outcomes(store: Store) -> list[list[str]]:
    """Classes of each task's attempts, in the sweep's order."""
    watch = Watch.of(store)
    return [[one["class"] for one in watch.ledger.outcomes.get(key, [])] for key in watch.sweep("a").keys]


@pytest.mark.parametrize("cause", ["host_oom", "node_failure", "killed", "timeout"])
def test_only_what_had_started_and_not_ended_is_charged_with_the_cause(store: Store, told: Told, cause: str) -> None:
    job = sent(store)
    run_one_and_leave_one(job)
    told.end(job, cause, peak_memory_mib=300.0)
    ticking.tick(Watch.of(store), ["a"])
    assert outcomes(store) == [[], [cause], []]
    assert len(JOBS) == 2
    assert [task.key for task in list(JOBS.values())[1].tasks] == Watch.of(store).sweep("a").keys[1:]


def test_a_time_limit_after_a_new_checkpoint_is_progress(store: Store, told: Told) -> None:
    job = sent(store)
    run_one_and_leave_one(job)
    assert job.running is not None
    task, attempt = job.running
    folder = taskdir.attempt_dir(store.root, task.commit_name, attempt)
    files.make_dirs(folder)
    (folder / "checkpoint-000000000003.json").touch()
    told.end(job, "timeout")
    ticking.tick(Watch.of(store), ["a"])
    assert outcomes(store) == [[], ["timeout_progress"], []]


def test_preemption_costs_nothing_however_often(store: Store, told: Told) -> None:
    sent(store)
    for _ in range(8):
        job = list(JOBS.values())[-1]
        job.begin()
        job.start_next()
        told.end(job, "preempted")
        ticking.tick(Watch.of(store), ["a"])
    assert outcomes(store) == [[], [], []]
    assert len(JOBS) == 9


@pytest.mark.parametrize("warned", [True, False])
def test_a_job_that_the_user_ended_takes_its_tasks_out_of_the_sweep_until_resumed(store: Store, told: Told, warned: bool) -> None:
    job = sent(store)
    run_one_and_leave_one(job)
    if warned:
        assert job.running is not None
        job.record(Ended(outcome="interrupted"))
    told.end(job, "cancelled")
    ticking.tick(Watch.of(store), ["a"])
    assert Watch.of(store).states("a").states == ["completed", "cancelled", "cancelled"]
    submit.resume("a", store, detach=True)
    assert Watch.of(store).states("a").states == ["completed", "queued", "queued"]


def test_what_a_run_lost_before_a_requeue_is_charged_by_its_own_cause(store: Store, told: Told) -> None:
    job = sent(store)
    job.begin()
    job.start_next()
    job.alive = False
    again = job.requeue()
    again.begin()
    again.start_next()
    again.alive = False
    last = again.requeue()
    last.run = 2
    last.begin()
    last.start_next()
    told.end(last, "host_oom", earlier=("node_failure", "preempted"))
    ticking.tick(watch := Watch.of(store), ["a"])
    assert outcomes(store) == [["node_failure", "host_oom"], [], []]
    assert [one["keys"] for one in watch.ledger.lost_hosts["h"]] == [[job.tasks[0].key]]


def test_runs_are_told_apart_by_the_scheduler_s_numbers(store: Store, told: Told) -> None:
    """One of them died before its first act."""
    job = sent(store)
    folder = taskdir.batch_dir(store.root, job.token)
    files.make_dirs(folder)
    for run, restart in enumerate((0, 2)):
        slurm = {"job_id": "7", "restart": restart, "node": f"n{restart}"}
        files.publish(folder / taskdir.receipt_name(run), files.encode({"job": job.token, "host": "h", "slurm": slurm}))
        job.run = run
        files.make_dirs(taskdir.run_dir(folder, run))
        job.start_next()
    told.end(job, "host_oom", earlier=("preempted", "node_failure"))
    ticking.tick(watch := Watch.of(store), ["a"])
    assert outcomes(store)[0] == ["host_oom"]
    assert watch.ledger.lost_hosts == {}


def test_a_node_that_failed_is_remembered_though_its_job_finished_elsewhere(store: Store, told: Told) -> None:
    job = sent(store)
    job.begin()
    key = job.tasks[0].key
    assert job.start_next()
    again = job.requeue()
    again.begin()
    while again.start_next():
        again.record(again.commit_running())
    again.end()
    told.end(again, "", earlier=("node_failure",))
    ticking.tick(watch := Watch.of(store), ["a"])
    assert [one["keys"] for one in watch.ledger.lost_hosts["h"]] == [[key]]
    assert outcomes(store) == [[], [], []]


def test_a_host_is_left_out_after_two_failures_unless_one_task_was_there_each_time() -> None:
    ledger = Watch(Store(Path("/nowhere"))).ledger
    for host, times in {"n1": ["a", "b"], "n2": ["a", "ab"], "n3": ["a"], "n4": ["", "a"]}.items():
        for number, keys in enumerate(times):
            ledger._lost_host(host, 1000.0 * number, list(keys))
    assert ledger.bad_hosts() == ["n1", "n4"]


def test_jobs_that_died_together_count_as_one_failure_of_their_host() -> None:
    """Else the neighbours of a task that crashes each of its nodes would have all of them left out."""
    ledger = Watch(Store(Path("/nowhere"))).ledger
    for time, key in ((0.0, "crash"), (9.0, "a"), (-9.0, "b"), (500.0, "crash"), (501.0, "c")):
        ledger._lost_host("n1", time, [key])
    assert [one["keys"] for one in ledger.lost_hosts["n1"]] == [["a", "b", "crash"], ["c", "crash"]]
    assert ledger.bad_hosts() == []


def test_a_job_that_failed_before_its_first_act_is_charged_to_all_its_tasks(store: Store, told: Told) -> None:
    told.end(sent(store), "killed", exit_code=1)
    ticking.tick(Watch.of(store), ["a"])
    assert outcomes(store) == [["never_started"]] * 3
    message = Watch.of(store).ledger.outcomes[Watch.of(store).sweep("a").keys[0]][0]["message"]
    assert "KILLED, exit code 1" in message


def test_a_silent_scheduler_changes_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    job = sent(store)
    job.begin()
    job.alive = job.listed = False

    def states(*arguments: Any) -> Any:
        raise SchedulerSilent("slurmctld does not answer")

    monkeypatch.setattr(Scripted, "states", states)
    done = ticking.tick(watch := Watch.of(store), ["a"])
    assert (done.closed, done.submitted) == (0, 0)
    assert watch.silent == {job.token: "slurmctld does not answer"}


def test_the_scheduler_is_asked_once_for_all_sweeps(store: Store, told: Told) -> None:
    for name in ("a", "b", "c"):
        sweep = expand(
            compose([f"name={name}", "workload=noop", "index=range(0,9)", f"seconds=0.{ord(name)}", "launcher=tests.protocol.scripted"])
        )
        submit._activate(Watch.of(store), sweep, FROZEN, [], [])
    ticking.tick(Watch.of(store))
    told.calls = 0
    ticking.tick(Watch.of(store))
    assert (told.calls, len(JOBS)) == (1, 9)


# -- submissions that go wrong --------------------------------------------------------------------------------------------


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception, *, queued: bool = False) -> list[int]:
    real, calls = Scripted.submit, [0]

    def submit_(launcher: Scripted, *arguments: Any) -> str:
        calls[0] += 1
        if calls[0] > 1:
            return real(launcher, *arguments)
        if queued:
            real(launcher, *arguments)
        raise error

    monkeypatch.setattr(Scripted, "submit", submit_)
    return calls


def test_a_limit_of_the_moment_leaves_the_tasks_pending(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = failing(monkeypatch, SubmissionRefused("QOSMaxSubmitJobPerUserLimit", temporary=True))
    sweep = expand(compose(["name=a", "workload=noop", "index=0,1", "launcher=tests.protocol.scripted"]))
    submit._activate(Watch.of(store), sweep, FROZEN, [], [])
    ticking.tick(watch := Watch.of(store), ["a"])
    assert watch.waiting == {"a": "QOSMaxSubmitJobPerUserLimit"}
    assert watch.states("a").states == ["pending", "pending"]
    assert files.names(store.root / "batches") == []
    ticking.tick(watch, ["a"])
    assert (calls, watch.waiting, watch.states("a").states) == ([2], {}, ["queued", "queued"])


def test_what_the_scheduler_will_never_take_pauses_the_sweep(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, SubmissionRefused("Invalid account"))
    sweep = expand(compose(["name=a", "workload=noop", "index=0,1", "launcher=tests.protocol.scripted"]))
    submit._activate(Watch.of(store), sweep, FROZEN, [], [])
    ticking.tick(watch := Watch.of(store), ["a"])
    assert watch.ledger.paused == {"a": "Invalid account"}
    assert JOBS == {}


@pytest.mark.parametrize("queued", [True, False])
def test_a_lost_answer_is_cleared_up_by_the_job_s_name(store: Store, monkeypatch: pytest.MonkeyPatch, queued: bool) -> None:
    monkeypatch.setattr(Scripted, "doubt_seconds", 0.05)
    failing(monkeypatch, SubmissionUnknown("Socket timed out"), queued=queued)
    sweep = expand(compose(["name=a", "workload=noop", "index=0,1", "launcher=tests.protocol.scripted"]))
    submit._activate(Watch.of(store), sweep, FROZEN, [], [])
    ticking.tick(watch := Watch.of(store), ["a"])
    assert "Socket timed out" in watch.waiting["a"]
    assert watch.states("a").states == ["queued", "queued"]
    ticking.tick(watch, ["a"])
    assert len(JOBS) == queued, "unknown means alive, until it has looked so for a while"
    ticking.settle(watch, 10.0)
    assert len(JOBS) == 1
    (job,) = JOBS.values()
    job.begin()
    assert job.begun


def test_a_job_that_begins_after_it_was_given_up_leaves_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    job = sent(store)
    job.listed = False
    ticking.tick(Watch.of(store), ["a"])
    assert len(JOBS) == 2
    job.begin()
    assert not job.begun


def test_a_cancel_that_the_scheduler_does_not_hear_reaches_the_jobs_when_they_begin(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    job = sent(store)

    def deaf(*arguments: Any) -> None:
        raise SchedulerSilent("slurmctld does not answer")

    monkeypatch.setattr(Scripted, "cancel", deaf)
    with pytest.raises(SchedulerSilent, match="drop them when they begin"):
        submit.cancel("a", store)
    (order,) = [name for name in files.names(taskdir.batch_dir(store.root, job.token)) if name.startswith("cancel-")]
    assert files.read(taskdir.batch_dir(store.root, job.token) / order) == {"keys": Watch.of(store).sweep("a").keys}


def test_a_sweep_that_cannot_be_sent_says_why(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*arguments: Any) -> Any:
        raise SchedulerSilent("scontrol does not answer")

    sweep = expand(compose(["name=a", "workload=noop", "index=0,1", "launcher=tests.protocol.scripted"]))
    submit._activate(Watch.of(store), sweep, FROZEN, [], [])
    monkeypatch.setattr(Scripted, "cut", silent)
    ticking.tick(watch := Watch.of(store), ["a"])
    assert watch.waiting == {"a": "scontrol does not answer"}
    monkeypatch.setattr(Scripted, "cut", lambda *arguments: [])
    ticking.tick(watch, ["a"])
    assert "limit" in watch.waiting["a"]
