"""A real SIGKILL at the numbered file operations of a driver, of a job and of both; then nothing is missing or doubled."""

import os
import shutil
import signal
import threading
import time
import traceback
from collections import Counter
from pathlib import Path

import pytest

from orchestrator import verbs
from orchestrator.store import Store
from orchestrator.watch import Watch
from tests.faults.stage import Stage
from workers import files, taskdir
from workers.files import KillingOps

GRID = ["workload=noop", "index=0,1,2", "name=w", "launcher.slots=1"]
# enough to get through a whole submission, and spread over all of it
MOST_POINTS = 500
MOST_POINTS_OF_A_JOB = 60


def in_a_fork(root: Path, driver_point: str | None, job_point: str | None, verb: str = "submit") -> bool:
    """Run a verb in a forked driver with SIGKILL at the given points; whether the driver was killed.

    Forked, since Hydra's import is most of a command's time; the environment reaches only the processes that it starts.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _as_driver(root, driver_point, job_point, verb)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    killed = threading.Timer(60, lambda: os.kill(child, signal.SIGKILL))
    killed.start()
    _, status = os.waitpid(child, 0)
    assert killed.is_alive(), "the driver hung for 60 s"
    killed.cancel()
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, f"{verb} failed; see its traceback"
    return os.WIFSIGNALED(status)


def _as_driver(root: Path, driver_point: str | None, job_point: str | None, verb: str) -> None:
    os.setsid()
    # slots of its own: other tests' jobs on this machine do not keep these waiting
    os.environ["XDG_RUNTIME_DIR"] = str(root)
    os.environ.pop("EIGENSWEEP_FAULT", None)
    if job_point is not None:
        os.environ["EIGENSWEEP_FAULT"] = job_point
    if driver_point is not None:
        files.ops = KillingOps(driver_point)
    if verb == "submit":
        verbs.submit(GRID, root)
    else:
        verbs.resume("w", root=root)


def wait_for_jobs(root: Path) -> None:
    """Until no job of the store is alive (what a killed driver started goes on)."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        watch = Watch.of(Store.open(root))
        states = [watch.launcher(entry["launcher"]).states(root, [token]).get(token) for token, entry in watch.ledger.batches.items()]
        if all(job is None or job.state == "ended" for job in states):
            return
        time.sleep(0.02)
    raise AssertionError("a job is still alive after 60 s")


def assert_whole(root: Path) -> None:
    """Every task has one commit that can be trusted, one start that led to it, and its three rows once in what is loaded."""
    watch = Watch.of(Store.open(root))
    sweep = watch.sweep("w")
    assert set(watch.states("w").states) == {"completed"}
    for key in sweep.keys:
        taskdir.read_commit(root, key)
    assert sorted(p.stem for p in (root / "commits").rglob("*.json") if p.name[0] != ".") == sorted(sweep.keys)
    loaded = verbs.load("w", root).scalars().collect()
    assert Counter(loaded["key"].to_list()) == dict.fromkeys(sweep.keys, 3)


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    """What the forks share."""
    import hydra  # noqa: F401
    import omegaconf  # noqa: F401

    from orchestrator import compose

    compose.compose(GRID)


def survives(tmp_path: Path, who: str, after: str, step: int) -> int:
    """Kill `who` at every `step`-th operation until none is left; the number of drivers that were hit."""
    hits = 0
    for number in range(1 if step == 1 else 2, MOST_POINTS, step):
        point = f"{number}{after}"
        root = tmp_path / f"store-{point}"
        Store.init(root)
        killed = in_a_fork(root, point if who != "job" else None, point if who != "driver" else None)
        wait_for_jobs(root)
        # a job that is killed at the same point each time it is sent has used its budget; `resume` renews it
        in_a_fork(root, None, None)
        in_a_fork(root, None, None, "resume")
        assert_whole(root)
        # the shell of each job ends with a tick, which writes
        Stage(root).wait_until_quiet()
        shutil.rmtree(root)
        hits += killed
        if not killed and (who == "driver" or number > MOST_POINTS_OF_A_JOB):
            break
    print(f"{who}{after}: {hits} drivers killed, points up to {number} in steps of {step}")
    return hits


@pytest.mark.parametrize("who", ["driver", "job", "both"])
def test_nothing_is_lost_or_doubled_at_some_points(tmp_path: Path, who: str) -> None:
    hits = survives(tmp_path, who, "", 61 if who == "driver" else 23)
    assert hits or who == "job", "the points did not hit"


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("after", ["", "+"])
@pytest.mark.parametrize("who", ["driver", "job", "both"])
def test_nothing_is_lost_or_doubled_whatever_is_killed_where(tmp_path: Path, who: str, after: str) -> None:
    hits = survives(tmp_path, who, after, 3)
    assert hits >= 3 or who == "job", "the points did not hit"
