"""A store of its own, real commands on it, and what its processes and files say."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator import ledger as ledgers
from orchestrator import verbs
from orchestrator.ledger import Ledger
from orchestrator.status import Status
from workers import files, taskdir
from workers.processes import start_ticks
from workers.taskdir import Commit

REPOSITORY = Path(__file__).parents[2]
CHILD = "workers.child"
TIMINGS = ("started", "seconds", "peak_memory_mib", "attempt", "host", "device")

Event = dict[str, Any]


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    """The condition's value as soon as it is true; the test fails where that takes longer than `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(0.01)
    return value


@dataclass(slots=True)
class Stage:
    """A store at `root` that only this test uses; its jobs have slots of their own."""

    root: Path
    drivers: list[subprocess.Popen[str]] = field(default_factory=list)

    # -- commands -------------------------------------------------------------------------------------------------

    def submit(self, *words: str, **options: Any) -> Status:
        """In this process."""
        return verbs.submit(words, self.root, **options)

    def resume(self, name: str = "w", where: str | None = None, **options: Any) -> Status:
        """In this process."""
        return verbs.resume(name, where, self.root, **options)

    def status(self, name: str = "w") -> Status:
        """In this process."""
        return verbs.status(name, self.root)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """The command line in a process, a session and a process group of its own."""
        driver = subprocess.Popen(
            [sys.executable, "-m", "orchestrator", *words, "--root", str(self.root)],
            cwd=self.root.parent,
            env={**os.environ, "PYTHONPATH": os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "tests")))},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # as a terminal starts it, also where the tests run under nohup
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        )
        self.drivers.append(driver)
        return driver

    def command(self, *words: str, code: int = 0) -> str:
        """The command line until its end; what it printed."""
        driver = self.start(*words)
        output, _ = driver.communicate(timeout=120)
        assert driver.returncode == code, output
        return output

    # -- files ----------------------------------------------------------------------------------------------------

    @property
    def ledger(self) -> Ledger:
        """As it is now."""
        return ledgers.read(self.root)

    def tokens(self) -> list[str]:
        """Of all batches that there ever were, in the order of the ledger."""
        entries = (files.read(self.root / "ledger" / name) for name in files.names(self.root / "ledger"))
        return [entry["token"] for entry in entries if entry["kind"] == "submission"]

    def folder(self, token: str) -> Path:
        """Of a batch."""
        return taskdir.batch_dir(self.root, token)

    def events(self, kind: str = "") -> list[Event]:
        """All records of all jobs."""
        found = []
        for token in self.tokens():
            found += [event for event in read_events(self.folder(token)) if not kind or event["event"] == kind]
        return found

    def starts(self) -> Counter[str]:
        """How often each task was started."""
        return Counter(event["key"] for event in self.events("start"))

    def classes(self, name: str = "w") -> dict[int, list[str]]:
        """index of the grid -> how the attempts of that task ended; dependents count from 1,000."""
        numbers = self.numbers(name)
        found: dict[int, list[str]] = {}
        for event in self.events("end"):
            if event["key"] in numbers:
                found.setdefault(numbers[event["key"]], []).append(event["class"])
        return found

    def numbers(self, name: str = "w") -> dict[str, int]:
        """key -> value of the axis `index`, and 1,000 more for a dependent of it."""
        sweep = self.sweep(name)
        return {key: sweep.axis_values(i)["index"] + 1000 * bool(sweep.inputs(i)) for i, key in enumerate(sweep.keys)}

    def sweep(self, name: str = "w") -> Any:
        """The active revision."""
        from orchestrator.store import Store
        from orchestrator.watch import Watch

        return Watch.of(Store.open(self.root)).sweep(name)

    def commit(self, key: str) -> Commit:
        """Of a task that was never taken back."""
        return taskdir.read_commit(self.root, key)

    def logs(self, name: str, key: str) -> str:
        """What `eigensweep logs` shows."""
        return "\n".join(verbs.logs(name, key, self.root))

    # -- processes ------------------------------------------------------------------------------------------------

    def processes(self) -> list[int]:
        """Everything of this store that is alive: its jobs' shells, jobs, ticks and drivers, and their children."""
        mine = {pid for pid, words in commands() if pid != os.getpid() and any(str(self.root) in word for word in words)}
        return sorted(mine | {pid for pid, words in commands() if CHILD in words and parent(pid) in mine})

    def shells(self) -> list[int]:
        """Those that run a job and then a tick."""
        return [pid for pid, words in commands() if "eigensweep-job" in words and str(self.root) in words]

    def jobs(self) -> dict[str, int]:
        """token -> process id of the jobs that are alive."""
        found = {}
        for token in self.tokens():
            with contextlib.suppress(FileNotFoundError):
                receipt = files.read(self.folder(token) / "receipt.json")
                if "pid" in receipt and start_ticks(receipt["pid"]) == receipt["pid_start"]:
                    found[token] = receipt["pid"]
        return found

    def running(self) -> list[tuple[int, str, str]]:
        """(process id, attempt, token) of each child that runs a task, as its job has noted it."""
        found = []
        for token, job in self.jobs().items():
            children = {log_of(pid): pid for pid, words in commands() if CHILD in words and parent(pid) == job}
            for event in unended(self.folder(token)):
                if event["log"][0] in children:
                    found.append((children[event["log"][0]], event["attempt"], token))
        return found

    def wait_for_running(self, number: int = 1) -> list[tuple[int, str, str]]:
        """As soon as so many tasks run."""
        return wait_for(lambda: found if len(found := self.running()) >= number else None, f"{number} running tasks in {self.root}")

    def wait_until_quiet(self) -> None:
        """Until no process of this store is left."""
        wait_for(lambda: not self.processes(), f"the end of {self.processes()}")

    def wait_until_settled(self, name: str = "w") -> None:
        """Until the ledger says that the sweep has nothing left to do; nobody but its jobs may bring that about."""
        wait_for(lambda: name in self.ledger.settled, f"{name} to settle")

    def close(self) -> None:
        """Kill what is left, by process id."""
        deadline = time.monotonic() + 10
        while (left := self.processes()) and time.monotonic() < deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        for driver in self.drivers:
            driver.kill()
            driver.wait()

    # -- results --------------------------------------------------------------------------------------------------

    def tables(self, name: str = "w", spectra: bool = False) -> dict[str, list[dict[str, Any]]]:
        """What was computed, without when, where, by which attempt and how fast; sorted, so that equal is equal."""
        results = verbs.load(name, self.root, mixed_code=True)
        frames = {"tasks": results.tasks(), "scalars": results.scalars()} | ({"spectra": results.spectra()} if spectra else {})
        found = {}
        for table, lazy in frames.items():
            frame = lazy.collect()
            frame = frame.drop([column for column in (*TIMINGS, "code") if column in frame.columns])
            found[table] = frame.sort([c for c in ("key", "step", "index", "name") if c in frame.columns], maintain_order=True).to_dicts()
        return found


def read_events(folder: Path) -> list[Event]:
    """The records of one batch; half a record, left by a killed job, is none."""
    try:
        lines = (folder / "attempts.jsonl").read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found


def unended(folder: Path) -> list[Event]:
    """Start records without an end."""
    started = {}
    for event in read_events(folder):
        if event["event"] == "start":
            started[event["attempt"]] = event
        elif event["event"] == "end":
            started.pop(event["attempt"], None)
    return list(started.values())


def commands() -> Iterator[tuple[int, list[str]]]:
    """Process ids and words of the command lines of this machine; the dead have none."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{name}/cmdline").read_bytes().decode(errors="replace").split("\0")
                if words != [""]:
                    yield int(name), words


def parent(pid: int) -> int:
    """Process id of the parent; 0: the process is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def log_of(pid: int) -> str:
    """Name of the file that a child writes to."""
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/fd/1"))
    except OSError:
        return ""


def points(**axes: Sequence[Any]) -> list[str]:
    """Overrides for axes that go together: the first values of all, the second, ..."""
    words = [f"{name}={','.join(str(value).lower() for value in column)}" for name, column in axes.items()]
    return [*words, f"sweep.zip=[[{','.join(axes)}]]"]
