"""Each cause of failure and its cure on a real cluster, as far as that takes seconds: all run at once, each test waits for its own."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest

from orchestrator import ledger as ledgers
from tests.slurm.cluster import Cluster, wait_until
from tests.slurm.scene import Scene, once

# a scene is made once a process
pytestmark = pytest.mark.xdist_group("cures")

# preemption has a node of its own
APART = "launcher.exclude=n1"
TICKS = "launcher.tick_job=false"
HALVES = '''
"""A user's own workload."""

from dataclasses import dataclass

from workers.workload import Resources, Row, Workload


@dataclass(frozen=True, kw_only=True)
class Halves(Workload):
    """Half the index."""

    index: int = 0

    def resources(self):
        return Resources(memory_gib=0.25)

    def run(self, context):
        index = self.index
        if BROKEN:
            raise ValueError("a mistake")
        yield Row(name="half", value=index / 2)
'''


@pytest.fixture(scope="module")
def scene(session_cluster: Cluster) -> Iterator[Scene]:
    """All sweeps of this module, sent at once and ticked by one process."""
    with Scene(cluster=session_cluster, folder=Path(mkdtemp(dir=session_cluster.shared))) as scene:
        begin_all(scene)
        scene.drive()
        begin_what_is_ended_by_others(scene)
        end_them(scene)
        yield scene
    session_cluster.reset()


def begin_all(scene: Scene) -> None:
    alone = (APART, TICKS)
    for by in ("watchdog", "cgroup", "none"):
        words = (f"launcher.limit_memory_by={by}", "launcher.slots=3", *alone)
        scene.begin(f"oom_{by}", *words, fail=["none", "oom", "none"], fail_first=[0, 1, 0], seconds=[3, 0, 3])
    scene.begin("later", "launcher.sbatch={begin: now+1hour}", "launcher.tasks_per_job=1", *alone, number=2)
    scene.begin("held", "launcher.sbatch={hold: true}", *alone, number=1)
    gpus = ("resources.gpus=1", "launcher.tasks_per_gpu=2", *alone)
    scene.begin("cuda", *gpus, cuda_oom_above=[32, "null", "null"], fail=["none", "none", "cuda_oom"], seconds=[0, 1, 0])
    larger = ("launcher.gpu_type=v100", "launcher.larger_gpu_types=[a100]", "resources.gpus=1", *alone)
    scene.begin("larger", *larger, fail=["cuda_oom"], fail_first=[3])
    scene.begin("wrong", "launcher.slots=1", *alone, fail=["exception"] * 12)
    package = scene.folder / "own_study"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "halves.py").write_text(HALVES.replace("BROKEN", "index % 100 % 3 == 1"))
    scene.begin("mended", *alone, workload="own_study.halves", number=6)
    scene.begin("killed", *alone, "launcher.use_sacct=false", fail=["kill", "none", "kill"], fail_first=[2, 0, 0])
    words = ("resources.walltime_minutes=0.05", "launcher.grace_seconds=1", "launcher.slots=2", *alone)
    scene.begin("late", *words, progress=[True, False], fail=["none", "hang"], seconds=[7, 0])


def begin_what_is_ended_by_others(scene: Scene) -> None:
    for name in ("low", "cancel", "grace"):
        words = (f"launcher.partition={name}", "launcher.nodelist=n1", "progress=true", TICKS)
        scene.begin(f"preempted_{name}", *words, seconds=[12])
    scene.begin("mine", APART, TICKS, "launcher.tasks_per_job=1", "progress=true", seconds=[8, 0.1])


def end_them(scene: Scene) -> None:
    wait_until(lambda: scene.checkpoints("mine") and scene.classes("mine").get(1), 60, "a checkpoint, and the other task is done")
    scene.cluster.exec("scancel", f"{scene.job_id('mine')}_0", f"{scene.job_id('later')}_1")
    for name in ("low", "cancel", "grace"):
        wait_until(lambda name=name: scene.checkpoints(f"preempted_{name}"), 60, f"a checkpoint in partition {name}")
    # whoever preempts wants all of the node
    scene.cluster.sbatch("true", "--partition=high", "--cpus-per-task=4", "--nodelist=n1")


# -- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["watchdog", "cgroup", "none"])
def test_a_task_out_of_memory_is_sent_again_alone_and_with_more(scene: Scene, by: str) -> None:
    """Who ends it: our watchdog, a cgroup of our own, or the kernel because the memory of SLURM's job is full."""
    name = f"oom_{by}"
    assert scene.wait_until_settled(name) == {"completed": 3}
    assert scene.classes(name) == {0: ["completed"], 1: ["host_oom", "completed"], 2: ["completed"]}
    assert scene.charged(name) == {1: ["host_oom"]}
    first, second = scene.submissions(name)
    assert first["request"]["slots"] == 3 and not second["request"]["packed"]
    again = scene.sent(name, 1)[-1]
    assert again.alone
    assert again.resources["memory_gib"] >= 2 * 0.2


# -- GPUs -------------------------------------------------------------------------------------------------------------


def test_a_full_gpu_is_met_alone_first_and_then_with_half_the_micro_batch(scene: Scene) -> None:
    assert scene.wait_until_settled("cuda") == {"completed": 2, "failed": 1}
    assert scene.classes("cuda") == {0: ["cuda_oom", "cuda_oom", "completed"], 1: ["completed"], 2: ["cuda_oom"] * 4}
    sent = scene.sent("cuda", 2)
    assert [(task.alone, task.halvings) for task in sent] == [(False, 0), (True, 0), (True, 1), (True, 2)]
    assert "cuda_oom" in scene.logs("cuda", 2)


def test_a_gpu_that_is_full_with_half_the_micro_batch_too_is_left_for_a_larger_one(scene: Scene) -> None:
    assert scene.wait_until_settled("larger") == {"completed": 1}
    assert scene.classes("larger") == {0: ["cuda_oom"] * 3 + ["completed"]}
    assert [(task.halvings, task.gpu_type) for task in scene.sent("larger")] == [(0, ""), (0, ""), (1, ""), (1, "a100")]
    asked = [one["request"]["gpu_type"] for one in scene.submissions("larger")]
    assert asked == ["v100"] * 3 + ["a100"]
    features = dict(line.split() for line in scene.cluster.exec("sinfo", "-hNp", "debug", "-o", "%N %f").splitlines())
    assert [features[event["host"]].split(",")[0] for event in scene.events("larger", "start")] == asked


# -- the user's own errors ---------------------------------------------------------------------------------------------


def test_three_errors_alike_stop_a_workload_and_none_is_tried_again(scene: Scene) -> None:
    assert scene.wait_until_settled("wrong") == {"failed": 12}
    assert once(scene.starts("wrong"))
    assert 3 <= len(scene.starts("wrong")) <= 6
    assert scene.status("wrong")["broken"] == {"noop": "an exception, as `fail=exception` asks"}
    assert "Traceback" in scene.logs("wrong", next(iter(scene.starts("wrong"))))


def test_what_failed_runs_again_under_mended_code_and_only_that(scene: Scene) -> None:
    assert scene.wait_until_settled("mended") == {"completed": 4, "failed": 2}
    (scene.folder / "own_study/halves.py").write_text(HALVES.replace("BROKEN", "False"))
    scene.command("resume", "mended")
    assert scene.wait_until_settled("mended") == {"completed": 6}
    assert scene.starts("mended") == {0: 1, 1: 2, 2: 1, 3: 1, 4: 2, 5: 1}


# -- the clock ---------------------------------------------------------------------------------------------------------


def test_a_task_s_time_limit_is_met_again_and_again_with_progress_and_twice_without(scene: Scene) -> None:
    assert scene.wait_until_settled("late") == {"completed": 1, "failed": 1}
    slow, stuck = scene.classes("late").values()
    assert slow == ["timeout_progress"] * (len(slow) - 1) + ["completed"]
    assert len(slow) >= 3
    assert stuck == ["timeout", "timeout"]
    ends = [event for event in scene.events("late", "end") if event["key"] == scene.key("late", 0)]
    assert [event["resumed_at"] for event in ends[1:]] == [event["checkpoint"] for event in ends[:-1]]
    shown = scene.logs("late", 1)
    assert "Current thread" in shown and "in _hang" in shown
    assert "no progress in twice its time" in scene.status("late")["next"]


# -- kills, and no sacct ------------------------------------------------------------------------------------------------


def test_a_killed_task_is_tried_four_times_also_where_there_is_no_sacct(scene: Scene) -> None:
    assert scene.wait_until_settled("killed") == {"completed": 2, "failed": 1}
    assert scene.classes("killed") == {0: ["killed", "killed", "completed"], 1: ["completed"], 2: ["killed"] * 4}


# -- what people do -------------------------------------------------------------------------------------------------------


def test_scancel_takes_tasks_out_of_the_sweep_until_it_is_resumed(scene: Scene) -> None:
    assert scene.wait_until_settled("mine") == {"completed": 1, "cancelled": 1}
    assert "eigensweep resume mine" in scene.status("mine")["next"]
    scene.command("resume", "mine")
    assert scene.wait_until_settled("mine") == {"completed": 2}
    assert scene.starts("mine") == {0: 2, 1: 1}
    again = [event for event in scene.events("mine", "end") if event["key"] == scene.key("mine", 0)][-1]
    assert again["resumed_at"] > 0, "it goes on from its checkpoint"


def test_an_element_that_scancel_takes_from_the_queue_leaves_no_record_and_is_cancelled_all_the_same(scene: Scene) -> None:
    job = scene.job_id("later")
    wait_until(lambda: scene.counts("later") == {"queued": 1, "cancelled": 1}, 30, "one of two is cancelled")
    scene.cluster.exec("scontrol", "update", f"jobid={job}", "starttime=now")
    assert scene.wait_until_settled("later") == {"completed": 1, "cancelled": 1}
    assert scene.starts("later") == {0: 1}


def test_a_held_job_is_explained_with_the_command_that_releases_it(scene: Scene) -> None:
    job = scene.job_id("held")
    wait_until(lambda: f"scontrol release {job}" in scene.command("status", "held"), 30, "status explains")
    assert scene.status("held")["counts"] == {"queued": 1}
    scene.cluster.exec("scontrol", "release", job)
    assert scene.wait_until_settled("held") == {"completed": 1}
    assert len(scene.tokens("held")) == 1


# -- preemption -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("partition", ["low", "cancel", "grace"])
def test_a_preempted_task_goes_on_from_its_checkpoint_uncharged(scene: Scene, partition: str) -> None:
    """REQUEUE, CANCEL, and a grace time that begins with our own signal."""
    name = f"preempted_{partition}"
    assert scene.wait_until_settled(name) == {"completed": 1}
    assert scene.charged(name) == {}
    assert scene.starts(name) == {0: 2}
    tokens = scene.tokens(name)
    if partition == "cancel":
        assert [len(scene.runs(token)) for token in tokens] == [1, 1], "SLURM does not run it again, so it is sent again"
    else:
        assert [len(scene.runs(token)) for token in tokens] == [2], "the same job runs again"
    assert scene.events(name, "end")[-1]["resumed_at"] > 0
    assert ledgers.read(scene.root).lost_hosts == {}
