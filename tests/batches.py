"""Batches for tests of the runner: written as a driver writes them, run as a launcher runs them, waited for by condition."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from workers import files, slots, taskdir
from workers.processes import start_ticks
from workers.taskdir import Task

TOKEN = "s-0123456789ab"
# where there is a GPU, a child finds out that those which a test pretends are not there
pretends_gpus = pytest.mark.skipif(bool(slots.visible_gpus()), reason="there are real GPUs here")
REPOSITORY = Path(__file__).parent.parent
PYTHONPATH = os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "tests")))


def key(number: int) -> str:
    """A key as a plan would make it."""
    return base64.b32encode(hashlib.blake2b(str(number).encode(), digest_size=16).digest()).decode().lower().rstrip("=")


def noop(
    number: int,
    *,
    inputs: Mapping[str, int] | None = None,
    alone: bool = False,
    resources: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Task:
    """A `noop` task."""
    return _task(number, "noop", {"index": number, **settings}, inputs or {}, alone, resources or {})


def act(number: int, do: str, *, inputs: Mapping[str, int] | None = None, alone: bool = False, **more: Any) -> Task:
    """A task of the tests' own workload."""
    resources = more.pop("resources", {})
    return _task(number, "job_package.act", {"do": do, "index": number, **more}, inputs or {}, alone, resources)


def _task(
    number: int, workload: str, settings: dict[str, Any], inputs: Mapping[str, int], alone: bool, resources: Mapping[str, Any]
) -> Task:
    return Task(
        key=key(number),
        workload=workload,
        version=1,
        settings=settings,
        inputs={name: key(input) for name, input in inputs.items()},
        resources={"cpus": 1, "gpus": 0, "memory_gib": 0.25, "walltime_minutes": 1.0, **resources},
        sweeps=["s"],
        alone=alone,
    )


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
    """The condition's value as soon as it is true; the test fails where that takes longer than `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.01)
    return value


def is_gone(pid: int) -> bool:
    """Whether a process is dead (also where nobody has buried it)."""
    return start_ticks(pid) == 0


@dataclass
class Batch:
    """A batch on disk and the job that runs it."""

    root: Path
    token: str = TOKEN
    process: subprocess.Popen[bytes] | None = None
    run_number: int = 0
    environment: dict[str, str] = field(default_factory=dict)
    command: list[str] = field(default_factory=lambda: ["-P", "-m", "workers"])

    @classmethod
    def write(cls, root: Path, tasks: list[Task], token: str = TOKEN, **terms: Any) -> "Batch":
        """As a driver does before it launches; `terms` are the launcher's settings, `request` and `estimates` those of the submission."""
        batch = cls(root, token)
        batch.folder.mkdir(parents=True)
        (root / "sweeps" / "s" / "done").mkdir(parents=True, exist_ok=True)
        more = {name: terms.pop(name) for name in ("request", "estimates") if name in terms}
        launcher = {"name": "local", "slots": 2, "grace_seconds": 2.0, **terms}
        body = {"token": token, "sweep": "s", "snapshot": "x", "code": "c0de", "launcher": launcher, **more}
        body["tasks"] = [task.to_plain() for task in tasks]
        (batch.folder / "tasks.json").write_bytes(files.encode(body))
        return batch

    @property
    def folder(self) -> Path:
        return taskdir.batch_dir(self.root, self.token)

    def start(self) -> "Batch":
        """Start the job, detached from the tests' terminal."""
        with (self.folder / "log").open("ab") as log:
            command = [sys.executable, *self.command, str(self.root), self.token]
            environment = {**os.environ, "PYTHONPATH": PYTHONPATH, **self.environment}
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        return self

    def wait(self, seconds: float = 60.0) -> "Batch":
        """Until the job has ended by itself."""
        assert self.process is not None
        code = self.process.wait(seconds)
        assert code == 0, self.log()
        return self

    def run(self) -> "Batch":
        return self.start().wait()

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def log(self) -> str:
        return "\n".join(path.read_text() for path in sorted([*self.folder.glob("log*"), *self.folder.glob("run-*/log*")]))

    def events(self) -> list[dict[str, Any]]:
        try:
            lines = (taskdir.run_dir(self.folder, self.run_number) / "attempts.jsonl").read_text().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def started(self, number: int) -> bool:
        return any(e["event"] == "start" and e["key"] == key(number) for e in self.events())

    def wait_for_start(self, number: int) -> None:
        wait_for(lambda: self.started(number), f"the start of task {number}; {self.log()}")

    def end(self, number: int) -> dict[str, Any]:
        """The only end record of a task."""
        (event,) = [e for e in self.events() if e["event"] == "end" and e["key"] == key(number)]
        return event

    def outcomes(self) -> dict[str, str]:
        return {e["key"]: e["class"] for e in self.events() if e["event"] == "end"}

    @property
    def over(self) -> str:
        last = self.events()[-1]
        assert last["event"] == "over"
        return last["reason"]

    def children(self) -> list[int]:
        """Process ids of the job's children."""
        assert self.process is not None
        pid = self.process.pid
        try:
            return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        except FileNotFoundError:
            return []

    def is_committed(self, number: int) -> bool:
        return taskdir.is_committed(self.root, key(number))

    def scalars(self, number: int) -> dict[str, float]:
        columns = taskdir.read_commit(self.root, key(number)).rows["scalars"]
        return dict(zip(columns["name"], columns["value"]))


@pytest.fixture
def own_slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slots that no other test's job can hold."""
    folder = tmp_path / "runtime"
    folder.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.syspath_prepend(str(REPOSITORY / "tests"))
