"""Cures that take minutes: clusters that break side by side, each with a store of its own, and tests that wait for their part."""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.slurm.cluster import Cluster, wait_until
from tests.slurm.scene import Scene, once
from workers import taskdir

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200), pytest.mark.xdist_group("slow_cures")]

Act = Callable[[Scene], None]

NO_TICKS = "launcher.tick_job=false"
# a minute that are no work for the machine
TRAIN = (
    *("workload=train", "name=train", "model=cure_package.patient", "num_steps=6000", "train_size=200", "num_evaluations=4"),
    *("checkpoint_every_seconds=0.5", "resources.memory_gib=1", "launcher.grace_seconds=5", NO_TICKS),
)
# what all waits end with on a machine that has nothing else to do is a fraction of this
WAIT = 300
# tasks that wait for a file
WAITING = ("resources.walltime_minutes=8", NO_TICKS)


# -- who breaks what, and when --------------------------------------------------------------------------------------------


def calm(scene: Scene) -> None:
    """Nothing breaks: time limits, of SLURM's jobs and of tasks, and a preempted training."""
    packed = ("launcher.partition=short", "launcher.slots=2", "launcher.tasks_per_job=4", "progress=true", NO_TICKS)
    scene.begin("limit", *packed, seconds=[2, 2, 55, 55])
    scene.begin("frozen", "launcher.partition=short", "progress=true", NO_TICKS, seconds=[50])
    scene.begin("deaf", "resources.walltime_minutes=4", "launcher.grace_seconds=90", NO_TICKS, fail=["hang"], fail_first=[1])
    scene.submit(*TRAIN, "launcher.partition=low", "launcher.nodelist=n2", "resources.walltime_minutes=0.5")
    scene.drive()
    wait_until(lambda: scene.checkpoints("frozen"), WAIT, "a checkpoint of the job that freezes")
    scene.cluster.exec("scancel", "--signal=STOP", "--batch", scene.job_id("frozen"))
    scene.wait_for_running("deaf")
    scene.cluster.exec("scontrol", "update", f"jobid={scene.job_id('deaf')}", "timelimit=1")
    wait_until(lambda: scene.checkpoints("train"), WAIT, "a checkpoint of the training")
    scene.cluster.sbatch("true", "--partition=high", "--cpus-per-task=4", "--nodelist=n2")


def power(scene: Scene) -> None:
    """A node loses its power; one job runs again elsewhere, one waits for that node."""
    packed = ("launcher.tasks_per_job=4", "launcher.slots=2", "resources.walltime_minutes=3", NO_TICKS)
    scene.begin("power", *packed, "progress=true", seconds=[1, 1, 40, 40])
    scene.drive()
    wait_until(lambda: scene.checkpoints("power", 2), WAIT, "a checkpoint")
    (host,) = scene.hosts("power")
    scene.submit(*TRAIN, f"launcher.nodelist={host}", "resources.walltime_minutes=5")
    wait_until(lambda: scene.checkpoints("train"), WAIT, "a checkpoint of the training")
    scene.cluster.kill_node(host)
    wait_until(lambda: scene.hosts("power", run=1), WAIT, "the first job runs again")
    scene.cluster.restore_node(host)
    for name in ("power", "train"):
        scene.wait_until_settled(name, WAIT)
    gate = scene.folder / "gate"
    scene.begin("again", *WAITING, f"launcher.nodelist={host}", workload="fault_package.dice", gate=[gate] * 2, fair=[True] * 2)
    scene.wait_for_running("again", 2)
    scene.cluster.kill_node(host)
    gate.touch()
    wait_until(lambda: scene.cluster.state(scene.job_id("again")) != "RUNNING", WAIT, "SLURM has noticed")
    scene.cluster.restore_node(host)
    scene.wait_until_settled("again", WAIT)
    scene.begin("after", NO_TICKS, seconds=[0, 0])


def network(scene: Scene) -> None:
    """n2 loses its network, and the job that runs there cannot see that SLURM has given it up and runs it elsewhere."""
    first, second = scene.folder / "first", scene.folder / "second"
    words = ("launcher.slots=2", "launcher.tasks_per_job=2", *WAITING)
    scene.begin("zombie", *words, workload="fault_package.dice", gate=[first, second], fair=[True, False])
    scene.drive()
    scene.wait_for_running("zombie", 2)
    (host,) = scene.hosts("zombie")
    scene.cluster.cut_node(host)
    first.touch()
    wait_until(lambda: scene.classes("zombie").get(0), WAIT, "the zombie has committed")
    scene.cluster.on(host, "pkill", "-STOP", "-f", f"workers {scene.root}")
    wait_until(lambda: scene.hosts("zombie", run=1), WAIT, "the job runs elsewhere")
    second.touch()
    wait_until(lambda: taskdir.differences(scene.root), WAIT, "both have tried to publish what they computed")
    scene.cluster.restore_node(host)


def double(scene: Scene) -> None:
    """A node loses its network and gets it back before SLURM has ended the job there, which it has given up and may start again."""
    gate = scene.folder / "gate"
    # where the node is quick to kill what it should not have, SLURM finds no second job, and the job just runs again
    linger = scene.cluster.shared / "linger"
    linger.write_text("#!/bin/sh\nsleep 10\n")
    linger.chmod(0o755)
    scene.begin("double", *WAITING, "launcher.nodelist=n1", workload="fault_package.dice", gate=[gate] * 2, fair=[True] * 2)
    scene.drive()
    scene.wait_for_running("double", 2)
    job = scene.job_id("double")
    scene.cluster.cut_node("n1")
    wait_until(lambda: "UnavailableNodes" in scene.reason(job), WAIT, "SLURM has noticed, and the job may start again")
    scene.said["away"] = scene.command("status", "double")
    scene.cluster.restore_node("n1")
    wait_until(lambda: "held" in scene.reason(job), WAIT, "SLURM holds the job")
    scene.said["held"] = scene.command("status", "double")
    gate.touch()
    scene.cluster.exec("scontrol", "update", "nodename=n1", "state=resume")
    scene.cluster.exec("scontrol", "release", job)


def crash(scene: Scene) -> None:
    """Whatever node the first task begins on loses its power."""
    packed = ("launcher.slots=2", "launcher.tasks_per_job=5", "resources.walltime_minutes=10", NO_TICKS)
    scene.begin("crash", *packed, seconds=[500, 1, 12, 1, 1])
    scene.begin("beside", "launcher.tasks_per_job=1", "progress=true", NO_TICKS, seconds=[30, 30, 30])
    scene.drive()
    killed = set[str]()
    while "crash" not in scene.ledger.settled:
        for event in scene.begun("crash", 0):
            if event["attempt"] not in killed:
                killed.add(event["attempt"])
                scene.cluster.kill_node(event["host"])
                job = scene.job_id("crash")
                wait_until(lambda job=job: scene.cluster.state(job) != "RUNNING", WAIT, "SLURM has noticed")
                scene.cluster.restore_node(event["host"])
        scene.drive()


def alone(scene: Scene) -> None:
    """After its submission nobody looks: a chain of four shapes, of which one fills its memory, another one needs more than its time."""
    train = ("num_steps=50,6000", "checkpoint_every_seconds=0.5", "model=cure_package.patient", "train_size=200")
    words = [f"spectrum.gram.train.{word}" for word in train]
    scene.submit("workload=cure_package.largest", "name=chain", *words, "resources.walltime_minutes=0.75", without="resources.memory_gib")
    long = scene.keys("chain", "train")[-1]
    wait_until(lambda: scene.checkpoints("chain", long), WAIT, "a checkpoint of the long training")
    (host,) = {event["host"] for event in scene.begun("chain", long)}
    scene.cluster.kill_node(host)
    wait_until(lambda: len(scene.begun("chain", long)) > 1, WAIT, "it runs again")
    scene.cluster.restore_node(host)


def daemons(scene: Scene) -> None:
    """slurmctld is killed while jobs run and others are submitted; later slurmdbd."""
    gate = scene.folder / "gate"
    scene.begin("controller", *WAITING, "launcher.tasks_per_job=1", workload="fault_package.dice", gate=[gate] * 4, fair=[True] * 4)
    scene.drive()
    scene.wait_for_running("controller", 4)
    # what is not yet in its saved state, SLURM would start a second time
    saved, since = scene.cluster.state_folder / "controller/job_state", time.time()
    wait_until(lambda: saved.stat().st_mtime > since, WAIT, "slurmctld has saved its state")
    scene.cluster.kill_daemon("slurmctld")
    scene.said["submitted"] = scene.begin("refused", NO_TICKS, seconds=[0.1, 0.1])
    scene.said["down"] = scene.command("status", "controller")
    gate.touch()
    wait_until(lambda: len(scene.classes("controller")) == 4, WAIT, "its tasks are done")
    scene.cluster.restore_daemon("slurmctld")
    scene.wait_until_settled("controller")
    scene.wait_until_settled("refused")
    scene.cluster.kill_daemon("slurmdbd")
    scene.begin("accounting", NO_TICKS, fail=["kill", "none"], fail_first=[1, 0], seconds=[1, 1])
    scene.wait_until_settled("accounting")
    scene.cluster.restore_daemon("slurmdbd")


def purged(scene: Scene) -> None:
    """A job dies while nobody looks, and SLURM forgets it before anybody does."""
    gate = scene.folder / "gate"
    scene.begin("purged", *WAITING, "launcher.use_sacct=false", workload="fault_package.dice", gate=[gate] * 2, fair=[True] * 2)
    scene.wait_for_running("purged", 2)
    scene.cluster.exec("scancel", "--signal=KILL", "--batch", scene.job_id("purged"))
    wait_until(lambda: scene.cluster.state(scene.job_id("purged")) not in ("RUNNING", "COMPLETING"), WAIT, "the job is dead")
    gate.touch()
    wait_until(lambda: not scene.cluster.state(scene.job_id("purged")).isalpha(), WAIT, "SLURM has forgotten the job")
    scene.drive()


ACTS: dict[str, tuple[int, list[str], Act]] = {
    "calm": (2, [], calm),
    "power": (3, [], power),
    "network": (3, [], network),
    "double": (2, ["--set=TaskEpilog={shared}/linger"], double),
    "crash": (3, ["--set=SlurmdTimeout=5"], crash),
    "alone": (3, [], alone),
    "daemons": (2, [], daemons),
    "purged": (1, ["--set=MinJobAge=2"], purged),
}


@pytest.fixture(scope="module")
def act(possible: None) -> Iterator[Callable[[str], Scene]]:
    """All acts begin at once, each on its own cluster; the scene of one, once all is broken that is to be."""
    scenes: dict[str, Scene] = {}

    def play(name: str) -> Scene:
        num_nodes, options, one = ACTS[name]
        cluster = Cluster(name=f"test-{os.getpid()}-{name}", num_nodes=num_nodes)
        cluster.options = [f"--owner={os.getpid()}", *(option.format(shared=cluster.shared) for option in options)]
        cluster.up(fresh=True)
        scenes[name] = Scene(cluster=cluster, folder=cluster.shared / name)
        one(scenes[name])
        return scenes[name]

    pool = ThreadPoolExecutor(len(ACTS))
    played: dict[str, Future[Scene]] = {name: pool.submit(play, name) for name in ACTS}

    def scene(name: str) -> Scene:
        if error := played[name].exception():
            raise AssertionError(f"{name}: {error}") from None
        return played[name].result()

    try:
        yield scene
    finally:
        for one in scenes.values():
            one.close()
        pool.shutdown(cancel_futures=True)
        for one in scenes.values():
            one.close()
            one.cluster.down()


# -- time limits ------------------------------------------------------------------------------------------------------------


def test_packed_tasks_write_checkpoints_before_slurm_s_limit_and_go_on_in_a_requeued_run(act: Callable[[str], Scene]) -> None:
    scene = act("calm")
    assert scene.wait_until_settled("limit", WAIT) == {"completed": 4}
    assert scene.charged("limit") == {}
    assert scene.starts("limit") == {0: 1, 1: 1, 2: 2, 3: 2}
    token, *more = scene.tokens("limit")
    assert not more, scene.log(token)
    assert len(scene.runs(token)) == 2, scene.log(token)
    long = {scene.key("limit", number) for number in (2, 3)}
    assert all(event["resumed_at"] > 100 for event in scene.runs(token)[1] if event["event"] == "end" and event["key"] in long)
    assert scene.cluster.accounted(scene.job_id("limit"), all_runs=True) == ["REQUEUED", "COMPLETED"]


def test_a_job_that_wakes_up_too_late_still_writes_checkpoints_and_has_itself_requeued(act: Callable[[str], Scene]) -> None:
    """It was stopped; SLURM wakes it to tell it that its time is over."""
    scene = act("calm")
    assert scene.wait_until_settled("frozen", WAIT) == {"completed": 1}
    assert scene.charged("frozen") == {}
    assert len(scene.runs(scene.tokens("frozen")[0])) >= 2
    assert all(event["resumed_at"] for event in scene.events("frozen", "end")[1:])


def test_a_job_that_slurm_ends_at_its_limit_gets_twice_the_time(act: Callable[[str], Scene]) -> None:
    """Its task is deaf, and the limit comes before its own, so that only SLURM says what happened."""
    scene = act("calm")
    assert scene.wait_until_settled("deaf", WAIT) == {"completed": 1}
    assert scene.charged("deaf") == {0: ["timeout"]}
    assert scene.closings("deaf")[0]["job"]["reason"] == "TIMEOUT"
    assert [task.resources["walltime_minutes"] for task in scene.sent("deaf")] == [4, 8]


def test_a_training_meets_its_limit_again_and_again_and_is_preempted_in_between(act: Callable[[str], Scene]) -> None:
    scene = act("calm")
    assert scene.wait_until_settled("train", WAIT) == {"completed": 1}
    assert set(scene.charged("train")[0]) == {"timeout_progress"}
    assert len(scene.classes("train")[0]) >= 3
    assert "PREEMPTED" in scene.cluster.accounted(scene.job_id("train", 0), all_runs=True)


def test_a_training_gives_the_same_numbers_however_it_was_interrupted(act: Callable[[str], Scene]) -> None:
    one, other = act("calm"), act("power")
    for scene in (one, other):
        scene.wait_until_settled("train", WAIT)
    assert one.values("train") == other.values("train")


# -- nodes ------------------------------------------------------------------------------------------------------------------


def test_a_power_cut_loses_nothing_and_computes_nothing_twice(act: Callable[[str], Scene]) -> None:
    scene = act("power")
    assert scene.wait_until_settled("power", WAIT) == {"completed": 4}
    assert scene.starts("power") == {0: 1, 1: 1, 2: 2, 3: 2}
    assert all(event["resumed_at"] for event in scene.events("power", "end")[-2:])
    assert [len(scene.runs(token)) for token in scene.tokens("power")] == [2]
    assert scene.wait_until_settled("train", WAIT) == {"completed": 1}
    assert scene.starts("train") == {0: 2}


def test_a_node_that_fails_twice_is_left_out(act: Callable[[str], Scene]) -> None:
    scene = act("power")
    assert scene.wait_until_settled("after") == {"completed": 2}
    (host,) = scene.hosts("power")
    first, second = scene.ledger.lost_hosts[host]
    keys = {scene.key("power", 2), scene.key("power", 3), scene.key("train")}
    assert (set(first["keys"]), set(second["keys"])) == (keys, set(scene.numbers("again"))), "a power cut counts once, for all jobs"
    assert scene.submissions("after")[0]["request"]["exclude"] == [host]
    assert scene.hosts("after") != {host}


def test_a_node_without_network_computes_on_but_nothing_is_published_twice(act: Callable[[str], Scene]) -> None:
    """What the zombie has committed is not computed again; of what both have computed, one result counts."""
    scene = act("network")
    assert scene.wait_until_settled("zombie", WAIT) == {"completed": 2}
    assert scene.starts("zombie") == {0: 1, 1: 2}
    assert [len(scene.runs(token)) for token in scene.tokens("zombie")] == [2]
    ((key, _),) = scene.status("zombie")["differences"]
    assert key == scene.key("zombie", 1), "the second result was seen, and refused"


def test_a_job_of_which_slurm_finds_a_second_is_explained_and_mended_by_the_commands_in_the_status(act: Callable[[str], Scene]) -> None:
    scene = act("double")
    assert "n1" in scene.said["away"] and "sinfo -R" in scene.said["away"]
    held = scene.said["held"]
    assert "Duplicate jobid" in held
    assert "scontrol update nodename=" in held and f"scontrol release {scene.job_id('double')}" in held
    assert scene.wait_until_settled("double") == {"completed": 2}
    assert [value for (value,) in scene.values("double").values()] == [6.0, 6.0]


def test_a_task_that_crashes_its_node_fails_alone(act: Callable[[str], Scene]) -> None:
    scene = act("crash")
    assert scene.wait_until_settled("crash", 600) == {"completed": 4, "failed": 1}
    assert scene.charged("crash") == {0: ["node_failure"] * 6}
    assert scene.wait_until_settled("beside", WAIT) == {"completed": 3}
    assert scene.ledger.bad_hosts() == []
    assert "its nodes failed again and again" in scene.status("crash")["next"]


# -- nobody looks -----------------------------------------------------------------------------------------------------------


def test_the_jobs_ticks_alone_carry_a_chain_to_its_end(act: Callable[[str], Scene]) -> None:
    scene = act("alone")
    wait_until(lambda: "chain" in scene.ledger.settled, 400, "the chain is settled")
    assert scene.counts("chain") == {"completed": 8}
    charged = scene.charged("chain")
    assert {cause for causes in charged.values() for cause in causes} >= {"host_oom"}
    assert "requeued" in {event["reason"] for event in scene.events("chain", "over")}
    assert scene.ledger.lost_hosts
    assert scene.driver is None


# -- daemons ----------------------------------------------------------------------------------------------------------------


def test_slurmctld_killed_and_started_again_costs_nothing(act: Callable[[str], Scene]) -> None:
    scene = act("daemons")
    assert scene.counts("controller") == {"completed": 4}
    assert once(scene.starts("controller"))
    assert "nothing is concluded: squeue gave no answer" in scene.said["down"]
    assert "its job is looked for by its name" in scene.said["submitted"]
    assert scene.counts("refused") == {"completed": 2}
    assert once(scene.starts("refused"))


def test_without_slurmdbd_a_sweep_is_cured_all_the_same(act: Callable[[str], Scene]) -> None:
    scene = act("daemons")
    assert scene.counts("accounting") == {"completed": 2}
    assert scene.classes("accounting") == {0: ["killed", "completed"], 1: ["completed"]}


def test_a_job_that_nobody_remembers_is_given_up_and_sent_again(act: Callable[[str], Scene]) -> None:
    scene = act("purged")
    assert scene.wait_until_settled("purged", WAIT) == {"completed": 2}
    assert scene.charged("purged") == {0: ["killed"], 1: ["killed"]}
    assert scene.starts("purged") == {0: 2, 1: 2}
