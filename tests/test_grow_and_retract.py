"""Growing a sweep keeps its points apart, and what is taken back stays away until the user says so."""

from pathlib import Path

import pyarrow.parquet as parquet
import pytest

from orchestrator import verbs
from workers.errors import ConfigError

GRID = ["workload=noop", "index=0,1", "name=w", "launcher=inline"]


def test_add_refuses_a_setting_that_is_no_axis_and_writes_nothing(root: Path) -> None:
    verbs.submit(GRID, root)
    before = sorted(path for path in root.rglob("*"))
    with pytest.raises(ConfigError, match="no axis tells apart: noop index=0"):
        verbs.add("w", ["memory_mib=1"], root)
    assert sorted(path for path in root.rglob("*")) == before
    assert verbs.add("w", ["index=5"], root).counts == {"completed": 3}


def test_a_retraction_holds_the_sweep_until_it_is_resumed(root: Path) -> None:
    verbs.submit(GRID, root)
    verbs.retract("w", "index=1", "a trial", root)
    verbs.tick(root)
    status = verbs.status("w", root)
    assert status.counts == {"completed": 1, "pending": 1}
    assert "taken back" in status.paused
    assert verbs.resume("w", root=root).counts == {"completed": 2}


def test_files_asked_for_after_a_retraction_lack_its_rows(root: Path) -> None:
    verbs.submit(GRID, root)
    assert sum(parquet.read_metadata(path).num_rows for path in verbs.load("w", root).files("scalars")) == 6
    verbs.retract("w", "index=1", "a trial", root)
    assert sum(parquet.read_metadata(path).num_rows for path in verbs.load("w", root).files("scalars")) == 3
