"""One task in this process: what is committed, what a second commit meets, and the class of each failure."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from batches import act, key, noop, own_slots  # noqa: F401

from workers import files, taskdir
from workers.errors import Interrupted
from workers.execute import Ended, classify, execute
from workers.taskdir import Task, read_commit, read_rows

pytestmark = pytest.mark.usefixtures("own_slots")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "sweeps/s/done").mkdir(parents=True)
    return tmp_path


def run(root: Path, task: Task, attempt: str = "a", **more) -> Ended:
    return execute(root, task, attempt=attempt, code="c0de", **more)


def test_rows_settings_and_evidence_stand_in_the_commit_and_a_hint_in_the_sweep(root):
    ended = run(root, noop(3, seconds=0.05))
    commit = read_commit(root, key(3))
    assert ended.outcome == "completed"
    assert commit.rows["scalars"] == {"step": [0, 1, 2], "name": ["index", "square", "total"], "value": [3.0, 9.0, 3.05]}
    assert (commit.attempt, commit.code, commit.settings["index"], commit.status) == ("a", "c0de", 3, "ok")
    assert commit.seconds >= 0.05
    assert commit.peak_memory_mib > 1
    assert (root / "sweeps/s/done" / key(3)).exists()


def test_small_results_cost_two_names_the_commit_and_its_hint(root):
    run(root, noop(3))
    assert len([path for path in root.rglob("*") if path.is_file()]) == 2


def test_a_table_above_64_kib_stands_in_a_payload_and_reads_back(root):
    assert run(root, act(1, "many")).outcome == "completed"
    commit = read_commit(root, key(1))
    assert set(commit.rows) == {"scalars"}
    assert [payload.name for payload in commit.files] == ["rows-act.curve.npz"]
    columns = read_rows(root, commit, "act.curve")
    assert list(columns["step"]) == list(range(10_000))
    assert set(columns["name"]) == {"curve"}
    assert taskdir.commit_path(root, key(1)).stat().st_size < 2048


def test_a_second_attempt_is_superseded_and_differs_nowhere(root):
    run(root, noop(1), "first")
    second = run(root, noop(1), "second")
    assert (second.outcome, second.difference) == ("superseded", "")
    assert read_commit(root, key(1)).attempt == "first"


@pytest.mark.parametrize(("value", "difference"), [("1.0000001", ""), ("1.1", "scalars.value row 0: 1.1 against 1.0")])
def test_a_second_result_is_compared_within_the_tolerance_of_the_workload(root, tmp_path, value, difference):
    file = tmp_path / "number"
    file.write_text("1.0")
    run(root, act(1, "read", file=str(file)), "first")
    file.write_text(value)
    second = run(root, act(1, "read", file=str(file)), "second")
    assert (second.outcome, second.difference) == ("superseded", difference)


def test_a_garbled_commit_is_named_and_never_overwritten(root):
    run(root, noop(1), "first")
    path = taskdir.commit_path(root, key(1))
    path.write_bytes(path.read_bytes()[:-9])
    second = run(root, noop(1), "second")
    assert second.outcome == "superseded"
    assert "truncated" in second.difference


def test_a_numeric_failure_is_a_result(root):
    ended = run(root, noop(1, fail="nan"))
    commit = read_commit(root, key(1))
    assert ended.outcome == commit.status == "diverged"
    assert commit.rows["scalars"]["value"][0] == 1.0
    assert commit.rows["scalars"]["value"][2] != commit.rows["scalars"]["value"][2]
    assert "NaN" in ended.message


def test_what_needs_a_diverged_input_is_not_run(root):
    run(root, noop(1, fail="nan"))
    ended = run(root, noop(2, inputs={"before": 1}))
    assert ended.outcome == "input_missing"
    assert "diverged" in ended.message


def test_a_missing_input_is_named(root):
    ended = run(root, noop(2, inputs={"before": 1}))
    assert ended.outcome == "input_missing"
    assert key(1) in ended.message
    assert "eigensweep resume" in ended.message


@pytest.mark.parametrize(
    ("do", "outcome"),
    [("fail", "user_error"), ("exit", "user_error"), ("full", "disk_full"), ("no_memory", "host_oom")],
)
def test_exceptions_become_classes(root, do, outcome):
    ended = run(root, act(1, do))
    assert ended.outcome == outcome
    assert ended.failure is not None
    assert f"_{do}" in ended.failure.traceback
    assert not taskdir.is_committed(root, key(1))


def test_an_out_of_memory_error_of_cuda_is_known_by_its_name(root):
    assert run(root, noop(1, fail="cuda_oom")).outcome == "cuda_oom"
    assert classify(RuntimeError("CUDA out of memory. Tried"), progressed=False, told_to_stop=False) == "cuda_oom"
    assert classify(RuntimeError("DefaultCPUAllocator: can't allocate memory"), progressed=False, told_to_stop=False) == "host_oom"


def test_alike_errors_share_a_fingerprint_and_others_do_not(root):
    one, other = run(root, act(1, "fail")), run(root, act(2, "fail"))
    assert one.message != other.message
    assert one.failure.fingerprint == other.failure.fingerprint
    assert one.failure.fingerprint != run(root, act(3, "exit")).failure.fingerprint


def test_an_interrupt_is_charged_to_the_time_limit_only_where_nobody_asked_for_it():
    told = {"told_to_stop": True}
    assert classify(Interrupted(), progressed=True, **told) == "interrupted"
    assert classify(Interrupted(), progressed=True, told_to_stop=False) == "timeout_progress"
    assert classify(Interrupted(), progressed=False, told_to_stop=False) == "timeout"


def test_a_stopped_task_goes_on_from_its_checkpoint_and_gives_the_same_rows(root):
    stop = threading.Event()
    steps = []

    def report(message):
        if "checkpoint" in message:
            steps.append(message)
            stop.set()

    task = noop(1, seconds=0.4, progress=True)
    ended = run(root, task, "first", stop=stop, report=report)
    assert (ended.outcome, ended.checkpoint, ended.resumed_at) == ("interrupted", 2, None)
    ended = run(root, task, "second", report=steps.append)
    assert (ended.outcome, ended.checkpoint, ended.resumed_at) == ("completed", 4, 2)
    assert {"checkpoint": 4, "resumed_at": 2} in steps


def test_other_code_than_was_planned_is_refused(root):
    task = Task(**{**noop(1).to_plain(), "version": 99})
    ended = run(root, task)
    assert ended.outcome == "user_error"
    assert "version 99" in ended.message
    assert "eigensweep plan" in ended.message


def test_a_workload_that_cannot_be_imported_has_never_started(root):
    task = Task(**{**noop(1).to_plain(), "workload": "nowhere.at_all"})
    ended = run(root, task)
    assert ended.outcome == "never_started"
    assert "nowhere" in ended.message


def test_a_full_disk_at_the_commit_is_disk_full(root, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.ops, "create", full)
    assert run(root, noop(1)).outcome == "disk_full"


def test_a_debugger_sees_the_exception_where_it_was_raised(root):
    with pytest.raises(KeyError, match="index 1"):
        run(root, act(1, "fail"), reraise=True)


PEAKS = """
import json, sys
from pathlib import Path
from batches import noop
from workers.execute import execute
ends = [execute(Path(sys.argv[1]), task, attempt="a", code="c0de") for task in (noop(1, memory_mib=200), noop(2))]
print(json.dumps([end.peak_memory_mib for end in ends]))
"""


def test_peak_memory_is_of_this_task_not_of_one_before(root):
    # in a process of its own: the tests before this one have left room in theirs, where 200 MiB take no more
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", PEAKS, str(root)], env=environment, capture_output=True, text=True, check=True)
    large, small = json.loads(done.stdout.splitlines()[-1])
    assert large - small > 150
