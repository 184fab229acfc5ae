"""A batch in real processes: order, records, slots, limits, and what dies of real signals."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from batches import PYTHONPATH, TOKEN, Batch, act, is_gone, key, noop, own_slots, pretends_gpus, wait_for  # noqa: F401

from workers import files, limits, taskdir
from workers.child import _Reporter
from workers.execute import execute

pytestmark = pytest.mark.usefixtures("own_slots")
CGROUPS = limits.hierarchy() is not None
LIMITS = [pytest.param("cgroup", marks=pytest.mark.skipif(not CGROUPS, reason="no memory cgroup may be made here")), "watchdog"]
CHECKPOINTS = {"memory_gib": 2.0}  # torch writes them


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


def groups() -> list[str]:
    """Names of the cgroups that jobs have made and not removed."""
    found = limits.hierarchy()
    return [] if found is None else [path.name for path in found.folder.glob("eigensweep-*-*-*")]


# -- what a batch does ----------------------------------------------------------------------------------------------


def test_every_task_is_committed_once_and_recorded(root):
    batch = Batch.write(root, [noop(n) for n in range(30)]).run()
    assert all(batch.scalars(n) == {"index": n, "square": n * n, "total": n} for n in range(30))
    events = batch.events()
    assert [e["event"] for e in events].count("start") == [e["event"] for e in events].count("end") == 30
    assert batch.over == "finished"
    end = batch.end(7)
    assert end["class"] == "completed"
    assert end["attempt"].startswith(f"{TOKEN}-7-0-")
    assert end["memory_limit_gib"] == 0.25
    assert (end["cpus"], end["gpus"], end["slots"]) == (1, 0, 1)
    assert events[0]["host"] == os.uname().nodename
    assert {*end} == {
        *("event", "key", "attempt", "class", "seconds", "peak_memory_mib", "message", "error", "checkpoint", "resumed_at"),
        *("difference", "log_end", "memory_limit_gib", "time", "cpus", "gpus", "slots"),
    }
    assert files.read(batch.folder / "heartbeat.json")["state"] == "over"


def test_a_second_job_of_the_token_does_nothing(root):
    batch = Batch.write(root, [noop(1)]).run()
    before = batch.events()
    batch.run()
    assert batch.events() == before
    assert "has another job" in batch.log()


def test_what_is_committed_is_not_run_again_but_hinted(root):
    batch = Batch.write(root, [noop(1), noop(2)])
    execute(root, noop(1), attempt="earlier", code="x")
    taskdir.hint_path(root, "s", key(1)).unlink()
    batch.run()
    assert set(batch.outcomes()) == {key(2)}
    assert taskdir.hint_path(root, "s", key(1)).exists()


def test_dependents_wait_for_their_inputs_and_are_not_started_where_one_fails(root):
    tasks = [
        noop(1, seconds=0.3),
        noop(2, fail="exception"),
        noop(3, inputs={"a": 1}),
        noop(4, inputs={"a": 1, "b": 2}),
        noop(5, inputs={"a": 4}),
    ]
    batch = Batch.write(root, tasks).run()
    assert batch.outcomes() == {key(1): "completed", key(2): "user_error", key(3): "completed"}
    order = [(e["event"], e["key"]) for e in batch.events() if "key" in e]
    assert order.index(("end", key(1))) < order.index(("start", key(3)))


def test_a_task_alone_has_nothing_beside_it_and_all_the_memory(root):
    tasks = [noop(1, alone=True, seconds=0.2), *(noop(n, seconds=0.1) for n in range(2, 8)), noop(8, alone=True, seconds=0.1)]
    batch = Batch.write(root, tasks, memory_gib=4.0).run()
    running: set[str] = set()
    for event in batch.events():
        if event["event"] == "start":
            assert not running or not {key(1), key(8)} & {*running, event["key"]}
            running.add(event["key"])
        elif event["event"] == "end":
            running.remove(event["key"])
    assert batch.end(1)["memory_limit_gib"] == 4.0
    assert len(batch.outcomes()) == 8


@pretends_gpus
def test_a_slot_s_threads_cpus_and_gpus_are_what_the_task_asked_for(root):
    tasks = [act(1, "environment"), act(2, "environment", resources={"cpus": 2, "gpus": 2}), act(3, "environment", resources={"gpus": 9})]
    batch = Batch.write(root, tasks, devices=[4, 5]).run()
    one, two = batch.scalars(1), batch.scalars(2)
    assert (one["threads"], one["first_gpu"], one["cuda"], one["torch"]) == (1, -1, 0, 0)
    assert (two["threads"], two["gpus"], two["first_gpu"], two["cuda"]) == (2, 2, 4, 1)
    assert two["cpus"] == min(2, len(os.sched_getaffinity(0)))
    assert batch.end(3)["class"] == "never_started"
    assert "asks for 9 GPUs, this machine has 2" in batch.end(3)["message"]


def test_each_attempt_s_output_is_found_by_its_offsets(root):
    batch = Batch.write(root, [act(n, "rows") for n in range(6)]).run()
    for event in batch.events():
        if event["event"] == "start":
            name, begin = event["log"]
            number = next(n for n in range(6) if key(n) == event["key"])
            text = (batch.folder / name).read_bytes()[begin : batch.end(number)["log_end"]].decode()
            assert text == f"act rows {number}\n"


def test_a_task_behind_a_long_one_is_taken_back_and_runs_elsewhere(root, tmp_path):
    """Quick tasks are fed ahead; the last waits at the door of a child that has begun a long one."""
    file = tmp_path / "go"
    batch = Batch.write(root, [*(act(n, "rows") for n in range(6)), act(6, "wait", file=str(file)), act(7, "rows"), act(8, "rows")]).start()
    wait_for(lambda: {key(7), key(8)} <= set(batch.outcomes()), "the tasks behind the long one")
    assert key(6) not in batch.outcomes()
    file.touch()
    batch.wait()
    assert batch.end(6)["class"] == "completed"


def test_three_alike_errors_stop_a_workload_and_no_other(root):
    batch = Batch.write(root, [*(act(n, "fail") for n in range(20)), *(noop(n) for n in range(20, 25))], slots=1).run()
    outcomes = list(batch.outcomes().values())
    assert 3 <= outcomes.count("user_error") <= 3 + 2
    assert outcomes.count("completed") == 5
    assert "no more of its tasks are started" in batch.log()


def test_a_workload_with_few_errors_among_many_goes_on(root):
    batch = Batch.write(root, [noop(n, fail="exception" if n % 4 == 3 else "none") for n in range(40)]).run()
    assert len(batch.outcomes()) == 40


def test_jobs_share_the_slots_of_the_machine(root):
    one = Batch.write(root, [noop(n, seconds=0.1) for n in range(8)], token="s-00000000000a", slots=1)
    number = len(os.sched_getaffinity(0))
    others = [
        Batch.write(root, [noop(100 * n + m, seconds=0.1) for m in range(8)], token=f"s-00000000000{n}", slots=1)
        for n in range(1, number + 1)
    ]
    for batch in (one, *others):
        batch.start()
    for batch in (one, *others):
        batch.wait()
    marks = []
    for batch in (one, *others):
        starts = {e["attempt"]: e["time"] for e in batch.events() if e["event"] == "start"}
        for event in batch.events():
            if event["event"] == "end":
                begun = starts[event["attempt"]]
                marks += [(begun, 1), (begun + event["seconds"], -1)]
    running = most = 0
    for _, change in sorted(marks):
        running += change
        most = max(most, running)
    assert most <= number


# -- what children die of -------------------------------------------------------------------------------------------


def test_a_killed_child_costs_one_task(root):
    tasks = [noop(1, seconds=60), *(noop(n) for n in range(2, 12))]
    batch = Batch.write(root, tasks).start()
    batch.wait_for_start(1)
    wait_for(lambda: len(batch.outcomes()) == 10, "the other tasks")
    for child in batch.children():
        os.kill(child, signal.SIGKILL)
    batch.wait()
    assert batch.end(1)["class"] == "killed"
    assert "SIGKILL" in batch.end(1)["message"]
    assert sorted(batch.outcomes().values()) == [*["completed"] * 10, "killed"]


def test_tasks_that_kill_their_child_cost_themselves_only(root):
    batch = Batch.write(root, [noop(n, fail="kill" if n % 5 == 0 else "none") for n in range(20)]).run()
    assert batch.outcomes() == {key(n): "killed" if n % 5 == 0 else "completed" for n in range(20)}
    assert all(batch.is_committed(n) == (n % 5 != 0) for n in range(20))


def test_with_children_killed_at_random_every_attempt_ends_once_and_no_commit_is_lost(root):
    rng = random.Random(0)
    batch = Batch.write(root, [noop(n, seconds=rng.choice([0.0, 0.01, 0.05])) for n in range(200)], slots=4).start()
    while batch.process.poll() is None:
        wanted = len(batch.events()) + 20
        wait_for(lambda wanted=wanted: len(batch.events()) > wanted or batch.process.poll() is not None, "more records")
        for child in batch.children()[:1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
    attempts = [(e["event"], e["attempt"]) for e in batch.events() if e["event"] in ("start", "end")]
    assert len(attempts) == len(set(attempts))
    assert {a for kind, a in attempts if kind == "start"} == {a for kind, a in attempts if kind == "end"}
    assert set(batch.outcomes().values()) == {"completed", "killed"}
    assert all(batch.is_committed(n) == (batch.outcomes()[key(n)] == "completed") for n in range(200))


def test_what_a_dead_child_had_started_dies_too(root):
    batch = Batch.write(root, [act(1, "leave", file="a-mark-of-this-test")]).run()
    assert batch.end(1)["class"] == "killed"
    assert "exited with 7" in batch.end(1)["message"]
    command = ["pgrep", "-f", "a-mark-of-this-test"]
    wait_for(lambda: subprocess.run(command, capture_output=True, check=False).returncode == 1, "the grandchild to be gone")


@pytest.mark.parametrize("how", LIMITS)
def test_a_task_above_its_memory_is_killed_and_named(root, how):
    batch = Batch.write(root, [noop(1, fail="oom"), *(noop(n) for n in range(2, 12))], limit_memory_by=how).run()
    end = batch.end(1)
    assert end["class"] == "host_oom"
    assert end["memory_limit_gib"] == 0.25
    assert end["peak_memory_mib"] > 200
    assert sorted(batch.outcomes().values()) == [*["completed"] * 10, "host_oom"]
    assert not groups() or not any(name.startswith(f"eigensweep-{batch.process.pid}-") for name in groups())


@pytest.mark.parametrize("how", LIMITS)
def test_memory_of_a_task_s_own_processes_counts(root, how):
    batch = Batch.write(root, [act(1, "grandchild")], limit_memory_by=how).run()
    assert batch.end(1)["class"] == "host_oom"


WRONG_LIMIT = """
import sys
from pathlib import Path
from types import SimpleNamespace
from workers import job, limits
limits.make_group = lambda name, size: limits._make(limits.hierarchy(), name, 2 * size)
sys.exit(job.main(Path(sys.argv[1]), sys.argv[2]))
"""


@pytest.mark.skipif(not CGROUPS, reason="no memory cgroup may be made here")
def test_a_child_without_its_limits_has_never_started(root):
    """The child asks the kernel itself: here the group's limit is not what the job says."""
    batch = Batch.write(root, [noop(1)])
    command = [sys.executable, "-P", "-c", WRONG_LIMIT, str(root), TOKEN]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": PYTHONPATH}, check=True, timeout=60)
    assert batch.end(1)["class"] == "never_started"
    assert "memory limit is" in batch.end(1)["message"]


# -- time limits ----------------------------------------------------------------------------------------------------


def minutes(seconds: float) -> dict[str, float]:
    return {"walltime_minutes": seconds / 60}


def test_a_task_deaf_to_its_warning_is_killed_at_the_limit_with_its_stack_in_the_log(root):
    batch = Batch.write(root, [noop(1, fail="hang", resources=minutes(1.0)), *(noop(n) for n in range(2, 6))]).run()
    end = batch.end(1)
    assert end["class"] == "timeout"
    assert "time limit of 1 s" in end["message"]
    assert 1.0 <= end["seconds"] < 5.0
    assert "_hang" in (batch.folder / "log-0").read_text()
    assert list(batch.outcomes().values()).count("completed") == 4


def test_a_task_with_a_checkpoint_ends_at_its_limit_with_progress_and_goes_on_in_the_next_job(root):
    task = noop(1, seconds=4.0, progress=True, resources={**minutes(6.0), **CHECKPOINTS})
    batch = Batch.write(root, [task], grace_seconds=4.5).run()
    first = batch.end(1)
    assert first["class"] == "timeout_progress"
    assert 0 < first["checkpoint"] < 40
    task = noop(1, seconds=4.0, progress=True, resources=CHECKPOINTS)
    again = Batch.write(root, [task], token="s-00000000000b").run()
    end = again.end(1)
    assert end["class"] == "completed"
    assert end["resumed_at"] == first["checkpoint"]


# -- the job is told to stop, or dies -------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR2])
def test_told_to_stop_tasks_end_as_interrupted_and_nothing_more_starts(root, number):
    batch = Batch.write(root, [act(n, "obey") for n in range(6)]).start()
    wait_for(lambda: batch.started(0) and batch.started(1), "two tasks to run")
    batch.signal(number)
    batch.wait()
    assert batch.outcomes() == {key(0): "interrupted", key(1): "interrupted"}
    assert batch.over == "warned"


def test_progress_is_passed_on_once_a_second_and_what_has_begun_at_once():
    sent = []
    reporter = _Reporter(SimpleNamespace(send=sent.append), "a")
    for done, total, words in ((1, 9, "1 of 9 tiles checked"), (2, 9, "2 of 9 tiles checked"), (0, 0, "eigenvalues by block Lanczos")):
        reporter({"progress": [done, total], "words": words})
    assert [event["words"] for event in sent] == ["1 of 9 tiles checked", "eigenvalues by block Lanczos"]


def test_ctrl_c_lets_a_task_checkpoint(root):
    batch = Batch.write(root, [noop(1, seconds=60, progress=True, resources=CHECKPOINTS)]).start()
    wait_for(lambda: any(e["event"] == "progress" for e in batch.events()), "progress")
    batch.signal(signal.SIGINT)
    batch.wait()
    assert batch.end(1)["class"] == "interrupted"
    assert batch.end(1)["checkpoint"] > 0


def test_a_deaf_task_is_killed_after_the_grace_uncharged(root):
    batch = Batch.write(root, [noop(1, fail="hang")], grace_seconds=0.3).start()
    batch.wait_for_start(1)
    batch.signal(signal.SIGTERM)
    batch.wait(20)
    assert batch.end(1)["class"] == "interrupted"
    assert "0.3 s after the warning" in batch.end(1)["message"]


def test_a_second_ctrl_c_does_not_wait(root):
    batch = Batch.write(root, [noop(1, fail="hang")], grace_seconds=600.0).start()
    batch.wait_for_start(1)
    batch.signal(signal.SIGINT)
    wait_for(lambda: "SIGINT received" in batch.log(), "the first signal")
    batch.signal(signal.SIGINT)
    batch.wait(20)
    assert batch.over == "warned"


def test_hangup_does_not_touch_a_job(root):
    batch = Batch.write(root, [noop(1, seconds=0.5), noop(2, seconds=0.5), noop(3)]).start()
    batch.wait_for_start(1)
    for pid in (batch.process.pid, *batch.children()):
        os.kill(pid, signal.SIGHUP)
    batch.wait()
    assert set(batch.outcomes().values()) == {"completed"}


def test_children_die_with_their_job_and_leave_nothing_behind(root):
    batch = Batch.write(root, [noop(1, seconds=600), noop(2, seconds=600)]).start()
    batch.wait_for_start(1)
    batch.wait_for_start(2)
    children = batch.children()
    assert len(children) == 2
    batch.signal(signal.SIGKILL)
    batch.process.wait()
    wait_for(lambda: all(map(is_gone, children)), "the children to die")
    assert batch.outcomes() == {}
    Batch.write(root, [noop(3)], token="s-00000000000c").run()  # finds free slots, and clears the cgroups
    assert not any(name.startswith(f"eigensweep-{batch.process.pid}-") for name in groups())


# -- orders to cancel -----------------------------------------------------------------------------------------------


def cancel(batch: Batch, number: int, keys: list[str] | None) -> None:
    files.publish(batch.folder / f"cancel-{number}.json", files.encode({"keys": keys}))


def test_cancelled_tasks_end_or_never_start_and_the_others_run(root, tmp_path):
    file = tmp_path / "go"
    tasks = [act(0, "obey"), act(1, "wait", file=str(file)), act(2, "rows"), act(3, "rows")]
    batch = Batch.write(root, tasks).start()
    wait_for(lambda: batch.started(0) and batch.started(1), "two tasks to run")
    cancel(batch, 1, [key(0), key(2)])
    wait_for(lambda: key(0) in batch.outcomes(), "the end of the cancelled task")
    file.touch()
    batch.wait()
    assert batch.outcomes() == {key(0): "cancelled", key(1): "completed", key(3): "completed"}
    assert batch.over == "finished"


def test_a_cancelled_batch_ends_within_its_grace(root):
    batch = Batch.write(root, [act(0, "obey"), noop(1, fail="hang"), noop(2)], grace_seconds=0.5).start()
    wait_for(lambda: batch.started(0) and batch.started(1), "two tasks to run")
    cancel(batch, 1, None)
    batch.wait(20)
    assert batch.outcomes() == {key(0): "cancelled", key(1): "cancelled"}
    assert batch.over == "cancelled"


# -- a full disk ----------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("no tmpfs may be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_stops_new_starts_and_loses_nothing(small_disk):
    root = small_disk / "store"
    batch = Batch.write(root, [noop(n) for n in range(600)]).start()
    assert batch.process.wait(60) in (0, 1)
    outcomes = batch.outcomes()
    # the job may be the first to find no room, for its journal
    assert "disk_full" in (*outcomes.values(), batch.over)
    assert len(outcomes) < 600
    for number in range(600):
        if outcomes.get(key(number)) == "completed":
            taskdir.read_commit(root, key(number))
    assert not list(root.rglob("commits/*/.*"))


def test_a_task_that_finds_the_disk_full_ends_the_batch_with_that_reason(root):
    batch = Batch.write(root, [act(0, "full"), *(noop(n, seconds=0.2) for n in range(1, 20))]).run()
    assert batch.over == "disk_full"
    assert batch.end(0)["class"] == "disk_full"
    assert len(batch.outcomes()) < 20
    assert json.loads(json.dumps(batch.end(0)))["error"]["type"] == "OSError"
