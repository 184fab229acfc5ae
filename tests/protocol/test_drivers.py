"""What two drivers, two sweeps and a user's second thoughts do to one store."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator import collect, ledger, logs, results, scrub, status, submit
from orchestrator import tick as ticking
from orchestrator.code import Frozen
from orchestrator.compose import compose
from orchestrator.store import Store
from orchestrator.sweep import Sweep, expand
from orchestrator.watch import Watch
from tests.protocol.scripted import JOBS, Job
from workers import taskdir
from workers.taskdir import Commit

FROZEN = Frozen(snapshot="snapshot", code="code", path=Path("/nowhere"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    JOBS.clear()
    return Store.init(tmp_path / "store")


def sweep_of(name: str, *settings: str) -> Sweep:
    return expand(compose([f"name={name}", *settings, "launcher=tests.protocol.scripted"]))


def activate(store: Store, sweep: Sweep) -> bool:
    return submit._activate(Watch.of(store), sweep, FROZEN, [], [])


def work(job: Job) -> None:
    job.begin()
    while job.start_next():
        job.record(job.commit_running())
    job.end()


def commit(store: Store, sweep: Sweep, index: int) -> None:
    task = sweep.task(index)
    taskdir.write_commit(
        store.root,
        Commit(
            key=task.key, generation=0, attempt="by-hand", workload=task.workload, version=task.version, settings=task.settings, inputs={},
            content={}, status="ok", rows={}, files=[], code="code", host="h", device="cpu", started=0.0, seconds=1.0, peak_memory_mib=1.0,
        ),
    )  # fmt: skip


def test_the_loser_of_two_grown_sweeps_plans_again(store: Store) -> None:
    activate(store, sweep_of("a", "workload=noop", "index=0,1"))
    one, other = Watch.of(store), Watch.of(store)
    mine, theirs = (watch.sweep("a").union(sweep_of("a", "workload=noop", f"index={index}")) for watch, index in ((one, 5), (other, 6)))
    assert submit._activate(one, mine, FROZEN, [], [])
    assert not submit._activate(other, theirs, FROZEN, [], [])
    assert len(Watch.of(store).sweep("a")) == 3


def test_a_sweep_submitted_again_as_it_is_has_no_new_revision(store: Store) -> None:
    activate(store, sweep_of("a", "workload=noop", "index=0,1"))
    activate(store, sweep_of("a", "workload=noop", "index=0,1"))
    assert store.revisions("a") == [1]


def test_a_retraction_reaches_what_is_not_committed_yet(store: Store) -> None:
    sweep = sweep_of("a", "workload=gram")
    activate(store, sweep)
    commit(store, sweep, 0)
    ticking.tick(watch := Watch.of(store), ["a"])
    assert watch.states("a").states == ["completed", "queued"]
    assert submit.retract("a", "workload='train'", "a test", store) == [("a", 0)]
    # the gram that runs, its tiles and its checkpoints are of the network that was taken back
    assert set(Watch.of(store).ledger.generations) == set(sweep.keys)


def test_resume_of_some_leaves_the_others_cancelled(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit.code, "freeze", lambda *arguments, **options: FROZEN)
    activate(store, sweep_of("a", "workload=noop", "index=0,1,2"))
    submit.cancel("a", store)
    submit.resume("a", store, "index=1", detach=True)
    assert Watch.of(store).states("a").states == ["cancelled", "queued", "cancelled"]


def test_following_what_runs_for_another_sweep_does_not_spin(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    activate(store, sweep_of("a", "workload=noop", "index=0,1"))
    ticking.tick(Watch.of(store), ["a"])
    activate(store, sweep_of("b", "workload=noop", "index=0,1"))
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            work(next(iter(JOBS.values())))

    ticks: list[Any] = []
    monkeypatch.setattr(submit.time, "sleep", wait)
    monkeypatch.setattr(submit, "tick", lambda *arguments: ticks.append(ticking.tick(*arguments)) or ticks[-1])
    final = submit.follow(Watch.of(store), "b")
    assert final.counts == {"completed": 2}
    assert len(ticks) <= len(waits) + 2


def test_scrub_finds_nothing_wrong_with_a_diverged_task(store: Store) -> None:
    activate(store, sweep_of("a", "workload=noop", "fail=nan"))
    ticking.tick(Watch.of(store), ["a"])
    work(next(iter(JOBS.values())))
    ticking.tick(watch := Watch.of(store), ["a"])
    assert watch.states("a").diverged == {0}
    assert scrub.scrub(store).problems == []


def test_a_result_that_another_sweep_computed_counts_also_where_the_task_had_failed(store: Store) -> None:
    sweep = sweep_of("a", "workload=noop", "fail=exception")
    activate(store, sweep)
    ticking.tick(Watch.of(store), ["a"])
    work(next(iter(JOBS.values())))
    ticking.tick(watch := Watch.of(store), ["a"])
    assert watch.states("a").states == ["failed"]
    commit(store, sweep, 0)
    watch.ledger.settled.clear()
    ticking.tick(watch, ["a"])
    assert watch.states("a").states == ["completed"]


def test_an_entry_that_a_listing_lacks_is_read_all_the_same(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = ledger.read(store.root)
    for name in "abc":
        assert ledger.append(store.root, writer, {"kind": "pause", "sweep": name, "reason": "test"})
    names = ledger.files.names
    monkeypatch.setattr(ledger.files, "names", lambda folder: [name for name in names(folder) if name != "00000002.json"])
    assert ledger.read(store.root) == writer


def test_a_retraction_reaches_what_has_left_its_sweep(store: Store) -> None:
    sweep = sweep_of("a", "workload=gram")
    activate(store, sweep)
    activate(store, sweep_of("a", "workload=train"))
    for index in range(len(sweep)):
        commit(store, sweep, index)
    taskdir.write_hints(store.root, sweep.keys[0], ["a"])
    submit.retract("a", "true", "a test", store)
    activate(store, sweep)
    assert set(Watch.of(store).ledger.generations) == set(sweep.keys)


def test_a_job_whose_children_never_start_is_charged_to_all_its_tasks(store: Store) -> None:
    activate(store, sweep_of("a", "workload=noop", "index=0,1,2"))
    for _ in range(4):
        ticking.tick(Watch.of(store), ["a"])
        job = list(JOBS.values())[-1]
        job.begin()
        job._write({"event": "over", "reason": "never_started"})
        job.alive = job.listed = False
    ticking.tick(watch := Watch.of(store), ["a"])
    assert len(JOBS) == 4
    assert watch.states("a").states == ["failed"] * 3


def test_a_revision_that_was_never_activated_is_not_loaded(store: Store) -> None:
    activate(store, sweep_of("a", "workload=noop", "index=0,1"))
    store.write_manifest("a", 2, store.manifest("a") | {"keys": [], "blocks": []})
    collect.compact(store, ledger.read(store.root))
    assert len(results.load("a", store.root)._axes_frame) == 2


def test_a_sweep_over_lists_has_a_status(store: Store) -> None:
    activate(store, sweep_of("a", "workload=grid_package.modes", "model=grid_package.deep", "model.layers=[4],[5,5]"))
    watch = Watch.of(store)
    assert [value for value, _ in dict(status._by_axis(watch.sweep("a"), watch.states("a")))["layers"]] == [(4,), (5, 5)]


def test_following_a_log_ends_with_the_last_line_or_with_the_batch(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = sweep_of("a", "workload=noop", "index=0,1")
    activate(store, sweep)
    ticking.tick(Watch.of(store), ["a"])
    job = next(iter(JOBS.values()))
    log = taskdir.batch_dir(store.root, job.token) / "log-0"
    job.begin()
    for key in sweep.keys:
        job._write({"event": "start", "key": key, "attempt": f"{job.token}-{key}", "time": 0.0, "log": ["log-0", 0]})
    log.write_text("first\n")

    def end(seconds: float) -> None:
        log.write_text("first\nlast\n")
        ids = {"key": sweep.keys[0], "attempt": f"{job.token}-{sweep.keys[0]}"}
        job._write({"event": "end", **ids, "class": "user_error", "message": "no", "log_end": 11})

    def die(seconds: float) -> None:
        job.alive = job.listed = False
        ticking.tick(Watch.of(store), ["a"])

    monkeypatch.setattr(logs.time, "sleep", end)
    assert list(logs.logs("a", sweep.keys[0], store, follow=True))[2:4] == ["first", "last"]
    monkeypatch.setattr(logs.time, "sleep", die)
    # of a sweep that goes on, the next attempt would be waited for
    assert ledger.append(store.root, ledger.read(store.root), {"kind": "pause", "sweep": "a", "reason": "by the test"})
    assert list(logs.logs("a", sweep.keys[1], store, follow=True))[2:] == ["first", "last"]
