"""Ranks of a task: a share of the memory each, the warning passed on, and errors that come back as what they are."""

import signal
import threading

import pytest
import rank_acts
import torch
from batches import wait_for

from workers import files
from workers.context import Context
from workers.errors import ConfigError
from workers.execute import classify
from workers.sharded.memory import BASE_GIB
from workers.sharded.ranks import rank_versions, run_ranks
from workers.taskdir import Task


@pytest.fixture
def context(tmp_path):
    return Context(root=tmp_path, task=Task(key="k" * 26, workload="noop", version=1, settings={}, inputs={}), attempt="a")


@pytest.fixture
def in_this_process(monkeypatch):
    """Ranks one after the other, here, so that a test sees what they do."""

    def fork(act, num_ranks, **options):
        for rank in range(num_ranks):
            try:
                act(rank)
            except Exception:
                return 1
        return 0

    monkeypatch.setattr("workers.sharded.ranks.fork", fork)
    threads, handler = torch.get_num_threads(), signal.getsignal(signal.SIGUSR2)
    yield
    torch.set_num_threads(threads)
    signal.signal(signal.SIGUSR2, handler)


def test_a_rank_that_needs_more_than_its_share_of_memory_says_so(context):
    with pytest.raises(MemoryError, match=r"rank 1 of 2 on \S+ found no memory above its share, 1.50 GiB; give more resources.memory_gib"):
        run_ranks(context, rank_acts.fill, {}, ranks_per_node=2, rank_gib=1.5)


def test_ranks_hear_of_the_warning(context):
    def warn():
        wait_for(lambda: {"there-0", "there-1"} < set(files.names(context.folder)), "both ranks", seconds=120)
        context.stop.set()

    threading.Thread(target=warn, daemon=True).start()
    assert run_ranks(context, rank_acts.wait_for_a_stop, {}, ranks_per_node=2) == 0
    assert {"stopped-0", "stopped-1"} < set(files.names(context.folder))


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    ("error", "outcome", "message"),
    [
        ("full", "disk_full", r"rank 0 of 2 on \S+: \[Errno 28\] No space left on device: 'tile.npy'"),
        ("cuda", "cuda_oom", r"rank 0 of 2 on \S+: CUDA out of memory"),
        ("memory", "host_oom", r"rank 0 of 2 on \S+ found no memory; give more resources.memory_gib, or fewer resources.cpus"),
    ],
)
def test_what_is_wrong_with_a_rank_is_wrong_with_the_task(context, error, outcome, message):
    with pytest.raises(Exception, match=message) as raised:
        run_ranks(context, rank_acts.raise_, {"error": error}, ranks_per_node=2)
    assert classify(raised.value, progressed=False, told_to_stop=False) == outcome


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("kept_gib", [0.0, 0.75])
def test_the_first_rank_may_have_more_and_no_rank_pays_for_what_its_process_kept_before(context, monkeypatch, kept_gib):
    limits = []
    monkeypatch.setattr("workers.sharded.ranks.used_bytes", lambda: int((BASE_GIB + kept_gib) * 2**30))
    monkeypatch.setattr("workers.sharded.ranks.set_up", lambda path, count: limits.append(count / 2**30))
    run_ranks(context, rank_acts.raise_, {}, ranks_per_node=2, rank_gib=1.5, first_gib=4.0)
    assert limits == pytest.approx([4.0 + kept_gib, 1.5 + kept_gib])


@pytest.mark.usefixtures("in_this_process")
def test_a_node_without_a_package_says_so(context):
    with pytest.raises(RuntimeError, match=r"rank 0 of 2 on \S+: ModuleNotFoundError: No module named 'polars'") as raised:
        run_ranks(context, rank_acts.raise_, {"error": "import"}, ranks_per_node=2)
    assert classify(raised.value, progressed=False, told_to_stop=False) == "user_error"


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"code": "0123", "folder": "/elsewhere"}, r"has code \w+, not 0123 as login1"),
        ({"python": "3.9.1"}, r"has python 3\.\d+\.\d+, not 3.9.1 as login1"),
        ({"torch": "1.0"}, r"has torch \S+, not 1.0 as login1"),
    ],
)
def test_a_node_with_other_versions_is_refused_by_name(context, monkeypatch, change, said):
    told = {**rank_versions(), "host": "login1", **change}
    once = iter([told])
    monkeypatch.setattr("workers.sharded.ranks.rank_versions", lambda: next(once, rank_versions()))
    with pytest.raises(
        ConfigError, match=rf"node \S+ {said}: all nodes must have the same environment and source. What is published stays"
    ):
        run_ranks(context, rank_acts.raise_, {}, ranks_per_node=2)


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("error", ["peer", "pipe"])
def test_what_may_be_another_ranks_death_is_but_a_status(context, error):
    assert run_ranks(context, rank_acts.raise_, {"error": error}, ranks_per_node=2) == 1
