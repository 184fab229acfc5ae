"""Slots, GPUs, limits and the order of tasks, each by itself."""

import os
import signal
import subprocess
import sys

import pytest
from batches import PYTHONPATH, act, key, noop, own_slots, wait_for  # noqa: F401

from workers import limits, slots
from workers.agenda import Agenda, num_slots
from workers.processes import Process, start_ticks
from workers.slots import Gpus, Slots

pytestmark = pytest.mark.usefixtures("own_slots")
NUM_CPUS = len(os.sched_getaffinity(0))


# -- slots ----------------------------------------------------------------------------------------------------------


def test_two_jobs_never_hold_a_cpu_both():
    one, other = Slots.of_machine(None, 1), Slots.of_machine(None, 1)
    assert len(one.take(NUM_CPUS + 5)) == NUM_CPUS
    assert other.take(1) == []
    one.release(one.held[0])
    assert len(other.take(2)) == 1


def test_slots_of_several_cpus_take_all_of_them_or_none():
    wide, narrow = Slots(most=1, cpus_per_slot=NUM_CPUS), Slots.of_machine(None, 1)
    narrow.take(1)
    assert wide.take(1) == []
    narrow.release(narrow.held[0])
    (slot,) = wide.take(1)
    assert slot.cpus == sorted(os.sched_getaffinity(0))


def test_more_slots_than_cpus_share_them_as_asked():
    crowd = Slots.of_machine(4 * NUM_CPUS, 1)
    assert len(crowd.take(100)) == 4 * NUM_CPUS
    assert sorted({slot.number for slot in crowd.held}) == list(range(4 * NUM_CPUS))
    assert {cpu for slot in crowd.held for cpu in slot.cpus} == os.sched_getaffinity(0)


def test_the_kernel_frees_the_slots_of_a_killed_process():
    code = "import sys, time\nfrom workers.slots import Slots\nprint(len(Slots.of_machine(None, 1).take(99)), flush=True)\ntime.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": PYTHONPATH}) as other:
        assert int(other.stdout.readline()) == NUM_CPUS
        mine = Slots.of_machine(None, 1)
        assert mine.take(1) == []
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert len(mine.take(1)) == 1


def test_a_gpu_is_lent_to_so_many_tasks_and_to_one_job():
    one, other = Gpus(["0", "GPU-1"], tasks_per_gpu=2), Gpus(["0", "GPU-1"])
    assert one.take(2) == ["0", "GPU-1"]
    assert one.take(1) == ["0"]
    assert other.take(1) is None
    one.release(["0", "GPU-1"])
    assert other.take(1) == ["GPU-1"]
    assert one.take(2) is None
    assert one.take(1) == ["0"]


def test_gpus_are_those_that_this_process_may_see(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert slots.visible_gpus() == ["2", "5"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6, MIG-1b2a")
    assert slots.visible_gpus() == ["GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", "MIG-1b2a"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert slots.visible_gpus() == []


@pytest.mark.parametrize(("cpus", "memory_gib", "expected"), [(1, 0.5, 1), (2, 0.5, 1), (3, 0.5, 2), (1, 2.5, 3), (64, 64.0, 4)])
def test_a_task_occupies_slots_by_its_cpus_and_its_memory(cpus, memory_gib, expected):
    task = noop(1, resources={"cpus": cpus, "memory_gib": memory_gib})
    assert num_slots(task, cpus_per_slot=2, memory_gib_per_slot=1.0, most=4) == expected


# -- limits ---------------------------------------------------------------------------------------------------------


def test_a_child_notices_that_it_may_run_elsewhere():
    assert limits.unmet(sorted(os.sched_getaffinity(0)), None) == ""
    assert "cpus" in limits.unmet([9999], None)


def test_the_memory_of_a_tree_counts_its_children():
    code = "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'x = b\"x\" * (100 << 20); print(1, flush=True); input()'])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        parent.stdout.readline()
        assert limits.tree_mib(parent.pid) > 100
        parent.communicate(b"\n")
    assert limits.tree_mib(parent.pid) == 0.0


@pytest.mark.skipif(limits.hierarchy() is None, reason="no memory cgroup may be made here")
def test_groups_of_dead_jobs_are_cleared_and_those_of_living_ones_stay():
    dead = limits.make_group(f"eigensweep-{os.getpid()}-1-1", 2**30)
    living = limits.make_group(limits.group_name(os.getpid(), 1), 2**30)
    limits.clear_abandoned()
    assert not dead.folder.exists()
    assert living.folder.exists()
    living.remove()
    assert not living.folder.exists()


def test_a_process_is_not_another_with_its_id():
    me = Process.of_pid(os.getpid())
    assert Process.parse(str(me)) == me
    assert me.alive
    assert me.is_here
    assert not Process(me.host, me.boot, me.pid, me.start - 1).alive
    assert not Process(me.host, "another boot", me.pid, me.start).alive
    child = subprocess.Popen(["true"])
    wait_for(lambda: start_ticks(child.pid) == 0, "the child to die")  # a zombie counts as dead
    child.wait()


# -- agenda ---------------------------------------------------------------------------------------------------------


def drain(agenda: Agenda, outcome: str = "completed") -> list[int]:
    order = []
    while agenda.peek() is not None:
        order.append(agenda.pop())
        agenda.ended(order[-1], outcome, "f")
    return order


def test_inputs_come_first_and_lone_tasks_last():
    tasks = [noop(0, inputs={"a": 3}), noop(1, alone=True), noop(2, inputs={"a": 0, "b": 3}), noop(3), noop(4)]
    agenda = Agenda(tasks)
    assert drain(agenda) == [3, 0, 2, 4, 1]
    assert agenda.unfinished == 0


def test_what_depends_on_a_failure_is_never_ready():
    assert drain(Agenda([noop(0), noop(1, inputs={"a": 0})]), "killed") == [0]


def test_a_failing_workload_is_stopped_and_another_goes_on():
    agenda = Agenda([*(noop(n) for n in range(10)), *(act(n, "rows") for n in range(10, 12))])
    assert drain(agenda, "user_error") == [0, 1, 2, 10, 11]


def test_different_errors_do_not_stop_a_workload():
    agenda = Agenda([noop(n) for n in range(6)])
    assert [agenda.ended(agenda.pop(), "user_error", str(n)) for n in range(6)] == [False] * 6


def test_dropped_tasks_are_not_handed_out():
    agenda = Agenda([noop(n) for n in range(3)])
    agenda.drop({key(0), key(2)})
    assert drain(agenda) == [1]
