"""Each cause of failure has its own cure and budget."""

import pytest

from orchestrator.cures import Means, broken_workloads, prospect
from workers.workload import Resources

SHAPE = Resources(memory_gib=1.0, walltime_minutes=10.0)
MEANS = Means(lambda: 8.0)


def outcome(cause: str, **more: object) -> dict[str, object]:
    return {"class": cause, "code": "now", "message": "boom", **more}


def test_a_task_without_failures_runs_as_it_asked() -> None:
    assert prospect([], SHAPE, "now", MEANS).resources == SHAPE


def test_a_user_error_is_final_until_the_code_changes() -> None:
    assert prospect([outcome("user_error")], SHAPE, "now", MEANS).failed == "user_error"
    assert prospect([outcome("user_error")], SHAPE, "later", MEANS).failed == ""


@pytest.mark.parametrize(("cause", "budget"), [("killed", 3), ("never_started", 3), ("node_failure", 5)])
def test_a_cause_without_fault_of_the_task_has_a_budget(cause: str, budget: int) -> None:
    assert prospect([outcome(cause)] * budget, SHAPE, "now", MEANS).failed == ""
    assert prospect([outcome(cause)] * (budget + 1), SHAPE, "now", MEANS).failed == cause


def test_budgets_are_counted_apart() -> None:
    assert prospect([outcome("killed")] * 3 + [outcome("node_failure")] * 5, SHAPE, "now", MEANS).failed == ""


def test_after_two_node_failures_a_task_runs_alone() -> None:
    """Should it be what kills them, that costs no other; else it is safe from what does."""
    assert [prospect([outcome("node_failure")] * number, SHAPE, "now", MEANS).alone for number in (1, 2, 5)] == [False, True, True]


@pytest.mark.parametrize("cause", ["timeout_progress", "disk_full"])
def test_what_made_progress_is_never_charged(cause: str) -> None:
    assert prospect([outcome(cause)] * 50, SHAPE, "now", MEANS) == prospect([], SHAPE, "now", MEANS)


def test_a_first_host_oom_runs_alone_with_all_memory_then_with_more_than_its_peak() -> None:
    first = outcome("host_oom", memory_limit_gib=1.0, peak_memory_mib=1024.0)
    once = prospect([first], SHAPE, "now", MEANS)
    assert (once.alone, once.resources.memory_gib, once.failed) == (True, 8.0, "")
    twice = prospect([first, outcome("host_oom", memory_limit_gib=4.0, peak_memory_mib=4096.0)], SHAPE, "now", MEANS)
    assert twice.resources.memory_gib == pytest.approx(1.3 * 4)


def test_a_host_oom_with_all_the_memory_there_is_is_final() -> None:
    assert prospect([outcome("host_oom", memory_limit_gib=8.0)], SHAPE, "now", MEANS).failed == "host_oom"


def test_a_timeout_without_progress_gets_twice_the_time_once() -> None:
    assert prospect([outcome("timeout")], SHAPE, "now", MEANS).resources.walltime_minutes == 20.0
    assert prospect([outcome("timeout")] * 2, SHAPE, "now", MEANS).failed == "timeout"


def test_three_errors_alike_and_half_of_what_ended_stop_a_workload() -> None:
    errors = [outcome("user_error", workload="train", error={"fingerprint": "f"})] * 3
    assert broken_workloads(errors, {"train": 3}) == {"train": "boom"}
    assert broken_workloads(errors, {"train": 4}) == {}
    assert broken_workloads(errors[:2], {}) == {}
    unlike = [outcome("user_error", workload="train", error={"fingerprint": str(i)}) for i in range(3)]
    assert broken_workloads(unlike, {}) == {}


def test_where_memory_has_its_price_an_oom_gets_twice_as_much_each_time() -> None:
    dear = Means(lambda: 8.0, alone_has_all=False)
    first = outcome("host_oom", memory_limit_gib=1.0, peak_memory_mib=1024.0)
    once = prospect([first], SHAPE, "now", dear)
    assert (once.alone, once.resources.memory_gib) == (True, 2.0)
    twice = prospect([first, outcome("host_oom", memory_limit_gib=2.0, peak_memory_mib=2048.0)], SHAPE, "now", dear)
    assert twice.resources.memory_gib == 4.0
    assert prospect([outcome("host_oom", memory_limit_gib=8.0)], SHAPE, "now", dear).failed == "host_oom"


def test_a_cuda_oom_runs_alone_then_with_half_the_micro_batch_where_that_is_neutral() -> None:
    def after(number: int, **more: bool) -> tuple[bool, int, str]:
        found = prospect([outcome("cuda_oom")] * number, SHAPE, "now", MEANS, **more)
        return found.alone, found.halvings, found.failed

    assert after(1) == (True, 0, "")
    assert after(2) == (False, 0, "cuda_oom"), "alone it had the whole GPU"
    assert [after(number, can_halve=True) for number in (1, 2, 3)] == [(True, 0, ""), (True, 1, ""), (True, 2, "")]
    assert after(4, can_halve=True) == (False, 0, "cuda_oom")


def test_where_the_site_lists_larger_gpus_they_come_last_and_the_last_chance_has_the_largest() -> None:
    def after(number: int, larger: tuple[str, ...], *, can_halve: bool = False) -> tuple[int, str] | str:
        found = prospect([outcome("cuda_oom")] * number, SHAPE, "now", Means(lambda: 8.0, True, larger), can_halve=can_halve)
        assert found.failed or found.alone
        return found.failed or (found.halvings, found.gpu_type)

    assert [after(number, ("h100",)) for number in (1, 2, 3)] == [(0, ""), (0, "h100"), "cuda_oom"]
    assert [after(number, ("a100", "h100", "h200")) for number in (1, 2, 3, 4)] == [(0, ""), (0, "a100"), (0, "h200"), "cuda_oom"]
    halved = [after(number, ("h100", "h200"), can_halve=True) for number in (1, 2, 3, 4)]
    assert halved == [(0, ""), (1, ""), (1, "h200"), "cuda_oom"]
