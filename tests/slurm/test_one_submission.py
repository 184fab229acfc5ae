"""A submission reaches SLURM once or not at all, whoever is killed when and whatever sbatch says: no task runs twice, none is forgotten."""

import contextlib
import itertools
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator import code, verbs
from orchestrator.batches import Batch
from orchestrator.plan import prepare
from orchestrator.store import Store
from tests.slurm.cluster import Cluster, wait_until
from tests.slurm.drivers import Driver, accepted, assert_each_once, here, settings, settle, submit
from tests.slurm.scene import Scene

SINGLE = ("workload=noop", "name=w", "index=0,1", "launcher.tick_job=false")
ARRAY = (*SINGLE, "launcher.pack=never")

# an `sbatch` for the first on PATH: what it does at the first call that is to queue something; the others are the real one's
WRAPPER = """#!/bin/sh
case " $* " in *" --test-only "*) exec {real} "$@";; esac
mkdir {folder}/once 2>/dev/null || exec {real} "$@"
{fault}
"""
TIMED_OUT = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"
LIMIT = """sbatch: error: QOSMaxSubmitJobPerUserLimit
sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"""
FAULTS = {
    "before": "kill -9 $PPID",
    "during": 'kill -9 $PPID; exec {real} "$@"',
    "after": '{real} "$@" > /dev/null; kill -9 $PPID',
    "late": 'kill -9 $PPID; until [ -e {folder}/go ]; do sleep 0.1; done; {real} "$@" > {folder}/answer',
    "hangs": "exec sleep 60",
    "accepts and hangs": '{real} "$@" > /dev/null; exec sleep 60',
    "accepts and times out": f'{{real}} "$@" > /dev/null; echo "{TIMED_OUT}" >&2; exit 1',
    "limit": f'echo "{LIMIT}" >&2; exit 1',
    "garbles its answer": '{real} "$@" | tr 0-9 x',
}
WAITS = 'until [ -e {folder}/go ]; do sleep 0.1; done; exec {real} "$@"'
# more than a submission has operations
MOST_POINTS = 500
DEADLY = ("before", "during", "after", "late")
FOUND_BY_NAME = ("after", "accepts and hangs", "accepts and times out", "garbles its answer")


@pytest.fixture
def scene(cluster: Cluster, shared: Path) -> Iterator[Callable[[], Scene]]:
    """Makes scenes."""
    numbers = itertools.count()
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(Scene(cluster=cluster, folder=shared / str(next(numbers))))


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    """What the forks share."""
    from orchestrator import compose
    from orchestrator.slurm import sbatch  # noqa: F401

    compose.compose(["launcher=slurm", *SINGLE])


def faulty_sbatch(scene: Scene, fault: str) -> dict[str, str]:
    """An environment whose sbatch has the fault, given by its name or in shell."""
    folder = scene.folder / "bin"
    folder.mkdir()
    names = {"folder": folder, "real": scene.cluster.bin / "sbatch"}
    (folder / "sbatch").write_text(WRAPPER.format(**names, fault=FAULTS.get(fault, fault).format(**names)))
    (folder / "sbatch").chmod(0o755)
    return {"PATH": f"{folder}:{scene.environment['PATH']}"}


def test_no_task_runs_twice_whatever_becomes_of_sbatch(scene: Callable[[], Scene]) -> None:
    forms = {"single": SINGLE, "array": ARRAY}
    scenes = {(form, fault): scene() for form in forms for fault in FAULTS}
    began = {}
    for (form, fault), one in scenes.items():
        seconds = 2 if "hangs" in fault else None
        began[form, fault] = Driver.of(one, forms[form], environment=faulty_sbatch(one, fault), sbatch_seconds=seconds)
    assert {fault for (_, fault), driver in began.items() if not driver.wait()} == set(DEADLY)
    abandoned = {form: scenes[form, "late"].entries("submission")[0]["token"] for form in forms}
    settle([(one, "w") for one in scenes.values()])
    # sbatch was alive all the time, and hands over only now what has long been given up
    for form, token in abandoned.items():
        late = scenes[form, "late"]
        (late.folder / "bin/go").touch()
        wait_until(lambda late=late, token=token: accepted(late)[token], 30, "the late job is there")
        (job_id,) = accepted(late)[token]
        late.cluster.wait_for(job_id, "COMPLETED")
    for (_, fault), one in scenes.items():
        assert_each_once(one)
        taken = [len(ids) for ids in accepted(one).values()]
        assert sum(taken) == (2 if fault == "late" else 1), f"{fault}: {accepted(one)}"
        if fault in FOUND_BY_NAME:
            assert taken == [1], f"{fault}: a job that SLURM had was not found by its name"


@pytest.mark.parametrize("words", [SINGLE, ARRAY], ids=["single", "array"])
def test_what_is_cancelled_before_sbatch_has_answered_never_begins(scene: Callable[[], Scene], words: tuple[str, ...]) -> None:
    one = scene()
    driver = Driver.of(one, words, environment=faulty_sbatch(one, WAITS))
    wait_until(lambda: one.entries("submission"), 30, "the driver is at sbatch")
    with here(one):
        assert len(verbs.cancel("w", root=one.root)) == 2
    (one.folder / "bin/go").touch()
    assert driver.wait()
    ((job_id,),) = accepted(one).values()
    one.cluster.wait_for(job_id, "COMPLETED")
    settle([(one, "w")])
    assert one.starts("w") == {}
    assert one.counts("w") == {"cancelled": 2}


def freeze(scenes: list[Scene], words: tuple[str, ...]) -> None:
    """Have the code in all stores: to write it takes most of the first submission's operations, which are no concern of SLURM."""
    first, *others = scenes
    with here(first):
        store = Store.open(first.root)
        code.freeze(store, prepare(settings(words), store).sweep.modules())
    for one in others:
        shutil.copytree(first.root / "code", one.root / "code", dirs_exist_ok=True)


def survives(make: Callable[[], Scene], points: list[str], words: tuple[str, ...]) -> int:
    """Kill a driver at each of these file operations, each in a store of its own, and let ticks do the rest; how many were hit."""
    scenes = {point: make() for point in points}
    freeze(list(scenes.values()), words)
    began = {point: Driver.of(one, words, fault=point) for point, one in scenes.items()}
    hit = sum(not driver.wait() for driver in began.values())
    for one in scenes.values():
        # killed before anybody else could know of the sweep, so its user submits again
        if "w" not in one.ledger.sweeps:
            submit(one, *words)
    settle([(one, "w") for one in scenes.values()])
    for point, one in scenes.items():
        assert_each_once(one), point
    return hit


def test_no_task_runs_twice_wherever_the_driver_is_killed(scene: Callable[[], Scene]) -> None:
    assert survives(scene, [f"{number}{after}" for number, after in zip(range(2, 34, 4), itertools.cycle(("", "+")))], SINGLE) >= 6


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("words", [SINGLE, ARRAY], ids=["single", "array"])
def test_no_task_runs_twice_at_whatever_operation_the_driver_is_killed(scene: Callable[[], Scene], words: tuple[str, ...]) -> None:
    points = [f"{number}{after}" for number in range(1, MOST_POINTS) for after in ("", "+")]
    for start in range(0, len(points), 12):
        hit = survives(scene, points[start : start + 12], words)
        print(f"points {points[start]} to {points[start + 11]}: {hit} drivers killed")
        if not hit:
            break
    assert not hit and start >= 24


def test_drivers_at_once_share_the_work(scene: Callable[[], Scene]) -> None:
    """Three of one sweep, and one of a sweep that shares half of its tasks; the jobs that tick are drivers, too."""
    one = scene()
    grids = [("w", "range(0,8)")] * 3 + [("x", "range(4,12)")]
    began = [
        Driver.of(one, ["workload=noop", f"name={name}", f"index={grid}", "launcher.tasks_per_job=3"], held=True) for name, grid in grids
    ]
    for driver in began:
        driver.release()
    ended = [driver.wait() for driver in began]
    assert all(ended)
    settle([(one, "w"), (one, "x")])
    assert_each_once(one, ("w", "x"))


def test_a_host_goes_on_with_what_the_driver_of_another_host_left(scene: Callable[[], Scene]) -> None:
    """All that comes after the driver's death happens on nodes: a job that ticks once, and the jobs that tick after each submission."""
    scenes = {fault: scene() for fault in ("before", "after", "late")}
    words = [word for word in SINGLE if "tick_job" not in word]
    began = [Driver.of(one, words, environment=faulty_sbatch(one, fault)) for fault, one in scenes.items()]
    ended = [driver.wait() for driver in began]
    assert not any(ended)
    for one in scenes.values():
        (code,) = (one.root / "code").iterdir()
        tick = f"exec {sys.executable} -P -m orchestrator tick --settle --root {one.root}"
        one.cluster.sbatch(f"export PYTHONPATH={code}\n{tick}", f"--output={one.folder}/tick")
    for fault, one in scenes.items():
        wait_until(lambda one=one: "w" in one.ledger.settled, 90, f"{one.root}, {fault}: all is done")
        assert_each_once(one)


# -- where SLURM forgets ------------------------------------------------------------------------------------------------


@pytest.fixture
def forgetful(another_cluster: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A cluster without sacct, whose controller forgets jobs three seconds after their end."""
    cluster = another_cluster(4, "--set=MinJobAge=3")
    (cluster.bin / "sacct").unlink()
    everything_else = cluster.shared / "usr-bin"
    everything_else.mkdir()
    for path in Path("/usr/bin").iterdir():
        if path.name != "sacct":
            (everything_else / path.name).symlink_to(path)
    monkeypatch.setenv("PATH", str(everything_else))
    return cluster


def test_jobs_that_slurm_has_forgotten_are_not_run_twice_and_not_lost(forgetful: Cluster) -> None:
    words = ["workload=noop", "name=w", "index=0,1", "seconds=2", "launcher.tick_job=false"]
    with contextlib.ExitStack() as stack:
        blocker = forgetful.sbatch("sleep 600", "--exclusive", "--nodelist=n4")
        names = ("unwatched", "unknown", "killed", "never begun")
        scenes = {name: stack.enter_context(Scene(cluster=forgetful, folder=forgetful.shared / name)) for name in names}
        unknown = Driver.of(scenes["unknown"], words, environment=faulty_sbatch(scenes["unknown"], "after"))
        assert not unknown.wait()
        for name in ("unwatched", "killed"):
            submit(scenes[name], *words)
        scenes["killed"].wait_for_running("w", 2)
        (token,) = scenes["killed"].tokens("w")
        receipt = Batch(scenes["killed"].root, token).refresh().receipt
        forgetful.on(receipt["host"], "kill", "-9", str(receipt["pid"]))
        submit(scenes["never begun"], *words, "launcher.nodelist=n4")
        forgetful.exec("scancel", scenes["never begun"].job_id("w"), blocker)
        wait_until(lambda: not forgetful.exec("squeue", "-h", "-t", "all"), 60, "SLURM has forgotten all jobs")
        settle([(one, "w") for one in scenes.values()])
        for name in ("unwatched", "unknown", "never begun"):
            assert_each_once(scenes[name])
        assert scenes["killed"].starts("w") == {0: 2, 1: 2}
        assert scenes["killed"].charged("w") == {0: ["killed"], 1: ["killed"]}
