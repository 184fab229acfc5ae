"""What was paid for is counted once, whether it was of use or not, and a budget stops what comes next."""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import cost
from orchestrator import ledger as ledgers
from orchestrator.batches import Batch
from orchestrator.launchers.launcher import JobState, Submission
from orchestrator.plan import plan
from orchestrator.store import Store
from workers import files
from workers.errors import ConfigError, UnknownName
from workers.taskdir import Task

REPOSITORY = Path(__file__).parents[2]
SHAPE = {"nodes": 1, "cpus": 4, "gpus": 1, "memory_gib": 8.0, "walltime_minutes": 60.0}
# four tasks at once on two GPUs
PACKED = {
    "nodes": 1, "cpus": 16, "gpus": 2, "memory_gib": 33.0, "minutes": 90, "slots": 4, "cpus_per_slot": 4, "tasks_per_gpu": 2,
    "shape": SHAPE, "packed": True,
}  # fmt: skip
GANG = {
    "nodes": 4,
    "cpus": 8,
    "gpus": 2,
    "minutes": 30,
    "slots": 1,
    "tasks_per_gpu": 1,
    "shape": SHAPE | {"nodes": 4, "cpus": 8, "gpus": 2},
}
TRAIN = "train cpus=4 gpus=1 memory_gib=8 nodes=1 walltime_minutes=60"


def test_a_job_costs_what_it_asked_for_on_each_of_its_nodes_as_long_as_it_lasts() -> None:
    assert cost.of_job(GANG, 1800) == {"cpu_hours": 16.0, "gpu_hours": 4.0, "node_hours": 2.0}


def test_attempts_that_fill_their_job_cost_what_it_costs() -> None:
    share = {"cpus": 4, "gpus": 0.5, "slots": 1}
    attempts = [cost.of_attempt({"seconds": 3600.0, **share}, PACKED) for _ in range(4)]
    assert cost.add(*attempts) == cost.of_job(PACKED, 3600)


@pytest.mark.parametrize("request_", [PACKED, GANG])
def test_an_end_record_without_a_share_is_charged_what_its_task_asked_for(request_: dict[str, Any]) -> None:
    slots = request_["slots"]
    shares = {"cpus": request_["nodes"] * request_["cpus"] / slots, "gpus": request_["nodes"] * request_["gpus"] / slots, "slots": 1}
    assert cost.of_attempt({"seconds": 100.0}, request_) == pytest.approx(cost.of_attempt({"seconds": 100.0, **shares}, request_))


def test_a_local_attempt_costs_no_nodes_and_one_of_which_nothing_is_known_costs_an_unknown_sum() -> None:
    local = cost.of_attempt({"seconds": 7200.0, "cpus": 2, "gpus": 0, "slots": 1}, {})
    assert local == {"cpu_hours": 4.0, "gpu_hours": 0.0, "node_hours": None}
    assert cost.of_attempt({"seconds": 7200.0}, {}, {"cpus": 3}) == {"cpu_hours": 6.0, "gpu_hours": 0.0, "node_hours": None}
    assert set(cost.of_attempt({"seconds": 7200.0}, {}).values()) == {None}
    assert set(cost.of_attempt({"cpus": 2}, PACKED).values()) == {None}


@given(st.lists(st.sampled_from(["train", "gram"]), min_size=1, max_size=20), st.integers(1, 8))
def test_a_job_is_expected_to_last_no_longer_than_its_limit_nor_shorter_than_its_longest_task(workloads: list[str], slots: int) -> None:
    slowest = {TRAIN: 600.0}
    request = PACKED | {"slots": slots}
    seconds = cost.expected_seconds(request, workloads, slowest)
    longest = max(600.0 if one == "train" else 3600.0 for one in workloads)
    assert min(longest, 90 * 60) <= seconds <= 90 * 60
    if set(workloads) == {"train"}:
        assert seconds == min(90 * 60, max(600.0, 600.0 * len(workloads) / slots))


# -- what a batch says of itself --------------------------------------------------------------------------------------


def run_of(folder: Path, run: int, begun: float, events: list[dict[str, Any]], **more: Any) -> None:
    name, below = ("receipt.json", folder) if run == 0 else (f"receipt-{run}.json", folder / f"run-{run}")
    below.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(files.encode({"token": folder.name, "time": begun, "host": "n1", **more}))
    (below / "attempts.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))


def test_a_job_that_ran_twice_is_paid_for_twice(tmp_path: Path) -> None:
    folder = tmp_path / "batches" / "w1-0123456789ab"
    run_of(folder, 0, 1000.0, [{"event": "start", "key": "k", "attempt": "a", "time": 1010.0}])
    run_of(
        folder,
        1,
        5000.0,
        [{"event": "start", "key": "k", "attempt": "b", "time": 5001.0}, {"event": "over", "reason": "finished", "time": 5100.0}],
    )
    # a run that was killed has beaten after its last word
    (folder / "heartbeat.json").write_bytes(files.encode({"count": 2, "time": 1025.0}))
    batch = Batch(tmp_path, folder.name).refresh()
    assert (batch.earlier_seconds, batch.seconds) == (25.0, 100.0)
    assert cost.seconds_of(batch, None) == 125.0
    # the scheduler has seen the newest run a little longer than it says itself
    job = JobState(state="ended", job_id="7", seconds=103.0, nodes=("n1",), energy_joules=5.0, reason="COMPLETED")
    assert cost.job_record({"request": GANG}, batch, job) == {
        "seconds": 128.0, "job_id": "7", "reason": "COMPLETED", "energy_joules": 5.0, "nodes": ["n1"],
        "hours": {"cpu_hours": pytest.approx(128 * 32 / 3600, rel=1e-5), "gpu_hours": pytest.approx(128 * 8 / 3600, rel=1e-5),
                  "node_hours": pytest.approx(128 * 4 / 3600, rel=1e-5)},
    }  # fmt: skip


def test_a_job_is_paid_for_from_its_first_line_on_and_told_by_its_receipt_where_no_scheduler_was_asked(tmp_path: Path) -> None:
    folder = tmp_path / "batches" / "w1-0123456789ab"
    run_of(folder, 0, 1000.0, [{"event": "over", "reason": "finished", "time": 1100.0}], began=970.0, slurm={"job_id": "7_1"})
    batch = Batch(tmp_path, folder.name).refresh()
    found = cost.job_record({"request": GANG}, batch, None)
    assert {name: found[name] for name in ("seconds", "job_id", "nodes")} == {"seconds": 130.0, "job_id": "7_1", "nodes": ["n1"]}


def test_the_receipt_of_a_job_of_slurm_tells_when_its_script_began(tmp_path: Path) -> None:
    """The shell of the script sleeps and becomes the process that links the receipt."""
    script = (
        "from pathlib import Path; from workers.journal import Journal\n"
        f"print(Journal(Path({str(tmp_path)!r})).link_receipt('t', {{'job_id': '1', 'restart': 0}}))"
    )
    subprocess.run(["sh", "-c", 'sleep 1; exec "$0" -c "$1"', sys.executable, script], check=True, cwd=REPOSITORY)
    receipt = files.read(tmp_path / "receipt.json")
    assert 1.0 <= receipt["time"] - receipt["began"] < 30.0


def test_a_local_batch_costs_its_ended_attempts_and_not_the_time_that_it_waited_for_slots(tmp_path: Path) -> None:
    folder = tmp_path / "batches" / "w1-0123456789ab"
    end = {
        "event": "end",
        "key": "k",
        "attempt": "a",
        "time": 1900.0,
        "seconds": 90.0,
        "cpus": 2,
        "gpus": 0,
        "slots": 1,
        "class": "completed",
    }
    run_of(folder, 0, 1000.0, [{"event": "start", "key": "k", "attempt": "a", "time": 1810.0}, end])
    batch = Batch(tmp_path, folder.name).refresh()
    assert cost.of_batch({"request": {}}, batch, None) == {"cpu_hours": 0.05, "gpu_hours": 0.0, "node_hours": 0.0}


def test_the_ledger_adds_up_what_closed_jobs_have_cost(store: Store) -> None:
    ledger = ledgers.read(store.root)
    for number, hours in enumerate([{"cpu_hours": 1.5, "gpu_hours": 0.5}, {"cpu_hours": 2.0}, {}]):
        entry = {"token": f"w1-{number}", "sweep": "w1", "outcomes": {}, "job": {"hours": hours}}
        assert ledgers.append(store.root, ledger, {"kind": "closed", "batches": [entry]})
    assert ledger.spent == {"w1": {"cpu_hours": 3.5, "gpu_hours": 0.5}}
    assert ledgers.Ledger.from_body(files.plain(ledger.to_body())).spent == ledger.spent


# -- budgets ----------------------------------------------------------------------------------------------------------


@dataclass
class FakeWatch:
    """Jobs at work, each of some tasks, and what a scheduler says of them."""

    budget: dict[str, float]
    spent: dict[str, float] = field(default_factory=dict)
    slowest: dict[str, float] = field(default_factory=dict)
    open: dict[str, tuple[dict[str, Any], int]] = field(default_factory=dict)
    jobs: dict[str, JobState] = field(default_factory=dict)

    @property
    def ledger(self) -> Any:
        batches = {
            token: {"sweep": "w1", "request": request, "keys": [f"{token}-{i}" for i in range(size)]}
            for token, (request, size) in self.open.items()
        }
        return SimpleNamespace(batches=batches, spent={"w1": self.spent}, slowest=self.slowest, sweeps={"w1": {}})

    def sweep(self, name: str) -> Any:
        keys = [key for entry in self.ledger.batches.values() for key in entry["keys"]]
        return SimpleNamespace(budget=self.budget, keys=keys, workload=lambda index: "train")

    def batch(self, token: str) -> Batch:
        return Batch(Path("/nonexistent"), token)


def tasks(number: int) -> list[Task]:
    return [Task(key=f"k{i}", workload="train", version=1, settings={}, inputs={}, resources=SHAPE) for i in range(number)]


def one_job_each(number: int) -> list[Submission]:
    return [Submission(jobs=[[task] for task in tasks(number)], request=PACKED | {"slots": 1, "cpus": 4, "gpus": 1, "minutes": 61})]


def test_without_a_budget_everything_is_sent() -> None:
    submissions = one_job_each(1000)
    assert cost.affordable(FakeWatch({}), "w1", submissions) == (submissions, "")
    assert cost.over_budget(FakeWatch({}, {"gpu_hours": 1e9}), "w1") == ""


def test_what_is_spent_and_what_runs_stop_submission_and_the_reason_names_the_next_commands() -> None:
    watch = FakeWatch({"gpu_hours": 10.0}, {"gpu_hours": 9.0}, open={"a": (GANG, 1)})
    assert cost.over_budget(watch, "w1") == ""
    watch.jobs["a"] = JobState(state="running", job_id="1", seconds=500.0)
    reason = cost.over_budget(watch, "w1")
    assert "10.11 of 10 GPU-hours are spent (budget.gpu_hours)" in reason
    assert "eigensweep add w1 budget." in reason
    assert "eigensweep cost w1" in reason
    assert cost.affordable(watch, "w1", one_job_each(3)) == ([], reason)


def test_only_so_many_jobs_are_sent_as_the_budget_has_room_for_until_some_have_ended() -> None:
    watch = FakeWatch({"gpu_hours": 10.0})
    (sent,), held = cost.affordable(watch, "w1", one_job_each(25))
    assert len(sent.jobs) == 10, "an hour each, as far as one knows"
    assert held.startswith("15 jobs wait for what is left of the budget")
    watch.slowest[TRAIN] = 600.0
    (sent,), held = cost.affordable(watch, "w1", one_job_each(25))
    assert (len(sent.jobs), held) == (25, "")
    # what is at work keeps its room
    watch.open = {f"s/{i}": (one_job_each(1)[0].request, 1) for i in range(50)}
    (sent,), _ = cost.affordable(watch, "w1", one_job_each(25))
    assert len(sent.jobs) == 10


def test_a_budget_smaller_than_one_job_still_sends_one() -> None:
    watch = FakeWatch({"gpu_hours": 0.1})
    (sent,), held = cost.affordable(watch, "w1", one_job_each(5))
    assert len(sent.jobs) == 1
    assert held.startswith("4 jobs wait")
    watch.open = {"a": (one_job_each(1)[0].request, 1)}
    assert cost.affordable(watch, "w1", one_job_each(5))[0] == []


@pytest.mark.parametrize(
    ("budget", "error", "said"),
    [
        ({"gpu_hour": 3}, UnknownName, "no budget 'gpu_hour'; did you mean 'gpu_hours'?"),
        ({"dollars": 3}, UnknownName, "There are budget.cpu_hours, budget.gpu_hours, budget.node_hours"),
        ({"gpu_hours": 0}, ConfigError, "must be a number of hours above 0, got 0"),
        ({"gpu_hours": float("nan")}, ConfigError, "got nan"),
        ({"gpu_hours": "many"}, ConfigError, "got 'many'"),
    ],
)
def test_a_budget_that_cannot_be_is_refused(budget: dict[str, Any], error: type[ConfigError], said: str) -> None:
    with pytest.raises(error, match=said.replace("?", r"\?")):
        cost.checked_budget(budget)


def test_a_budget_given_as_null_is_none_and_a_sweep_that_grows_keeps_the_larger() -> None:
    assert cost.checked_budget({"gpu_hours": None, "cpu_hours": 3}) == {"cpu_hours": 3.0}
    assert cost.grown({"gpu_hours": 5.0}, {"gpu_hours": 3.0, "cpu_hours": 1.0}) == {"gpu_hours": 5.0, "cpu_hours": 1.0}


def test_a_plan_that_may_cost_more_than_is_left_is_warned_of() -> None:
    watch = FakeWatch({"gpu_hours": 10.0}, {"gpu_hours": 4.0})
    estimates = {"gpu_hours": (3.0, 7.5), "cpu_hours": (100.0, 200.0)}
    (said,) = cost.shortfalls(watch, "w1", {"gpu_hours": 10.0}, estimates)
    assert "6 of 10 GPU-hours are left, and what is to run may take 3 to 7.5" in said
    assert cost.shortfalls(watch, "w1", {"gpu_hours": 12.0}, estimates) == []
    # a sweep that is not there yet has spent nothing
    assert cost.shortfalls(watch, "w2", {"gpu_hours": 8.0}, estimates) == []
    assert len(cost.shortfalls(watch, "w2", {"gpu_hours": 7.0, "cpu_hours": 1.0}, estimates)) == 2


def test_the_plan_of_a_local_sweep_warns_too(store: Store) -> None:
    words = ["workload=noop", "index=range(0,4)", "seconds=3600", "name=w1"]
    assert plan(words, store).warnings == []
    (said,) = plan([*words, "budget.cpu_hours=1"], store).warnings
    assert said.startswith("the budget may not do: 1 of 1 CPU-hours are left")
