"""How tasks become jobs of SLURM: what belongs together, how many to a job, and what a job asks for."""

import dataclasses
import math

import pytest
from batches import key
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.launchers.launcher import Submission
from orchestrator.launchers.slurm import Slurm
from orchestrator.slurm.packing import Node, cut
from workers.taskdir import Task, shape_name

ONE = {"nodes": 1, "cpus": 1, "gpus": 0, "memory_gib": 1.0, "walltime_minutes": 10.0}
NODE = Node(cpus=16, memory_gib=64.0, gpus=4, minutes=24 * 60)


def task(
    number: int, *, inputs: tuple[int, ...] = (), alone: bool = False, workload: str = "noop", gpu_type: str = "", **resources: float
) -> Task:
    return Task(
        key=key(number),
        workload=workload,
        version=1,
        settings={},
        inputs={str(one): key(one) for one in inputs},
        resources={**ONE, **resources},
        alone=alone,
        gpu_type=gpu_type,
    )


def cut_tasks(
    tasks: list[Task], seconds: float | None = None, node: Node = NODE, chunk: int = 1000, **launcher: object
) -> list[Submission]:
    """Submissions where every task takes so long; None: nobody knows."""
    known = {} if seconds is None else {shape_name(one.workload, one.resources): seconds for one in tasks}
    return cut(tasks, Slurm(**launcher), lambda resources, gpu_type: node, known, chunk=chunk)  # type: ignore[arg-type]


def numbers(found: list[Submission]) -> list[list[str]]:
    return [[one.key for one in job] for submission in found for job in submission.jobs]


# -- what is packed -----------------------------------------------------------------------------------------------------


def test_long_tasks_get_a_job_each():
    found = cut_tasks([task(n, walltime_minutes=120.0) for n in range(5)])
    assert [len(job) for job in found[0].jobs] == [1] * 5
    assert found[0].request | {"shape": {}} == {
        "nodes": 1,
        "cpus": 1,
        "gpus": 0,
        "gpu_type": "",
        "memory_gib": 1.25,
        "minutes": 125,
        "slots": 1,
        "cpus_per_slot": 1,
        "tasks_per_gpu": 1,
        "exclude": [],
        "shape": {},
        "packed": False,
        "at_once": 64,
    }


def test_a_task_that_needs_a_larger_gpu_goes_where_there_is_one():
    found = cut_tasks([task(1, gpus=1), task(2, gpus=1, gpu_type="h100"), task(3)], gpu_type="a100", slots=2)
    asked = [(numbers([one]), one.request["gpus"], one.request["gpu_type"]) for one in found]
    assert asked == [([[key(1)]], 1, "a100"), ([[key(2)]], 1, "h100"), ([[key(3)]], 0, "")]


def test_short_tasks_share_jobs_that_last_about_as_long_as_asked():
    (found,) = cut_tasks([task(n) for n in range(2000)], seconds=30, job_minutes=30)
    sizes = [len(job) for job in found.jobs]
    assert len(sizes) == math.ceil(2000 * 30 / 8 / 1800) or all(60 <= size * 30 / 8 <= 1800 + 30 for size in sizes)
    assert (found.request["slots"], found.request["cpus"], found.request["packed"]) == (8, 8, True)


def test_few_tasks_use_as_many_jobs_as_have_a_minute_of_work_each():
    (found,) = cut_tasks([task(n) for n in range(64)], seconds=4)
    assert [len(job) for job in found.jobs] == [16] * 4


def test_slots_are_filled_before_another_job_is_made():
    (found,) = cut_tasks([task(n) for n in range(64)], seconds=600)
    assert [len(job) for job in found.jobs] == [8] * 8


def test_tasks_of_no_length_share_one_job_and_all_its_slots():
    (found,) = cut_tasks([task(n) for n in range(1000)], seconds=0.0)
    assert [len(job) for job in found.jobs] == [1000]


def test_a_job_asks_for_no_more_slots_than_it_has_tasks():
    (found,) = cut_tasks([task(1), task(2), task(3)], seconds=1)
    assert (found.request["slots"], found.request["cpus"], found.request["memory_gib"]) == (3, 3, 3.25)


def test_no_more_tasks_at_once_than_a_node_has_room_for():
    (found,) = cut_tasks([task(n, memory_gib=10.0) for n in range(8)], seconds=1, node=Node(cpus=64, memory_gib=32.0, gpus=0))
    assert (found.request["slots"], found.request["memory_gib"]) == (3, 30.25)


def test_the_jobs_own_memory_does_not_push_it_off_the_node():
    (found,) = cut_tasks([task(1, memory_gib=64.0, walltime_minutes=600.0)])
    assert found.request["memory_gib"] == 64.0


def test_what_is_too_large_for_every_node_is_asked_for_as_it_is():
    (found,) = cut_tasks([task(1, memory_gib=500.0)])
    assert found.request["memory_gib"] == 500.25 or found.request["memory_gib"] == 500.0


def test_a_task_that_must_be_alone_is():
    found = cut_tasks([task(1), task(2, alone=True), task(3)], seconds=1)
    assert sorted(map(len, (job for one in found for job in one.jobs))) == [1, 2]


def test_a_gang_has_a_job_of_its_own_nodes():
    found = cut_tasks([task(1, nodes=3, gpus=4), task(2, nodes=3, gpus=4)], seconds=1, pack="always")
    assert [len(job) for job in found[0].jobs] == [1, 1]
    assert (found[0].request["nodes"], found[0].request["gpus"]) == (3, 4)


@pytest.mark.parametrize(("per_gpu", "slots", "expected"), [(1, None, (1, 1)), (4, None, (4, 1)), (2, 6, (6, 3)), (1, 3, (3, 3))])
def test_tasks_share_gpus_only_as_far_as_asked(per_gpu: int, slots: int | None, expected: tuple[int, int]):
    (found,) = cut_tasks([task(n, gpus=1) for n in range(12)], seconds=600, tasks_per_gpu=per_gpu, slots=slots)
    assert (found.request["slots"], found.request["gpus"]) == expected


def test_tasks_of_several_gpus_share_none():
    (found,) = cut_tasks([task(n, gpus=2) for n in range(4)], seconds=10, tasks_per_gpu=4, slots=2)
    assert (found.request["slots"], found.request["gpus"], found.request["tasks_per_gpu"]) == (2, 4, 1)


def test_packing_can_be_forbidden_and_forced():
    short, long = [task(n) for n in range(4)], [task(n, walltime_minutes=600.0) for n in range(4)]
    assert [len(job) for job in cut_tasks(short, seconds=1, pack="never")[0].jobs] == [1] * 4
    assert len(cut_tasks(long, pack="always", tasks_per_job=4)[0].jobs) == 1


def test_tasks_per_job_is_kept():
    (found,) = cut_tasks([task(n) for n in range(10)], seconds=0.1, tasks_per_job=4)
    assert [len(job) for job in found.jobs] == [4, 4, 2]


# -- time ---------------------------------------------------------------------------------------------------------------


def test_the_last_task_to_start_has_its_whole_walltime():
    (found,) = cut_tasks([task(n) for n in range(8000)], seconds=60, overhead_minutes=5)
    rounds = math.ceil(max(len(job) for job in found.jobs) / found.request["slots"])
    assert rounds > 10
    assert found.request["minutes"] >= (rounds - 1) + 10 + 5


def test_a_task_whose_turn_comes_at_once_adds_only_the_overhead():
    (found,) = cut_tasks([task(n) for n in range(8)], seconds=60, overhead_minutes=5)
    assert found.request["minutes"] == 15


def test_a_job_asks_for_no_more_time_than_the_partition_has():
    (found,) = cut_tasks([task(n, walltime_minutes=58.0) for n in range(80)], seconds=60, node=dataclasses.replace(NODE, minutes=60))
    assert found.request["minutes"] == 60


def test_a_task_that_needs_more_time_than_the_partition_has_says_so():
    (found,) = cut_tasks([task(1, walltime_minutes=90.0)], node=dataclasses.replace(NODE, minutes=60))
    assert found.request["minutes"] == 90


# -- inputs -------------------------------------------------------------------------------------------------------------


def test_tasks_that_need_each_other_share_a_job_if_their_shape_is_one():
    found = cut_tasks([task(1), task(2), task(3, inputs=(1,)), task(4, inputs=(3,))], seconds=60, tasks_per_job=3)
    assert numbers(found) == [[key(1), key(3), key(4)], [key(2)]]


def test_tasks_of_another_shape_wait_for_their_inputs():
    assert numbers(cut_tasks([task(1), task(2, inputs=(1,), memory_gib=2.0), task(3, inputs=(2,))], seconds=1)) == [[key(1)]]


def test_a_task_whose_inputs_are_in_two_jobs_waits():
    assert numbers(cut_tasks([task(1), task(2), task(3, inputs=(1, 2))], seconds=600, tasks_per_job=1)) == [[key(1)], [key(2)]]


def test_inputs_that_are_committed_already_hold_nothing_up():
    assert numbers(cut_tasks([task(2, inputs=(1,))], seconds=1)) == [[key(2)]]


# -- submissions --------------------------------------------------------------------------------------------------------


def test_jobs_of_a_shape_go_out_in_as_few_calls_as_allowed():
    found = cut_tasks([task(n, walltime_minutes=600.0) for n in range(2300)], chunk=1000)
    assert [len(one.jobs) for one in found] == [1000, 1000, 300]


def test_arrays_of_a_shape_together_run_no_more_jobs_at_once_than_asked_for():
    found = cut_tasks([task(n, walltime_minutes=600.0) for n in range(10)], chunk=3, max_jobs=9)
    assert [one.request["at_once"] for one in found] == [2, 2, 2, 2]
    (found,) = cut_tasks([task(n, walltime_minutes=600.0) for n in range(10)], max_jobs=9)
    assert found.request["at_once"] == 9


def test_hosts_to_stay_away_from_are_asked_for():
    (found,) = cut([task(1)], Slurm(), lambda resources, gpu_type: NODE, {}, exclude=["n3"])
    assert found.request["exclude"] == ["n3"]


shapes = st.fixed_dictionaries(
    {
        "nodes": st.sampled_from([1, 1, 1, 2]),
        "cpus": st.integers(1, 4),
        "gpus": st.sampled_from([0, 0, 1, 2]),
        "memory_gib": st.sampled_from([0.5, 3.0]),
        "walltime_minutes": st.sampled_from([1.0, 120.0]),
    }
)


@st.composite
def task_lists(draw: st.DrawFn) -> list[Task]:
    kinds = draw(st.lists(shapes, min_size=1, max_size=3))
    found: list[Task] = []
    for number in range(draw(st.integers(0, 40))):
        inputs = tuple(draw(st.sets(st.integers(0, number - 1), max_size=2))) if number else ()
        found.append(task(number, inputs=inputs, alone=draw(st.booleans()) and number % 7 == 0, **draw(st.sampled_from(kinds))))
    return found


launchers = st.builds(
    Slurm,
    pack=st.sampled_from(["auto", "always", "never"]),
    slots=st.none() | st.integers(1, 12),
    tasks_per_job=st.none() | st.integers(1, 5),
    tasks_per_gpu=st.integers(1, 3),
    max_jobs=st.integers(1, 20),
    job_minutes=st.floats(1.0, 100.0),
)


@given(tasks=task_lists(), launcher=launchers, seconds=st.none() | st.floats(0.0, 4000.0), chunk=st.integers(1, 7))
@settings(max_examples=300, deadline=None)
def test_whatever_the_tasks_jobs_keep_what_they_promise(tasks: list[Task], launcher: Slurm, seconds: float | None, chunk: int):
    known = {} if seconds is None else {shape_name(one.workload, one.resources): seconds for one in tasks}
    found = cut(tasks, launcher, lambda resources, gpu_type: NODE, known, chunk=chunk)
    order = {one.key: number for number, one in enumerate(tasks)}
    job_of = {one.key: (i, j) for i, submission in enumerate(found) for j, job in enumerate(submission.jobs) for one in job}
    sent = [one.key for submission in found for job in submission.jobs for one in job]
    assert len(sent) == len(set(sent)), "a task is sent once at most"
    everyone = {one.key: one for one in tasks}
    for name, place in job_of.items():
        for needed in everyone[name].inputs.values():
            assert job_of.get(needed) == place, "no job waits for another"
    for submission in found:
        request = submission.request
        assert 1 <= len(submission.jobs) <= chunk
        for job in submission.jobs:
            assert job
            assert [order[one.key] for one in job] == sorted(order[one.key] for one in job), "inputs first"
            assert all(one.resources == request["shape"] for one in job)
            assert len(job) == 1 or (request["packed"] and not any(one.alone for one in job))
            assert len(job) <= (launcher.tasks_per_job or math.inf)
        _fits(request)
    ready = [one for one in tasks if not set(one.inputs.values()) & set(everyone)]
    assert all(one.key in job_of for one in ready), "what waits for nothing is sent"


def _fits(request: dict[str, object]) -> None:
    shape = request["shape"]
    assert isinstance(shape, dict)
    assert request["cpus"] == request["slots"] * shape["cpus"] <= NODE.cpus  # type: ignore[operator]
    assert request["memory_gib"] <= NODE.memory_gib  # type: ignore[operator]
    assert request["gpus"] <= NODE.gpus  # type: ignore[operator]
    assert shape["walltime_minutes"] <= request["minutes"] <= NODE.minutes  # type: ignore[operator]
