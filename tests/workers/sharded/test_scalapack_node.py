"""Sums by shared memory: right for every shape, of all ranks, which wait asleep, and not for one that has ended."""

import json
import multiprocessing
import os
import time

import numpy as np
import pytest

from workers.sharded.scalapack_node import Meeting, Node

WORK_SECONDS = 0.5
FORK = multiprocessing.get_context("fork")


def said_by(size, act):
    """What ranks say, in the order of time: all children of the test, as MPI's ranks are of its daemon."""
    reader, writer = os.pipe()
    barrier = FORK.Barrier(size)

    def be_rank(number):
        os.environ["OMPI_COMM_WORLD_LOCAL_SIZE"], os.environ["OMPI_COMM_WORLD_LOCAL_RANK"] = str(size), str(number)
        meeting = Meeting.begin()
        barrier.wait(60)
        act(meeting.met(), lambda what: os.write(writer, f"{json.dumps([number, what])}\n".encode()))

    ranks = [FORK.Process(target=be_rank, args=(number,)) for number in range(size)]
    for rank in ranks:
        rank.start()
    os.close(writer)
    with os.fdopen(reader) as lines:
        return [tuple(json.loads(line)) for line in lines]


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums_are_the_same_in_all_ranks(size, dtype):
    # the first is the largest; not all can be divided by the number of ranks
    shapes = [((700, 9), "F"), ((9, 650), "C"), ((3, 1), "F"), ((1,), "C"), ((0, 4), "F")]

    def numbers(rank, shape, order):
        return np.asarray(np.random.default_rng(rank).integers(-9, 9, shape), dtype, order=order)

    def act(node, say):
        for shape, order in shapes:
            array = numbers(node.number, shape, order)
            node.add_up(array)
            say(np.array_equal(array, sum(numbers(other, shape, order) for other in range(size))))

    assert sorted(said_by(size, act)) == [(rank, True) for rank in range(size) for _ in shapes]


def test_all_wait_for_the_last_one_and_sleep_meanwhile():
    def act(node, say):
        began = time.process_time()
        while node.number == 1 and time.process_time() < began + WORK_SECONDS:
            pass
        say("is here")
        node.add_up(np.ones(4))
        say(time.process_time() - began)

    found = said_by(3, act)
    assert [what for _, what in found[:3]] == ["is here"] * 3
    busy = dict(found[3:])
    assert busy.pop(1) >= WORK_SECONDS and max(busy.values()) < WORK_SECONDS / 2


@pytest.mark.parametrize("leaves", [0, 2])
def test_a_rank_that_has_ended_is_waited_for_by_none(leaves):
    def act(node, say):
        node.add_up(np.ones(4))
        if node.number == leaves:
            os._exit(0)
        with pytest.raises(ConnectionError):
            node.add_up(np.ones(4))
        say("was told")

    assert sorted(said_by(3, act)) == [(number, "was told") for number in range(3) if number != leaves]


def test_an_array_with_gaps_is_refused():
    with pytest.raises(ValueError, match=r"sums are of contiguous arrays, this one of shape \(3, 2\) has strides"):
        Node(0, 1, []).add_up(np.ones((3, 4))[:, ::2])
