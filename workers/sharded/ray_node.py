"""Keeps Ray's processes of one node: starts them, and ends them and all that they started when its own input is closed.

`python -P -m workers.sharded.ray_node` reads its orders from the first line of its input and says what happens in lines of JSON. Started in
a session of its own, it lives to clean up after a kill of its starter's process group.
"""

import contextlib
import fcntl
import importlib.util
import json
import os
import secrets
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workers.errors import ConfigError
from workers.processes import adopt_orphans, die_with_parent
from workers.sharded.pool_worker import versions
from workers.sharded.process_pool import cause

HEAD_GIB, NODE_GIB = 0.7, 0.5  # resident memory of Ray's own processes
POLL_SECONDS = 0.2
END_SECONDS = 5.0
LOG_LINES = 12
PLACE = "EIGENSWEEP_RAY_DIR"
MOST_PLACE = 28  # characters: names of Unix sockets, some way below, may have 107
OTHERS = ("RAY_ADDRESS", "RAY_AUTH_TOKEN")  # of another Ray of the user; they would come before ours
_STARTED = "Ray runtime started"
# A node that gives no answer for about half a minute is lost.
_HEALTH = {"health_check_period_ms": 3000, "health_check_timeout_ms": 5000, "health_check_failure_threshold": 4}


def main() -> int:
    """Serve until the input is closed or Ray ends; 0 where it was closed."""
    adopt_orphans()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    orders = json.loads(sys.stdin.readline() or "null")
    if orders is None:
        return 0
    if wrong := mismatch(orders["versions"], node_versions()):
        say("refused", why=wrong)
        return 3
    clear_abandoned()
    try:
        with _folder() as folder:
            return _serve(folder, orders)
    finally:
        end_descendants()


def _serve(folder: Path, orders: dict[str, Any]) -> int:
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(orders["token"])
    say("begun", folder=str(folder))
    log = folder / "start.log"
    environment = {name: value for name, value in os.environ.items() if name not in OTHERS} | variables(token)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(folder, orders), env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, preexec_fn=die_with_parent
        )
    is_up = False
    try:
        while process.poll() is None:
            if not is_up and _STARTED in log.read_text(errors="replace"):
                is_up = True
                say("up")
            if _is_closed():
                return 0
        say("ended", why=_why(process.returncode), log=_tail(log))
        return 1
    finally:
        end_descendants()


def _why(status: int) -> str:
    """What Ray's end means, in words."""
    memory = f"; it needs {HEAD_GIB} GiB of memory on the first node and {NODE_GIB} GiB on each other, beside the workers"
    return f"ray start {cause(status)}{memory if status == -signal.SIGKILL else ''}"


def _is_closed() -> bool:
    """Wait a little for the end of the input."""
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        return bool(selector.select(POLL_SECONDS)) and not os.read(0, 4096)


def say(event: str, **more: Any) -> None:
    """One line to whoever started this; nobody may be there any more."""
    with contextlib.suppress(OSError):
        print(json.dumps({"event": event, "host": os.uname().nodename, **more}), flush=True)


def command(folder: Path, orders: dict[str, Any]) -> list[str]:
    """The command that starts Ray on this node and stays."""
    words = [
        sys.executable,
        "-P",
        "-m",
        "ray.scripts.scripts",
        "start",
        "--block",
        "--disable-usage-stats",
        f"--temp-dir={folder}/s",
    ]  # which Ray opens to all
    words += [f"--num-cpus={orders['cpus']}", f"--num-gpus={orders['gpus']}", f"--object-store-memory={orders['object_store_bytes']}"]
    # any ports that are free: others may have a Ray on this node
    words += ["--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"]
    if orders["memory_bytes"]:
        words.append(f"--memory={orders['memory_bytes']}")
    if orders["head"]:
        words += ["--head", f"--node-ip-address={orders['ip']}", f"--port={orders['port']}", "--include-dashboard=false", "--no-monitor"]
        if importlib.util.find_spec("grpc"):  # then Ray serves clients from afar too, by itself on the same port for all
            words.append(f"--ray-client-server-port={free_port()}")
        return [*words, f"--system-config={json.dumps(_HEALTH)}"]
    return [*words, f"--address={orders['ip']}:{orders['port']}"]


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def variables(token: Path) -> dict[str, str]:
    """What Ray reads from the environment: this cluster's own token, never one of the user's; and no sums of others' memory."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_memory_monitor_refresh_ms": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(Path(__file__).parent.parent.parent), os.environ.get("PYTHONPATH")))),
    }


# -- versions -------------------------------------------------------------------------------------------------------


def node_versions() -> dict[str, str]:
    """Python, this package and Ray, as they are here."""
    from importlib import metadata

    try:
        return {**versions(), "ray": metadata.version("ray")}
    except metadata.PackageNotFoundError:
        return {**versions(), "ray": "none"}


def mismatch(expected: dict[str, str], found: dict[str, str]) -> str:
    """In which versions a node differs from the driver's; empty: in none. One folder of one host is one source, be it edited meanwhile."""
    same_source = all(expected[name] == found[name] for name in ("host", "folder"))
    names = [name for name in expected if name not in ("host", "folder") and not (name == "code" and same_source)]
    wrong = [f"{name} {found[name]}, not {expected[name]}" for name in names if found[name] != expected[name]]
    return f"{found['host']} has {' and '.join(wrong)} as {expected['host']}" if wrong else ""


# -- folders --------------------------------------------------------------------------------------------------------


def place() -> Path:
    """A folder of each node's own disk: /tmp, or what EIGENSWEEP_RAY_DIR says; ConfigError where that cannot be."""
    path = os.environ.get(PLACE) or "/tmp"
    if len(path) > MOST_PLACE or not os.path.isabs(path):
        raise ConfigError(
            f"{PLACE} must be the full path of a folder on each node's own disk, of at most {MOST_PLACE} characters "
            f"(Unix sockets have short names), got {path!r}; unset it for /tmp"
        )
    return Path(path)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """For Ray's sockets and logs, gone afterwards; its lock says that somebody is there."""
    folder = place() / f"r{os.getuid()}_{secrets.token_hex(4)}"
    folder.mkdir(mode=0o700)
    lock = os.open(folder / "lock", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.write(lock, str(os.getpid()).encode())
        yield folder
    finally:
        end_descendants()
        os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)


def clear_abandoned() -> None:
    """End what is left of Ray where a keeper was killed, and remove its folder."""
    for folder in place().glob(f"r{os.getuid()}_????????"):
        with contextlib.suppress(OSError, ValueError):
            lock = os.open(folder / "lock", os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for pid in _left(int(os.read(lock, 32)), folder):
                    os.kill(pid, signal.SIGKILL)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _left(keeper: int, folder: Path) -> list[int]:
    """Processes of a keeper's session that have files open in its folder; its number alone may be another's by now."""
    found = []
    for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
        with contextlib.suppress(OSError):
            if os.getsid(pid) == keeper and any(_is_below(folder, f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")):
                found.append(pid)
    return found


def _is_below(folder: Path, link: str) -> bool:
    try:
        return os.readlink(link).startswith(f"{folder}/")
    except OSError:
        return False


def _tail(log: Path) -> str:
    return "\n".join([line for line in log.read_text(errors="replace").splitlines() if line.strip()][-LOG_LINES:])


# -- processes ------------------------------------------------------------------------------------------------------


def end_descendants() -> None:
    """SIGKILL to all that this process has started, also through others; nothing of it is left when this returns."""
    deadline = time.monotonic() + END_SECONDS
    while (pids := _descendants(os.getpid())) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, 0)
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _descendants(pid: int) -> list[int]:
    children: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            children += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
    return children + [below for child in children for below in _descendants(child)]


if __name__ == "__main__":
    sys.exit(main())
