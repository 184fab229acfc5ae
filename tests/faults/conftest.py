"""A stage for every test of faults: a store in memory where that is possible, and slots that no other test holds."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.store import Store
from tests.faults.stage import REPOSITORY, Stage


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """An empty store; whatever its test has started is dead afterwards."""
    # what is tested here is who does what when, not the disk
    folder = Path(tempfile.mkdtemp(prefix="eigensweep-stage-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    (folder / "runtime").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder / "runtime"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "tests"))))
    stage = Stage(Store.init(folder / "store").root)
    try:
        yield stage
    finally:
        stage.close()
        shutil.rmtree(folder, ignore_errors=True)
