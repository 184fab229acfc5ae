"""What a process reads from SLURM's variables, and how much of its time a job gives to which task."""

import os
import time

import pytest
from allocations import Slurm
from batches import TOKEN, noop

from workers import taskdir
from workers.allocation import Allocation, expand, gpu_tokens
from workers.timetable import Timetable


@pytest.fixture
def slurm(tmp_path, monkeypatch) -> Slurm:
    for name in [name for name in os.environ if name.startswith("SLURM") or name == "CUDA_VISIBLE_DEVICES"]:
        monkeypatch.delenv(name)
    return Slurm(tmp_path / "slurm")


@pytest.fixture
def inside(slurm, monkeypatch):
    """Puts this process into an allocation."""

    def put(token: str = TOKEN, **more: str) -> Allocation | None:
        for name, value in slurm.environment(token, **more).items():
            monkeypatch.setenv(name, value)
        return Allocation.of_process(token)

    return put


@pytest.mark.parametrize(
    ("short", "names"),
    [
        ("login", ["login"]),
        ("n[1-3]", ["n1", "n2", "n3"]),
        ("n[08-11,7],gpu-a", ["n08", "n09", "n10", "n11", "n7", "gpu-a"]),
        ("r[0-1]n[1-2].cluster", ["r0n1.cluster", "r0n2.cluster", "r1n1.cluster", "r1n2.cluster"]),
        ("", []),
    ],
)
def test_a_list_of_nodes_is_expanded(short, names):
    assert list(expand(short)) == names


@pytest.mark.parametrize(
    ("visible", "tokens"),
    [
        ("0,1", ["0", "1"]),
        ("", []),
        ("NoDevFiles", []),
        ("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", ["GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"]),
        ("MIG-1, MIG-2", ["MIG-1", "MIG-2"]),
    ],
)
def test_gpus_are_texts(visible, tokens):
    assert list(gpu_tokens(visible)) == tokens


def test_outside_of_slurm_there_is_no_allocation(slurm):
    assert Allocation.of_process(TOKEN) is None


def test_a_job_of_another_name_is_not_this_batch_s(inside):
    """`launcher=local` within a job that the user has for something else: that job must not be requeued, nor taken to be its own."""
    assert inside("interactive") is not None
    assert Allocation.of_process(TOKEN) is None


def test_everything_that_slurm_says(inside):
    found = inside(nodes="2", run=3, seconds=100.0, CUDA_VISIBLE_DEVICES="0,1", SLURM_ARRAY_JOB_ID="70", SLURM_ARRAY_TASK_ID="4")
    assert found is not None
    assert (found.job_id, found.restarts, found.node, found.nodes) == ("70_4", 3, "node07", ("node07", "node08"))
    assert (found.cpus, found.memory_gib, found.gpus) == (2, 2.0, ("0", "1"))
    assert 99.0 < found.seconds_left(5) <= 100.0
    assert found.to_plain() == {"job_id": "70_4", "restart": 3, "node": "node07"}


def test_an_element_of_an_array_has_the_name_of_its_submission(inside):
    assert inside(f"{TOKEN}/12") is not None


@pytest.mark.parametrize(
    ("variables", "gib"),
    [
        ({"SLURM_MEM_PER_NODE": "", "SLURM_MEM_PER_CPU": "512"}, 1.0),
        ({"SLURM_MEM_PER_NODE": "", "SLURM_MEM_PER_GPU": "1024", "SLURM_GPUS_ON_NODE": "3"}, 3.0),
        ({"SLURM_MEM_PER_NODE": ""}, None),
    ],
)
def test_memory_is_told_in_the_terms_in_which_it_was_asked_for(inside, variables, gib):
    found = inside(**variables)
    assert found is not None
    assert found.memory_gib == gib


def test_without_an_end_the_time_limit_that_was_asked_for_counts_from_now(inside):
    found = inside()
    assert found is not None
    assert 299 < found.seconds_left(5) <= 300


def test_only_a_running_job_is_requeued(slurm, inside):
    found = inside()
    assert found is not None
    assert found.requeue() == ""
    assert slurm.calls == ["show job 77", "requeue 77"]
    slurm.state("CANCELLED")
    assert found.requeue() == "SLURM says that the job is CANCELLED"
    assert slurm.requeued == 1


def test_why_a_job_is_not_requeued(slurm, inside, monkeypatch):
    found = inside()
    assert found is not None
    slurm.refuse()
    assert found.requeue() == "scontrol: error: no"
    monkeypatch.setenv("PATH", "/nowhere")
    assert "No such file or directory: 'scontrol'" in found.requeue()


# -- time -----------------------------------------------------------------------------------------------------------


def timetable(seconds: float, *, gone: float = 0.0, slowest: dict[str, float] | None = None) -> Timetable:
    """Of a job that had `seconds` in all, of which some are gone."""
    found = Timetable.of_job(seconds - gone, 30.0, slowest or {})
    found.begun = time.monotonic() - gone
    return found


def test_a_task_fits_if_the_slowest_of_its_kind_does():
    task = noop(1, resources={"walltime_minutes": 30.0})
    name = taskdir.shape_name("noop", task.resources)
    assert not timetable(1000.0).fits(task)
    assert timetable(1000.0, slowest={name: 900.0}).fits(task)
    assert not timetable(1000.0, gone=60.0, slowest={name: 900.0}).fits(task)
    assert timetable(1000.0, slowest={taskdir.shape_name("other", task.resources): 10.0}).estimate(task) == 1800.0


def test_what_a_job_sees_commit_is_an_estimate_too():
    task, found = noop(1, resources={"walltime_minutes": 30.0}), timetable(1000.0)
    assert found.learn(task, 100.0)
    assert found.fits(task)
    assert not found.learn(task, 990.0)
    assert not found.fits(task)


def test_outside_of_slurm_everything_fits():
    found = Timetable()
    assert found.fits(noop(1))
    assert found.is_early
    assert not found.is_out_of_time
    assert found.last_call == float("inf")


def test_a_job_shorter_than_its_grace_keeps_most_of_its_time():
    found = timetable(60.0)
    assert found.last_call - time.monotonic() > 44


def test_what_is_deaf_is_killed_while_the_job_can_still_say_so():
    found = timetable(3600.0)
    assert found.ends - found.last_moment == pytest.approx(15.0)
    assert found.last_moment - found.last_call == pytest.approx(30.0)
    assert Timetable().last_moment == float("inf")
    short = timetable(20.0)
    assert short.last_call < short.last_moment < short.ends


def test_only_a_warning_near_the_end_is_one_of_the_time_limit():
    assert not timetable(3600.0, gone=600.0).is_out_of_time
    assert timetable(3600.0, gone=3500.0).is_out_of_time
