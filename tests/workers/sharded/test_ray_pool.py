"""Workers that are Ray's actors: what only these have."""

import os
from collections.abc import Iterator

import pytest
from batches import is_gone, wait_for
from ray_here import held, needs_ray

from workers.errors import ConfigError
from workers.sharded import ray_node, ray_pool
from workers.sharded.pool import Call
from workers.sharded.ray_cluster import load_ray, ray_cluster
from workers.sharded.ray_pool import RayPool

pytestmark = needs_ray


@pytest.fixture(scope="module", autouse=True)
def _connected() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in held().variables.items():
            patch.setenv(name, value)
        with ray_cluster(address=held().address):
            yield


def test_workers_are_spread_over_the_nodes(tmp_path):
    with RayPool(2) as pool:
        calls = [Call({"folder": str(tmp_path), "number": n, "parties": 2}) for n in range(2)]
        assert len(set(dict(pool.run("pool_calls:meet", calls)).values())) == 2
        places = load_ray().util.placement_group_table(pool._group)["bundles_to_node_id"]
        assert len(set(places.values())) == 2
        assert pool.hosts() == [os.uname().nodename] * 2


def test_closing_ends_the_workers_and_gives_their_places_back():
    pool = RayPool(4)
    list(pool.run("pool_calls:double", [Call({"x": 1})] * 4))
    pids = list(pool.process_ids().values())
    assert pids
    pool.close()
    wait_for(lambda: all(map(is_gone, pids)), "the actors to end")
    wait_for(lambda: load_ray().available_resources().get("CPU") == 4.0, "their places to be free")


def test_what_ray_has_no_room_for_is_refused_with_what_it_has():
    with (
        RayPool(5, start_seconds=1) as pool,
        pytest.raises(ConfigError, match=r"no room for 5 workers with .*'CPU': 1.* it has .*'CPU': 4\.0"),
    ):
        list(pool.run("pool_calls:double", [Call({"x": 1})]))


def test_the_memory_of_each_worker_is_limited():
    with RayPool(1, memory_gib=0.25) as pool:
        assert list(pool.run("pool_calls:fill", [Call({"mib": 64})])) == [(0, 64 * 2**20)]
        assert pool.peak_mib > 64
        with pytest.raises(MemoryError, match=r"call 0 of pool_calls:fill found no memory above the 0\.25 GiB of each worker"):
            list(pool.run("pool_calls:fill", [Call({"mib": 400})]))


def test_a_node_of_other_code_is_refused_by_name(monkeypatch):
    ours = ray_node.node_versions()
    monkeypatch.setattr(ray_pool, "node_versions", lambda: {**ours, "code": "c0de", "host": "login"})
    with RayPool(1) as pool, pytest.raises(ConfigError, match=rf"node {os.uname().nodename} has code \w+, not c0de as login"):
        list(pool.run("pool_calls:double", [Call({"x": 1})]))


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"num_workers": 0}, "num_workers"), ({"threads": 0}, "threads"), ({"memory_gib": 0.0}, "memory_gib")],
)
def test_settings_that_cannot_be_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        RayPool(**{"num_workers": 1, **settings})
