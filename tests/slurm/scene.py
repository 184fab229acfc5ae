"""Many small sweeps at once on one real cluster: what begins them and breaks them, who drives them, and what their files say."""

import contextlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self

from orchestrator import ledger as ledgers
from orchestrator import verbs
from orchestrator.batches import run_dir
from orchestrator.ledger import Ledger
from orchestrator.store import Store
from orchestrator.watch import Watch
from tests.faults.stage import points
from tests.slurm.cluster import REPOSITORY, Cluster, wait_until
from workers import files, taskdir
from workers.journal import read_batch
from workers.taskdir import Task

Event = dict[str, Any]

# times that let a trial end soon; all else is as it comes
QUICK = (
    *("launcher=slurm", "launcher.poll_seconds=0.5", "launcher.doubt_seconds=3", "launcher.grace_seconds=2"),
    *("launcher.overhead_minutes=0", "resources.walltime_minutes=1", "resources.memory_gib=0.2"),
)


@dataclass(kw_only=True)
class Scene:
    """A store that the nodes see, and who ticks it.

    Sweeps begun with `begin` have points of their own, so that none computes what another one needs; `index` counts from 0 in each.
    """

    cluster: Cluster
    folder: Path
    root: Path = field(init=False)
    started: list[subprocess.Popen[str]] = field(default_factory=list)
    driver: subprocess.Popen[str] | None = None
    first: dict[str, int] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.root = Store.init(self.folder / "store").root
        (self.folder / "runtime").mkdir()

    @property
    def environment(self) -> dict[str, str]:
        """The cluster's commands first, packages of the tests, a place of its own for what a host keeps."""
        path = os.pathsep.join(map(str, (self.folder, REPOSITORY, REPOSITORY / "tests")))
        return self.cluster.environment | {"PYTHONPATH": path, "XDG_RUNTIME_DIR": str(self.folder / "runtime")}

    # -- commands -------------------------------------------------------------------------------------------------

    def begin(self, name: str, *words: str, workload: str = "noop", number: int = 0, **axes: Sequence[Any]) -> str:
        """Submit a sweep of `number` tasks, or of one for each place of the axes, and do not wait; what the command printed."""
        self.first[name] = 100 * len(self.first)
        number = number or max(map(len, axes.values()))
        zipped = points(index=range(self.first[name], self.first[name] + number), **axes)
        # a setting with one value is no axis
        return self.submit(f"workload={workload}", f"name={name}", *(zipped if number > 1 else zipped[:-1]), *words)

    def submit(self, *words: str, without: str = "") -> str:
        """What the command printed, with the settings that all sweeps of a scene have but for those that are given, and for `without`."""
        given = {word.partition("=")[0] for word in words} | {without}
        return self.command("submit", *(word for word in QUICK if word.partition("=")[0] not in given), *words)

    def start(self, *words: str, into: int | IO[str] = subprocess.PIPE) -> subprocess.Popen[str]:
        """The command line in a process of its own; `into`: where it prints."""
        command = subprocess.Popen(
            [sys.executable, "-m", "orchestrator", *words, "--root", str(self.root)],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=into,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.started.append(command)
        return command

    def command(self, *words: str, codes: Container[int] = (0,)) -> str:
        """The command line until its end; what it printed."""
        command = self.start(*words)
        output, _ = command.communicate(timeout=120)
        self.started.remove(command)
        assert command.returncode in codes, output
        return output

    def drive(self) -> None:
        """Have a process tick, as one in a user's tmux would, until there is nothing left to do."""
        if self.driver is None or self.driver.poll() is not None:
            with (self.folder / "driver.log").open("a") as log:
                self.driver = self.start("tick", "--every", "0.5", into=log)

    def close(self) -> None:
        """No driver is left; the jobs are the cluster's."""
        for command in self.started:
            command.kill()
            command.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # -- what the files say ---------------------------------------------------------------------------------------

    @property
    def ledger(self) -> Ledger:
        """As it is now."""
        return ledgers.read(self.root)

    def entries(self, kind: str) -> list[Event]:
        """Of the ledger, oldest first."""
        read = (files.read(self.root / "ledger" / name) for name in sorted(files.names(self.root / "ledger")))
        return [entry for entry in read if entry["kind"] == kind]

    def submissions(self, name: str) -> list[Event]:
        """Entries of the sweep's submissions, oldest first."""
        return [entry for entry in self.entries("submission") if entry["sweep"] == name]

    def tokens(self, name: str) -> list[str]:
        """Of all jobs that the sweep ever had."""
        return [token for entry in self.submissions(name) for token in ledgers.jobs_of(entry)]

    def sent(self, name: str, number: int = 0) -> list[Task]:
        """A task as each of its jobs was given it."""
        key = self.key(name, number)
        return [task for token in self.tokens(name) for task in read_batch(self.root, token)[1] if task.key == key]

    def closings(self, name: str) -> list[Event]:
        """What the ledger says of the end of each job, oldest first."""
        found = (one for entry in self.entries("closed") for one in ledgers.closings(entry))
        return [one for one in found if one.get("sweep", one["token"].partition("/")[0].rpartition("-")[0]) == name]

    def job_id(self, name: str, number: int = -1) -> str:
        """SLURM's id of a submission of the sweep."""
        token = self.submissions(name)[number]["token"]
        path = taskdir.job_path(self.root, token)
        wait_until(path.exists, 30, f"{path} is there")
        return str(files.read(path)["job_id"])

    def begun(self, name: str, which: int | str = 0) -> list[Event]:
        """The starts of a task's attempts."""
        key = self.key(name, which)
        return [event for event in self.events(name, "start") if event["key"] == key]

    def hosts(self, name: str, run: int = 0) -> set[str]:
        """Where tasks of the sweep began in this run of any of its jobs."""
        runs = (runs[run] for token in self.tokens(name) if len(runs := self.runs(token)) > run)
        return {event["host"] for events in runs for event in events if event["event"] == "start"}

    def reason(self, job_id: str) -> str:
        """Why SLURM lets a job wait."""
        return self.cluster.exec("squeue", "--noheader", f"--jobs={job_id}", "--format=%r", check=False).strip()

    def runs(self, token: str) -> list[list[Event]]:
        """The records of each run of a job; half a record, left by a job that was killed, is none."""
        folder = taskdir.batch_dir(self.root, token)
        receipts = [files.read(folder / name) for name in files.names(folder) if name.startswith("receipt")]
        number = sum("fenced" not in receipt for receipt in receipts)
        return [list(_events(run_dir(folder, run) / "attempts.jsonl")) for run in range(number)]

    def events(self, name: str, kind: str) -> list[Event]:
        """All records of a kind, in the order of the jobs and their runs."""
        return [event for token in self.tokens(name) for run in self.runs(token) for event in run if event["event"] == kind]

    def numbers(self, name: str) -> dict[str, int]:
        """key -> index within the sweep; dependents count from 1,000."""
        sweep = Watch.of(Store.open(self.root)).sweep(name)
        first = self.first.get(name, 0)
        values = [sweep.axis_values(position) for position in range(len(sweep.keys))]
        return {
            key: values[position].get("index", first + position) - first + 1000 * bool(sweep.inputs(position))
            for position, key in enumerate(sweep.keys)
        }

    def starts(self, name: str) -> dict[int, int]:
        """index -> how often the task was started."""
        numbers = self.numbers(name)
        return dict(sorted(Counter(numbers[event["key"]] for event in self.events(name, "start")).items()))

    def classes(self, name: str) -> dict[int, list[str]]:
        """index -> how the attempts that ended by themselves, or were ended by their job, did."""
        return self._by_number(name, ((event["key"], event["class"]) for event in self.events(name, "end")))

    def charged(self, name: str) -> dict[int, list[str]]:
        """index -> classes of the outcomes that the ledger has ever charged the task with; those without any are left out."""
        pairs = ((key, one["class"]) for closing in self.closings(name) for key, ones in closing["outcomes"].items() for one in ones)
        return self._by_number(name, pairs)

    def _by_number(self, name: str, pairs: Iterator[tuple[str, str]]) -> dict[int, list[str]]:
        numbers, found = self.numbers(name), dict[int, list[str]]()
        for key, text in pairs:
            found.setdefault(numbers[key], []).append(text)
        return dict(sorted(found.items()))

    def key(self, name: str, which: int | str = 0) -> str:
        """Of a task of the sweep, by its index; a key stays what it is."""
        return which if isinstance(which, str) else next(key for key, one in self.numbers(name).items() if one == which)

    def keys(self, name: str, workload: str) -> list[str]:
        """Of the tasks of one workload."""
        sweep = Watch.of(Store.open(self.root)).sweep(name)
        return [key for index, key in enumerate(sweep.keys) if sweep.workload(index) == workload]

    def checkpoints(self, name: str, which: int | str = 0) -> list[int]:
        """Steps of the checkpoints that stand, of all attempts of a task."""
        folder = taskdir.task_dir(self.root, self.ledger.name_of(self.key(name, which))) / "attempts"
        return sorted(step for path in folder.glob("*/*") if (step := taskdir.checkpoint_step(path.name)) >= 0)

    def log(self, token: str) -> str:
        """What a job itself printed."""
        base, _, element = token.partition("/")
        return (taskdir.batch_dir(self.root, base) / (f"log-{element}" if element else "log")).read_text()

    def logs(self, name: str, number: int = 0) -> str:
        """What `eigensweep logs` shows of a task."""
        return "\n".join(verbs.logs(name, self.key(name, number), self.root))

    def values(self, name: str) -> dict[int, list[float]]:
        """index -> the values of the rows of its one commit."""
        found = {}
        for key, number in self.numbers(name).items():
            commit = taskdir.read_commit(self.root, self.ledger.name_of(key))
            found[number] = list(commit.rows["scalars"]["value"])
        return found

    # -- waiting --------------------------------------------------------------------------------------------------

    def wait_until_settled(self, name: str, seconds: float = 240) -> dict[str, int]:
        """Until the ledger knows of nothing left to do and of no job; states -> tasks. Somebody ticks, where somebody ever did."""

        def is_settled() -> bool:
            if self.driver is not None:
                self.drive()
            ledger = self.ledger
            # its last task may be committed before its last job is closed, and only then is charged what that job did
            return name in ledger.settled and all(entry["sweep"] != name for entry in ledger.batches.values())

        try:
            wait_until(is_settled, seconds, f"{name} is settled")
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.picture(name)}") from None
        return self.counts(name)

    def status(self, name: str) -> Event:
        """What the command says, as JSON."""
        found: Event = json.loads(self.command("status", name, "--json", codes=(0, 1)))
        return found

    def counts(self, name: str) -> dict[str, int]:
        """state -> tasks."""
        counts: dict[str, int] = self.status(name)["counts"]
        return counts

    def wait_for_running(self, name: str, number: int = 1, seconds: float = 120) -> None:
        """Until so many of its tasks run."""
        wait_until(lambda: self.num_running(name) >= number, seconds, f"{number} tasks of {name} run")

    def num_running(self, name: str) -> int:
        """Tasks that have a start without an end in the newest run of their job."""
        found = 0
        for token in self.tokens(name):
            newest = (self.runs(token) or [[]])[-1]
            over = any(event["event"] == "over" for event in newest)
            ended = {event["attempt"] for event in newest if event["event"] == "end"}
            found += 0 if over else sum(event["event"] == "start" and event["attempt"] not in ended for event in newest)
        return found

    def picture(self, name: str) -> str:
        """For a message of failure."""
        queue = self.cluster.exec("squeue", "--states=all", "--format=%i %j %T %r %N %M", check=False)
        return f"{self.counts(name)}, charged {self.charged(name)}, starts {self.starts(name)}, jobs {self.tokens(name)}\n{queue}"


def _events(path: Path) -> Iterator[Event]:
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        with contextlib.suppress(ValueError):
            yield json.loads(line)


def once(mapping: Mapping[int, int]) -> bool:
    """Whether every task was started once."""
    return set(mapping.values()) == {1}
