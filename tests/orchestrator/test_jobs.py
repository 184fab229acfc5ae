"""Status shows what a scheduler says of many jobs in few lines: what is wrong first, then what runs, then the queue; and who goes on."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator import jobs, show, show_jobs
from orchestrator import status as statuses
from orchestrator.batches import Batch
from orchestrator.launchers.launcher import JobState
from orchestrator.launchers.slurm import Slurm
from orchestrator.store import Store
from workers import files, taskdir

BASE = "w1-0123456789ab"
REQUEST = {"slots": 2, "shape": {"cpus": 1, "memory_gib": 1.0}}


class FakeWatch:
    """Open batches of one submission, and what is known of each."""

    def __init__(self, store: Store | None, states: dict[str, JobState], **launcher: Any) -> None:
        self.store, self.jobs, self.silent = store, states, dict[str, str]()
        made = {"positions": lambda waiting: waiting, "untended": lambda root, base: "", **launcher}
        self._launcher = SimpleNamespace(**made)
        entry = {"launcher": {"name": "slurm"}, "keys": ["a", "b"], "request": REQUEST, "token": BASE, "sweep": "w1"}
        self.ledger = SimpleNamespace(batches=dict.fromkeys(states, entry))
        self.batches = {token: Batch(Path("/nonexistent"), token) for token in states}

    def batch(self, token: str) -> Batch:
        return self.batches[token]

    def launcher(self, settings: Any) -> Any:
        return self._launcher


def queued(number: int, reason: str = "Priority", **more: Any) -> JobState:
    return JobState(state="queued", job_id=f"77_{number}", reason=reason, **more)


def running(number: int, **more: Any) -> JobState:
    return JobState(state="running", job_id=f"77_{number}", reason="RUNNING", nodes=(f"n{number}",), **more)


HELD = queued(3, "JobHeldUser", explanation="you hold it: scontrol release 77_3")


def told(watch: FakeWatch) -> list[tuple[str, str]]:
    return list(show_jobs.lines(*jobs.jobs(watch, list(watch.jobs))))  # type: ignore[arg-type]


def test_few_jobs_are_told_one_by_one_and_what_is_wrong_comes_before_what_runs() -> None:
    watch = FakeWatch(
        None,
        {
            f"{BASE}/2": queued(2, position=(12, 340), start_estimate="2026-11-23T10:00:00"),
            f"{BASE}/1": running(1, seconds=760.0, limit_seconds=3600.0),
            f"{BASE}/3": HELD,
        },
    )
    batch = watch.batches[f"{BASE}/1"]
    batch.ended = {"a": [{"class": "completed", "peak_memory_mib": 312.0}]}
    batch.started = {"b": {}}
    batch.run = 1
    assert told(watch) == [
        ("jobs", "1 queued (JobHeldUser), 1 running, 1 queued (Priority)"),
        ("wrong", "77_3, JobHeldUser: you hold it: scontrol release 77_3"),
        ("job", "77_1 (slurm) on n1, its run 2: 1 of 2 ended, 1 running, time 0:12:40 of 1:00:00, memory 0.3 of 1 GiB a task"),
        ("queue", "77_2 (slurm), 2 tasks: waits (Priority), place 12 of 340, expected to start 2026-11-23 10:00:00"),
    ]


def test_what_needs_no_mending_is_a_note() -> None:
    state = queued(1, "BeginTime", explanation="it waits for its begin time; there is nothing to mend")
    assert [name for name, _ in told(FakeWatch(None, {BASE: state}))] == ["note"]


def test_many_jobs_are_summed_up_and_their_number_is_not_hidden() -> None:
    states = {f"{BASE}/{i}": running(i) for i in range(20)} | {f"{BASE}/{i}": queued(i) for i in range(20, 5000)}
    states |= {f"{BASE}/{i}": queued(i, "JobHeldUser", explanation=f"you hold it: scontrol release 77_{i}") for i in range(5000, 10_000)}
    watch = FakeWatch(None, states)
    began = time.perf_counter()
    lines = told(watch)
    assert time.perf_counter() - began < 0.5
    assert lines[0] == ("jobs", "5,000 queued (JobHeldUser), 20 running, 4,980 queued (Priority)")
    assert lines[1][1].startswith("77_5000 and 4,999 more, JobHeldUser: you hold it")
    assert len(lines) < 10


def test_all_that_runs_is_described_before_the_queue_though_much_is_wrong() -> None:
    states = {f"{BASE}/{i}": queued(i, "JobHeldUser", explanation="held") for i in range(100)} | {
        f"{BASE}/{i}": running(i) for i in range(100, 103)
    }
    assert [line for name, line in told(FakeWatch(None, states)) if name == "job"] != []


def test_where_no_scheduler_was_asked_the_files_tell_what_runs() -> None:
    watch = FakeWatch(None, {BASE: queued(1)})
    watch.jobs = {}
    watch.batches[BASE].run = 0
    watch.batches[BASE].started = {"a": {}}
    (job,), (group,) = jobs.jobs(watch, [BASE])  # type: ignore[arg-type]
    assert (job.state, job.running, job.total, group.state) == ("running", 1, 2, "running")
    assert list(show_jobs.lines([job], [group])) == [("job", f"{BASE} (slurm): 0 of 2 ended, 1 running")]


def test_places_are_asked_once_for_all_waiting_jobs_of_a_launcher() -> None:
    asked: list[list[str]] = []

    def positions(waiting: dict[str, JobState]) -> dict[str, JobState]:
        asked.append(sorted(waiting))
        return {token: queued(1, position=(1, 9)) for token in waiting}

    watch = FakeWatch(None, {f"{BASE}/0": running(0), f"{BASE}/1": queued(1), f"{BASE}/2": queued(2)}, positions=positions)
    jobs.place_in_queues(watch, list(watch.jobs))  # type: ignore[arg-type]
    assert asked == [[f"{BASE}/1", f"{BASE}/2"]]
    assert watch.jobs[f"{BASE}/1"].position == (1, 9)


def test_a_silent_scheduler_is_told_once() -> None:
    silent = {f"{BASE}/{i}": "squeue gave no answer in 60 s" for i in range(3)}
    assert jobs.silences(silent, silent) == ["squeue gave no answer in 60 s"]


# -- who goes on ------------------------------------------------------------------------------------------------------


def watcher(store: Store, counts: dict[str, int], tokens: int = 2, untended: str = "") -> str:
    watch = FakeWatch(store, {f"{BASE}/{i}": queued(i) for i in range(tokens)}, untended=lambda root, base: untended)
    return statuses._watcher(watch, counts, list(watch.jobs))  # type: ignore[arg-type]


def test_jobs_that_tick_go_on_by_themselves(store: Store) -> None:
    assert watcher(store, {"pending": 3}) == "each job ticks when it ends (2 at work)"
    assert watcher(store, {}, tokens=0) == ""


def test_nobody_goes_on_where_no_job_is_at_work_or_none_ticks(store: Store) -> None:
    told = f"run `eigensweep tick --every 60 --root {store.root}`, in tmux or by cron"
    assert watcher(store, {"pending": 3}, tokens=0) == f"NOBODY: {told}"
    assert watcher(store, {"queued": 3}, untended="launcher.tick_job is false") == f"NOBODY, since launcher.tick_job is false: {told}"


def test_slurm_goes_on_where_the_job_that_ticks_was_sent(store: Store) -> None:
    launcher = Slurm()
    assert "was ended before it sent the job" in launcher.untended(store.root, BASE)
    files.make_dirs(taskdir.batch_dir(store.root, BASE))
    (taskdir.batch_dir(store.root, BASE) / "tick.json").write_bytes(files.encode({"error": "sbatch: no more jobs"}))
    assert launcher.untended(store.root, BASE) == "the job that ticks could not be sent (sbatch: no more jobs)"
    (taskdir.batch_dir(store.root, BASE) / "tick.json").write_bytes(files.encode({"job_id": "8"}))
    assert launcher.untended(store.root, BASE) == ""
    assert Slurm(tick_job=False).untended(store.root, BASE) == "launcher.tick_job is false"


def test_only_its_owner_goes_on_with_a_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "is_mine", property(lambda self: False))
    monkeypatch.setattr(Store, "owner", property(lambda self: "alice"))
    assert watcher(store, {"pending": 3}) == "only alice, whose store this is, can take it"


# -- the whole picture ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "name", "line"),
    [
        ({"silent": ["squeue: no answer"]}, "silent", "the scheduler gave no answer, so nothing is concluded: squeue: no answer"),
        ({"waiting": "3 jobs wait for what is left of the budget"}, "waiting", "3 jobs wait for what is left of the budget"),
        ({"budget": {"gpu_hours": (12.5, 100.0)}}, "budget", "12.5 of 100 gpu-hours spent, 87.5 left"),
    ],
)
def test_what_holds_a_sweep_up_has_a_line(changes: dict[str, Any], name: str, line: str) -> None:
    plain: dict[str, Any] = dict(
        name="w1", root="/s", revision=1, total=1, counts={"queued": 1}, by_workload={}, by_axis=[], causes=[], num_diverged=0, broken={},
        paused="", jobs=[], running=[], eta=None, watcher="", code="c", next="eigensweep status w1",
    )  # fmt: skip
    lines = show.status(statuses.Status(**(plain | changes)), color=False).split("\n")
    assert [one.split(maxsplit=1)[1] for one in lines if one.split()[:1] == [name]] == [line]


def test_what_runs_is_told_with_its_progress_in_its_own_words() -> None:
    watch = FakeWatch(None, {BASE: running(1)})
    watch.batches[BASE].progress = {"a": (6, 55, "6 of 55 tiles, 0.5 a second"), "b": (0, 0, "eigenvalues by scalapack"), "c": (1, 4, "")}
    sweep = SimpleNamespace(
        keys=list("abcd"), workload=lambda index: f"w{index}", axis_values=lambda index: {"width": index}, is_point=lambda index: True
    )
    states = SimpleNamespace(states=["running"] * 4)
    assert statuses._running(watch, sweep, states) == [  # type: ignore[arg-type]
        "w0 width=0 11 %: 6 of 55 tiles, 0.5 a second",
        "w1 width=1: eigenvalues by scalapack",
        "w2 width=2 25 %",
        "w3 width=3",
    ]
