"""One suite for every kind of pool: calls are done once, in the order and place asked for, and what goes wrong is said."""

import contextlib
import errno
import math
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_here import held, needs_ray

from workers.errors import ConfigError, Diverged
from workers.sharded.pool import Call, CallFailed, Pool, WorkerLost
from workers.sharded.process_pool import ProcessPool


@pytest.fixture(scope="module", params=["processes", pytest.param("ray", marks=needs_ray)])
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    """Two workers that all tests of this file share, as runs of one task do."""
    with contextlib.ExitStack() as stack:
        if request.param == "ray":
            from workers.sharded.ray_cluster import ray_cluster
            from workers.sharded.ray_pool import RayPool

            patch = stack.enter_context(pytest.MonkeyPatch.context())
            for name, value in held().variables.items():
                patch.setenv(name, value)
            stack.enter_context(ray_cluster(address=held().address))
            yield stack.enter_context(RayPool(2))
        else:
            yield stack.enter_context(ProcessPool(2))


def folder_calls(folder: Path, count: int, **more: int) -> list[Call]:
    return [Call({"folder": str(folder), "number": number, **more}) for number in range(count)]


def test_every_call_is_done_once_and_says_which_it_is(pool):
    assert sorted(pool.run("pool_calls:double", [Call({"x": n}) for n in range(20)])) == [(n, 2 * n) for n in range(20)]


def test_no_calls_are_no_work(pool):
    assert list(pool.run("pool_calls:double", [])) == []


def test_both_workers_work_and_are_kept_from_run_to_run(pool, tmp_path):
    pids = []
    for run in ("first", "second"):
        (tmp_path / run).mkdir()
        calls = [Call({"folder": str(tmp_path / run), "number": n, "parties": 2}) for n in range(2)]
        pids.append({result for _, result in pool.run("pool_calls:meet", calls)})
    assert len(pids[0]) == 2
    assert pids[0] == pids[1]
    assert os.getpid() not in pids[0]


def test_calls_of_one_affinity_go_to_one_worker_in_their_order(pool):
    calls = [Call({"name": f"panel {n % 5}"}, affinity=n % 5) for n in range(30)]
    by_affinity = defaultdict(list)
    for index, result in sorted(pool.run("pool_calls:count", calls)):
        by_affinity[index % 5].append(result)
    assert all(len({pid for pid, _ in results}) == 1 for results in by_affinity.values())
    assert all([number for _, number in results] == list(range(1, 7)) for results in by_affinity.values())


@pytest.mark.parametrize("in_flight", [1, 2, 5])
def test_no_worker_has_more_calls_than_allowed(pool, tmp_path, in_flight):
    (tmp_path / "go").touch()
    given = []
    give = type(pool).give

    class Counting:
        def __getattr__(self, name):
            return getattr(pool, name)

        def give(self, worker, index, function, arguments):
            given.append(index)
            give(pool, worker, index, function, arguments)

    results = Pool.run(Counting(), "pool_calls:wait", folder_calls(tmp_path, 30), in_flight=in_flight)
    done = 0
    for _ in results:
        done += 1
        assert len(given) - done <= 2 * in_flight
    assert done == 30


def test_no_call_waits_behind_another_while_a_worker_may_get_free_for_it(pool, tmp_path):
    given, seen = [], []

    class Counting:
        def __getattr__(self, name):
            return getattr(pool, name)

        def give(self, worker, index, function, arguments):
            given.append(index)
            pool.give(worker, index, function, arguments)

    def look() -> bool:
        if len(list(tmp_path.glob("began-*"))) == 2:
            seen.append(len(given))
            (tmp_path / "go").touch()
        return False

    list(Pool.run(Counting(), "pool_calls:wait", folder_calls(tmp_path, 3), stopping=look, in_flight=5))
    assert seen[0] == 2


def test_the_call_that_a_worker_dies_of_is_done_again(pool, tmp_path):
    seen, lost = [], []
    calls = [Call({"folder": str(tmp_path), "number": n, "times": 2 if n == 2 else 0}, affinity=n % 2) for n in range(6)]
    run = pool.run("pool_calls:die", calls, in_flight=1, retries=2, report=seen.append, lost=lost.append)
    assert sorted(run) == [(n, n) for n in range(6)]
    assert seen[-1].redone == 2
    assert len(lost) == 2 and all("in call 2, which is done elsewhere" in message for message in lost)
    attempts = sorted(path.name for path in tmp_path.iterdir())
    assert attempts == ["0-0", "1-0", "2-0", "2-1", "2-2", "3-0", "4-0", "5-0"]


def test_a_call_that_kills_its_workers_again_and_again_ends_the_run(pool, tmp_path):
    calls = [Call({"folder": str(tmp_path), "number": 0, "times": 9})]
    with pytest.raises(WorkerLost, match=r"call 0 of pool_calls:die with .* has ended 3 workers.*memory"):
        list(pool.run("pool_calls:die", calls, retries=2))
    assert len(list(tmp_path.iterdir())) == 3
    assert list(pool.run("pool_calls:double", [Call({"x": 2})])) == [(0, 4)], "the pool is as good as new"


def test_an_exception_ends_the_run_with_its_traceback(pool, tmp_path):
    with pytest.raises(CallFailed, match="call 0 of pool_calls:fail failed: ValueError: no such panel") as caught:
        list(pool.run("pool_calls:fail", [Call({"message": "no such panel"})]))
    assert "pool_calls.py" in caught.value.__notes__[0]
    assert os.uname().nodename in caught.value.__notes__[0]


@pytest.mark.parametrize(
    ("kind", "cls"), [("Diverged", Diverged), ("MemoryError", MemoryError), ("torch", MemoryError), ("OSError", OSError)]
)
def test_exceptions_that_have_a_cure_are_raised_as_what_they_are(pool, kind, cls):
    with pytest.raises(cls, match=r"NaN in layers\.0") as caught:
        list(pool.run("pool_calls:fail", [Call({"message": "NaN in layers.0", "kind": kind})]))
    assert getattr(caught.value, "errno", errno.ENOSPC) == errno.ENOSPC


def test_a_call_that_wants_to_leave_fails(pool):
    with pytest.raises(CallFailed, match="SystemExit: left"):
        list(pool.run("pool_calls:leave", [Call({})]))


def test_after_a_failure_nothing_of_that_run_is_taken_for_the_next(pool, tmp_path):
    calls = folder_calls(tmp_path, 1)
    mixed = [*calls, Call({"message": "now"})]
    with pytest.raises(CallFailed):
        list(pool.run("pool_calls:fail", [mixed[1], mixed[1], mixed[1]]))
    assert sorted(pool.run("pool_calls:double", [Call({"x": n}) for n in range(4)])) == [(n, 2 * n) for n in range(4)]


def test_a_caller_that_has_enough_leaves_no_call_behind(pool):
    for _ in pool.run("pool_calls:double", [Call({"x": n}) for n in range(50)]):
        break
    assert sorted(pool.run("pool_calls:double", [Call({"x": -n}) for n in range(4)])) == [(n, -2 * n) for n in range(4)]


def test_at_the_warning_what_runs_is_ended_and_nothing_else_begins(pool, tmp_path):
    told = []

    class Telling:
        def __getattr__(self, name):
            return getattr(pool, name)

        def drop(self, worker):
            pool.drop(worker)
            told.append(worker)
            if len(told) == 2:
                (tmp_path / "go").touch()

    def stopping() -> bool:
        return len(list(tmp_path.glob("began-*"))) == 2

    results = Pool.run(Telling(), "pool_calls:wait", folder_calls(tmp_path, 10), stopping=stopping, in_flight=4)
    done = {index for index, _ in results}
    begun = {int(path.name.removeprefix("began-")) for path in tmp_path.glob("began-*")}
    assert done == begun
    assert 2 <= len(done) <= 4  # a worker may take its next call just before it hears of the warning
    assert list(pool.run("pool_calls:double", [Call({"x": 1})])) == [(0, 2)]


def test_results_are_plain_values_of_any_length_and_a_nan_stays_a_nan(pool):
    results = dict(pool.run("pool_calls:give", [Call({"what": "nan"}), Call({"what": "long"})]))
    assert math.isnan(results[0])
    assert len(results[1]) == 300_000
    with pytest.raises(CallFailed, match="must return plain values"):
        list(pool.run("pool_calls:give", [Call({"what": "set"})]))


def test_workers_have_the_threads_of_the_pool(pool):
    assert list(pool.run("pool_calls:threads", [Call({})])) == [(0, "1")]


@pytest.mark.parametrize(
    ("function", "calls", "more", "words"),
    [
        ("pool_calls.double", [], {}, "'module:name'"),
        ("pool_calls:double", [Call({"x": {1, 2}})], {}, "plain values"),
        ("pool_calls:double", [], {"in_flight": 0}, "in_flight"),
        ("pool_calls:double", [], {"retries": -1}, "retries"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_starts(pool, function, calls, more, words):
    with pytest.raises(ConfigError, match=words):
        pool.run(function, calls, **more)


def test_an_unknown_function_fails_with_its_name(pool):
    with pytest.raises(CallFailed, match="no_such_function"):
        list(pool.run("pool_calls:no_such_function", [Call({})]))


def test_progress_tells_done_total_and_speed(pool):
    seen = []
    list(pool.run("pool_calls:double", [Call({"x": n}) for n in range(4)], report=seen.append))
    assert [one.done for one in seen] == [1, 2, 3, 4]
    assert all(one.total == 4 and one.per_second > 0 for one in seen)
    assert "1 of 4 calls" in str(seen[0])
    assert "left" in str(seen[0]) and "left" not in str(seen[-1])
