"""Commands that run on a Ray by themselves: `python -P -m workers.sharded.ray_jobs ADDRESS` with one order as JSON on its input.

Each is a detached actor with a name: it needs no dashboard, which Ray's own jobs do, waits in Ray's queue until there is room, and is
there as long as its command runs, also when whoever sent it has left. In the place of an address, `alone` has a Ray of our own that lives
as long as one command.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from workers import files
from workers.errors import EigensweepError
from workers.processes import die_with_parent
from workers.sharded.ray_cluster import attached, load_ray, ray_cluster

NAMESPACE = "eigensweep"
ANSWER = "answer: "
ANSWER_SECONDS = 20.0


class Job:
    """Runs commands one after another, then is gone; what it runs dies with it."""

    def __init__(self, commands: list[list[str]], environment: dict[str, str], folder: str, log: str) -> None:
        os.umask(files.UMASK)
        own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        os.makedirs(os.path.dirname(log), files.FOLDER_MODE, exist_ok=True)
        self.environment, self.folder, self.log = {**own, **environment}, folder, log
        # from this thread: the kernel ends a process with the thread that began it
        self.process = self._begin(commands[0])
        threading.Thread(target=self._go_on, args=(commands[1:],), daemon=True).start()

    def _begin(self, command: list[str]) -> "subprocess.Popen[bytes]":
        with open(self.log, "ab", opener=files.opener) as log:
            return subprocess.Popen(
                command,
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def _go_on(self, commands: list[list[str]]) -> None:
        self.process.wait()
        for command in commands:
            with contextlib.suppress(OSError):
                self._begin(command).wait()
        ray = load_ray()
        ray.kill(ray.get_runtime_context().current_actor)

    def signal(self, number: int) -> None:
        """Send the first command a signal."""
        if self.process.poll() is None:
            self.process.send_signal(number)


# -- orders ---------------------------------------------------------------------------------------------------------


def room(shares: Sequence[Mapping[str, float]]) -> list[str]:
    """For each kind of job empty, or why no node of this Ray could ever run it."""
    nodes = [node["Resources"] for node in load_ray().nodes() if node["Alive"]]
    return [_no_room(share, nodes) for share in shares]


def _no_room(share: Mapping[str, float], nodes: Sequence[Mapping[str, float]]) -> str:
    if any(all(node.get(resource, 0) >= amount for resource, amount in share.items()) for node in nodes):
        return ""
    has = "; ".join(_words(node) for node in nodes)
    return f"no node of this Ray has room for a job with {_words(share)}, they have {has}"


def submit(share: Mapping[str, float], jobs: Mapping[str, Mapping[str, Any]]) -> str:
    """Queue jobs by name; empty, or why no node of this Ray could ever run them. A name that is taken is left to the job that has it."""
    if problem := room([share])[0]:
        return problem
    ray = load_ray()
    for name, job in jobs.items():
        ray.remote(Job).options(
            name=name,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=share["CPU"],
            num_gpus=share["GPU"],
            memory=share["memory"],
            max_restarts=0,  # what was lost is the driver's to send again
        ).remote(**job)
    return ""


def _words(share: Mapping[str, float]) -> str:
    gib = share.get("memory", 0) / 2**30
    return f"{share.get('CPU', 0):g} CPUs, {share.get('GPU', 0):g} GPUs and {gib:.1f} GiB"


def present(names: Sequence[str]) -> list[str]:
    """Those that wait or run."""
    return [name for name in names if _actor(name) is not None]


def tell(names: Sequence[str], number: int) -> None:
    """Send jobs that run a signal."""
    ray = load_ray()
    actors = [actor for name in names if (actor := _actor(name)) is not None]
    ray.wait([actor.signal.remote(number) for actor in actors], num_returns=len(actors), timeout=ANSWER_SECONDS) if actors else None


def end(names: Sequence[str]) -> None:
    """End jobs at once, also those that wait."""
    for name in names:
        if (actor := _actor(name)) is not None:
            load_ray().kill(actor)


def _actor(name: str) -> Any:
    try:
        return load_ray().get_actor(name, namespace=NAMESPACE)
    except ValueError:
        return None


ORDERS: dict[str, Callable[..., Any]] = {"room": room, "submit": submit, "present": present, "tell": tell, "end": end}


def alone(share: Mapping[str, float], job: Mapping[str, Any]) -> int:
    """Start a Ray of this machine, run one job, end it."""
    with ray_cluster(cpus_per_node=int(share["CPU"]), gpus_per_node=int(share.get("GPU", 0)), memory_gib=share["memory"] / 2**30):
        if problem := submit(share, {"alone": job}):
            print(problem, flush=True)
            return 1
        while present(["alone"]):
            time.sleep(0.2)
    return 0


def main(address: str) -> int:
    """Obey, and print the answer; an error is an answer, too."""
    order = json.loads(sys.stdin.readline())
    try:
        if address == "alone":
            return alone(**order)
        with attached(address):
            answer = {"value": ORDERS[order.pop("do")](**order)}
    except EigensweepError as error:
        if address == "alone":
            print(error, flush=True)
            return error.exit_code
        answer = {"error": str(error), "exit_code": error.exit_code}
    print(ANSWER + json.dumps(answer), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
