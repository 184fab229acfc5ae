"""A Ray to work on: one of our own on the nodes of a job, gone when it is done, or one that is there already."""

import contextlib
import importlib
import importlib.util
import json
import os
import queue
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workers.errors import ConfigError, EigensweepError
from workers.sharded import ray_node

POLL_SECONDS = 0.1
CONNECT_SECONDS = 10.0
END_SECONDS = 15.0
OBJECT_STORE_BYTES = 128 * 2**20  # Ray's least is 75 MB; only plain values go through it
_PROBE = "import ray, sys; ray.init(address=sys.argv[1], logging_level='error', log_to_driver=False); ray.nodes()"


class RayUnusable(EigensweepError):
    """Ray does not start on a node, or has left it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RayCluster:
    """A Ray that this process is connected to: its address, its nodes' names, and how long it took to get there."""

    address: str
    nodes: tuple[str, ...]
    seconds: float


def load_ray() -> Any:
    """The module ray; ConfigError where there is none."""
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(
            "this needs the extra eigensweep[ray]: pip install 'eigensweep[ray]', also on the nodes; without Ray the same runs in processes"
        )
    return importlib.import_module("ray")


@contextlib.contextmanager
def ray_cluster(
    nodes: Sequence[str] = (),
    *,
    address: str | None = None,
    cpus_per_node: int | None = None,
    gpus_per_node: int = 0,
    memory_gib: float | None = None,
    start_seconds: float = 120.0,
) -> Iterator[RayCluster]:
    """Connect this process to Ray for the time of the block.

    Without an address a Ray of our own runs on `nodes` (none: this machine), the first of which is this one; srun starts it on the others.
    `cpus_per_node`: none: those of this process; `memory_gib`: what Ray may give away of each node's; none: as it finds. It has a port, a
    token and folders of its own, and is gone after the block, also where this process is killed. An address ("auto", "host:port") is
    that of a Ray that stays. Raises ConfigError where there is no Ray or it does not answer in `start_seconds`, RayUnusable where it
    cannot be started; both name the node.
    """
    ray = load_ray()
    if ray.is_initialized():
        raise ConfigError("this process is connected to a Ray already, and there can be one at a time: leave it first, ray.shutdown()")
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        if address is None:
            orders = _orders(nodes, cpus_per_node, gpus_per_node, memory_gib)
            crew = stack.enter_context(_Crew(began + start_seconds))
            crew.start(nodes, orders, stack)
            address, count = f"{orders['ip']}:{orders['port']}", max(1, len(nodes))
            stack.enter_context(_connected(address, orders["ip"]))
            names = crew.wait_for_nodes(count)
        else:
            refuse_deaf(address, start_seconds)
            _probe(address, start_seconds)
            stack.enter_context(_connected(address, None))
            names = alive_nodes()
        yield RayCluster(address=address, nodes=names, seconds=time.monotonic() - began)


def alive_nodes() -> tuple[str, ...]:
    """Names of the hosts of Ray's nodes."""
    return tuple(node["NodeManagerHostname"] for node in load_ray().nodes() if node["Alive"])


@contextlib.contextmanager
def _connected(address: str, ip: str | None) -> Iterator[None]:
    ray = load_ray()
    more = {} if ip is None else {"_node_ip_address": ip}
    with _own_signals():
        ray.init(address=address, logging_level="error", log_to_driver=True, **more)
    try:
        yield
    finally:
        with _own_signals():
            ray.shutdown()


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Ray takes SIGTERM for itself, which here means that a task is to checkpoint."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# -- one that is there ----------------------------------------------------------------------------------------------


def refuse_deaf(address: str, seconds: float) -> None:
    """Raise ConfigError where nobody listens at a "host:port"."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=min(seconds, CONNECT_SECONDS)).close()
        except OSError as error:
            raise ConfigError(f"no Ray answers at {address!r} ({error.strerror or error}); {_ADVICE}") from None


def _probe(address: str, seconds: float) -> None:
    """Connect in another process first: Ray's own attempt has no end that can be set."""
    command = [sys.executable, "-P", "-c", _PROBE, address]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise ConfigError(f"no Ray answers at {address!r} within {seconds:.0f} s; {_ADVICE}") from None
    if done.returncode:
        raise ConfigError(unusable(address, done.stderr))


def unusable(address: str, words: str) -> str:
    """What to say of a Ray that gave an error, with the last line of it."""
    lines = [line for line in words.splitlines() if line.strip()]
    return f"the Ray at {address!r} cannot be used ({lines[-1] if lines else 'it says nothing'}); {_ADVICE}"


@contextlib.contextmanager
def attached(address: str) -> Iterator[None]:
    """As `ray_cluster` of an address, where the caller bounds the time; ConfigError where that Ray cannot be used."""
    load_ray()
    refuse_deaf(address, CONNECT_SECONDS)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_connected(address, None))
        except Exception as error:
            raise ConfigError(unusable(address, str(error))) from error
        yield


_ADVICE = (
    "`ray status --address=...` must work here, with the RAY_AUTH_MODE and token of that cluster; "
    "without an address a Ray of our own is started"
)

# -- one of our own -------------------------------------------------------------------------------------------------


def _orders(nodes: Sequence[str], cpus: int | None, gpus: int, memory_gib: float | None) -> dict[str, Any]:
    """What each node is told; the first one is the head."""
    return {
        "ip": _own_ip(nodes),
        "port": _free_port(),
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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _is_here(node: str) -> bool:
    return node.partition(".")[0] == os.uname().nodename.partition(".")[0]


def _srun(node: str, cpus: int) -> list[str]:
    """A step for each node: where one is lost, the others go on."""
    words = ["srun", "--overlap", "--nodes=1", "--ntasks=1", f"--nodelist={node}", f"--cpus-per-task={cpus}", "--overcommit"]
    return [*words, "--cpu-bind=none", "--unbuffered", "--export=ALL", "--"]


@dataclass(slots=True)
class _Crew:
    """The keepers of the nodes, which end their Ray when this process closes their inputs or is no more."""

    deadline: float
    processes: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    said: "queue.SimpleQueue[tuple[str, dict[str, Any]]]" = field(default_factory=queue.SimpleQueue)

    def __enter__(self) -> "_Crew":
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
        folder = Path(self._wait_for("begun")["folder"])
        stack.enter_context(_environment(ray_node.variables(folder / "token")))
        self._wait_for("up")
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

    def _wait_for(self, event: str) -> dict[str, Any]:
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

    def wait_for_nodes(self, count: int) -> tuple[str, ...]:
        """Until all have joined."""
        while len(names := alive_nodes()) < count:
            self._listen()
        return names


@contextlib.contextmanager
def _environment(more: dict[str, str]) -> Iterator[None]:
    """Variables for this process; Ray, which has kept those of an earlier cluster, is told to read them anew."""
    before = {name: os.environ.get(name) for name in more}
    os.environ.update(more)
    _forget_token()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _forget_token() -> None:
    raylet: Any = importlib.import_module("ray._raylet")
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()
