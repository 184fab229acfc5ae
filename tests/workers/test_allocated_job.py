"""A job in a pretended SLURM allocation: restarts, time, GPUs, memory and warnings; `scontrol` is a script."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from allocations import Slurm
from batches import TOKEN, Batch, act, key, noop, own_slots, pretends_gpus, wait_for  # noqa: F401

from workers import files, limits, seating, taskdir
from workers.agenda import Agenda
from workers.execute import execute
from workers.seat import Seat, Shape
from workers.seating import Seating, Terms
from workers.slots import Gpus, Slots

pytestmark = pytest.mark.usefixtures("own_slots")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def slurm(tmp_path: Path) -> Slurm:
    return Slurm(tmp_path / "slurm")


def receipts(batch: Batch) -> list[str]:
    return [name for name in files.names(batch.folder) if name.startswith("receipt")]


def progress(number: int, seconds: float, walltime: float = 60.0):
    return noop(number, seconds=seconds, progress=True, resources={"walltime_minutes": walltime / 60})


# -- runs -----------------------------------------------------------------------------------------------------------


def test_a_requeued_job_writes_beside_its_earlier_run_and_skips_what_that_has_committed(root, slurm):
    batch = slurm.batch(root, [noop(1), noop(2)])
    execute(root, noop(1), attempt="x", code="c0de")
    slurm.start(batch).wait()
    slurm.start(batch, run=1).wait()
    assert receipts(batch) == ["receipt-1.json", "receipt.json"]
    assert files.read(batch.folder / "receipt-1.json")["slurm"] == {"job_id": "77", "restart": 1, "node": "node07"}
    assert (batch.folder / "run-1" / "heartbeat.json").exists()
    assert batch.over == "finished"
    assert batch.outcomes() == {}
    batch.run_number = 0
    assert batch.outcomes() == {key(2): "completed"}


def test_attempts_and_logs_of_a_later_run_have_names_of_their_own(root, slurm):
    batch = slurm.batch(root, [noop(1)])
    files.publish(batch.folder / "receipt.json", files.encode({"slurm": {"job_id": "77", "restart": 0}}))
    slurm.start(batch, run=4).wait()
    batch.run_number = 1  # the second run that began, whatever number SLURM gives it
    (start, end, _) = batch.events()
    assert start["attempt"].startswith(f"{TOKEN}-0-100-")
    assert start["log"] == ["run-1/log-0", 0]
    assert start["host"] == "node07"
    assert end["class"] == "completed"


def test_an_element_of_an_array_runs_its_own_tasks_in_its_own_folder(root, slurm):
    batch = slurm.batch(root, [noop(1)])
    body = files.read(batch.folder / "tasks.json")
    lines = [files.encode([noop(n).to_plain()]) for n in (1, 2)]
    body["offsets"] = [0, len(lines[0])]
    del body["tasks"]
    (batch.folder / "tasks.json").write_bytes(files.encode(body))
    (batch.folder / "tasks.jsonl").write_bytes(b"".join(lines))
    element = Batch(root, f"{TOKEN}/1")
    log = batch.folder / "log-1"
    element.environment = slurm.environment(element.token, SLURM_ARRAY_JOB_ID="70", SLURM_ARRAY_TASK_ID="1")
    with pytest.raises(FileNotFoundError):
        element.start()  # its folder is not there yet; SLURM writes the log elsewhere
    element.folder.mkdir()
    element.run()
    assert element.outcomes() == {key(2): "completed"}
    assert element.events()[0]["attempt"].startswith(f"{TOKEN}.1-0-0-")
    assert not log.exists()


@pytest.mark.parametrize(
    ("receipt", "run"),
    [
        ({"slurm": {"job_id": "76", "restart": 0}}, 1),  # another job of the same name
        ({"slurm": {"job_id": "77", "restart": 1}}, 1),  # this very run, started twice
        ({"fenced": True}, 1),
        ({"job": "a process"}, 0),
    ],
)
def test_a_job_without_right_to_the_batch_does_nothing(root, slurm, receipt, run):
    batch = slurm.batch(root, [noop(1)])
    files.publish(batch.folder / "receipt.json", files.encode(receipt))
    slurm.start(batch, run=run).wait()
    assert batch.events() == []
    assert "has another job" in batch.log()
    assert receipts(batch) == ["receipt.json"]


def test_a_run_that_finds_a_later_one_starts_nothing_more(root, slurm):
    """It lives on behind a cut network while SLURM has started the job elsewhere."""
    batch = slurm.start(slurm.batch(root, [act(n, "obey") for n in range(4)]))
    wait_for(lambda: batch.started(0) and batch.started(1), "two tasks to run")
    files.publish(batch.folder / "receipt-1.json", files.encode({"slurm": {"job_id": "77", "restart": 1}}))
    batch.wait()
    assert batch.outcomes() == {key(0): "interrupted", key(1): "interrupted"}
    assert batch.over == "warned"
    assert slurm.requeued == 0


def earlier_run(batch: Batch, run: int, lost: list[int], ended: dict[int, str] | None = None, checkpoint: int | None = None) -> None:
    """Files of a run that died: it had started `lost`."""
    folder = taskdir.run_dir(batch.folder, run)
    folder.mkdir(exist_ok=True)
    files.publish(batch.folder / taskdir.receipt_name(run), files.encode({"slurm": {"job_id": "77", "restart": run}}))
    events = []
    for number in [*lost, *(ended or {})]:
        events.append({"event": "start", "key": key(number), "attempt": f"run-{run}-of-{number}", "time": 0.0})
        if checkpoint is not None:
            attempt = taskdir.attempt_dir(batch.root, key(number), f"run-{run}-of-{number}")
            attempt.mkdir(parents=True)
            (attempt / f"checkpoint-{checkpoint + run:012d}.json").write_text("torn")
    for number, outcome in (ended or {}).items():
        events.append({"event": "end", "key": key(number), "attempt": f"run-{run}-of-{number}", "class": outcome})
    (folder / "attempts.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events) + '{"torn')


def started(batch: Batch) -> list[str]:
    return [event["key"] for event in batch.events() if event["event"] == "start"]


def test_a_task_that_died_with_the_run_before_comes_last_and_nothing_but_its_like_runs_beside_it(root, slurm):
    batch = slurm.batch(root, [noop(n, seconds=0.3) for n in range(5)])
    earlier_run(batch, 0, lost=[0, 1])
    slurm.start(batch, run=1).wait()
    assert set(started(batch)[-2:]) == {key(0), key(1)}
    ends = {event["key"]: number for number, event in enumerate(batch.events()) if event["event"] == "end"}
    starts = {event["key"]: number for number, event in enumerate(batch.events()) if event["event"] == "start"}
    assert max(ends[key(n)] for n in (2, 3, 4)) < starts[key(0)]
    assert set(batch.outcomes().values()) == {"completed"}


def test_of_tasks_that_died_with_two_runs_each_has_the_job_to_itself(root, slurm):
    """One of them may be what kills the nodes, and the others only its victims."""
    batch = slurm.batch(root, [noop(n, seconds=0.2) for n in range(5)])
    earlier_run(batch, 0, lost=[0, 1, 2])
    earlier_run(batch, 1, lost=[0, 1])
    slurm.start(batch, run=2).wait()
    steps = [(event["event"], event["key"]) for event in batch.events() if event["event"] in ("start", "end")]
    assert {one for _, one in steps[:6]} == {key(2), key(3), key(4)}
    last = steps[6][1]
    other = key(1) if last == key(0) else key(0)
    assert steps[6:] == [("start", last), ("end", last), ("start", other), ("end", other)]


def test_a_task_that_died_with_three_runs_is_handed_back(root, slurm):
    batch = slurm.batch(root, [noop(0), noop(1)])
    earlier_run(batch, 0, lost=[0, 1])
    earlier_run(batch, 1, lost=[0, 1])
    earlier_run(batch, 2, lost=[0])
    slurm.start(batch, run=3).wait()
    assert started(batch) == [key(1)]
    assert batch.over == "finished"


def test_a_task_that_got_further_in_each_run_goes_on(root, slurm):
    batch = slurm.batch(root, [noop(0), noop(1)])
    earlier_run(batch, 0, lost=[0], checkpoint=5)
    earlier_run(batch, 1, lost=[0], checkpoint=5)
    slurm.start(batch, run=2).wait()
    assert set(started(batch)) == {key(0), key(1)}


def test_ends_of_an_earlier_run_stand(root, slurm):
    """What failed there is the driver's to cure; what was interrupted goes on."""
    batch = slurm.batch(root, [noop(n) for n in range(4)])
    earlier_run(batch, 0, lost=[], ended={0: "user_error", 1: "interrupted", 2: "host_oom", 3: "timeout_progress"})
    slurm.start(batch, run=1).wait()
    assert sorted(started(batch)) == sorted([key(1), key(3)])


# -- what the allocation holds --------------------------------------------------------------------------------------


@pretends_gpus
def test_two_jobs_of_one_node_do_not_wait_for_each_other(root, slurm, tmp_path):
    """Both have CPU 0 and GPU 0, as each sees its own, and the same /tmp."""
    gpus = {"request": {"gpus": 1, "slots": 1}}
    one = slurm.batch(root, [act(1, "wait", file=str(tmp_path / "go"), resources={"gpus": 1})], **gpus)
    other = slurm.batch(root, [act(2, "rows", resources={"gpus": 1})], token="s-00000000000b", **gpus)
    slurm.start(one, CUDA_VISIBLE_DEVICES="0").wait_for_start(1)
    slurm.start(other, CUDA_VISIBLE_DEVICES="0").wait()
    assert other.outcomes() == {key(2): "completed"}
    (tmp_path / "go").touch()
    one.wait()


@pretends_gpus
def test_several_tasks_share_a_gpu_and_each_sees_its_own_alone(root, slurm):
    tokens = ["GPU-aaaa", "MIG-bbbb"]
    tasks = [act(n, "gpu", file=str(root / f"gpu-{n}"), resources={"gpus": 1}) for n in range(8)]
    request = {"gpus": 2, "slots": 4, "tasks_per_gpu": 2}
    batch = slurm.start(slurm.batch(root, tasks, request=request), CUDA_VISIBLE_DEVICES=",".join(tokens)).wait()
    assert set(batch.outcomes().values()) == {"completed"}
    assert {(root / f"gpu-{n}").read_text() for n in range(8)} == set(tokens)
    assert {(end["cpus"], end["gpus"], end["slots"]) for end in batch.events() if end["event"] == "end"} == {(1, 0.5, 1)}


def test_gpus_that_were_not_asked_for_are_not_used(root, slurm):
    """The variable may come from the shell that submitted."""
    batch = slurm.start(slurm.batch(root, [act(1, "rows", resources={"gpus": 1})]), CUDA_VISIBLE_DEVICES="0").wait()
    assert "this machine has 0" in batch.end(1)["message"]


WRONG_GPU = """
import sys
from pathlib import Path
from workers import job, seat
start = seat.os.posix_spawn
seat.os.posix_spawn = lambda path, argv, env, **more: start(path, argv, env | {"CUDA_VISIBLE_DEVICES": "7"}, **more)
sys.exit(job.main(Path(sys.argv[1]), sys.argv[2]))
"""


def test_a_child_that_finds_other_gpus_than_it_was_given_has_never_started(root, slurm):
    batch = slurm.batch(root, [act(1, "rows", resources={"gpus": 1})], request={"gpus": 1})
    batch.command = ["-P", "-c", WRONG_GPU]
    slurm.start(batch, CUDA_VISIBLE_DEVICES="0").wait()
    assert batch.end(1)["class"] == "never_started"
    assert "CUDA_VISIBLE_DEVICES is '7', expected '0'" in batch.end(1)["message"]


def test_a_lone_task_has_the_memory_and_the_price_of_the_whole_job(root, slurm):
    batch = slurm.start(slurm.batch(root, [noop(1, alone=True), noop(2)])).wait()
    assert batch.end(1)["memory_limit_gib"] == 2.0 - seating.JOB_GIB
    assert (batch.end(1)["cpus"], batch.end(1)["slots"]) == (2, 2)
    assert batch.end(2)["slots"] == 1


def test_slots_of_an_allocation_are_pinned_only_where_they_are_known_to_be_its_own():
    mask = sorted(os.sched_getaffinity(0))
    own = Slots.of_allocation(len(mask), 1, len(mask))
    assert [slot.cpus for slot in own.take(len(mask))] == [[cpu] for cpu in mask]
    assert [slot.cpus for slot in Slots.of_allocation(2, 1, len(mask) + 1).take(2)] == [[], []]
    assert [slot.cpus for slot in Slots.of_allocation(2, len(mask), len(mask)).take(2)] == [[], []]


@pretends_gpus
def test_an_idle_child_gives_up_its_gpu_for_a_task_of_another_shape(root, slurm):
    tasks = [act(1, "rows", resources={"gpus": 1}), act(2, "rows", resources={"gpus": 1, "memory_gib": 0.5})]
    batch = slurm.start(slurm.batch(root, tasks, request={"gpus": 1}), CUDA_VISIBLE_DEVICES="0").wait()
    assert set(batch.outcomes().values()) == {"completed"}


# -- time -----------------------------------------------------------------------------------------------------------


def test_a_task_that_does_not_fit_is_left_to_the_driver(root, slurm):
    """The first tasks begin in any case; then the slowest of the kind is what counts, here 40 s as an earlier sweep has seen."""
    tasks = [noop(n, seconds=2.0) for n in range(6)]
    estimates = {taskdir.shape_name("noop", tasks[0].resources): 40.0}
    batch = slurm.start(slurm.batch(root, tasks, estimates=estimates), seconds=40.0).wait()
    assert batch.outcomes() == {key(0): "completed", key(1): "completed"}
    assert batch.over == "finished"
    assert slurm.requeued == 0


def test_once_a_task_has_shown_how_long_it_takes_the_others_fit(root, slurm):
    tasks = [noop(n, seconds=3.0, resources={"walltime_minutes": 10.0}) for n in range(4)]
    batch = slurm.start(slurm.batch(root, tasks), seconds=30.0).wait()
    assert set(batch.outcomes().values()) == {"completed"}
    assert len(batch.outcomes()) == 4


def test_a_task_that_gets_further_in_each_time_limit_runs_in_one_job_until_it_is_done(root, slurm):
    task = progress(1, seconds=5.0, walltime=3.0)
    batch = slurm.start(slurm.batch(root, [task], grace_seconds=2.0)).wait()
    ends = [event["class"] for event in batch.events() if event["event"] == "end"]
    assert ends[-1] == "completed"
    assert set(ends[:-1]) == {"timeout_progress"}
    assert len(ends) > 1
    assert batch.over == "finished"


def test_a_job_in_which_nothing_but_such_tasks_is_left_has_itself_requeued(root, slurm):
    task = progress(1, seconds=30.0, walltime=4.0)
    batch = slurm.start(slurm.batch(root, [task], grace_seconds=10.0), seconds=16.0).wait()
    ends = [event["class"] for event in batch.events() if event["event"] == "end"]
    assert set(ends) == {"timeout_progress"}
    assert batch.over == "requeued"
    assert slurm.requeued == 1


# -- warnings -------------------------------------------------------------------------------------------------------


def has_checkpoint(root: Path, tasks: int = 1) -> bool:
    return len({path.parent for path in root.rglob("checkpoint-*.json")}) >= tasks


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_warned_with_progress_the_job_says_so_and_then_has_itself_requeued_and_goes_on(root, slurm, number):
    batch = slurm.batch(root, [progress(1, 3.0), progress(2, 3.0), noop(3)])
    slurm.start(batch)
    wait_for(lambda: has_checkpoint(root, 2), "a checkpoint of both")
    batch.signal(number)
    batch.wait()
    assert batch.outcomes() == {key(1): "interrupted", key(2): "interrupted"}
    assert batch.over == "requeued"
    assert slurm.requeued == 1
    # all was said before SLURM was asked, which may kill the job at once
    assert '"requeued"' in (slurm.folder / "attempts").read_text()
    slurm.start(batch, run=1).wait()
    assert set(batch.outcomes().values()) == {"completed"}
    assert batch.end(1)["resumed_at"] > 0
    assert batch.over == "finished"


def test_the_end_of_its_time_is_a_warning_too_where_no_signal_comes(root, slurm):
    batch = slurm.start(slurm.batch(root, [progress(1, 60.0)]), seconds=6.0).wait(20)
    assert batch.over == "requeued"
    assert batch.end(1)["class"] == "interrupted"
    assert "nearly over" in batch.log()


def test_a_job_that_has_come_to_nothing_is_not_requeued(root, slurm):
    batch = slurm.start(slurm.batch(root, [act(1, "obey"), act(2, "obey")]))
    batch.wait_for_start(1)
    batch.signal(signal.SIGUSR1)
    batch.wait()
    assert batch.over == "warned"
    assert slurm.requeued == 0


def test_where_slurm_refuses_the_job_is_only_warned(root, slurm):
    slurm.refuse()
    batch = slurm.start(slurm.batch(root, [progress(1, 30.0)]))
    wait_for(lambda: has_checkpoint(root), "a checkpoint")
    batch.signal(signal.SIGUSR1)
    batch.wait()
    assert [event["reason"] for event in batch.events() if event["event"] == "over"] == ["requeued", "warned"]
    assert "not requeued: scontrol: error: no" in batch.log()


def cancelled_by_file(batch: Batch, slurm: Slurm) -> None:
    files.publish(batch.folder / "cancel-1.json", files.encode({"keys": None}))
    batch.signal(signal.SIGUSR1)


def cancelled_after_the_warning(batch: Batch, slurm: Slurm) -> None:
    batch.signal(signal.SIGUSR1)
    wait_for(lambda: "SIGUSR1 received" in batch.log(), "the warning")
    batch.signal(signal.SIGTERM)


def preempted(batch: Batch, slurm: Slurm) -> None:
    """Both at once; the task must have time for a checkpoint all the same."""
    os.kill(batch.process.pid, signal.SIGSTOP)
    batch.signal(signal.SIGUSR1)
    batch.signal(signal.SIGTERM)
    batch.signal(signal.SIGCONT)


def terminated(batch: Batch, slurm: Slurm) -> None:
    batch.signal(signal.SIGTERM)


def gone_from_the_queue(batch: Batch, slurm: Slurm) -> None:
    slurm.state("CANCELLED")
    batch.signal(signal.SIGUSR1)


@pytest.mark.parametrize("how", [cancelled_by_file, cancelled_after_the_warning, preempted, terminated, gone_from_the_queue])
def test_what_the_user_has_cancelled_does_not_come_back(root, slurm, how: Callable[[Batch, Slurm], None]):
    batch = slurm.start(slurm.batch(root, [progress(1, 30.0)]))
    wait_for(lambda: has_checkpoint(root), "a checkpoint")
    how(batch, slurm)
    batch.wait()
    assert "stopped at step" in batch.end(1)["message"]
    assert batch.over == ("cancelled" if how is cancelled_by_file else "warned")
    assert slurm.requeued == 0


def test_a_task_that_had_all_the_job_s_time_and_got_nowhere_is_charged_and_no_other(root, slurm):
    tasks = [noop(1, fail="hang"), *(noop(n, seconds=3.0, resources={"walltime_minutes": 0.01 * n + 0.1}) for n in range(2, 6))]
    batch = slurm.start(slurm.batch(root, tasks, grace_seconds=0.5), seconds=14.0).wait(30)
    outcomes = batch.outcomes()
    assert outcomes[key(1)] == "timeout"
    assert set(outcomes.values()) <= {"timeout", "completed", "interrupted"}
    assert list(outcomes.values()).count("timeout") == 1
    assert batch.over == "requeued"  # its neighbours have committed, and some are left


# -- memory ---------------------------------------------------------------------------------------------------------


def seat(limit_mib: float, peak_mib: float, status: int | None = None, group: object = None) -> Seat:
    shape = Shape(num_nodes=1, num_slots=1, threads=1, num_gpus=0, limit_bytes=int(limit_mib * 2**20))
    made = Seat(slots=[], gpus=[], shape=shape, group=group, grace_seconds=1.0)
    made.peak_mib, made.exit_status = peak_mib, status
    made.orders.append(None)
    return made


@pytest.fixture
def seats(monkeypatch):
    """A seating whose kernel has just killed for the memory of the job, and that sends no signal to anybody."""
    monkeypatch.setattr(Seat, "_signal_group", lambda self, number: None)
    monkeypatch.setattr(limits, "tree_mib", lambda pid: 0.0)
    counts = iter([{"job": 0}, {"job": 1}, {"job": 1}])
    monkeypatch.setattr(limits, "own_oom_kills", lambda: next(counts))
    made = Seating(
        root=Path(),
        code="",
        folder=Path(),
        terms=Terms(),
        selector=None,
        places=Slots(4),
        gpus=Gpus([]),
        memory_gib=4.0,
        nodes=("n",),
        makes_groups=False,
    )
    made.oom.look()
    return made


def test_of_children_killed_for_memory_the_one_nearest_its_limit_is_charged(seats):
    small, large = seat(100, 90, -9), seat(1000, 500, -9)
    seats.seats = [small, large]
    seats.find_who_filled_the_memory([large, small])
    assert (small.killed_by_kernel, small.evicted) == (True, False)
    assert (large.killed_by_kernel, large.evicted) == (False, True)


def test_a_neighbour_above_its_limit_is_charged_in_place_of_the_child_that_the_kernel_took(seats):
    innocent, guilty = seat(1000, 900, -9), seat(100, 300)
    seats.seats = [innocent, guilty]
    seats.find_who_filled_the_memory([innocent])
    assert innocent.evicted
    assert guilty.killed_for == "memory"
    assert not innocent.out_of_memory()


def test_a_child_that_somebody_killed_is_not_taken_for_one_without_memory(seats):
    seats.oom.look()
    seats.oom.take()
    killed = seat(100, 90, -9)
    seats.seats = [killed]
    seats.find_who_filled_the_memory([killed])
    assert not killed.killed_by_kernel
    assert not killed.evicted


def test_counters_of_the_job_s_own_cgroups_are_read(tmp_path, monkeypatch):
    job = tmp_path / "slurm" / "uid_0" / "job_7"
    task = job / "step_batch" / "task_0"
    task.mkdir(parents=True)
    (task / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    (job / "memory.oom_control").write_text("oom_kill 5\n")
    (tmp_path / "slurm" / "memory.oom_control").write_text("oom_kill 99\n")
    lines = {
        "/proc/self/cgroup": ["4:memory:/slurm/uid_0/job_7/step_batch/task_0"],
        "/proc/self/mounts": [f"x {tmp_path} cgroup rw,memory 0 0"],
    }
    real = limits._lines
    monkeypatch.setattr(limits, "_lines", lambda path: lines.get(path) or real(path))
    assert limits.own_oom_kills() == {str(task): 3, str(job): 5}


def test_counters_of_a_unified_hierarchy_are_read(tmp_path, monkeypatch):
    task = tmp_path / "system.slice" / "slurmstepd.scope" / "job_7" / "step_batch" / "user" / "task_0"
    task.mkdir(parents=True)
    (task / "memory.events").write_text("low 0\nhigh 0\nmax 8\noom 2\noom_kill 2\noom_group_kill 0\n")
    lines = {"/proc/self/cgroup": [f"0::/{task.relative_to(tmp_path)}"], "/proc/self/mounts": [f"x {tmp_path} cgroup2 rw 0 0"]}
    real = limits._lines
    monkeypatch.setattr(limits, "_lines", lambda path: lines.get(path) or real(path))
    assert limits.own_oom_kills() == {str(task): 2}


# -- agenda ---------------------------------------------------------------------------------------------------------


def test_suspects_come_after_lone_tasks_and_those_set_aside_come_back_when_asked():
    agenda = Agenda([noop(0), noop(1, alone=True), noop(2), noop(3, resources={"nodes": 2})], suspects={key(0)})
    assert [agenda.pop() for _ in range(4)] == [2, 1, 3, 0]
    agenda.set_aside(2)
    assert agenda.peek() is None
    assert agenda.aside == {2}
    agenda.bring_back()
    assert agenda.peek() == 2
    assert not agenda.aside


# -- umask ----------------------------------------------------------------------------------------------------------


def test_files_of_a_job_are_for_the_user_and_the_group(root, slurm):
    batch = slurm.start(slurm.batch(root, [progress(1, 0.2)])).wait()
    made = [path for path in [*batch.folder.iterdir(), *(root / "tasks").rglob("*"), *(root / "commits").rglob("*")] if path.name != "log"]
    modes = {path.stat().st_mode & 0o777 for path in made if path.name != "tasks.json"}
    assert modes == {0o640, 0o750}
