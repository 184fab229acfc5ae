"""What Ray costs: the tiles of a kernel by actors of Ray, by ranks and by processes, beside Ray's own tasks, dask and loky.

A CNN on Fashion-MNIST, its full kernel in single precision, in tiles of the default size, by two workers of one thread each. Every run is
a whole command in a store of its own, and computes the same tiles by the same function. A worker has one call at a time, so that what a
call takes beyond the function is seen; in use our pools have two, which hides it. loky replaces a worker that has grown by 300 MB, and with
it the engine that this has. `make bench-ray` installs dask in build/bench.
"""

import os

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

import json
import shutil
import statistics
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import HERE, PEERS, REPOSITORY, Bars, heading, interleave, parser, scratch, short, spread, table
from benchmarks.ray_calls import WORKERS
from benchmarks.sharded_run import task_of
from benchmarks.tree_cpu import run_tree
from workers import files
from workers.context import Context
from workers.data.fashion_mnist import FashionMnist
from workers.execute import execute
from workers.models.cnn import Cnn
from workers.sharded.ranks import publish_order
from workers.workloads.tiled_gram import ENGINE_GIB, TiledGram
from workers.workloads.train import Train

OURS = HERE / "ray_ours.py"
VENV = REPOSITORY / "build" / "bench" / "ray-venv" / "bin" / "python"
RANKS, ACTORS = "ranks", "actors of Ray"
MOST_PERCENT = 3.0


@dataclass(frozen=True, slots=True)
class Ran:
    """A whole command, the part of it after its workers were there, and the seconds of its calls as seen and from within."""

    seconds: float
    cpu_seconds: float
    work_seconds: float
    work_cpu_seconds: float
    seen: list[tuple[float, float]]

    def __str__(self) -> str:
        return f"{short(self.seconds)} s, {short(self.cpu_seconds)} s of processor"

    @property
    def percent(self) -> float:
        """Of the time in the function, what calls took beyond it."""
        return 100 * sum(seen - inside for seen, inside in self.seen) / sum(inside for _, inside in self.seen)

    @property
    def beyond(self) -> float:
        """Seconds of a call beyond the function, the median."""
        return statistics.median(seen - inside for seen, inside in self.seen)


def contenders() -> dict[str, list[str | Path]]:
    """Who makes tiles, and by which command."""
    own: dict[str, list[str | Path]] = {
        RANKS: [sys.executable, OURS, "ranks"],
        "pool of processes": [sys.executable, OURS, "processes"],
        ACTORS: [sys.executable, OURS, "actors"],
        "Ray's tasks, an engine each": [sys.executable, PEERS / "ray_tasks.py"],
        "joblib's loky": [VENV, PEERS / "ray_loky.py"],
        "dask.distributed": [VENV, PEERS / "ray_dask.py"],
    }
    return {name: command for name, command in own.items() if Path(command[0]).exists()}


@dataclass(frozen=True, slots=True)
class Bench:
    """The kernel, and a store with its trained network alone."""

    trained: Path
    gram: TiledGram
    num_calls: int

    def tiles(self, command: list[str | Path]) -> Ran:
        """All tiles, in a copy of the store."""
        root = self.trained.with_name(f"store-{time.monotonic_ns()}")
        shutil.copytree(self.trained, root)
        try:
            context = Context(root=root, task=task_of(self.gram, WORKERS), attempt="first")
            panels = self.gram.panels()
            pairs = list(panels.pairs())
            order = {
                "order": str(publish_order(context, {"memory_gib": ENGINE_GIB})),
                "pairs": pairs,
                "shares": panels.shares(WORKERS, pairs),
            }
            found = self._run(command, {**order, "calls": 0})
            there = sum(name.endswith(".npy.part.json") for name in files.names(context.folder))
            assert there == len(pairs), f"{there} of {len(pairs)} tiles"
        finally:
            shutil.rmtree(root)
        return found

    def calls(self, command: list[str | Path]) -> float:
        """Milliseconds of a call of nothing, one after another; the median."""
        order = {"order": "", "pairs": [], "shares": [], "calls": self.num_calls}
        return 1000 * statistics.median(seen for seen, _ in self._run(command, order).seen)

    def _run(self, command: list[str | Path], order: dict[str, Any]) -> Ran:
        tree = run_tree([*command, json.dumps(order)], PYTHONPATH=str(REPOSITORY))
        told = json.loads(next(line for line in reversed(tree.output.splitlines()) if line.startswith('{"ready"')))
        work = tree.cpu_seconds_at(told["done"]) - tree.cpu_seconds_at(told["ready"])
        return Ran(
            tree.seconds, tree.cpu_seconds, told["done"] - told["ready"], work, [(seen, inside or 0.0) for seen, inside in told["seen"]]
        )


def middle(runs: list[Ran]) -> Ran:
    """That with the median processor time."""
    return sorted(runs, key=lambda ran: ran.cpu_seconds)[len(runs) // 2]


def row(name: str, runs: list[Ran], calls: list[float]) -> list[str]:
    """Of the table."""
    beyond = [short(1000 * middle(runs).beyond) + " ms", f"{middle(runs).percent:.2f} %"] if runs[0].seen else ["", ""]
    whole = [spread([ran.seconds for ran in runs]), spread([ran.cpu_seconds for ran in runs])]
    return [
        name,
        *whole,
        f"{short(middle(runs).work_seconds)} s",
        f"{short(middle(runs).work_cpu_seconds)} s",
        *beyond,
        f"{short(statistics.median(calls))} ms" if calls else "",
    ]


def main() -> int:
    """Measure and show; 1 where a bar is missed."""
    made = parser(__doc__.splitlines()[0], 3)
    made.add_argument("--images", type=int, default=1024, help="of the probe set; ten rows each")
    made.add_argument("--width", type=int, default=16, help="filters of the CNN")
    made.add_argument("--calls", type=int, default=300, help="calls of nothing")
    asked = made.parse_args()
    heading(__doc__.splitlines()[0], asked.folder, ["torch", "ray", "joblib"])
    train = Train(data=FashionMnist(), model=Cnn(width=asked.width, depth=2, input_pooling=2), num_steps=50, train_size=2000)
    commands = contenders()
    with scratch(asked.folder) as folder:
        trained = folder / "trained"
        trained.mkdir()
        execute(trained, task_of(train, 1), attempt="first", code="benchmark", reraise=True)
        bench = Bench(trained, TiledGram(train=train, probe_size=asked.images), asked.calls)
        found = interleave({name: partial(bench.tiles, command) for name, command in commands.items()}, asked.repetitions)
        calls = interleave({name: partial(bench.calls, command) for name, command in commands.items() if name != RANKS}, 1)
    panels = bench.gram.panels()
    columns = ["whole command", "processor", "its tiles", "processor", "call beyond the tile", "of the tile", "call of nothing"]
    table(
        [f"{len(list(panels.pairs()))} tiles of {panels.panel_rows:,} rows", *columns],
        [row(name, runs, calls.get(name, [])) for name, runs in found.items()],
    )
    bars, ours = Bars(), found[ACTORS]
    bars.below(
        "what a call of an actor takes beyond its tile, all tiles of a run together",
        statistics.median(ran.percent for ran in ours),
        MOST_PERCENT,
        "%",
    )
    return bars.show(check=not asked.no_check)


if __name__ == "__main__":
    sys.exit(main())
