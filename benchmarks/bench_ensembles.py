"""16 seeds of a small MLP as batched ensembles, beside the same 16 trainings in two warm processes of one thread each."""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from measure import HERE, REPOSITORY, Bars, answer, heading, interleave, parser, scratch, short, spread, table, tell

WORKER = HERE / "ensemble_worker.py"
ALONE, VMAP, FUSED = "alone", "vmap", "fused"
BARS = {(VMAP, "own"): 1.5, (VMAP, "shared"): 1.8, (FUSED, "shared"): 2.5}
GPU_BAR = 10.0


@dataclass(frozen=True, slots=True)
class Case:
    """How the members train, whose batches they see, and in how many processes; the cores are shared evenly among these."""

    how: str
    batches: str
    num_processes: int

    def __str__(self) -> str:
        if self.how == ALONE:
            return f"one after another, {self.num_processes} processes, {self.batches} batches"
        one = "one ensemble" if self.num_processes == 1 else f"{self.num_processes} ensembles, one a process"
        return f"{self.how}, {self.batches} batches, {one}"


CASES = [
    Case(ALONE, "own", 2),
    *(Case(how, batches, number) for how in (VMAP, FUSED) for batches in ("own", "shared") for number in (1, 2)),
]


def options() -> argparse.Namespace:
    """What the user asked for."""
    made = parser(__doc__ or "", repetitions=7)
    made.add_argument("--members", type=int, default=16)
    made.add_argument("--steps", type=int, default=100, help="updates of each member in a repetition")
    made.add_argument("--width", type=int, default=64)
    made.add_argument("--train-size", type=int, default=4096)
    return made.parse_args()


Processes = list["subprocess.Popen[str]"]


def start(case: Case, args: argparse.Namespace, npz: Path, stack: contextlib.ExitStack) -> Processes:
    """The processes of a case, which end with `stack`."""
    threads, started = max(1, len(os.sched_getaffinity(0)) // case.num_processes), []
    for number in range(case.num_processes):
        seeds = ",".join(map(str, range(number, args.members, case.num_processes)))
        words = [case.how, f"--batches={case.batches}", f"--seeds={seeds}", f"--threads={1 if case.how == ALONE else threads}"]
        words += [f"--steps={args.steps}", f"--width={args.width}", f"--train-size={args.train_size}", f"--npz={npz}"]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        command = [sys.executable, str(WORKER), *words]
        process = subprocess.Popen(command, text=True, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        stack.callback(process.communicate)
        started.append(process)
    return started


@dataclass(frozen=True, slots=True)
class Took:
    """Milliseconds of one update of all members, of the process that took longest: on the wall, and of its processor time.

    The latter is what the former would be on a machine with nothing else to do, where each process has one thread.
    """

    wall: float
    processor: float

    def __str__(self) -> str:
        return f"{short(self.wall)} ms, {short(self.processor)} ms of processor"


def update_time(processes: Processes, steps: int) -> Took:
    """Of warm processes, all told to go at once."""
    for process in processes:
        tell(process, "go")
    times = [json.loads(answer(process)) for process in processes]
    wall, processor = (1e3 / steps * max(values) for values in zip(*times, strict=True))
    return Took(wall, processor)


def images(folder: Path) -> Path:
    """A data set of the shape of Fashion-MNIST, which is quick to load."""
    import numpy as np

    generator = np.random.default_rng(0)
    arrays = {}
    for part, number in (("train", 8192), ("test", 1024)):
        arrays[f"x_{part}"] = generator.integers(0, 256, (number, 28, 28), dtype=np.uint8)
        arrays[f"y_{part}"] = generator.integers(0, 10, number)
    np.savez(folder / "images.npz", **arrays)
    return folder / "images.npz"


def main() -> int:
    """Print the table and the bars."""
    args = options()
    heading("Batched ensembles", args.folder, ["torch"])
    with contextlib.ExitStack() as stack:
        npz = images(stack.enter_context(scratch(args.folder)))
        started = {case: start(case, args, npz, stack) for case in CASES}
        devices = {answer(process).strip() for processes in started.values() for process in processes}
        cases = {str(case): partial(update_time, processes, args.steps) for case, processes in started.items()}
        found = interleave(cases, args.repetitions)
    medians = {case: statistics.median(took.wall for took in found[str(case)]) for case in CASES}
    alone = medians[CASES[0]]
    print(f"{args.members} MLPs of width {args.width}, 28 x 28 inputs, batches of 64, Adam: one update of all\n")
    times = {case: [spread([took.wall for took in found[str(case)]], "ms"), _processor(found[str(case)])] for case in CASES}
    table(["how", "wall", "processor", "speed"], [[str(case), *times[case], f"{alone / medians[case]:.2f} x"] for case in CASES])
    bars = Bars()
    for (how, batches), bar in BARS.items() if devices == {"cpu"} else [((FUSED, "own"), GPU_BAR)]:
        best = min((case for case in CASES if (case.how, case.batches) == (how, batches)), key=medians.__getitem__)
        bars.at_least(str(best), alone / medians[best], bar, "x")
    return bars.show(check=not args.no_check)


def _processor(found: list[Took]) -> str:
    return f"{short(statistics.median(took.processor for took in found))} ms"


if __name__ == "__main__":
    sys.exit(main())
