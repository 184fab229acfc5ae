"""Starts a Ray of our own on the nodes of a job: a keeper on each, which ends what it keeps when this process is no more."""

import contextlib
import importlib
import json
import os
import queue
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workers.errors import ConfigError, ProcessLost
from workers.sharded import ray_node

POLL_SECONDS = 0.1
END_SECONDS = 15.0
OBJECT_STORE_BYTES = 128 * 2**20  # Ray's least is 75 MB; only plain values go through it


class RayUnusable(ProcessLost):
    """Ray does not start on a node, or has left it."""


def orders_for(nodes: Sequence[str], cpus: int | None, gpus: int, memory_gib: float | None) -> dict[str, Any]:
    """What each node is told; the first one is the head."""
    ray_node.place()  # refused here, before anything is started
    return {
        "ip": _own_ip(nodes),
        "port": ray_node.free_port(),
        "token": secrets.token_hex(32),
        "cpus": cpus or len(os.sched_getaffinity(0)),
        "gpus": gpus,
        "memory_bytes": None if memory_gib is None else int(memory_gib * 2**30),
        "object_store_bytes": OBJECT_STORE_BYTES,
        "versions": ray_node.node_versions(),
    }


def _own_ip(nodes: Sequence[str]) -> str:
    """The address of this node as the others reach it."""
    others = [node for node in nodes if not _is_here(node)]
    if not others:
        return "127.0.0.1"
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((others[0], 1))  # nothing is sent
            return str(probe.getsockname()[0])
    except OSError as error:
        raise RayUnusable(f"this node finds no way to {others[0]} ({error.strerror}); nothing was started") from error


def _is_here(node: str) -> bool:
    return node.partition(".")[0] == os.uname().nodename.partition(".")[0]


def _srun(node: str, cpus: int) -> list[str]:
    """A step for each node: where one is lost, the others go on."""
    words = ["srun", "--overlap", "--nodes=1", "--ntasks=1", f"--nodelist={node}", f"--cpus-per-task={cpus}", "--overcommit"]
    return [*words, "--cpu-bind=none", "--unbuffered", "--export=ALL", "--"]


@dataclass(slots=True)
class Crew:
    """The keepers of the nodes, which end their Ray when this process closes their inputs or is no more."""

    deadline: float
    processes: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    said: "queue.SimpleQueue[tuple[str, dict[str, Any]]]" = field(default_factory=queue.SimpleQueue)

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *unused: object) -> None:
        for process in self.processes.values():
            assert process.stdin is not None
            with contextlib.suppress(OSError):
                process.stdin.close()
        until = time.monotonic() + END_SECONDS
        for process in self.processes.values():
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        ray_node.clear_abandoned()  # of a keeper of this machine that somebody has killed

    def start(self, nodes: Sequence[str], orders: dict[str, Any], stack: contextlib.ExitStack) -> None:
        """The head here, then, when it listens, the others."""
        names = list(nodes) or [os.uname().nodename]
        self._begin(names[0], {**orders, "head": True}, [])
        folder = Path(self._hear_of("begun")["folder"])
        stack.enter_context(_environment(ray_node.variables(folder / "token")))
        self._hear_of("up")
        for number, name in enumerate(names[1:], 1):
            self._begin(f"{name}#{number}", {**orders, "head": False}, [] if _is_here(name) else _srun(name, orders["cpus"]))

    def _begin(self, name: str, orders: dict[str, Any], before: list[str]) -> None:
        command = [*before, sys.executable, "-P", "-m", "workers.sharded.ray_node"]
        path = ray_node.variables(Path())["PYTHONPATH"]
        process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.processes[name] = process
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(orders) + "\n")
            process.stdin.flush()
        threading.Thread(target=self._hear, args=(name, process), daemon=True).start()

    def _hear(self, name: str, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with contextlib.suppress(ValueError):
                self.said.put((name, json.loads(line)))
        self.said.put((name, {"event": "silent"}))

    def _hear_of(self, event: str) -> dict[str, Any]:
        while (word := self._listen()) is None or word["event"] != event:
            pass
        return word

    def _listen(self) -> dict[str, Any] | None:
        """The next word of a node; raises where that is its last one, or where time is over."""
        if time.monotonic() > self.deadline:
            raise RayUnusable(f"Ray has not started in time on {', '.join(self.processes)}; `srun hostname` and the nodes' /tmp tell more")
        try:
            name, event = self.said.get(timeout=POLL_SECONDS)
        except queue.Empty:
            return None
        host = event.get("host") or name.partition("#")[0]
        if event["event"] == "refused":
            raise ConfigError(f"node {event['why']}: all nodes must have the same environment and source; nothing was computed")
        if event["event"] in ("ended", "silent"):
            raise RayUnusable(
                f"Ray does not start on {host}: {event.get('why', 'no process could be started there')}\n{event.get('log', '')}"
            )
        return event

    def wait_for(self, true: Callable[[], bool]) -> None:
        """Until this is true of the Ray; raises where a node ends meanwhile, or time is over."""
        while not true():
            self._listen()


@contextlib.contextmanager
def _environment(more: dict[str, str]) -> Iterator[None]:
    """Variables for this process."""
    before = {name: os.environ.pop(name, None) for name in (*more, *ray_node.OTHERS)}
    os.environ.update(more)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def forget_token() -> None:
    """Have Ray read token and mode from the environment anew: it keeps what it has read once for as long as a process lives."""
    raylet: Any = importlib.import_module("ray._raylet")
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()
