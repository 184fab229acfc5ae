"""A SLURM cluster of its own for each process that runs tests, up while there are tests that use it."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import CLUSTER, Cluster

KEPT = os.environ.get("EIGENSWEEP_CLUSTER", "")
NEEDED = bool(os.environ.get("CI") or os.environ.get("EIGENSWEEP_NEED_SLURM"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.slurm)


@pytest.fixture(scope="session")
def possible() -> None:
    """Skips where no cluster can be had, with the command that mends it; in CI that is a failure."""
    check = subprocess.run([sys.executable, CLUSTER, "check"], stderr=subprocess.PIPE, text=True)
    if check.returncode:
        (pytest.fail if NEEDED else pytest.skip)(f"no SLURM cluster here: {check.stderr.strip()}")
    subprocess.run([sys.executable, CLUSTER, "clean"], check=True)


@pytest.fixture(scope="session")
def session_cluster(possible: None) -> Iterator[Cluster]:
    """Four nodes: those of the cluster that EIGENSWEEP_CLUSTER names, which is left up, else new ones for this process's tests."""
    if KEPT:
        cluster = Cluster(name="-".join(filter(None, [KEPT, os.environ.get("PYTEST_XDIST_WORKER")])))
        cluster.up()
        cluster.reset()
        yield cluster
        return
    cluster = Cluster(name=f"test-{os.getpid()}", options=[f"--owner={os.getpid()}"])
    try:
        cluster.up(fresh=True)
        yield cluster
    finally:
        cluster.down()


@pytest.fixture
def cluster(session_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The cluster with its commands on PATH, idle and whole before each test and after it."""
    monkeypatch.setenv("PATH", session_cluster.environment["PATH"])
    yield session_cluster
    session_cluster.reset()


@pytest.fixture
def shared(cluster: Cluster) -> Path:
    """An empty folder that the nodes see, in place of tmp_path."""
    return Path(tempfile.mkdtemp(dir=cluster.shared))


@pytest.fixture
def root(shared: Path) -> Path:
    """The folder of an empty store that the nodes see."""
    from orchestrator.store import Store

    return Store.init(shared / "store").root


@pytest.fixture
def another_cluster(possible: None) -> Iterator[Callable[..., Cluster]]:
    """Makes clusters of other sizes and settings, which end with the test."""
    made: list[Cluster] = []

    def make(num_nodes: int, *options: str) -> Cluster:
        name = f"test-{os.getpid()}-{len(made)}"
        made.append(Cluster(name=name, num_nodes=num_nodes, options=[f"--owner={os.getpid()}", *options]))
        made[-1].up(fresh=True)
        return made[-1]

    yield make
    for cluster in made:
        cluster.down()
