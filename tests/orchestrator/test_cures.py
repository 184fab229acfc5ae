"""Each cause of failure has its own cure and budget."""

import pytest

from orchestrator.cures import broken_workloads, prospect
from workers.workload import Resources

SHAPE = Resources(memory_gib=1.0, walltime_minutes=10.0)


def outcome(cause: str, **more: object) -> dict[str, object]:
    return {"class": cause, "code": "now", "message": "boom", **more}


def test_a_task_without_failures_runs_as_it_asked() -> None:
    assert prospect([], SHAPE, "now", 8.0).resources == SHAPE


def test_a_user_error_is_final_until_the_code_changes() -> None:
    assert prospect([outcome("user_error")], SHAPE, "now", 8.0).failed == "user_error"
    assert prospect([outcome("user_error")], SHAPE, "later", 8.0).failed == ""


@pytest.mark.parametrize(("cause", "budget"), [("killed", 3), ("never_started", 3), ("node_failure", 5), ("cuda_oom", 3)])
def test_a_cause_without_fault_of_the_task_has_a_budget(cause: str, budget: int) -> None:
    assert prospect([outcome(cause)] * budget, SHAPE, "now", 8.0).failed == ""
    assert prospect([outcome(cause)] * (budget + 1), SHAPE, "now", 8.0).failed == cause


def test_budgets_are_counted_apart() -> None:
    assert prospect([outcome("killed")] * 3 + [outcome("node_failure")] * 5, SHAPE, "now", 8.0).failed == ""


@pytest.mark.parametrize("cause", ["timeout_progress", "disk_full"])
def test_what_made_progress_is_never_charged(cause: str) -> None:
    assert prospect([outcome(cause)] * 50, SHAPE, "now", 8.0) == prospect([], SHAPE, "now", 8.0)


def test_a_first_host_oom_runs_alone_with_all_memory_then_with_more_than_its_peak() -> None:
    first = outcome("host_oom", memory_limit_gib=1.0, peak_memory_mib=1024.0)
    once = prospect([first], SHAPE, "now", 8.0)
    assert (once.alone, once.resources.memory_gib, once.failed) == (True, 8.0, "")
    twice = prospect([first, outcome("host_oom", memory_limit_gib=4.0, peak_memory_mib=4096.0)], SHAPE, "now", 8.0)
    assert twice.resources.memory_gib == pytest.approx(1.3 * 4)


def test_a_host_oom_with_all_the_memory_there_is_is_final() -> None:
    assert prospect([outcome("host_oom", memory_limit_gib=8.0)], SHAPE, "now", 8.0).failed == "host_oom"


def test_a_timeout_without_progress_gets_twice_the_time_once() -> None:
    assert prospect([outcome("timeout")], SHAPE, "now", 8.0).resources.walltime_minutes == 20.0
    assert prospect([outcome("timeout")] * 2, SHAPE, "now", 8.0).failed == "timeout"


def test_three_errors_alike_and_half_of_what_ended_stop_a_workload() -> None:
    errors = [outcome("user_error", workload="train", error={"fingerprint": "f"})] * 3
    assert broken_workloads(errors, {"train": 3}) == {"train": "boom"}
    assert broken_workloads(errors, {"train": 4}) == {}
    assert broken_workloads(errors[:2], {}) == {}
    unlike = [outcome("user_error", workload="train", error={"fingerprint": str(i)}) for i in range(3)]
    assert broken_workloads(unlike, {}) == {}
