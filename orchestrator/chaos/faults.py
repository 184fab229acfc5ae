"""Which faults strike when and whom, spread over a sweep by how much of it is done; and how many running tasks they hit."""

import math
import random
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from orchestrator.chaos import balloon, reach
from orchestrator.chaos.driver import Side
from orchestrator.chaos.reach import Power
from orchestrator.chaos.scene import Attempt, Scene
from workers.errors import ConfigError

KILL, OOM, PREEMPT, POWER, DRIVER = "kill", "oom", "preempt", "power cut", "driver kill"
BESIDE = "beside a fault"
FIRST, LAST = 0.02, 0.85  # of the sweep that is done
RESTORE_SECONDS = 45.0  # later than the scheduler calls a silent node down
_MOST_TRIES = 8  # for each running task to be hit


@dataclass(slots=True, kw_only=True)
class Fault:
    """One kind: it strikes when so much of the sweep is done, until as many running tasks are hit as wanted (power cuts: as many cuts).

    `struck` tasks ran when it came; `hits` are those of them that ended by it, and not well within their grace.
    """

    kind: str
    wanted: int
    when: list[float] = field(default_factory=list)
    tries: int = 0
    strikes: int = 0
    struck: int = 0
    hits: int = 0

    def due(self, done: float, scene: Scene) -> bool:
        """Whether it is to strike now."""
        wanted = sum(when <= done for when in self.when)
        hit = self.strikes if self.kind == POWER else sum(not one.outcome or is_hit(one) for one in scene.struck(self.kind))
        return hit < wanted and self.tries < _MOST_TRIES * self.wanted


def is_hit(one: Attempt) -> bool:
    """Whether the attempt was running when it was struck, and ended by that: one that had committed just before was missed."""
    return one.is_lost and (one.by != OOM or one.outcome == "host_oom")


def wanted(text: str, num_tasks: int, flag: str) -> int:
    """Running tasks to hit: `5%` of all tasks, or a number."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%?)", text.strip())
    if match is None or (not match[2] and "." in match[1]) or (match[2] and float(match[1]) > 100):
        raise ConfigError(f"{flag} takes a share of the tasks such as 5%, or a number of running tasks to hit such as 25, got {text!r}")
    return math.ceil(float(match[1]) * num_tasks / 100) if match[2] else int(match[1])


def planned(counts: dict[str, int], seed: int) -> list[Fault]:
    """Faults at random times, the same for the same seed."""
    chance = random.Random(seed)
    return [
        Fault(kind=kind, wanted=count, when=sorted(chance.uniform(FIRST, LAST) for _ in range(count)))
        for kind, count in counts.items()
        if count
    ]


@dataclass(slots=True, kw_only=True)
class Chaos:
    """Strikes what belongs to one side. `driver_seconds`: how long a driver lives, about; 0: for ever."""

    side: Side
    scene: Scene
    faults: list[Fault]
    seed: int
    driver_seconds: float
    power: Power | None = None
    driver: Fault = field(default_factory=lambda: Fault(kind=DRIVER, wanted=0))
    _restore_at: dict[str, float] = field(default_factory=dict)
    _next_kill: float = 0.0
    _receipts: dict[tuple[Any, int], dict[str, Any]] = field(default_factory=dict)
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed + 1)
        self._next_kill = self._driver_dies_at()

    def step(self, done: float) -> None:
        """Strike what is due, and mend nodes that have been off for long enough."""
        now = time.monotonic()
        self._look()
        for fault in self.faults:
            if fault.due(done, self.scene):
                self._strike(fault)
        if self.driver_seconds and now >= self._next_kill:
            self._kill_driver()
        self.restore(now)

    def restore(self, now: float = math.inf) -> None:
        """Switch nodes on whose time has come, or all."""
        for node, at in list(self._restore_at.items()):
            if self.power is not None and now >= at:
                self.power.restore(node)
                del self._restore_at[node]

    def count(self) -> None:
        """Final numbers of hits, from the records."""
        self._look()
        for fault in self.faults:
            fault.struck = len(self.scene.struck(fault.kind))
            fault.hits = sum(map(is_hit, self.scene.struck(fault.kind)))

    def _look(self) -> None:
        self.scene.refresh()
        self.scene.pass_on(KILL, "killed")
        self.scene.pass_on(OOM, "host_oom")

    # -- strikes ----------------------------------------------------------------------------------------------------

    def _strike(self, fault: Fault) -> None:
        one = self._chosen(fault.kind)
        if one is None or (fault.kind == POWER and self._restore_at):
            return
        receipt = self._receipt(one)
        # who is hit is looked up first: afterwards they may no longer run
        if fault.kind == KILL:
            victims, struck = [one], reach.signal_task(receipt, one.log, reach.KILL)
        elif fault.kind == OOM:
            victims, struck = [one], reach.signal_task(receipt, one.log, balloon.SIGNAL)
        elif fault.kind == PREEMPT:
            victims = self.scene.in_the_same_job(one)
            struck = reach.requeue(receipt)
        else:
            struck = self._cut_power(str(receipt.get("host", "")))
            # here afterwards: the cut takes its time, and what has no end by then never will
            self.scene.refresh()
            victims = [other for other in self.scene.running() if self._receipt(other).get("host") == receipt.get("host")]
        fault.tries += 1
        if struck:
            fault.strikes += 1
            self.scene.strike(victims, fault.kind)

    def _chosen(self, kind: str) -> Attempt | None:
        """A running task that this kind has not hit before: a second hit would use up its budget of retries."""
        spent = {one.key for one in self.scene.struck(kind)}
        found = [one for one in self.scene.running() if one.key not in spent and self._receipt(one)]
        if kind in (PREEMPT, POWER):
            found = [one for one in found if "slurm" in self._receipt(one)]
        return self._random.choice(sorted(found, key=lambda one: one.name)) if found else None

    def _receipt(self, one: Attempt) -> dict[str, Any]:
        key = (one.folder, one.run)
        if not self._receipts.get(key):
            self._receipts[key] = self.scene.receipt(one)
        return self._receipts[key]

    def _cut_power(self, node: str) -> bool:
        if self.power is None or not node:
            return False
        self.power.cut(node)
        self._restore_at[node] = time.monotonic() + RESTORE_SECONDS
        return True

    def _kill_driver(self) -> None:
        if self.side.kill_driver():
            self.driver.strikes += 1
            self.driver.struck += len(self.scene.running())
            self.driver.hits = self.driver.struck
        self._next_kill = self._driver_dies_at()

    def _driver_dies_at(self) -> float:
        # not on the beat, or it would die at the same point of its tick each time
        return time.monotonic() + self.driver_seconds * self._random.uniform(0.8, 1.2)


def lost_seconds(attempts: Iterable[Attempt]) -> dict[str, float]:
    """Kind of fault -> task-seconds of attempts that it ended without a commit; those that no fault struck are beside one."""
    found: dict[str, float] = {}
    for one in attempts:
        if one.is_lost:
            found[one.by or BESIDE] = found.get(one.by or BESIDE, 0.0) + one.lost_seconds
    return found
