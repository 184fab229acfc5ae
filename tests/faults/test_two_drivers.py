"""Several drivers at once, and attempts that come back from the dead: nothing is executed twice on purpose, nothing committed twice."""

import contextlib
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from orchestrator import ledger as ledgers
from orchestrator import verbs
from tests.faults.stage import CHILD, REPOSITORY, Stage, commands, parent, points, read_events, wait_for

# everything imported and composed, so that the drivers decide at the same moment
DRIVER = """
import sys
from orchestrator import compose, verbs
root, *words = sys.argv[1:]
compose.compose(words)
print("ready", flush=True)
sys.stdin.readline()
print(verbs.submit(words, root).counts)
"""


class Drivers:
    """Processes that submit when they are told to, all at once."""

    def __init__(self, stage: Stage, commands: list[list[str]]) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "tests")))}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        self.processes = [
            subprocess.Popen([sys.executable, "-c", DRIVER, str(stage.root), *words], env=environment, text=True, **pipes)
            for words in commands
        ]
        stage.drivers += self.processes
        for process in self.processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"

    def go(self) -> list[str]:
        """What each of them says in the end."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        outputs = [process.communicate(timeout=60)[0] for process in self.processes]
        assert [process.returncode for process in self.processes] == [0] * len(outputs), outputs
        return outputs


def assert_each_once(stage: Stage, keys: set[str]) -> None:
    """One start, one end, one commit, in the tables once."""
    assert stage.starts() == dict.fromkeys(keys, 1)
    assert Counter(event["key"] for event in stage.events("end")) == dict.fromkeys(keys, 1)
    assert {event["class"] for event in stage.events("end")} == {"completed"}
    assert Counter(path.stem for path in stage.root.glob("commits/*/*.json")) == dict.fromkeys(keys, 1)


def test_drivers_that_submit_one_sweep_at_once_run_each_task_once(stage: Stage) -> None:
    words = ["workload=fault_package.after", "name=w", "index=range(0,20)", "seconds=0.01"]
    outputs = Drivers(stage, [words] * 3).go()
    assert outputs == ["{'completed': 40}\n"] * 3
    stage.wait_until_quiet()
    assert_each_once(stage, set(stage.sweep().keys))
    assert Counter(row["key"] for row in stage.tables()["tasks"]) == dict.fromkeys(stage.sweep().keys, 1)


def test_sweeps_that_share_tasks_share_their_execution(stage: Stage) -> None:
    grids = {"one": "range(0,20)", "two": "range(10,30)", "three": "range(5,25)"}
    commands = [["workload=fault_package.after", f"name={name}", f"index={grid}", "seconds=0.01"] for name, grid in grids.items()]
    outputs = Drivers(stage, commands).go()
    assert outputs == ["{'completed': 40}\n"] * 3
    stage.wait_until_quiet()
    assert_each_once(stage, {key for name in grids for key in stage.sweep(name).keys})
    for name in grids:
        assert Counter(row["key"] for row in stage.tables(name)["tasks"]) == dict.fromkeys(stage.sweep(name).keys, 1)


def test_another_driver_does_not_touch_what_is_at_work(stage: Stage, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    words = ["workload=fault_package.dice", "name=w", "index=0,1", f"gate={gate}", "launcher.slots=2"]
    stage.submit(*words, detach=True)
    stage.wait_for_running(2)
    for _ in range(3):
        assert stage.submit(*words, detach=True).counts == {"running": 2}
        assert stage.submit(*words[:1], "name=x", *words[2:], detach=True).counts == {"running": 2}
        verbs.tick(stage.root)
    gate.touch()
    stage.wait_until_settled()
    stage.wait_until_settled("x")
    assert_each_once(stage, set(stage.sweep().keys))


# -- the undead -----------------------------------------------------------------------------------------------------


def stop(stage: Stage, token: str) -> list[int]:
    """Freeze a job with its shell and its children, in that order so that none can tell of another."""
    job = stage.jobs()[token]
    children = [pid for pid, words in commands() if CHILD in words and parent(pid) == job]
    frozen = [parent(job), job, *children]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    return frozen


def declare_dead(stage: Stage, token: str) -> None:
    """What a tick writes of a job that a wrong scheduler calls ended."""
    ledger = stage.ledger
    entry = {"kind": "closed", "token": token, "sweep": ledger.batches[token]["sweep"], "outcomes": {}, "pause": ""}
    assert ledgers.append(stage.root, ledger, entry)


@pytest.mark.parametrize("fair", [False, True])
def test_a_late_attempt_is_refused_and_its_rows_are_compared(stage: Stage, tmp_path: Path, fair: bool) -> None:
    gate = tmp_path / "gate"
    stage.submit("workload=fault_package.dice", "name=w", "index=7", f"gate={gate}", f"fair={fair}", detach=True)
    ((_, zombie, token),) = stage.wait_for_running()
    frozen = stop(stage, token)
    declare_dead(stage, token)
    (key,) = stage.sweep().keys
    gate.touch()
    assert stage.resume().counts == {"completed": 1}
    winner = stage.commit(key)
    data = (stage.root / "commits" / key[:2] / f"{key}.json").read_bytes()
    assert winner.attempt != zombie
    for pid in reversed(frozen):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    wait_for(lambda: read_events(stage.folder(token))[-1]["event"] == "over", "the end of the late job")
    stage.wait_until_quiet()
    (end,) = [event for event in read_events(stage.folder(token)) if event["event"] == "end"]
    assert (end["attempt"], end["class"]) == (zombie, "superseded")
    assert (stage.root / "commits" / key[:2] / f"{key}.json").read_bytes() == data
    verbs.tick(stage.root)
    assert stage.status().counts == {"completed": 1}
    assert len(stage.tables()["scalars"]) == 1
    if fair:
        assert end["difference"] == ""
        assert stage.status().differences == []
    else:
        assert "scalars.value row 0" in end["difference"]
        assert stage.status().differences == [(key, end["difference"])]
        assert "differ" in stage.command("status", "w")


def test_a_superseded_attempt_of_an_open_batch_is_reported_too(stage: Stage, tmp_path: Path) -> None:
    """`eigensweep run` computes the task while its job is at it."""
    gate = tmp_path / "gate"
    stage.submit("workload=fault_package.dice", "name=w", "index=7", f"gate={gate}", detach=True)
    ((_, _, token),) = stage.wait_for_running()
    frozen = stop(stage, token)
    (key,) = stage.sweep().keys
    gate.touch()
    verbs.run_key("w", key, stage.root)
    for pid in reversed(frozen):
        os.kill(pid, signal.SIGCONT)
    stage.wait_until_settled()
    assert [event["class"] for event in stage.events("end")] == ["superseded"]
    assert [one[0] for one in stage.status().differences] == [key]


def test_a_result_computed_from_a_retracted_input_does_not_count(stage: Stage, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    words = ["workload=fault_package.late", "name=w", *points(index=[0, 1]), f"gate={gate}", "launcher.slots=2"]
    stage.submit(*words, detach=True)
    keys = {n: key for key, n in stage.numbers().items()}
    wait_for(lambda: {keys[1000], keys[1001]} <= {event["key"] for event in stage.events("start")}, "the dependents")
    verbs.retract("w", "index=1 and workload='noop'", "wrong", stage.root)
    gate.touch()
    assert stage.resume().counts == {"completed": 4}
    generations = {row["key"]: row["generation"] for row in stage.tables()["tasks"]}
    assert generations == {keys[0]: 0, keys[1000]: 0, keys[1]: 1, keys[1001]: 1}
