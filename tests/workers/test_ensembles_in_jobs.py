"""Ensembles in a job: who goes together, and that each member has its own attempt, end and commit whatever befalls the others."""

import os
import random
import signal
import socket
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from batches import Batch, key, own_slots, wait_for  # noqa: F401

from workers import files, taskdir
from workers.agenda import Agenda
from workers.data.digits import Digits
from workers.execute import execute_many
from workers.optimizers.adam import Adam
from workers.taskdir import Task
from workers.workloads.train import Train

pytestmark = pytest.mark.usefixtures("own_slots")


def choir(number: int, do: str = "rows", resources: dict | None = None, **more) -> Task:
    return Task(
        key=key(number),
        workload="job_package.choir",
        version=1,
        settings={"do": do, "index": number, "ensemble": True, **more},
        inputs={},
        resources={"cpus": 1, "gpus": 0, "memory_gib": 0.25, "walltime_minutes": 1.0, **(resources or {})},
        sweeps=["s"],
    )


def sizes(batch: Batch, numbers) -> list[int]:
    return [int(batch.scalars(number)["size"]) for number in numbers]


def says_progress(batch: Batch, number: int) -> bool:
    return any(event["event"] == "progress" and event["key"] == key(number) for event in batch.events())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


def test_tasks_that_may_go_together_fill_all_slots_and_each_has_an_attempt_of_its_own(root):
    others = [choir(7, file="x"), choir(8, ensemble=False)]
    batch = Batch.write(root, [choir(number) for number in range(7)] + others).run()
    assert Counter(sizes(batch, range(7))) == {4: 4, 3: 3}
    assert sizes(batch, (7, 8)) == [1, 1]
    for kind in ("start", "end"):
        assert Counter(event["key"] for event in batch.events() if event["event"] == kind) == Counter(map(key, range(9)))
    ends = [event for event in batch.events() if event["event"] == "end"]
    assert len({event["attempt"] for event in ends}) == 9
    assert {event["class"] for event in ends} == {"completed"}
    shares = {number: batch.end(number)["cpus"] for number in range(9)}
    assert sum(shares[number] for number in range(7)) == pytest.approx(2.0)  # two slots, as long as they took
    assert [batch.end(number).get("members") for number in range(9)] == [*sizes(batch, range(7)), None, None]


def test_an_ensemble_too_large_for_one_message_is_halved(root):
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        most = one.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    # longer than what compression looks back for
    name = random.Random(0).randbytes(15 * most // 100).hex()
    batch = Batch.write(root, [choir(number, file=name) for number in range(8)], slots=1).run()
    assert sizes(batch, range(8)) == [4] * 8
    assert Counter(event["class"] for event in batch.events() if event["event"] == "end") == {"completed": 8}


BAD_START = """
import os, sys
from pathlib import Path
from workers import job
spawn, starts = os.posix_spawn, iter(range(99))
os.posix_spawn = lambda path, argv, *more, **how: spawn(path, argv if next(starts) else [path, "-c", "raise SystemExit(1)"], *more, **how)
sys.exit(job.main(Path(sys.argv[1]), sys.argv[2]))
"""


def test_a_child_that_dies_at_its_start_costs_one_member_and_is_one_failed_start(root):
    batch = Batch.write(root, [choir(number) for number in range(6)], slots=1, ensemble_size=4)
    batch.command = ["-P", "-c", BAD_START]
    batch.run()
    assert [batch.outcomes()[key(number)] for number in range(6)] == ["never_started"] + ["completed"] * 5
    assert batch.over == "finished"


def test_a_workload_that_cannot_be_loaded_here_ends_its_own_tasks_alone(root):
    absent = [replace(choir(number), workload="job_package.absent") for number in (1, 2)]
    batch = Batch.write(root, [choir(0), *absent], slots=1).run()
    assert [batch.outcomes()[key(number)] for number in range(3)] == ["completed", "never_started", "never_started"]
    assert "job_package.absent" in batch.end(2)["message"]


@pytest.mark.parametrize("most", [1, 2])
def test_an_ensemble_is_no_larger_than_the_launcher_says(root, most):
    batch = Batch.write(root, [choir(number) for number in range(5)], ensemble_size=most).run()
    assert max(sizes(batch, range(5))) == most


def test_an_ensemble_above_its_memory_goes_on_one_by_one_uncharged(root):
    batch = Batch.write(root, [choir(number, "grow") for number in range(3)], slots=1, limit_memory_by="watchdog").run()
    assert sizes(batch, range(3)) == [1, 1, 1]
    ends = [event for event in batch.events() if event["event"] == "end"]
    assert Counter(event["class"] for event in ends) == {"interrupted": 3, "completed": 3}
    assert "an ensemble of 3 was too large for its memory; it goes on alone" in [event["message"] for event in ends]


def test_an_ensemble_that_fills_a_gpu_goes_on_one_by_one_uncharged(root):
    batch = Batch.write(root, [choir(number, "fill") for number in range(3)], slots=1).run()
    assert sizes(batch, range(3)) == [1, 1, 1]
    assert Counter(event["class"] for event in batch.events() if event["event"] == "end") == {"interrupted": 3, "completed": 3}


def test_members_of_a_killed_ensemble_go_on_from_their_own_checkpoints(root, tmp_path):
    tasks = [choir(number, "die", file=str(tmp_path / "died")) for number in range(3)]
    batch = Batch.write(root, tasks, slots=1).run()
    assert set(batch.outcomes().values()) == {"killed"}
    again = Batch.write(root, [replace(task, num_failed=1) for task in tasks], "s-again", slots=1).run()
    assert sizes(again, range(3)) == [1, 1, 1]  # one of them may be what kills
    assert [again.scalars(number)["resumed"] for number in range(3)] == [5, 5, 5]


def test_a_cancelled_member_ends_and_the_others_go_on_without_it(root, tmp_path):
    batch = Batch.write(root, [choir(number, "wait", file=str(tmp_path / "go")) for number in range(3)], slots=1).start()
    batch.wait_for_start(2)
    for number in range(3):
        wait_for(partial(says_progress, batch, number), "progress of each")
    (batch.folder / "cancel-1.json").write_bytes(files.encode({"keys": [key(1)]}))
    wait_for(lambda: key(1) in batch.outcomes(), "the end of the cancelled")
    (tmp_path / "go").touch()
    batch.wait()
    assert batch.end(1)["class"] == "cancelled"
    assert sizes(batch, (0, 2)) == [2, 2]
    assert [batch.scalars(number)["resumed"] for number in (0, 2)] == [5, 5]


def test_told_to_stop_all_members_end_with_their_checkpoints(root, tmp_path):
    batch = Batch.write(root, [choir(number, "wait", file=str(tmp_path / "go")) for number in range(3)], slots=1).start()
    wait_for(partial(says_progress, batch, 2), "progress")
    batch.signal(signal.SIGTERM)
    batch.wait()
    assert set(batch.outcomes().values()) == {"interrupted"}
    assert [batch.end(number)["checkpoint"] for number in range(3)] == [5, 5, 5]


def test_a_member_that_diverges_is_the_only_one(root):
    batch = Batch.write(root, [choir(number, "diverge") for number in range(3)], slots=1).run()
    assert [batch.outcomes()[key(number)] for number in range(3)] == ["completed", "diverged", "completed"]


def test_an_error_of_one_member_sends_each_on_alone_and_fails_that_one(root):
    batch = Batch.write(root, [choir(number, "fail") for number in range(4)], slots=1).run()
    assert [batch.outcomes()[key(number)] for number in range(4)] == ["completed", "user_error", "completed", "completed"]
    assert sizes(batch, (0, 2, 3)) == [1, 1, 1]
    ends = [event for event in batch.events() if event["event"] == "end"]
    assert Counter(event["class"] for event in ends) == {"interrupted": 4, "user_error": 1, "completed": 3}
    assert "an ensemble of 4 failed ('no choir'); it goes on alone" in [event["message"] for event in ends]


def test_what_is_committed_or_dropped_or_alone_joins_nobody_and_suspects_join_suspects(root):
    tasks = [choir(number) for number in range(9)]
    Batch.write(root, tasks[1:2], "s-before").run()
    agenda = Agenda(tasks, suspects=set(map(key, (2, 7, 8))), loners={key(8)})
    agenda.drop({key(3)})
    assert agenda.pop() == 0
    assert agenda.pop_mates(0, root, [], 1, 16) == [4, 5, 6]
    assert [agenda.peek(), agenda.pop()] == [1, 1]
    assert [agenda.peek(), agenda.pop()] == [2, 2]
    assert agenda.pop_mates(2, root, [], 1, 16) == [7]
    assert [agenda.peek(), agenda.pop()] == [8, 8]
    assert agenda.pop_mates(8, root, [], 1, 16) == []


@pytest.mark.parametrize(("places", "running", "sizes"), [(1, [], 4), (2, [], 3), (3, [], 2), (2, [6, 7, 8], 4), (9, [], 1)])
def test_an_ensemble_leaves_something_for_the_other_places(root, places, running, sizes):
    """Six wait, of which one is given out, and some run already; four at most go together."""
    agenda = Agenda([choir(number) for number in range(9)])
    for index in running:
        agenda.drop({key(index)})
    waiting = [agenda.pop() for _ in range(9)]
    for index in waiting[1:6]:
        agenda.put_back(index)
    assert len(agenda.pop_mates(waiting[0], root, running, places, 4)) == sizes - 1


def test_training_killed_as_an_ensemble_ends_bit_identical(root, tmp_path):
    """SIGKILL of the child between two checkpoints; the same members in the next job."""
    workload = Train(
        data=Digits(), optimizer=Adam(), train_size=200, test_size=100, num_steps=200, ensemble=True, checkpoint_every_seconds=0.02
    )
    tasks = [
        replace(choir(number), workload="train", settings=replace(workload, seed=number).to_plain(), resources={"memory_gib": 2.0})
        for number in range(3)
    ]
    batch = Batch.write(root, tasks, slots=1).start()
    wait_for(lambda: len(list(root.glob("tasks/*/*/attempts/*/checkpoint-*.json"))) >= 3, "checkpoints")
    os.kill(batch.children()[0], signal.SIGKILL)
    batch.wait()
    assert set(batch.outcomes().values()) == {"killed"}
    again = Batch.write(root, tasks, "s-again", slots=1).run()
    assert all(again.end(number)["resumed_at"] > 0 for number in range(3))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        execute_many(tmp_path / "whole", tasks, attempts=["a", "b", "c"], code="test", told=lambda attempt, ended: None)
    finally:
        torch.set_num_threads(before)
    for number in range(3):
        assert taskdir.read_commit(root, key(number)).rows == taskdir.read_commit(tmp_path / "whole", key(number)).rows
