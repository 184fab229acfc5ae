"""A budget stops what comes next, and what is at work keeps its room."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import budget, cost
from orchestrator.batches import Batch
from orchestrator.launchers.launcher import JobState, Submission
from orchestrator.plan import plan
from orchestrator.store import Store
from workers.errors import ConfigError, UnknownName
from workers.taskdir import Task

SHAPE = {"nodes": 1, "cpus": 4, "gpus": 1, "memory_gib": 8.0, "walltime_minutes": 60.0}
PACKED = {"nodes": 1, "cpus": 16, "gpus": 2, "minutes": 90, "slots": 4, "tasks_per_gpu": 2, "shape": SHAPE}
GANG = {"nodes": 4, "cpus": 8, "gpus": 2, "minutes": 30, "slots": 1, "shape": SHAPE | {"nodes": 4, "cpus": 8, "gpus": 2}}
TRAIN = "train cpus=4 gpus=1 memory_gib=8 nodes=1 walltime_minutes=60"


@given(st.lists(st.sampled_from(["train", "gram"]), min_size=1, max_size=20), st.integers(1, 8))
def test_a_job_is_expected_to_last_no_longer_than_its_limit_nor_shorter_than_its_longest_task(workloads: list[str], slots: int) -> None:
    slowest = {TRAIN: 600.0}
    request = PACKED | {"slots": slots}
    seconds = budget.job_seconds(request, workloads, slowest)
    longest = max(600.0 if one == "train" else 3600.0 for one in workloads)
    assert min(longest, 90 * 60) <= seconds <= 90 * 60
    if set(workloads) == {"train"}:
        assert seconds == min(90 * 60, max(600.0, 600.0 * len(workloads) / slots))


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
        return SimpleNamespace(budget=self.budget, keys=keys, blocks=[], workload=lambda index: "train")

    def batch(self, token: str) -> Batch:
        return Batch(Path("/nonexistent"), token)


def tasks(number: int) -> list[Task]:
    return [Task(key=f"k{i}", workload="train", version=1, settings={}, inputs={}, resources=SHAPE) for i in range(number)]


def one_job_each(number: int) -> list[Submission]:
    return [Submission(jobs=[[task] for task in tasks(number)], request=PACKED | {"slots": 1, "cpus": 4, "gpus": 1, "minutes": 61})]


def test_without_a_budget_everything_is_sent() -> None:
    submissions = one_job_each(1000)
    assert budget.affordable(FakeWatch({}), "w1", submissions) == (submissions, "")
    assert budget.over_budget(FakeWatch({}, {"gpu_hours": 1e9}), "w1") == ""


def test_what_is_spent_and_what_runs_stop_submission_and_the_reason_names_the_next_commands() -> None:
    watch = FakeWatch({"gpu_hours": 10.0}, {"gpu_hours": 9.0}, open={"a": (GANG, 1)})
    assert budget.over_budget(watch, "w1") == ""
    watch.jobs["a"] = JobState(state="running", job_id="1", seconds=500.0)
    reason = budget.over_budget(watch, "w1")
    assert "10.11 of 10 GPU-hours are spent (budget.gpu_hours)" in reason
    assert "eigensweep add w1 budget." in reason
    assert "eigensweep cost w1" in reason
    assert budget.affordable(watch, "w1", one_job_each(3)) == ([], reason)


def test_only_so_many_jobs_are_sent_as_the_budget_has_room_for_until_some_have_ended() -> None:
    watch = FakeWatch({"gpu_hours": 10.0})
    (sent,), held = budget.affordable(watch, "w1", one_job_each(25))
    assert len(sent.jobs) == 10, "an hour each, as far as one knows"
    assert held.startswith("15 jobs wait for what is left of the budget")
    watch.slowest[TRAIN] = 600.0
    (sent,), held = budget.affordable(watch, "w1", one_job_each(25))
    assert (len(sent.jobs), held) == (25, "")
    # what is at work keeps its room
    watch.open = {f"s/{i}": (one_job_each(1)[0].request, 1) for i in range(50)}
    (sent,), _ = budget.affordable(watch, "w1", one_job_each(25))
    assert len(sent.jobs) == 10


def test_a_budget_smaller_than_one_job_still_sends_one() -> None:
    watch = FakeWatch({"gpu_hours": 0.1})
    (sent,), held = budget.affordable(watch, "w1", one_job_each(5))
    assert len(sent.jobs) == 1
    assert held.startswith("4 jobs wait")
    watch.open = {"a": (one_job_each(1)[0].request, 1)}
    assert budget.affordable(watch, "w1", one_job_each(5))[0] == []


@pytest.mark.parametrize(
    ("given_", "error", "said"),
    [
        ({"gpu_hour": 3}, UnknownName, "no budget 'gpu_hour'; did you mean 'gpu_hours'?"),
        ({"dollars": 3}, UnknownName, "There are budget.cpu_hours, budget.gpu_hours, budget.node_hours"),
        ({"gpu_hours": 0}, ConfigError, "must be a number of hours above 0, got 0"),
        ({"gpu_hours": float("nan")}, ConfigError, "got nan"),
        ({"gpu_hours": "many"}, ConfigError, "got 'many'"),
    ],
)
def test_a_budget_that_cannot_be_is_refused(given_: dict[str, Any], error: type[ConfigError], said: str) -> None:
    with pytest.raises(error, match=said.replace("?", r"\?")):
        cost.checked_budget(given_)


def test_a_budget_given_as_null_is_none_and_a_sweep_that_grows_keeps_the_larger() -> None:
    assert cost.checked_budget({"gpu_hours": None, "cpu_hours": 3}) == {"cpu_hours": 3.0}
    assert cost.grown({"gpu_hours": 5.0}, {"gpu_hours": 3.0, "cpu_hours": 1.0}) == {"gpu_hours": 5.0, "cpu_hours": 1.0}


def test_a_plan_that_may_cost_more_than_is_left_is_warned_of() -> None:
    watch = FakeWatch({"gpu_hours": 10.0}, {"gpu_hours": 4.0})
    estimates = {"gpu_hours": (3.0, 7.5), "cpu_hours": (100.0, 200.0)}
    (said,) = budget.shortfalls(watch, "w1", {"gpu_hours": 10.0}, estimates)
    assert "6 of 10 GPU-hours are left, and what is to run may take 3 to 7.5" in said
    assert budget.shortfalls(watch, "w1", {"gpu_hours": 12.0}, estimates) == []
    # a sweep that is not there yet has spent nothing
    assert budget.shortfalls(watch, "w2", {"gpu_hours": 8.0}, estimates) == []
    assert len(budget.shortfalls(watch, "w2", {"gpu_hours": 7.0, "cpu_hours": 1.0}, estimates)) == 2


def test_the_plan_of_a_local_sweep_warns_too(store: Store) -> None:
    words = ["workload=noop", "index=range(0,4)", "seconds=3600", "name=w1"]
    assert plan(words, store).warnings == []
    (said,) = plan([*words, "budget.cpu_hours=1"], store).warnings
    assert said.startswith("the budget may not do: 1 of 1 CPU-hours are left")
