"""Drivers that are killed where a test says so, and what tells whether each task was run, and each submission taken, just once."""

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator import verbs
from orchestrator.status import Status
from orchestrator.store import Store
from orchestrator.watch import Watch
from tests.slurm.cluster import wait_until
from tests.slurm.scene import QUICK, Scene
from workers import files
from workers.files import KillingOps

Event = dict[str, Any]


@dataclass(slots=True)
class Driver:
    """A process that submits; forked, since Hydra's import is most of a command's time. What it prints is in `log`."""

    pid: int
    log: Path
    _start: int
    _status: int | None = None

    @classmethod
    def of(
        cls,
        scene: Scene,
        words: Sequence[str],
        *,
        fault: str = "",
        environment: Mapping[str, str] | None = None,
        sbatch_seconds: float | None = None,
        held: bool = False,
    ) -> "Driver":
        """At once, or `held` until `release`; killed at the file operation `fault`; sbatch must answer within `sbatch_seconds`."""
        held_by, start = os.pipe()
        log = scene.folder / f"driver-{time.monotonic_ns()}"
        pid = os.fork()
        if pid:
            os.close(held_by)
            driver = cls(pid, log, start)
            if not held:
                driver.release()
            return driver
        status = 1
        sys.stdout = sys.stderr = log.open("a")
        try:
            os.setsid()
            os.close(start)
            os.read(held_by, 1)
            _submit(scene, words, fault, {**scene.environment, **(environment or {})}, sbatch_seconds)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)

    def release(self) -> None:
        """Let it begin."""
        os.close(self._start)

    def wait(self, seconds: float = 60) -> bool:
        """Whether it ended by itself; false: it was killed."""
        wait_until(self._has_ended, seconds, f"the driver of {self.log} ends")
        assert self._status is not None
        assert os.WIFSIGNALED(self._status) or self._status == 0, self.log.read_text()
        return self._status == 0

    def kill(self) -> None:
        """SIGKILL, whatever it is at."""
        if not self._has_ended():
            os.kill(self.pid, signal.SIGKILL)
            wait_until(self._has_ended, 10, "the driver is dead")

    def _has_ended(self) -> bool:
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = status if pid else None
        return self._status is not None


def _submit(scene: Scene, words: Sequence[str], fault: str, environment: Mapping[str, str], sbatch_seconds: float | None) -> None:
    from orchestrator.slurm import sbatch

    os.environ.clear()
    os.environ.update(environment)
    if fault:
        files.ops = KillingOps(fault)
    if sbatch_seconds is not None:
        assert sbatch.submit.__kwdefaults__ is not None
        sbatch.submit.__kwdefaults__["seconds"] = sbatch_seconds
    verbs.submit(settings(words), scene.root, detach=True)


@contextlib.contextmanager
def here(scene: Scene) -> Iterator[None]:
    """This process as one of the scene's own commands: to import Hydra for each takes most of a test's time."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in scene.environment.items():
            patch.setenv(name, value)
        yield


def submit(scene: Scene, *words: str, **options: Any) -> Status:
    """In this process; does not wait."""
    with here(scene):
        return verbs.submit(settings(words), scene.root, detach=True, **options)


def resume(scene: Scene, name: str, where: str | None = None) -> Status:
    """In this process; does not wait."""
    with here(scene):
        return verbs.resume(name, where, scene.root, detach=True)


def status(scene: Scene, name: str = "w") -> Status:
    """In this process, after a tick."""
    with here(scene):
        return verbs.status(name, scene.root)


def settings(words: Sequence[str]) -> list[str]:
    """With those that make a trial quick, where the words do not say otherwise."""
    given = {word.partition("=")[0] for word in words}
    quick = [*(word for word in QUICK if not word.startswith("launcher.doubt_seconds")), "launcher.doubt_seconds=2"]
    return [*(word for word in quick if word.partition("=")[0] not in given), *words]


# -- until all is done --------------------------------------------------------------------------------------------------


def settle(sweeps: Mapping[str, Scene] | Sequence[tuple[Scene, str]], seconds: float = 120) -> None:
    """Tick in all stores, one after the other, until these sweeps have nothing left to do; nobody else does anything for them."""
    left = [(scene, name) for name, scene in sweeps.items()] if isinstance(sweeps, Mapping) else list(sweeps)
    deadline = time.monotonic() + seconds
    while left:
        for scene in {id(scene): scene for scene, _ in left}.values():
            with here(scene):
                verbs.tick(scene.root)
        left = [(scene, name) for scene, name in left if name not in scene.ledger.settled]
        assert not left or time.monotonic() < deadline, "\n".join(f"{scene.root}: {scene.picture(name)}" for scene, name in left)
        time.sleep(0.1)


# -- how often ----------------------------------------------------------------------------------------------------------


def events(scene: Scene, kind: str) -> list[Event]:
    """All records of a kind, of all runs of all jobs of the store."""
    found = [event for path in (scene.root / "batches").rglob("attempts.jsonl") for event in _read(path)]
    return [event for event in found if event["event"] == kind]


def _read(path: Path) -> Iterator[Event]:
    for line in path.read_bytes().splitlines():
        with contextlib.suppress(ValueError):
            yield json.loads(line)


def accepted(scene: Scene) -> dict[str, set[str]]:
    """Name of each submission of the store -> ids of the jobs that SLURM took under it."""
    printed = scene.cluster.exec("squeue", "-h", "-t", "all", "-o", "%j|%F", check=False)
    printed += scene.cluster.exec("/usr/bin/sacct", "-nPXD", "-S", "now-1days", "-o", "JobName,JobID")
    found: dict[str, set[str]] = {entry["token"]: set() for entry in scene.entries("submission")}
    for line in printed.splitlines():
        name, _, job_id = line.partition("|")
        if name in found:
            found[name].add(job_id.partition("_")[0])
    return found


def assert_each_once(scene: Scene, names: Iterable[str] = ("w",)) -> None:
    """Each task was started and committed once and has its rows once; SLURM took no submission twice."""
    watch = Watch.of(Store.open(scene.root))
    keys = {name: watch.sweep(name).keys for name in names}
    every = {key for own in keys.values() for key in own}
    assert Counter(event["key"] for event in events(scene, "start")) == dict.fromkeys(every, 1)
    assert {event["class"] for event in events(scene, "end")} == {"completed"}
    assert Counter(path.stem for path in scene.root.glob("commits/*/*.json")) == dict.fromkeys(every, 1)
    for name, own in keys.items():
        assert sorted(verbs.load(name, scene.root).tasks().collect()["key"]) == sorted(own)
    taken = accepted(scene)
    assert all(len(ids) <= 1 for ids in taken.values()), taken


# -- other users -------------------------------------------------------------------------------------------------------


def interpreter_for_all() -> str:
    """One that any user may run: this one need not be, where it is in root's own home."""
    here, system = os.path.realpath(sys.executable), "/usr/bin/python3"
    if all(os.stat(folder).st_mode & stat.S_IXOTH for folder in Path(here).parents):
        return sys.executable
    version = "import sys; print(*sys.version_info[:2])"
    if subprocess.run([system, "-c", version], capture_output=True, text=True).stdout.split() != [str(n) for n in sys.version_info[:2]]:
        pytest.skip(f"other users may not run {here}, and {system} is no Python {sys.version_info[0]}.{sys.version_info[1]}")
    return system
