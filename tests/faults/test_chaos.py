"""Sweeps whose children, jobs and drivers are killed again and again end as calm ones do."""

import contextlib
import os
import random
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field

import pytest

from tests.faults.stage import Stage, parent, points, read_events, unended, wait_for

TARGETS = ("child", "job", "driver", "job and driver", "job and shell", "all")


@dataclass
class Chaos:
    """Kills what it is told to; `hits` counts, per kind of fault, the running tasks that it ended."""

    stage: Stage
    seed: int
    hits: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    driver: subprocess.Popen[str] | None = None

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.struck: dict[str, str] = {}

    def drive(self, *words: str) -> None:
        """A driver that watches the sweep, until it is killed."""
        self.driver = self.stage.start(*words, "--quiet")

    def strike(self, target: str) -> bool:
        """SIGKILL to one child that runs a task, or to a job and whatever else; False: nothing runs."""
        running = self.stage.running()
        if not running:
            return False
        pid, attempt, token = self.random.choice(running)
        victims = {
            "child": [pid],
            "job": [self.stage.jobs().get(token, 0)],
            "driver": [],
            "job and driver": [self.stage.jobs().get(token, 0)],
            "job and shell": [parent(self.stage.jobs().get(token, 0)), self.stage.jobs().get(token, 0)],
            "all": self.stage.processes(),
        }[target]
        if "driver" in target or target == "all":
            self._kill_driver()
        for victim in victims:
            if victim:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
        self.faults[target] += 1
        # which of them were really at it is told afterwards, by the records
        if target == "driver":
            self.hits["driver"] += len(running)
            return True
        for _, one, where in running if target != "child" else [(pid, attempt, token)]:
            if where == token or target == "all":
                self.struck.setdefault(one, target)
        return True

    def _kill_driver(self) -> None:
        if self.driver is not None and self.driver.poll() is None:
            self.driver.kill()
            self.driver.wait()

    def watch_over(self, name: str) -> None:
        """Another driver where the last one is dead or done and the sweep is not settled."""
        if self.driver is None or (self.driver.poll() is not None and name not in self.stage.ledger.settled):
            self.drive("resume", name)

    def finish(self, name: str, most: int = 20) -> None:
        """Resume until nothing is left."""
        if self.driver is not None and self.driver.poll() is None:
            self.driver.communicate(timeout=120)
        self.stage.wait_until_quiet()
        for _ in range(most):
            status = self.stage.resume(name)
            if status.counts == {"completed": status.total}:
                break
        else:
            raise AssertionError(f"{name} is {status.counts} after {most} times resume: {status.causes}")
        self.stage.wait_until_quiet()
        self._count_hits()

    def _count_hits(self) -> None:
        """An attempt was hit while it ran if it has a start, and an end only by that kill."""
        for token in self.stage.tokens():
            folder = self.stage.folder(token)
            killed = {event["attempt"] for event in read_events(folder) if event["event"] == "end" and event["class"] == "killed"}
            cut = {event["attempt"] for event in unended(folder)}
            for attempt in killed | cut:
                self.hits[self.struck.get(attempt, "beside a kill")] += 1

    def report(self) -> str:
        """A line for each kind of fault."""
        lines = [
            f"{target}: {self.faults[target]} kills, {self.hits[target]} running tasks hit" for target in TARGETS if self.faults[target]
        ]
        return "\n".join([*lines, f"beside a kill: {self.hits['beside a kill']}"])


@dataclass(frozen=True)
class Plan:
    """A running child every `pause` seconds, at most `most` of them, and after every `every` of them the next of the `fatal` faults."""

    seed: int
    pause: float
    fatal: tuple[str, ...]
    least: int
    every: int = 4
    most: int = 1000


def rage(chaos: Chaos, plan: Plan, name: str) -> None:
    """Kill by the plan until the sweep is settled, and see that somebody watches it."""
    fatal, next_strike, num_children = list(plan.fatal), 0.0, 0
    while name not in chaos.stage.ledger.settled:
        chaos.watch_over(name)
        if time.monotonic() < next_strike or num_children >= plan.most:
            time.sleep(0.01)
            continue
        if num_children and num_children % plan.every == 0 and fatal:
            if chaos.strike(fatal[0]):
                fatal.pop(0)
                num_children += 1
        else:
            num_children += chaos.strike("child")
        next_strike = time.monotonic() + plan.pause


def test_a_sweep_under_kills_ends_as_a_calm_one(stage: Stage, calm: Stage) -> None:
    words = ["workload=noop", "name=w", *spread(100, 0.05, 0.2)]
    plan = Plan(seed=1, pause=0.15, fatal=("job", "driver", "job and driver", "job and shell", "all"), least=8)
    compare(stage, calm, words, ["launcher.slots=6"], plan)


def test_training_kernels_and_spectra_under_kills_are_those_of_a_calm_sweep(stage: Stage, calm: Stage) -> None:
    words = ["sweep=digits", "name=w", "model.width=8", "train_size=200", "seed=0,1", "num_steps=200"]
    compare(stage, calm, words, [], Plan(seed=2, pause=0.5, fatal=("job",), least=3, every=2, most=4))


@pytest.mark.slow
def test_a_thousand_tasks_under_kills_end_as_calm_ones(stage: Stage, calm: Stage) -> None:
    words = ["workload=noop", "name=w", *spread(1000, 0.2, 1.0)]
    compare(stage, calm, words, ["launcher.slots=16"], Plan(seed=3, pause=0.6, fatal=TARGETS[1:] * 3, least=50))


@pytest.mark.slow
def test_a_digits_sweep_under_many_kills_is_that_of_a_calm_one(stage: Stage, calm: Stage) -> None:
    words = ["sweep=digits", "name=w", "model.width=8,16", "train_size=200,400", "seed=0", "num_steps=10000"]
    compare(stage, calm, words, [], Plan(seed=4, pause=2.0, fatal=("job", "all"), least=4, every=2))


@pytest.fixture
def calm(stage: Stage) -> Stage:
    """A second store beside the first."""
    from orchestrator.store import Store

    return Stage(Store.init(stage.root.parent / "calm").root)


def spread(number: int, low: float, high: float) -> list[str]:
    """Tasks 0, 1, ... that take from `low` to `high` seconds."""
    seconds = [round(low + (high - low) * index / number, 6) for index in range(number)]
    return points(index=range(number), seconds=seconds)


def compare(stage: Stage, calm: Stage, words: list[str], launcher: list[str], plan: Plan) -> None:
    """The same tables in both, with at least so many running tasks hit on the way."""
    chaos = Chaos(stage, plan.seed)
    chaos.drive("submit", *words, *launcher)
    wait_for(lambda: "w" in stage.ledger.sweeps, "the sweep")
    rage(chaos, plan, "w")
    chaos.finish("w")
    print(chaos.report())
    assert sum(chaos.hits[target] for target in TARGETS if target != "driver") >= plan.least, chaos.report()
    # training has one thread in both, and children would import torch once more for each shape
    with_torch = "sweep=digits" in words
    calm.submit(*words, *(["launcher=inline"] if with_torch else launcher))
    calm.wait_until_quiet()
    expected, found = calm.tables(spectra=with_torch), stage.tables(spectra=with_torch)
    for table in expected:
        assert found[table] == expected[table], table
        assert found[table]
    assert len(found["tasks"]) == len(stage.sweep().keys)
    commits = Counter(path.stem for path in stage.root.glob("commits/*/*.json"))
    assert commits == dict.fromkeys(stage.sweep().keys, 1)
    ended = Counter(event["key"] for event in stage.events("end") if event["class"] == "completed")
    assert not [key for key, count in ended.items() if count > 1]
