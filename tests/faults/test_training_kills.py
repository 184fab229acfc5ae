"""A real SIGKILL at a file operation of a training, again and again until it ends: rows and files are bit for bit those of a calm one."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from task_runs import attempt, committed, contents, task_of
from token_package.echoes import Echoes

from workers import taskdir
from workers.models.llama import Llama
from workers.models.mlp import Mlp
from workers.optimizers.adam import Adam
from workers.optimizers.muon import Muon
from workers.optimizers.sgd import Sgd
from workers.workloads.train import Train

SHORT = Train(model=Mlp(width=8, depth=3), train_size=60, batch_size=16, num_steps=14, num_snapshots=4, checkpoint_every_seconds=1e-6)
TRAININGS = {
    "momentum": replace(SHORT, optimizer=Sgd(momentum=0.9)),
    "muon": replace(SHORT, optimizer=Muon(schedule="cosine")),
    "noise": replace(SHORT, optimizer=Sgd(langevin_temperature=1e-3)),
    "linearised": replace(SHORT, frozen="linearised", frozen_at=0.4, optimizer=Adam()),
    "llama": replace(
        SHORT,
        data=Echoes(),
        model=Llama(width=16, depth=1, head_dim=8),
        optimizer=Adam(),
        position_windows_per_decade=3,
        position_probe_size=4,
    ),
}
# one attempt in a process of its own, which is killed at its n-th file operation
PROGRAM = """
import json, sys
from pathlib import Path
from task_runs import attempt
from workers.workloads.train import Train

attempt(Path(sys.argv[1]), Train.from_plain(json.loads(sys.argv[2])), sys.argv[3])
"""


def killed(root: Path, train: Train, name: str, operation: int) -> bool:
    """Whether the attempt was killed, and did not end before."""
    folder = Path(__file__).parents[1]
    env = os.environ | {"EIGENSWEEP_FAULT": str(operation), "PYTHONPATH": f"{folder.parent}:{folder}", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", PROGRAM, str(root), json.dumps(train.to_plain()), name]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_that_is_killed_again_and_again_ends_bit_identical(tmp_path: Path, name: str):
    train = TRAININGS[name]
    whole = committed(tmp_path / "calm", train)
    kills = [killed(tmp_path / "cut", train, f"attempt-{number}", operation) for number, operation in enumerate((9, 23, 38, 57, 71))]
    assert sum(kills) >= 4
    if not taskdir.is_committed(tmp_path / "cut", task_of(train).commit_name):
        assert attempt(tmp_path / "cut", train, "last").resumed_at
    cut = committed(tmp_path / "cut", train)
    assert cut.rows == whole.rows
    assert contents(tmp_path / "cut", cut) == contents(tmp_path / "calm", whole)
