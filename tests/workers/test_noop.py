"""The workload for trials: rows from its settings, and every failure as asked."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from workers import taskdir
from workers.context import Context
from workers.errors import ConfigError, Diverged, Interrupted
from workers.taskdir import Task
from workers.workloads.noop import FAILURES, Noop


def context(root: Path, attempt: str = "a", **task: Any) -> Context:
    return Context(root=root, task=Task(key="k" * 26, workload="noop", version=1, settings={}, inputs={}, **task), attempt=attempt)


def values(noop: Noop, context: Context) -> list[float]:
    return [row.value for row in noop.run(context)]  # type: ignore[union-attr]


def test_it_yields_three_rows_of_its_settings(tmp_path: Path):
    assert values(Noop(index=3, seconds=0.01), context(tmp_path)) == [3.0, 9.0, 3.01]
    assert not list(tmp_path.iterdir())


def test_an_exception_and_a_cuda_oom_are_raised(tmp_path: Path):
    with pytest.raises(RuntimeError, match="an exception, as `fail=exception` asks"):
        values(Noop(fail="exception"), context(tmp_path))
    with pytest.raises(RuntimeError, match="CUDA out of memory") as caught:
        values(Noop(fail="cuda_oom"), context(tmp_path))
    assert type(caught.value).__name__ == "OutOfMemoryError"


def test_a_full_gpu_is_cured_by_a_smaller_micro_batch(tmp_path: Path):
    noop = Noop(cuda_oom_above=16)
    with pytest.raises(RuntimeError, match="CUDA out of memory: a micro-batch of 32") as caught:
        values(noop, context(tmp_path, halvings=1))
    assert type(caught.value).__name__ == "OutOfMemoryError"
    assert values(noop, context(tmp_path, halvings=2)) == [0.0, 0.0, 0.0]
    assert context(tmp_path, halvings=2).micro_batch(5) == 2
    assert context(tmp_path).micro_batch(5) == 5


def test_nan_is_a_row_and_a_divergence(tmp_path: Path):
    rows = Noop(fail="nan").run(context(tmp_path))
    first, second, third = (next(rows).value for _ in range(3))  # type: ignore[union-attr]
    assert (first, second, third == third) == (0.0, 0.0, False)
    with pytest.raises(Diverged, match="total is NaN"):
        next(rows)


def test_only_the_first_attempts_fail(tmp_path: Path):
    noop = Noop(fail="exception", fail_first=2)
    for num_failed in (0, 1):
        with pytest.raises(RuntimeError):
            values(noop, context(tmp_path, num_failed=num_failed))
    assert values(noop, context(tmp_path, num_failed=2)) == [0.0, 0.0, 0.0]


def test_it_goes_on_from_its_checkpoint_without_torch(tmp_path: Path):
    first = context(tmp_path, "a")
    first.stop.set()
    with pytest.raises(Interrupted, match="stopped at step 1 after a checkpoint"):
        values(Noop(seconds=0.3, progress=True), first)
    second = context(tmp_path, "b")
    assert values(Noop(seconds=0.3, progress=True), second) == [0.0, 0.0, 0.3]
    assert (second.resumed_at, second.checkpointed_at) == (1, 3)
    folder = taskdir.attempt_dir(tmp_path, "k" * 26, "b")
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint-000000000002.json", "checkpoint-000000000003.json"]


def in_a_process(words: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[2]
    script = (
        "import sys, threading; from pathlib import Path; from workers.workloads.noop import Noop; from workers.context import Context\n"
        "from workers.taskdir import Task\n"
        "task = Task(key='k' * 26, workload='noop', version=1, settings={}, inputs={})\n"
        f"rows = list(Noop({words}).run(Context(root=Path('/nowhere'), task=task, attempt='a')))\n"
        "assert not {'torch', 'numpy', 'pyarrow'} & set(sys.modules), sorted(sys.modules)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True, text=True, timeout=60
    )


def test_it_imports_nothing_heavy():
    assert in_a_process("memory_mib=3").returncode == 0


def test_kill_is_a_real_kill():
    assert in_a_process("fail='kill'").returncode == -signal.SIGKILL


def test_a_hanging_task_does_not_end_by_itself(tmp_path: Path):
    thread = threading.Thread(target=values, args=(Noop(fail="hang"), context(tmp_path)), daemon=True)
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()


def test_it_asks_for_what_it_holds():
    assert Noop(memory_mib=1024).resources().memory_gib == 1.25
    assert Noop(seconds=2.5).estimated_seconds() == 2.5


def test_an_unknown_failure_is_refused():
    with pytest.raises(
        ConfigError, match="fail must be one of none, exception, nan, oom, cuda_oom, kill, hang, got 'killl'; did you mean 'kill'"
    ):
        Noop(fail="killl")
    assert len(FAILURES) == 7
