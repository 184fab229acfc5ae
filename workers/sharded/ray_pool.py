"""A pool of Ray actors, spread over the nodes of the Ray that this process is connected to (`ray_cluster`)."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from workers.errors import ConfigError
from workers.execute import flushed_output, peak_memory_mib
from workers.sharded.pool import Event, Pool
from workers.sharded.pool_worker import do, import_path, set_up
from workers.sharded.process_pool import THREADS
from workers.sharded.ray_cluster import load_ray
from workers.sharded.ray_node import mismatch, node_versions

LAST_WORDS_SECONDS = 5.0
_DROPS = "drops"


class Actor:
    """What a worker does. Calls come one after another, with rising numbers; `drop` is heard in the middle of one."""

    def __init__(self) -> None:
        self.dropped = -1

    def hello(self, path: list[str], data_bytes: int | None) -> dict[str, Any]:
        """Get ready; who is this?"""
        set_up(path, data_bytes)
        return {**node_versions(), "pid": os.getpid()}

    def call(self, number: int, function: str, arguments: str) -> str:
        """One call, in and out as JSON; empty: dropped."""
        if number <= self.dropped:
            return ""
        with flushed_output():
            answer = do(function, json.loads(arguments))
        return json.dumps({"peak_mib": peak_memory_mib(), **answer})

    def drop(self, number: int) -> None:
        """Begin no call up to that number."""
        self.dropped = number


@dataclass(slots=True, eq=False)
class _Worker:
    """An actor, and the answers that it owes, in their order: index of the call, or None for its first word, and Ray's reference."""

    actor: Any
    owed: list[tuple[int | None, Any]] = field(default_factory=list)
    num_calls: int = 0
    host: str = ""
    pid: int = 0


@dataclass(slots=True, eq=False)
class RayPool(Pool):
    """Workers with `threads` CPUs and `gpus` GPUs each. `memory_gib`: of each one, all but mapped files; above it an allocation fails.

    A worker that is lost, alone or with its node, is replaced where Ray has room for it; the run goes on with those that are left.
    `peak_mib`: the highest resident memory of any so far, mapped files included.
    """

    num_workers: int
    threads: int = field(default=1, kw_only=True)
    gpus: float = field(default=0.0, kw_only=True)
    memory_gib: float | None = field(default=None, kw_only=True)
    env: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    start_seconds: float = field(default=120.0, kw_only=True)
    peak_mib: float = field(default=0.0, init=False)
    _workers: dict[int, _Worker] = field(default_factory=dict, init=False)
    _started: int = field(default=0, init=False)
    _group: Any = field(default=None, init=False)

    def __post_init__(self) -> None:
        for name in ("num_workers", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} of a pool must be at least 1, got {getattr(self, name)}")
        if self.memory_gib is not None and self.memory_gib <= 0:
            raise ConfigError(f"memory_gib of a pool must be positive, got {self.memory_gib}; None: no limit")

    def workers(self) -> dict[int, bool]:
        """By their number."""
        return {number: bool(one.host) for number, one in self._workers.items()}

    def process_ids(self) -> dict[int, int]:
        """Process ids on their hosts of those that are ready, by their number."""
        return {number: one.pid for number, one in self._workers.items() if one.host}

    def hosts(self) -> list[str]:
        """Where those that are ready run."""
        return [one.host for one in self._workers.values() if one.host]

    def start(self) -> None:
        """One more actor, in any place of the group that is free."""
        ray = load_ray()
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        self._group = self._group or self._placed(ray)
        share = self._share()
        actor = (
            ray.remote(concurrency_groups={_DROPS: 1})(Actor)
            .options(
                num_cpus=share.pop("CPU"),
                num_gpus=share.pop("GPU", 0),
                memory=share.pop("memory", None),
                max_restarts=0,  # a new one is started here, where calls are counted
                scheduling_strategy=PlacementGroupSchedulingStrategy(self._group),
                runtime_env={"env_vars": {**dict.fromkeys(THREADS, str(self.threads)), **self.env}},
            )
            .remote()
        )
        data_bytes = None if self.memory_gib is None else int(self.memory_gib * 2**30)
        self._workers[self._started] = _Worker(actor, [(None, actor.hello.remote(import_path(), data_bytes))])
        self._started += 1

    def _share(self) -> dict[str, float]:
        """What Ray sets aside for a worker."""
        share: dict[str, float] = {"CPU": self.threads}
        if self.gpus:
            share["GPU"] = self.gpus
        if self.memory_gib is not None:
            share["memory"] = int(self.memory_gib * 2**30)
        return share

    def _placed(self, ray: Any) -> Any:
        """A place for each worker, on as many nodes as there are."""
        group = ray.util.placement_group([self._share()] * self.num_workers, strategy="SPREAD")
        if not group.wait(self.start_seconds):
            ray.util.remove_placement_group(group)
            there = {name: value for name, value in ray.cluster_resources().items() if name in ("CPU", "GPU", "memory")}
            free = {name: value for name, value in ray.available_resources().items() if name in there}
            raise ConfigError(
                f"Ray has no room for {self.num_workers} workers with {self._share()} each, within {self.start_seconds:.0f} s: "
                f"it has {there}, free are {free}; take fewer or smaller ones, or more nodes"
            )
        return group

    def give(self, worker: int, index: int, function: str, arguments: str) -> None:
        """A call of the actor, which does them in their order."""
        one = self._workers[worker]
        one.num_calls += 1
        one.owed.append((index, one.actor.call.remote(one.num_calls, function, arguments)))

    def drop(self, worker: int) -> None:
        """The actor itself knows what it has begun; it has heard when this returns, if it is there."""
        if worker in self._workers:
            one = self._workers[worker]
            heard = one.actor.drop.options(concurrency_group=_DROPS).remote(one.num_calls)
            load_ray().wait([heard], timeout=LAST_WORDS_SECONDS)

    def kill(self, worker: int) -> None:
        """At once, wherever it is."""
        one = self._workers.pop(worker, None)
        if one is not None:
            load_ray().kill(one.actor)

    def close(self) -> None:
        """End all, and give back their places."""
        for worker in list(self._workers):
            self.kill(worker)
        if self._group is not None:
            load_ray().util.remove_placement_group(self._group)
            self._group = None

    def wait(self, seconds: float) -> list[Event]:
        """Answers of all; the deaths of those that will give no more."""
        ray = load_ray()
        owed = [reference for one in self._workers.values() for _, reference in one.owed]
        if not owed:
            time.sleep(seconds)
            return []
        if not ray.wait(owed, num_returns=1, timeout=seconds)[0]:
            return []
        ready = set(ray.wait(owed, num_returns=len(owed), timeout=0)[0])
        return [event for number in list(self._workers) for event in self._heard(ray, number, ready)]

    def _heard(self, ray: Any, number: int, ready: set[Any]) -> Iterator[Event]:
        one = self._workers[number]
        for index, reference in list(one.owed):
            if reference not in ready:
                continue
            try:
                answer = ray.get(reference, timeout=LAST_WORDS_SECONDS)
            except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError) as error:
                self.kill(number)
                yield Event(number, "died", body=f"was lost {f'on {one.host} ' if one.host else ''}({_cause(error)})")
                return
            else:
                one.owed.remove((index, reference))
                yield self._event(number, index, answer)

    def _event(self, number: int, index: int | None, answer: Any) -> Event:
        if index is None:
            self._welcome(self._workers[number], answer)
            return Event(number, "ready")
        if not answer:
            return Event(number, "dropped", body=[index])
        body = json.loads(answer)
        self.peak_mib = max(self.peak_mib, body["peak_mib"])
        return Event(number, "failed", index, body["error"]) if "error" in body else Event(number, "done", index, body["result"])

    def _welcome(self, one: _Worker, found: dict[str, Any]) -> None:
        if wrong := mismatch(node_versions(), found):
            raise ConfigError(f"node {wrong}: all nodes must have the same environment and source; nothing was computed there")
        one.host, one.pid = found["host"], found["pid"]


def _cause(error: Exception) -> str:
    """The line of Ray's long words that says why."""
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "because" in line or "exit detail" in line]
    return (telling or lines or [type(error).__name__])[0].partition(" Some common causes")[0][:300].rstrip(".")
