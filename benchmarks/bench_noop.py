"""2,000 no-op tasks on 2 slots as one user command, beside Hydra's `-m`, submitit, HyperQueue and a bare write+fsync+link loop."""

import argparse
import itertools
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

from measure import EIGENSWEEP, PEERS, Bars, heading, interleave, own_seconds, parser, run, say, scratch, short, table

OURS, OURS_JOB = "eigensweep submit, the whole command", "eigensweep, its job's own clock"
HYDRA, SUBMITIT, SEQUENCE = "Hydra -m", "submitit local, 2 at a time", "submitit FunctionSequence, 2 jobs"
HQ, HQ_FILES = "HyperQueue `true`, to its client's answer", "HyperQueue `true`, to its last output file"
BARE = {
    (1, "plain"): "write+fsync+link, 1 process",
    (2, "plain"): "write+fsync+link, 2 processes",
    (1, "folder"): "and unlink, folder fsync, 1 process",
    (2, "folder"): "and unlink, folder fsync, 2 processes",
}


def options() -> argparse.Namespace:
    """What the user asked for."""
    made = parser(__doc__ or "", repetitions=3)
    made.add_argument("--tasks", type=int, default=2000, help="no-op tasks of eigensweep, FunctionSequence, HyperQueue and the bare loop")
    made.add_argument("--peer-tasks", type=int, default=200, help="tasks of Hydra and of submitit, whose rates need no more")
    return made.parse_args()


def ours(folder: Path, num_tasks: int, *, job: bool = False) -> float:
    """Tasks a second of one `eigensweep submit` in a new store; every commit is checked.

    From the start of the command to its end; with `job` from its job's first act to its last word, which leaves out what the peers' own
    clocks leave out: imports, composition, and the start of whatever waits for tasks.
    """
    root = folder / "store"
    run([EIGENSWEEP, "init", "--root", root])
    grid = f"index=range(0,{num_tasks})"
    command = [EIGENSWEEP, "submit", "launcher.slots=2", "workload=noop", grid, "name=noop", "--root", root]
    seconds = run(command, cwd=folder).seconds
    num_commits = sum(1 for _ in root.glob("commits/*/*.json"))
    if num_commits != num_tasks:
        raise RuntimeError(f"{num_commits} commits of {num_tasks} tasks")
    return num_tasks / (job_seconds(root) if job else seconds)


def job_seconds(root: Path) -> float:
    """From the receipt of the store's one job to the record that it is over, both by the job's clock."""
    (batch,) = (root / "batches").iterdir()
    receipt = json.loads((batch / "receipt.json").read_text())["body"]
    over = json.loads((batch / "attempts.jsonl").read_text().splitlines()[-1])
    return float(over["time"] - receipt["time"])


def commit_bytes(root: Path) -> int:
    """Median size of a commit: the bare loop writes as much."""
    return int(statistics.median(path.stat().st_size for path in root.glob("commits/*/*.json")))


def hydra(folder: Path, num_tasks: int) -> float:
    """Tasks a second of a trivial application with the same numbers."""
    command = [sys.executable, str(PEERS / "hydra_app.py"), "-m", f"index=range(0,{num_tasks})", f"hydra.sweep.dir={folder}/multirun"]
    return num_tasks / run(command, cwd=folder).seconds


def script(name: str, num_tasks: int, *arguments: str) -> Callable[[Path], float]:
    """Tasks a second of a peer's script by its own clock, which leaves out its imports and its server's start."""

    def measure(folder: Path) -> float:
        ran = run([sys.executable, PEERS / name, folder / "work", str(num_tasks), *arguments], cwd=folder)
        return num_tasks / own_seconds(ran.output)

    return measure


def cases(asked: argparse.Namespace, size: int) -> dict[str, Callable[[Path], float]]:
    """All that is measured, in the order of the table."""
    few, many = asked.peer_tasks, asked.tasks
    return {
        OURS: lambda folder: ours(folder, many),
        OURS_JOB: lambda folder: ours(folder, many, job=True),
        HYDRA: lambda folder: hydra(folder, few),
        SUBMITIT: script("submitit_local.py", few, "single"),
        SEQUENCE: script("submitit_local.py", many, "packed"),
        HQ_FILES: script("hyperqueue_true.py", many, "files"),
        HQ: script("hyperqueue_true.py", many, "none"),
        **{BARE[n, mode]: script("bare_loop.py", many, str(n), str(size), mode) for n, mode in BARE},
    }


def in_new_folders(parent: Path, measured: dict[str, Callable[[Path], float]]) -> dict[str, Callable[[], float]]:
    """Each call in a folder of its own, removed after the call: leftovers would slow the next one."""
    numbers = itertools.count()

    def bind(measure: Callable[[Path], float]) -> Callable[[], float]:
        def call() -> float:
            with scratch(parent / str(next(numbers))) as folder:
                (folder / "work").mkdir()
                return measure(folder)

        return call

    return {name: bind(measure) for name, measure in measured.items()}


def show(found: dict[str, list[float]], *, check: bool) -> int:
    """Rates, ratios and bars."""
    rate = {name: statistics.median(values) for name, values in found.items()}
    rows = [
        [
            name,
            short(rate[name]),
            f"{short(min(values))}-{short(max(values))}",
            f"{short(rate[OURS] / rate[name])} x",
            f"{short(rate[OURS_JOB] / rate[name])} x",
        ]
        for name, values in found.items()
    ]
    table(["tasks a second", "median", "range", "the command is", "its job is"], rows)
    bars = Bars()
    bars.at_least(f"against {HYDRA}", rate[OURS] / rate[HYDRA], 60, "x")
    bars.at_least(f"against {SUBMITIT}", rate[OURS] / rate[SUBMITIT], 50, "x")
    bars.at_least(f"against {HQ_FILES}", rate[OURS] / rate[HQ_FILES], 1.5, "x")
    # its clock starts with a server at work and ends with the answer: like against like
    bars.at_least(f"job against {HQ}", rate[OURS_JOB] / rate[HQ], 1.5, "x")
    bars.at_least(f"of {BARE[1, 'plain']}", 100 * rate[OURS] / rate[BARE[1, "plain"]], 50, "%")
    return bars.show(check=check)


def main() -> int:
    """Measure and show; 1 where a bar is missed."""
    asked = options()
    heading("2,000 no-op tasks, 2 slots, packed", asked.folder, ["hydra-core", "submitit", "hyperqueue"])
    with scratch(asked.folder) as parent:
        say("a first run warms the caches, and tells how large a commit is")
        ours(parent, min(200, asked.tasks))
        measured = cases(asked, commit_bytes(parent / "store"))
        found = interleave(in_new_folders(parent, measured), asked.repetitions)
    return show(found, check=not asked.no_check)


if __name__ == "__main__":
    sys.exit(main())
