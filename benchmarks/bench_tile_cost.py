"""The cost model of kernels in tiles beside what 1, 2 and 4 nodes have used: processor seconds, bytes on disk and network, memory.

The nodes are those of a SLURM cluster that this starts and takes down. They share the processors of this machine, so that hours of clock
mean nothing, and processor seconds, bytes and memory are compared. `--constants` measures the speeds behind the model, on one core.
"""

import os

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import tile_cost_runs as runs
from benchmarks.measure import Bars, heading, parser, say, scratch, short, table
from benchmarks.tile_cost_paper import draw, on_paper
from benchmarks.tile_cost_runs import NUM_VECTORS, Case, Measured
from workers.sharded import cost
from workers.sharded.cost import Part

GIB = 2**30
MPI_PARTS = ("MPI ranks", "band", "chase", "eigenvalues of the tridiagonal matrix", "dense")
# predicted over measured
SPEEDS, BYTES, MEMORY = (0.5, 2.0), (0.95, 1.05), (0.5, 2.0)
CASES = (
    *(Case("cnn", 512, nodes, part) for part in ("tiles", "lanczos") for nodes in (1, 2, 4)),
    *(Case("mlp", 1024, nodes, part) for part in ("tiles", "lanczos") for nodes in (1, 2, 4)),
    *(Case("cnn", 512, nodes, "scalapack") for nodes in (1, 2, 4)),
    Case("mlp", 1024, 2, "scalapack"),
    *(Case("cnn", 512, nodes, "scalapack", vectors=512) for nodes in (2, 4)),
    Case("cnn", 512, 1, "whole"),
)


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a case: as the model has it, and as it was measured."""

    case: str
    what: str
    predicted: float
    measured: float
    unit: str
    range: tuple[float, float]

    @property
    def ratio(self) -> float:
        """Predicted over measured."""
        return self.predicted / self.measured


def figures(found: Measured) -> Iterator[Figure]:
    """What is compared of a case."""
    case, resources = found.case, runs.resources(found.case)
    name, workload, estimate = str(case), case.workload(), case.workload().estimate(resources)
    parts = {part.name: part for part in _parts(case, found.products)}
    # ranks that make a kernel tridiagonal wait for each other at every column, and MPI keeps a core busy while it waits
    if not (case.part == "scalapack" and case.vectors > NUM_VECTORS and case.nodes > len(os.sched_getaffinity(0))):
        for what, predicted, measured in _core_seconds(found, parts):
            yield Figure(name, what, predicted, measured, "s of a core", SPEEDS)
        total = sum(part.core_seconds(case.nodes) for part in parts.values())
        yield Figure(name, "in all", total, found.cpu_seconds(), "s of a core", SPEEDS)
    if case.part == "lanczos":
        usual = cost.lanczos_vectors(case.vectors, workload.num_probes)
        yield Figure(name, "products with a vector", usual, found.products, "", SPEEDS)
    yield Figure(name, "bytes on disk", estimate.disk_bytes / 1e6, found.disk_bytes / 1e6, "MB", BYTES)
    sent = sum(part.sent_bytes for part in parts.values())
    if sent:
        yield Figure(name, "bytes between nodes", sent / 1e6, found.sent_bytes / 1e6, "MB", BYTES)
    yield Figure(name, "memory of the first node", estimate.memory_gib, found.node_bytes("n1") / GIB, "GiB", MEMORY)


def _parts(case: Case, products: int) -> tuple[Part, ...]:
    """Of the model, for as many products as were taken: how many there are is a figure of its own."""
    resources, gram = runs.resources(case), case.gram()
    if case.part == "tiles":
        return gram.parts(resources)
    return cost.eigenvalues_parts(case.part, case.workload().question(), gram.panels(), gram.dtype, resources, products or None)


def _core_seconds(found: Measured, parts: dict[str, Part]) -> Iterator[tuple[str, float, float]]:
    """Name, predicted and measured of what can be told apart."""
    nodes = found.case.nodes
    if found.case.part == "tiles":
        yield "products and passes", parts["products and passes"].core_seconds(nodes), found.tile_seconds
        rest = sum(part.core_seconds(nodes) for name, part in parts.items() if name != "products and passes")
        yield "starts, hashes, exact rows", rest, found.cpu_seconds() - found.tile_seconds
    ranks = found.of(runs.ENGINE)
    if ranks and found.case.part == "lanczos":  # after ScaLAPACK these are tenths of a second, less than starts differ by
        others = sum(rank.cpu_seconds for rank in ranks[1:]) / (nodes - 1)
        products = parts["products with vectors"].core_seconds(nodes)
        yield "products with vectors", products, nodes * (others - cost.CORE.start)
        alone = parts["basis"].core_seconds(nodes) + parts["probes"].core_seconds(nodes)
        yield "basis and probes", alone, ranks[0].cpu_seconds - others
    if found.case.part == "scalapack":
        own = [part.core_seconds(nodes) for name, part in parts.items() if name in MPI_PARTS]
        yield "ScaLAPACK", sum(own), found.cpu_seconds(runs.MPI)


def measure(asked: argparse.Namespace) -> list[Measured]:
    """All cases, each once."""
    found = []
    with runs.cluster() as nodes, scratch(nodes.state / "shared") as folder:
        root = folder / "store"
        root.mkdir()
        for case in asked.cases:
            runs.prepare(root, case)
            found.append(runs.run(nodes, root, case))
            say(f"{case}: {short(found[-1].cpu_seconds())} s of processor, {found[-1].sent_bytes / 1e6:.1f} MB sent")
    return found


def compare(found: list[Measured], bars: Bars) -> list[Figure]:
    """Print predicted beside measured, case by case."""
    every = [figure for one in found for figure in figures(one)]
    rows = [
        [one.case, one.what, f"{short(one.predicted)} {one.unit}", f"{short(one.measured)} {one.unit}", f"{one.ratio:.2f}"] for one in every
    ]
    table(["case", "what", "predicted", "measured", "predicted / measured"], rows)
    for what, (low, high) in {one.what: one.range for one in every}.items():
        ratios = [one.ratio for one in every if one.what == what]
        bars.at_least(f"{what}: least of predicted / measured, {len(ratios)} cases", min(ratios), low, "x")
        bars.at_most(f"{what}: most of predicted / measured, {len(ratios)} cases", max(ratios), high, "x")
    return every


def main() -> int:
    """Measure and show; 1 where a bar is missed."""
    made = parser(__doc__ or "", repetitions=1)
    made.add_argument("--constants", action="store_true", help="measure the speeds of one core alone")
    made.add_argument("--paper", action="store_true", help="only print what the model says for GPUs")
    made.add_argument("--only", default="", metavar="TEXT", help="cases whose name has it")
    made.add_argument("--save", type=Path, help="keep what was measured in this file")
    made.add_argument("--load", type=Path, help="compare what an earlier run has kept")
    made.add_argument("--figure", type=Path, help="draw it, with hours against rows for GPUs")
    asked = made.parse_args()
    asked.cases = [case for case in CASES if asked.only in str(case)]
    heading("The cost of kernels in tiles", asked.folder, ["torch", "numpy"])
    if asked.constants:
        from benchmarks.tile_cost_constants import measured_speed

        measured_speed(asked.folder)
        return 0
    if asked.paper:
        on_paper()
        return 0
    check = subprocess.run([runs.CLUSTER, "check"], capture_output=True, text=True)
    if not asked.load and check.returncode:
        say(f"not measured, no SLURM cluster here: {check.stderr.strip()}")
        return 0
    found = [Measured.from_plain(one) for one in json.loads(asked.load.read_text())] if asked.load else measure(asked)
    if asked.save:
        asked.save.write_text(json.dumps([one.to_plain() for one in found]))
    bars = Bars()
    every = compare(found, bars)
    if asked.figure:
        draw(every, asked.figure)
    return bars.show(check=not asked.no_check)


if __name__ == "__main__":
    sys.exit(main())
