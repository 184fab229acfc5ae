"""A Ray with two nodes on this machine for all tests of a session, held by a process of its own as a site's would be."""

import atexit
import functools
import importlib.util
import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
from batches import PYTHONPATH

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed: make setup, or pip install '.[ray]'")
VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH")
HOLD = """
import json, os, sys
from workers.sharded.ray_cluster import ray_cluster
host = os.uname().nodename
with ray_cluster([host] * int(sys.argv[1]), cpus_per_node=2) as cluster:
    variables = {name: os.environ[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH")}
    print(json.dumps({"address": cluster.address, "seconds": cluster.seconds, "variables": variables}), flush=True)
    sys.stdin.read()
"""


@dataclass(frozen=True)
class Held:
    """A Ray, and the process that holds it."""

    process: "subprocess.Popen[str]"
    address: str
    seconds: float
    variables: dict[str, str]

    @property
    def folder(self) -> Path:
        return Path(self.variables["RAY_AUTH_TOKEN_PATH"]).parent

    def keepers(self) -> list[int]:
        """Process ids of the keepers of its nodes."""
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


def hold(num_nodes: int) -> Held:
    """Start one of so many nodes."""
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", HOLD, str(num_nodes)],
        env={**environment, "PYTHONPATH": PYTHONPATH},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith('{"address"'):
            threading.Thread(target=process.stdout.read, daemon=True).start()
            return Held(process, **json.loads(line))
    raise AssertionError(f"no Ray: {process.wait()}")


@functools.cache
def held() -> Held:
    """The one of this session."""
    found = hold(2)
    atexit.register(found.end)
    return found


@pytest.fixture
def ray_here(monkeypatch: pytest.MonkeyPatch) -> Held:
    """It, with the variables that its users need."""
    for name, value in held().variables.items():
        monkeypatch.setenv(name, value)
    return held()
