"""One authority at a time sends a task: the job that has itself requeued, SLURM, or a driver; never two, however many drivers look."""

import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from tempfile import mkdtemp

import pytest

from tests.slurm.cluster import Cluster, wait_until
from tests.slurm.scene import Scene

pytestmark = pytest.mark.xdist_group("authority")

NO_TICKS = "launcher.tick_job=false"
WORDS = (NO_TICKS, "progress=true")
REQUEUED = ("signal", "hand", "slurm")


@pytest.fixture(scope="module")
def scene(session_cluster: Cluster) -> Iterator[Scene]:
    """Jobs that are requeued in all three ways, one that is cancelled meanwhile, and three drivers that never rest."""
    with Scene(cluster=session_cluster, folder=Path(mkdtemp(dir=session_cluster.shared))) as scene:
        begin(scene)
        yield scene
    session_cluster.reset()


def begin(scene: Scene) -> None:
    away, cluster = "launcher.exclude=n1", scene.cluster
    scene.begin("shape", NO_TICKS, away, "launcher.slots=2", fail=["oom", "none"], fail_first=[1, 0], seconds=[0, 5])
    scene.begin("cancelled", *WORDS, away, seconds=[60])
    for _ in range(3):
        scene.start("tick", "--every", "0.3", into=subprocess.DEVNULL)
    scene.drive()
    # the last element: it alone has the number of its array
    begun(scene, "hand", away, "launcher.tasks_per_job=1", seconds=[6, 6, 6])
    cluster.exec("scontrol", "requeue", f"{scene.job_id('hand')}_2")
    begun(scene, "signal", away, "launcher.slots=2", "launcher.tasks_per_job=2", seconds=[6, 6])
    cluster.exec("scancel", "--signal=USR1", "--batch", scene.job_id("signal"))
    begun(scene, "slurm", "launcher.partition=low", "launcher.nodelist=n1", seconds=[6])
    cluster.sbatch("true", "--partition=high", "--cpus-per-task=4", "--nodelist=n1")
    job = scene.job_id("cancelled")
    cluster.exec("scontrol", "requeue", job)
    cluster.wait_for(job, "PENDING", seconds=30)
    scene.command("cancel", "cancelled")


def begun(scene: Scene, name: str, *words: str, seconds: list[int]) -> None:
    scene.begin(name, *WORDS, *words, seconds=seconds)
    for number in range(len(seconds)):
        wait_until(lambda number=number: scene.checkpoints(name, number), 60, f"a checkpoint of {name}")


@pytest.mark.parametrize("name", REQUEUED)
def test_a_requeued_job_goes_on_and_nothing_is_sent_beside_it(scene: Scene, name: str) -> None:
    number = {"signal": 2, "hand": 3, "slurm": 1}[name]
    assert scene.wait_until_settled(name) == {"completed": number}
    assert len(scene.submissions(name)) == 1
    assert [len(scene.runs(token)) for token in scene.tokens(name)] == {"signal": [2], "hand": [1, 1, 2], "slurm": [2]}[name]
    assert scene.charged(name) == {}
    assert_one_after_another(scene, name)


def test_what_is_cancelled_while_its_job_waits_to_run_again_stays_so(scene: Scene) -> None:
    assert scene.wait_until_settled("cancelled") == {"cancelled": 1}
    job = scene.job_id("cancelled")
    wait_until(lambda: scene.cluster.state(job) in ("CANCELLED", "COMPLETED"), 30, "the job is gone")
    assert scene.starts("cancelled") == {0: 1}


def test_a_task_of_another_shape_is_sent_once_its_job_is_gone(scene: Scene) -> None:
    assert scene.wait_until_settled("shape") == {"completed": 2}
    first, second = (scene.job_id("shape", number) for number in (0, 1))
    ended = scene.cluster.exec("sacct", "-nPX", "--jobs", first, "--format=End").strip()
    submitted = scene.cluster.exec("sacct", "-nPX", "--jobs", second, "--format=Submit").strip()
    assert ended <= submitted
    assert_one_after_another(scene, "shape")


def test_a_job_that_is_run_again_after_its_end_does_nothing(scene: Scene) -> None:
    scene.wait_until_settled("signal")
    (token,) = scene.tokens("signal")
    before = scene.runs(token)
    job = scene.job_id("signal")
    scene.cluster.wait_for(job, "COMPLETED")
    scene.cluster.exec("scontrol", "requeue", job)
    wait_until(lambda: len(scene.cluster.accounted(job, all_runs=True)) == 3, 60, "it was run again")
    scene.cluster.wait_for(job, "COMPLETED")
    assert [run for run in scene.runs(token)[2:] if any(event["event"] == "start" for event in run)] == []
    assert scene.runs(token)[:2] == before


def assert_one_after_another(scene: Scene, name: str) -> None:
    """No attempt of a task began before the one before it had ended, and each went on from where that was."""
    ends = {event["attempt"]: event["time"] for event in scene.events(name, "end")}
    for number in set(scene.numbers(name).values()):
        for earlier, later in pairwise(scene.begun(name, number)):
            assert ends.get(earlier["attempt"], 0.0) <= later["time"]
