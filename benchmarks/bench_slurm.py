"""SLURM on a cluster of four nodes that this starts and takes down: submitting 10,000 tasks, 1,000 no-op tasks beside submitit, and ticks.

The nodes share this machine's processors (see slurm/dev/cluster). Calls of the scheduler are counted by scripts in front of its commands on
PATH. The peers' own clocks begin at the submission; ours are whole commands, from the start of `eigensweep submit` until it has
seen the last task committed, and the dataset is made.
"""

import argparse
import contextlib
import itertools
import math
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from measure import EIGENSWEEP, PEERS, REPOSITORY, Bars, heading, interleave, own_seconds, parser, run, say, scratch, short, spread, table

from orchestrator import results

CLUSTER = REPOSITORY / "slurm" / "dev" / "cluster"
NAME = "bench"
STATE = Path(f"/var/tmp/eigensweep-cluster-{NAME}")
CHUNK = 1000
OURS, ARRAY, SEQUENCE, HYDRA = (
    "eigensweep submit --follow",
    "submitit map_array",
    "submitit FunctionSequence",
    "hydra-submitit-launcher",
)
COMMANDS = ("sbatch", "squeue", "sacct", "scontrol", "sacctmgr", "sinfo", "scancel")


def options() -> argparse.Namespace:
    """What the user asked for."""
    made = parser(__doc__ or "", repetitions=3)
    made.add_argument("--tasks", type=int, default=1000, help="no-op tasks of eigensweep and of FunctionSequence")
    made.add_argument("--peer-tasks", type=int, default=200, help="elements of map_array and points of Hydra, whose rates need no more")
    made.add_argument("--jobs", type=int, default=4, help="jobs that FunctionSequence is packed into")
    made.add_argument("--in-flight", type=int, default=10_000, help="tasks of the sweep that is submitted and ticked")
    made.add_argument("--only", choices=("throughput", "flight"), help="one half of it")
    return made.parse_args()


@contextlib.contextmanager
def cluster() -> Iterator[None]:
    """Four nodes, which go at the end; its commands stand first on PATH."""
    up = [
        CLUSTER,
        "--name",
        NAME,
        "up",
        "4",
        "--fresh",
        f"--owner={os.getpid()}",
        "--set",
        "MaxArraySize=20001",
        "--set",
        "MaxJobCount=100000",
    ]
    before = os.environ["PATH"]
    run(up)
    os.environ["PATH"] = f"{STATE / 'bin'}:{before}"
    try:
        yield
    finally:
        os.environ["PATH"] = before
        run([CLUSTER, "--name", NAME, "down", "--purge"])


# -- throughput ---------------------------------------------------------------------------------------------------------


def ours(folder: Path, num_tasks: int) -> float:
    """Tasks a second of a new sweep in a new store; every commit is counted."""
    root = folder / "store"
    run([EIGENSWEEP, "init", "--root", root])
    grid = [f"index=range(0,{num_tasks})", "name=noop"]
    began = time.perf_counter()
    run([EIGENSWEEP, "submit", "launcher=slurm", "workload=noop", *grid, "--follow", "--root", root], cwd=folder)
    while not list(root.glob("dataset/MANIFEST-*.json")):  # the last driver leaves this to the job that ticks, for which we do not wait
        run([EIGENSWEEP, "tick", "--root", root], cwd=folder)
    seconds = time.perf_counter() - began
    num_rows = len(results.load("noop", root, mixed_code=True).tasks().collect())
    num_commits = sum(1 for _ in root.glob("commits/*/*.json"))
    if num_commits != num_tasks or num_rows != num_tasks:
        raise RuntimeError(f"{num_commits} commits and {num_rows} rows of {num_tasks} tasks")
    settle()
    return num_tasks / seconds


def submitit(folder: Path, num_tasks: int, mode: str, num_jobs: int) -> float:
    """Tasks a second by submitit's own clock."""
    ran = run([sys.executable, PEERS / "submitit_slurm.py", folder / "work", str(num_tasks), mode, str(num_jobs)], cwd=folder)
    settle()
    return num_tasks / own_seconds(ran.output)


def hydra(folder: Path, num_tasks: int) -> float:
    """Tasks a second of the whole command; as many at once and as much for each as with submitit itself."""
    launcher = ["hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.array_parallelism=10000"]
    words = [
        *launcher,
        "+hydra.launcher.additional_parameters.mem=250MB",
        f"hydra.sweep.dir={folder}/multirun",
        f"index=range(0,{num_tasks})",
    ]
    ran = run([sys.executable, PEERS / "hydra_submitit.py", "-m", *words], cwd=folder)
    if (found := len(list(folder.glob("multirun/*/rows.json")))) != num_tasks:
        raise RuntimeError(f"{found} results of {num_tasks} points")
    settle()
    return num_tasks / ran.seconds


def settle() -> None:
    """Until the queue is empty: what a case leaves behind is not for the next one's time."""
    while subprocess.run(["squeue", "--noheader"], capture_output=True, check=True).stdout.strip():
        time.sleep(0.2)


def throughput(asked: argparse.Namespace, parent: Path, bars: Bars) -> None:
    """Ours and the peers, interleaved."""
    measured: dict[str, Callable[[Path], float]] = {
        OURS: lambda folder: ours(folder, asked.tasks),
        ARRAY: lambda folder: submitit(folder, asked.peer_tasks, "array", 0),
        SEQUENCE: lambda folder: submitit(folder, asked.tasks, "packed", asked.jobs),
        HYDRA: lambda folder: hydra(folder, asked.peer_tasks),
    }
    numbers = itertools.count()

    def bound(measure: Callable[[Path], float]) -> Callable[[], float]:
        def call() -> float:
            with scratch(parent / str(next(numbers))) as folder:
                return measure(folder)

        return call

    say("a first run warms the caches")
    bound(lambda folder: ours(folder, 20))()
    found = interleave({name: bound(measure) for name, measure in measured.items()}, asked.repetitions)
    rate = {name: statistics.median(values) for name, values in found.items()}
    many = {OURS: asked.tasks, SEQUENCE: asked.tasks}
    rows = [
        [
            f"{name} ({many.get(name, asked.peer_tasks):,})",
            short(rate[name]),
            f"{short(min(values))}-{short(max(values))}",
            f"{short(rate[OURS] / rate[name])} x",
        ]
        for name, values in found.items()
    ]
    table(["tasks a second, submit to all collected", "median", "range", "eigensweep is"], rows)
    bars.at_least(f"against {ARRAY}", rate[OURS] / rate[ARRAY], 20, "x")
    bars.at_least(f"against {HYDRA}", rate[OURS] / rate[HYDRA], 40, "x")


# -- thousands in flight ------------------------------------------------------------------------------------------------


def counting(folder: Path) -> Path:
    """A folder for PATH whose commands note each call in `folder/calls` and then are those of the cluster."""
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    for name in COMMANDS:
        note = f'echo {name} "${{@##*/}}" >> {shlex.quote(str(folder / "calls"))}'
        (bin_folder / name).write_text(f'#!/bin/sh\n{note}\nexec {STATE / "bin" / name} "$@"\n')
        (bin_folder / name).chmod(0o755)
    return bin_folder


def calls(folder: Path) -> Counter[str]:
    """Command (with the script's name for sbatch) -> calls since the last question."""
    path = folder / "calls"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return Counter(line if line.startswith("sbatch") else line.split()[0] for line in lines)


def flight(asked: argparse.Namespace, parent: Path, *, pack: str) -> dict[str, object]:
    """Submit a sweep of two shapes whose tasks take minutes, tick while it is in flight, and end it; seconds and calls of both."""
    with scratch(parent) as folder:
        root = folder / "store"
        run([EIGENSWEEP, "init", "--root", root])
        path = f"{counting(folder)}:{os.environ['PATH']}"
        half = asked.in_flight // 2
        words = ["launcher=slurm", f"launcher.pack={pack}", f"launcher.chunk={CHUNK}", "workload=noop", "seconds=600", "name=flight"]
        grid = [f"index=range(0,{half})", "memory_mib=0,300"]
        submitted = run([EIGENSWEEP, "submit", *words, *grid, "--detach", "--root", root], cwd=folder, PATH=path)
        while_submitted = calls(folder)
        wait_for_running()
        run([EIGENSWEEP, "tick", "--root", root], cwd=folder, PATH=path)  # what jobs that began have written is read once
        ticks = []
        for _ in range(asked.repetitions):
            calls(folder)
            ticks.append((run([EIGENSWEEP, "tick", "--root", root], cwd=folder, PATH=path).seconds, calls(folder)))
        elements = len(subprocess.run(["squeue", "-rh", "-o", "%i"], capture_output=True, text=True, check=True).stdout.split())
        subprocess.run(["scancel", f"--user={os.getuid()}"], check=True)
        settle()
        return {"submit": submitted.seconds, "sbatch": while_submitted, "ticks": ticks, "elements": elements}


def wait_for_running() -> None:
    """Until some of the jobs run."""
    while not subprocess.run(["squeue", "--noheader", "--states=RUNNING"], capture_output=True, check=True).stdout.strip():
        time.sleep(0.2)


def flights(asked: argparse.Namespace, parent: Path, bars: Bars) -> None:
    """Unpacked, an element a task; and packed."""
    rows = []
    for pack, what in (("never", "a job a task"), ("always", "packed")):
        found = flight(asked, parent, pack=pack)
        ticks, sbatch = found["ticks"], found["sbatch"]
        seconds = statistics.median(seconds for seconds, _ in ticks)
        others = statistics.median(sum(one.values()) for _, one in ticks)
        arrays, ticking, trials = (sbatch[f"sbatch {name}"] for name in ("submission.sh", "tick.sh", "--test-only"))
        say(f"  {what}: {dict(sbatch)}; a tick: {[dict(one) for _, one in ticks]}")
        per_shape = math.ceil(asked.in_flight / 2 / CHUNK)
        rows.append(
            [
                what,
                f"{found['elements']:,}",
                f"{short(found['submit'])} s",
                f"{arrays} + {ticking} + {trials}",
                spread([one for one, _ in ticks]),
                f"{others:g}",
            ]
        )
        bars.below(f"submit {asked.in_flight:,} tasks, {what}", found["submit"], 10, "s")
        if pack == "never":
            bars.at_most("sbatch calls for jobs, of 2 shapes", arrays, 2 * per_shape, "")
        bars.below(f"tick with {asked.in_flight:,} tasks in flight, {what}", seconds, 2, "s")
        bars.at_most(f"scheduler calls of a tick, {what}", others, 2, "")
    table(
        [f"{asked.in_flight:,} tasks of 2 shapes", "in the queue", "submit", "sbatch: jobs + ticks + trials", "a tick", "scheduler calls"],
        rows,
    )


def main() -> int:
    """Measure and show; 1 where a bar is missed."""
    asked = options()
    check = subprocess.run([CLUSTER, "check"], capture_output=True, text=True)
    if check.returncode:
        say(f"not measured, no SLURM cluster here: {check.stderr.strip()}")
        return 0
    bars = Bars()
    with cluster(), scratch(STATE / "shared") as parent:
        heading("SLURM, four nodes on this machine", parent, ["submitit", "hydra-submitit-launcher", "hydra-core"])
        if asked.only != "flight":
            throughput(asked, parent, bars)
        if asked.only != "throughput":
            flights(asked, parent, bars)
    return bars.show(check=not asked.no_check)


if __name__ == "__main__":
    sys.exit(main())
