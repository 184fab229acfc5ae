"""`--help`, `status` and `resume` of a finished sweep of 10,000 tasks, alone and in a store of 1,000,000 commits; files cached."""

import argparse
import sys
from functools import partial
from pathlib import Path

import stores
from measure import EIGENSWEEP, Bars, Ran, heading, interleave, median_of, parser, run, say, scratch, table, times

NAME = "finished"
GRID = [
    "workload=noop",
    "index=range(0,100)",
    "memory_mib=range(0,10)",
    "seconds=0,0.0001,0.0002,0.0003,0.0004,0.0005,0.0006,0.0007,0.0008,0.0009",
]
HELP, ALONE, MILLION, RESUME = "eigensweep --help", "status, alone in its store", "status, in the large store", "resume, alone in its store"


def options() -> argparse.Namespace:
    """What the user asked for."""
    made = parser(__doc__ or "", repetitions=9)
    made.add_argument("--store", type=Path, default=None, help="the large store, kept for the next time; default: FOLDER/million")
    made.add_argument("--commits", type=int, default=1_000_000, help="commits of the large store; making it takes minutes and 4 KB each")
    return made.parse_args()


def finish_sweep(root: Path) -> None:
    """Really run the sweep of 10,000 tasks, as a user does; at once where the store has it."""
    ran = run([EIGENSWEEP, "submit", "launcher.slots=2", *GRID, f"name={NAME}", "--root", root])
    say(f"  10,000 tasks in {root.name}: {ran}")


def status(root: Path) -> Ran:
    """`eigensweep status`, with every task completed."""
    ran = run([EIGENSWEEP, "status", NAME, "--root", root])
    if "completed 10,000" not in ran.output and "completed 10000" not in ran.output:
        raise RuntimeError(f"not a finished sweep:\n{ran.output}")
    return ran


def resume(root: Path) -> Ran:
    """`eigensweep resume` of a finished sweep, which must send nothing."""
    before = len(list((root / "batches").iterdir()))
    ran = run([EIGENSWEEP, "resume", NAME, "--root", root])
    if len(list((root / "batches").iterdir())) != before:
        raise RuntimeError("resume of a finished sweep has submitted something")
    return ran


def measure(asked: argparse.Namespace, alone: Path, large: Path) -> dict[str, list[Ran]]:
    """All cases, interleaved, once before that to fill the caches."""
    cases = {
        HELP: partial(run, [EIGENSWEEP, "--help"]),
        ALONE: partial(status, alone),
        MILLION: partial(status, large),
        RESUME: partial(resume, alone),
    }
    for case in cases.values():
        case()
    return interleave(cases, asked.repetitions)


def show(found: dict[str, list[Ran]], *, check: bool) -> int:
    """Times and bars."""
    table(["command", "wall, median (range)", "processor"], [[name, *times(runs)] for name, runs in found.items()])
    bars = Bars()
    for name, bar in ((HELP, 0.1), (ALONE, 0.2), (MILLION, 0.3), (RESUME, 1.0)):
        bars.below(name, median_of(found[name]), bar, "s")
    return bars.show(check=check)


def main() -> int:
    """Measure and show; 1 where a bar is missed."""
    asked = options()
    heading("Status of 10,000 tasks", asked.folder)
    stores.import_from_repository()
    large = (asked.store or asked.folder / "million").resolve()
    say(f"the large store, {large}: made once")
    stores.filled(large, asked.commits)
    with scratch(asked.folder) as folder:
        run([EIGENSWEEP, "init", "--root", folder / "alone"])
        for root in (folder / "alone", large):
            finish_sweep(root)
        return show(measure(asked, folder / "alone", large), check=not asked.no_check)


if __name__ == "__main__":
    sys.exit(main())
