"""Where Ray is not installed, tiles are made by processes, and what asks for Ray says what to install."""

import subprocess
import sys

import pytest
from batches import PYTHONPATH

# in every Python below, so in ranks and workers of pools too
HIDDEN = """
import sys
sys.modules["ray"] = None
"""

DRIVER = """
import dataclasses, importlib.util, sys
from pathlib import Path
from task_runs import committed, task_of
from workers.execute import execute
from workers.models.mlp import Mlp
from workers.sharded.pool import Call
from workers.sharded.process_pool import ProcessPool
from workers.workloads.tiled_gram import TiledGram
from workers.workloads.train import Train

assert importlib.util.find_spec("ray") is None
root, train = Path(sys.argv[1]), Train(model=Mlp(width=6, depth=2), num_steps=20, train_size=128)
committed(root, train)
for number, ray in enumerate((False, True)):
    workload = TiledGram(train=train, probe_size=7, dtype="float64", panel_rows=25, ray=ray)
    task = dataclasses.replace(task_of(workload), resources={"cpus": 2, "memory_gib": 4.0})
    ended = execute(root, task, attempt=f"a{number}", code="test")
    print(ended.outcome, ended.message, flush=True)
with ProcessPool(2) as pool:
    print(sorted(pool.run("pool_calls:double", [Call({"x": n}) for n in range(3)])))
"""


@pytest.mark.slow
def test_tiles_are_made_by_processes_and_ray_is_asked_for_by_name(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(HIDDEN)
    (tmp_path / "store").mkdir()
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{PYTHONPATH}")
    command = [sys.executable, "-P", "-c", DRIVER, str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    by_processes, by_ray, by_pool = [
        line for line in done.stdout.splitlines() if line.split()[0] in ("completed", "user_error") or "[(" in line
    ]
    assert by_processes.startswith("completed")
    assert "pip install 'eigensweep[ray]'" in by_ray
    assert by_pool == "[(0, 0), (1, 2), (2, 4)]"
