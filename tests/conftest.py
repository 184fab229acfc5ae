"""What every test may use: an empty store, an environment without the user's settings, and one thread per process."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# before torch or numpy is imported, also in child processes: two tests run at once on two cores
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["POLARS_MAX_THREADS"] = "2"


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No EIGENSWEEP_* variable of the caller, and a cache and slots that no other test has filled."""
    for name in [name for name in os.environ if name.startswith("EIGENSWEEP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    # slots of its own: jobs of other tests on this machine do not keep this one's waiting
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
    monkeypatch.delenv("_ARGCOMPLETE", raising=False)


@pytest.fixture(autouse=True)
def _own_umask() -> Iterator[None]:
    """A command that a test runs in this process sets a stricter one."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture(autouse=True)
def _one_torch_thread() -> None:
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of an empty store."""
    from orchestrator.store import Store

    return Store.init(tmp_path / "store").root


@pytest.fixture
def store(root: Path):
    """An empty store."""
    from orchestrator.store import Store

    return Store.open(root)
