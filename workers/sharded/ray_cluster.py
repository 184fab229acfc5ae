"""A Ray to work on: one of our own on the nodes of a job, gone when it is done, or one that is there already."""

import contextlib
import importlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from workers.errors import ConfigError
from workers.extras import ray_missing
from workers.sharded.ray_crew import Crew, forget_token, orders_for

CONNECT_SECONDS = 10.0
_PROBE = "import ray, sys; ray.init(address=sys.argv[1], logging_level='error', log_to_driver=False); ray.nodes()"


@dataclass(frozen=True, slots=True, kw_only=True)
class RayCluster:
    """A Ray that this process is connected to: its address, its nodes' names, and how long it took to get there."""

    address: str
    nodes: tuple[str, ...]
    seconds: float


def load_ray() -> Any:
    """The module ray; ConfigError where there is none."""
    if missing := ray_missing():
        raise ConfigError(missing)
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
            orders = orders_for(nodes, cpus_per_node, gpus_per_node, memory_gib)
            crew = stack.enter_context(Crew(began + start_seconds))
            crew.start(nodes, orders, stack)
            address, count = f"{orders['ip']}:{orders['port']}", max(1, len(nodes))
            stack.enter_context(_connected(address, orders["ip"]))
            crew.wait_for(lambda: len(alive_nodes()) >= count)
            names = tuple(nodes) or alive_nodes()
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
    forget_token()  # of the Ray that this process was connected to before
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
