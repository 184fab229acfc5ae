"""Particle-steps a core-second of the swarm engine beside numba's compiled loop and LAMMPS, free and crowded."""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

from measure import HERE, PEERS, REPOSITORY, Bars, answer, heading, interleave, parser, table, tell
from swarm_scene import Scene

SCENES = {
    "1,000 environments of 10 agents": (Scene(environments=1000, agents=10, disc=100.0), 20),
    "100 environments of 100 agents, crowded": (Scene(environments=100, agents=100, disc=60.0), 4),
}
FREE = next(iter(SCENES))
OURS, NUMBA, LAMMPS = "eigensweep", "numba", "LAMMPS"
LEAST, RATIO = 4e7, 3.0


def options() -> argparse.Namespace:
    """What the user asked for."""
    made = parser(__doc__ or "", repetitions=9)
    made.add_argument(
        "--lammps", type=Path, default=REPOSITORY / "build" / "bench" / "swarm-venv" / "bin" / "python", help="Python with it"
    )
    return made.parse_args()


class Contender:
    """A process that is ready, and goes when it is told to."""

    def __init__(self, command: list[str], stack: contextlib.ExitStack, libraries: str = "") -> None:
        environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "LD_LIBRARY_PATH": libraries}
        self.process = stack.enter_context(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        )
        stack.callback(self.process.kill)
        self.said = json.loads(answer(self.process))

    def go(self) -> float:
        """Seconds of processor."""
        tell(self.process, "go")
        self.said = json.loads(answer(self.process))
        return float(self.said[0])


def contenders(scene: Scene, slices: int, args: argparse.Namespace, stack: contextlib.ExitStack) -> dict[str, Contender]:
    """Those that there are."""
    words = [json.dumps(asdict(scene)), str(slices)]
    found = {
        OURS: Contender([sys.executable, str(HERE / "swarm_ours.py"), *words], stack),
        NUMBA: Contender([sys.executable, str(PEERS / "swarm_numba.py"), *words], stack),
    }
    if args.lammps.exists():
        libraries = str(args.lammps.parent.parent / "lib")
        found[LAMMPS] = Contender([str(args.lammps), str(PEERS / "swarm_lammps.py"), *words], stack, libraries)
    else:
        print(f"note: no {args.lammps}, so that LAMMPS is left out; `make bench-swarm` makes it")
    return found


def main() -> int:
    """Measure, print, and fail where a bar is missed."""
    args = options()
    heading("Swarms", args.folder, ("torch", "numba"))
    bars, rows = Bars(), []
    for name, (scene, slices) in SCENES.items():
        with contextlib.ExitStack() as stack:
            found = contenders(scene, slices, args, stack)
            times = interleave({who: partial(Contender.go, one) for who, one in found.items()}, args.repetitions)
            share = found[OURS].said[1]
        rates = {who: scene.particle_steps(slices) / statistics.median(values) for who, values in times.items()}
        for who, rate in rates.items():
            ratio = statistics.median(other / own for other, own in zip(times[who], times[OURS], strict=True))
            rows.append([name, who, f"{rate:.3g}", f"{ratio:.2f} x"])
            if name == FREE and who != OURS:
                bars.at_least(f"beside {who}, {name}", ratio, RATIO, "x")
        if name == FREE:
            bars.at_least(f"particle-steps a core-second, {name}", rates[OURS], LEAST, "")
        print(f"{name}: {scene.substeps} substeps in {scene.seconds} s, disc of {scene.disc} um, {share:.0%} of environments by substeps")
    table(["scene", "", "particle-steps a core-second", "time beside ours"], rows)
    return bars.show(check=not args.no_check)


if __name__ == "__main__":
    sys.exit(main())
