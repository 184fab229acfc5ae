"""The suite for every launcher, on a real cluster."""

from pathlib import Path

import pytest

from orchestrator.launchers.slurm import Slurm
from tests.conformance.test_launchers import (  # noqa: F401
    _tests_on_the_path,
    test_a_batch_runs_inputs_first_and_is_told_to_have_ended,
    test_a_batch_submitted_twice_runs_once,
    test_a_batch_that_nobody_submitted_has_no_record,
    test_batches_carry_every_task_once,
    test_cancelling_what_has_ended_or_never_was_does_nothing,
    test_every_launcher_is_a_file_of_settings_that_reads_back,
)
from tests.slurm.cluster import Cluster


@pytest.fixture
def launcher(cluster: Cluster) -> Slurm:
    return Slurm(tick_job=False, doubt_seconds=1.0, grace_seconds=2.0)


@pytest.fixture
def root(shared: Path) -> Path:
    """A bare root that the nodes see."""
    root = shared / "root"
    root.mkdir()
    return root
