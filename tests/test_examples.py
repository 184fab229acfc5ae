"""The example workload runs as its page says: found by its dotted name, checked, frozen, resumed and fitted."""

import itertools
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from workers.context import Context
from workers.errors import Interrupted
from workers.taskdir import Task

EXAMPLES = Path(__file__).parent.parent / "examples"


def eigensweep(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command as a user of the example types it."""
    environment = os.environ | {"EIGENSWEEP_ROOT": str(root)}
    command = [sys.executable, "-m", "orchestrator.cli", *words]
    environment["PYTHONPATH"] = str(EXAMPLES.parent)
    return subprocess.run(command, cwd=EXAMPLES, env=environment, capture_output=True, text=True, timeout=120)


def test_a_user_package_runs_as_a_sweep_and_in_process(root: Path) -> None:
    sent = eigensweep(root, "submit", "workload=my_package.pi", "name=pi", "num_points=10000,100000", "seed=0,1")
    assert sent.returncode == 0, sent.stderr + sent.stdout
    assert "completed 4" in sent.stdout
    alone = eigensweep(root, "run", "workload=my_package.pi", "num_points=20000")
    assert "estimate" in alone.stdout and alone.returncode == 0, alone.stderr
    assert list((root / "code").glob("*/my_package/pi.py")), "the package was not frozen with the submission"


def test_a_value_out_of_range_is_refused_before_anything_is_written(root: Path) -> None:
    sent = eigensweep(root, "submit", "workload=my_package.pi", "name=pi", "num_points=3")
    assert sent.returncode == 2
    assert "num_points must be at least 10000, got 3" in sent.stderr
    assert not list((root / "sweeps").iterdir())


def test_a_stopped_task_goes_on_where_it_was_and_gives_the_same_rows(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from my_package.pi import Pi

    workload = Pi(num_points=50_000)
    task = Task(key="k" * 26, workload="my_package.pi", version=1, settings=workload.to_plain(), inputs={})
    whole = list(workload.run(Context(root=root, task=task, attempt="calm")))
    told = threading.Event()
    stopped = Context(root=root, task=task, attempt="first", stop=told)
    rows = workload.run(stopped)
    for row in itertools.islice(rows, 2):
        stopped.add(row)
    told.set()
    with pytest.raises(Interrupted):
        next(rows)
    resumed = Context(root=root, task=task, attempt="second")
    for row in workload.run(resumed):
        resumed.add(row)
    assert resumed.resumed_at == 2
    assert resumed.rows["scalars"]["value"] == [row.value for row in whole]
