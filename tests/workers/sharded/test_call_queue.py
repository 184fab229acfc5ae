"""Who takes which call."""

from workers.sharded.call_queue import CallQueue


def taken(queue: CallQueue, worker: int) -> list[int]:
    """All that a worker takes if nobody else takes any."""
    calls = []
    while (index := queue.take(worker)) is not None:
        calls.append(index)
    return calls


def test_a_worker_takes_the_longest_affinity_first_and_keeps_to_it():
    queue = CallQueue([0, 1, 1, 0, 1])
    assert [queue.take(7), queue.take(8), queue.take(7), queue.take(8), queue.take(7)] == [1, 0, 2, 3, 4]


def test_what_belongs_to_another_worker_is_left_to_it():
    queue = CallQueue([0, 0, 0])
    assert queue.take(1) == 0
    assert queue.take(2) is None
    queue.release(1)
    queue.put_back(0)
    assert taken(queue, 2) == [0, 1, 2]


def test_helpers_take_from_the_end_while_enough_is_left():
    queue = CallQueue([0] * 5, helps_from=3)
    assert queue.take(1) == 0
    assert [queue.take(2), queue.take(2), queue.take(2)] == [4, 3, None]
    assert taken(queue, 1) == [1, 2]


def test_calls_without_affinity_are_for_everybody():
    queue = CallQueue([None] * 4)
    assert [queue.take(1), queue.take(2), queue.take(1), queue.take(3), queue.take(1)] == [0, 1, 2, 3, None]
    assert len(queue) == 0
