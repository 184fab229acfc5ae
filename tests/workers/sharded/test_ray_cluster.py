"""A Ray of our own is gone whatever happens, another's is left alone, and what cannot be used is said."""

import importlib.util
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from batches import PYTHONPATH, is_gone, wait_for
from ray_here import Held, held, hold, needs_ray, ray_here  # noqa: F401

from workers.errors import ConfigError
from workers.execute import classify
from workers.sharded import ray_crew, ray_node
from workers.sharded.ray_cluster import ray_cluster
from workers.sharded.ray_crew import RayUnusable

DRIVER_OF_TWO_NODES = """
import os, sys
from workers.sharded.pool import Call
from workers.sharded.ray_cluster import ray_cluster
from workers.sharded.ray_pool import RayPool
folder, host = sys.argv[1], os.uname().nodename
with ray_cluster([host, "localhost"], cpus_per_node=1), RayPool(2) as pool:
    from ray._private.worker import _global_node
    open(folder + "/mine", "w").write(_global_node.raylet_socket_name)
    calls = [Call({"folder": folder, "number": n}) for n in range(6)]
    seen = []
    results = sorted(pool.run("pool_calls:wait", calls, report=seen.append))
    assert results == [(n, n) for n in range(6)], results
    print(os.environ.get("RAY_AUTH_TOKEN"), os.environ.get("RAY_ADDRESS"))
    print(f"redone={seen[-1].redone} left={len(pool.hosts())}", flush=True)
"""

SRUN = """#!/bin/sh
echo "$@" >> "$OUT/words"
while [ "$1" != "--" ]; do shift; done
shift
exec "$@"
"""

KEEPER_OF_A_SHELL = """
import sys
from workers.sharded import ray_node
ray_node.command = lambda folder, orders: ["sh", "-c", f"(sleep 600 & echo $! > {sys.argv[1]}/sleep); sleep 600"]
sys.exit(ray_node.main())
"""


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def keepers_folder(pid: int) -> str:
    """Of the lock that it holds."""
    (lock,) = (link for fd in Path(f"/proc/{pid}/fd").iterdir() if (link := os.readlink(fd)).endswith("/lock"))
    return lock.removesuffix("lock")


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """For folders of Rays that this test starts; other tests have theirs in /tmp."""
    with tempfile.TemporaryDirectory(prefix="k", dir="/tmp") as short:
        monkeypatch.setenv("EIGENSWEEP_RAY_DIR", short)
        yield Path(short)


@pytest.fixture
def cluster() -> Iterator[Held]:
    found = hold(1)
    yield found
    found.process.kill()
    found.process.wait()


@needs_ray
def test_nothing_of_our_ray_outlives_a_kill_of_all_that_began_it(cluster):
    (keeper,) = cluster.keepers()
    mine = [keeper, *ray_node._descendants(keeper)]
    assert len(mine) > 5
    os.killpg(cluster.process.pid, signal.SIGKILL)
    wait_for(lambda: all(map(is_gone, mine)), "all processes of that Ray to end")
    wait_for(lambda: not cluster.folder.exists(), "its folder to be removed")


@pytest.mark.parametrize("number", [None, signal.SIGTERM], ids=["closed", "SIGTERM"])
def test_a_keeper_finds_also_what_has_lost_its_parent(place, tmp_path, number):
    command = [sys.executable, "-P", "-c", KEEPER_OF_A_SHELL, str(tmp_path)]
    keeper = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": PYTHONPATH}, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert keeper.stdin is not None
    keeper.stdin.write(json.dumps({"versions": ray_node.node_versions(), "token": "x"}).encode() + b"\n")
    keeper.stdin.flush()
    file = tmp_path / "sleep"
    lost = int(wait_for(lambda: file.exists() and file.read_text(), "the shell"))
    assert list(place.iterdir())
    keeper.stdin.close() if number is None else keeper.send_signal(number)
    assert keeper.wait(20) == (0 if number is None else 128 + number)
    assert is_gone(lost)
    assert not list(place.iterdir())


@needs_ray
def test_a_node_that_is_lost_costs_no_call_and_leaves_nothing_behind(place, tmp_path):
    srun = tmp_path / "srun"
    srun.write_text(SRUN)
    srun.chmod(0o755)
    path = {"PYTHONPATH": PYTHONPATH, "PATH": f"{tmp_path}:{os.environ['PATH']}", "OUT": str(tmp_path)}
    others = {"RAY_ADDRESS": "192.0.2.1:1", "RAY_AUTH_TOKEN": "of another Ray"}
    command = [sys.executable, "-P", "-c", DRIVER_OF_TWO_NODES, str(tmp_path)]
    driver = subprocess.Popen(command, env={**os.environ, **path, **others}, stdout=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: len(list(tmp_path.glob("began-*"))) == 2, "both nodes to be at work", 60)
        # two nodes have one address here, so this driver may be the guest of either
        mine = (tmp_path / "mine").read_text()
        (other,) = (pid for pid in children(driver.pid) if not mine.startswith(keepers_folder(pid)))
        left = ray_node._descendants(other)
        workers = [int(path.read_text()) for path in tmp_path.glob("began-*")]
        os.kill(other, signal.SIGKILL)
        wait_for(lambda: any(map(is_gone, workers)), "its worker to end")
        (tmp_path / "go").touch()
        said, _ = driver.communicate(timeout=90)
    finally:
        driver.kill()
        driver.wait()
    assert driver.returncode == 0
    assert "redone=1 left=1" in said
    assert "None None" in said
    assert all(map(is_gone, left))
    assert not list(place.iterdir())
    words = (tmp_path / "words").read_text().split()
    assert "--nodelist=localhost" in words and "--nodes=1" in words and "--overlap" in words


@needs_ray
@pytest.mark.usefixtures("ray_here")
def test_our_ray_has_a_token_of_its_own_that_only_its_user_reads(monkeypatch):
    token = Path(held().variables["RAY_AUTH_TOKEN_PATH"])
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert stat.S_IMODE(token.parent.stat().st_mode) == 0o700
    assert len(token.read_text()) == 64
    host, _, port = held().address.partition(":")
    with socket.create_connection((host, int(port))):
        pass
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/dev/null")
    with pytest.raises(ConfigError, match=r"the Ray at '.*' cannot be used .*RAY_AUTH_MODE"), ray_cluster(address=held().address):
        pass


@needs_ray
@pytest.mark.usefixtures("ray_here")
def test_a_ray_that_is_there_is_used_and_left_running():
    before = signal.getsignal(signal.SIGTERM)
    with ray_cluster(address=held().address) as cluster:
        assert cluster.nodes == (os.uname().nodename,) * 2
        assert signal.getsignal(signal.SIGTERM) is before
        with pytest.raises(ConfigError, match=r"ray\.shutdown"), ray_cluster(address=held().address):
            pass
    assert signal.getsignal(signal.SIGTERM) is before
    assert not any(map(is_gone, held().keepers()))
    assert len(held().keepers()) == 2


@needs_ray
@pytest.mark.usefixtures("ray_here", "place")
def test_a_process_goes_from_a_ray_of_its_own_to_another_with_its_token():
    for address, count in ((None, 1), (held().address, 2)):
        with ray_cluster(address=address, cpus_per_node=1) as cluster:
            assert len(cluster.nodes) == count


@needs_ray
@pytest.mark.parametrize("silent", [True, False])
def test_an_address_that_does_not_answer_is_an_error_in_bounded_time(silent):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if silent:
            server.listen()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ConfigError, match=rf"'{address}'.*ray status"), ray_cluster(address=address, start_seconds=2):
            pass


@needs_ray
def test_a_node_with_other_code_is_refused_by_name(place, monkeypatch):
    monkeypatch.setattr(
        ray_node, "node_versions", lambda: {"python": "3.99.0", "ray": "2.60.0", "code": "c0de", "folder": "/", "host": "login"}
    )
    words = rf"node {os.uname().nodename} has python 3\.\d.*, not 3\.99\.0 and .*code \w+, not c0de as login"
    with pytest.raises(ConfigError, match=words), ray_cluster():
        pass
    assert not list(place.iterdir())


@needs_ray
def test_a_node_on_which_ray_does_not_start_is_named_with_what_ray_said(place, monkeypatch):
    monkeypatch.setattr(ray_crew, "OBJECT_STORE_BYTES", 1)
    words = rf"Ray does not start on {os.uname().nodename}: ray start ended with exit status \d+\n.*"
    with pytest.raises(RayUnusable, match=words), ray_cluster():
        pass
    assert not list(place.iterdir())


@needs_ray
def test_a_node_that_cannot_be_reached_is_named_before_anything_starts():
    nodes = [os.uname().nodename, "no-such-node.invalid"]
    with pytest.raises(RayUnusable, match=r"no way to no-such-node\.invalid .*nothing was started"), ray_cluster(nodes):
        pass


@pytest.mark.parametrize(("seconds", "words"), [(60, "Ray does not start on n7: no process could be started there"), (-1, "in time on n7")])
def test_a_node_from_which_nothing_is_heard_is_named(seconds, words):
    with ray_crew.Crew(time.monotonic() + seconds) as crew:
        crew._begin("n7", {}, ["false"])
        with pytest.raises(RayUnusable, match=words) as caught:
            crew.wait_for(lambda: False)
    # another job has other nodes
    assert classify(caught.value, progressed=False, told_to_stop=False) == "killed"


@pytest.mark.parametrize("path", ["/a/folder/with/much/too/long/a/name", "relative"])
def test_a_place_that_sockets_cannot_have_is_refused(monkeypatch, path):
    monkeypatch.setenv("EIGENSWEEP_RAY_DIR", path)
    with pytest.raises(ConfigError, match=f"EIGENSWEEP_RAY_DIR must be .*28 characters.*'{path}'"):
        ray_crew.orders_for([], 1, 0, None)


def test_without_ray_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'eigensweep\[ray\]'"), ray_cluster():
        pass


@pytest.mark.parametrize(("there", "count"), [({}, 0), ({"code": "x"}, 1), ({"code": "x", "ray": "2.0"}, 2)])
def test_versions_that_differ_are_told_with_both_values(there, count):
    ours = {"python": "3.11.7", "ray": "2.60.0", "code": "c0de", "folder": "/shared", "host": "n1"}
    found = ray_node.mismatch(ours, {**ours, "host": "n2", **there})
    assert found.count(", not ") == count
    assert not count or ("n2 has" in found and "c0de" in found)


def test_source_that_is_edited_meanwhile_is_not_taken_for_another_node_s():
    ours = {"python": "3.11.7", "ray": "2.60.0", "code": "c0de", "folder": "/shared", "host": "n1"}
    assert ray_node.mismatch(ours, {**ours, "code": "x"}) == ""
    assert ray_node.mismatch(ours, {**ours, "code": "x", "folder": "/other"})


def test_a_ray_that_the_kernel_kills_is_told_how_much_memory_it_needs():
    assert "was killed by SIGKILL; it needs 0.7 GiB" in ray_node._why(-9)
    assert ray_node._why(1) == "ray start ended with exit status 1"


def test_orders_go_by_the_input_not_by_the_command_line(tmp_path):
    """A token on a command line is everybody's."""
    orders = {
        "head": True,
        "ip": "127.0.0.1",
        "port": 1,
        "cpus": 1,
        "gpus": 0,
        "memory_bytes": 5,
        "object_store_bytes": 1,
        "token": "secret",
    }
    words = ray_node.command(tmp_path, orders)
    assert "secret" not in json.dumps(words)
    assert "--memory=5" in words and "--include-dashboard=false" in words
    assert not any("--head" in word or "--port" in word for word in ray_node.command(tmp_path, {**orders, "head": False}))


@pytest.mark.parametrize("there", [True, False])
def test_no_port_is_one_that_another_ray_of_this_node_has(tmp_path, monkeypatch, there):
    """Where grpc is installed, Ray serves clients too, on a port of the same number for all."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: there or None)
    orders = {"head": True, "ip": "127.0.0.1", "port": 1, "cpus": 1, "gpus": 0, "memory_bytes": 0, "object_store_bytes": 1}
    ports = [[word for word in ray_node.command(tmp_path, orders) if "client-server-port" in word] for _ in range(2)]
    assert [len(found) for found in ports] == [int(there)] * 2
    assert not there or int(ports[0][0].partition("=")[2]) != 10001
