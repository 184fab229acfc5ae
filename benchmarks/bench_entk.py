"""Kernels of three networks: `workers.entk` beside neural-tangents, torch.func, nngeometry and BackPACK, in time, memory and accuracy.

Every contender is a process of its own with one thread on one core. Times are processor seconds of a call after a first one that is not
counted, compilation neither; memory is the largest resident size during a call above what was resident before.
`make bench-entk` installs the peers in build/bench.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.entk_process import CALL_LIMIT_SECONDS, MEMORY_LIMIT_GIB, Failed, Worker
from benchmarks.measure import HERE, PEERS, REPOSITORY, Bars, heading, parser, say, scratch, short, spread, table

OURS = "eigensweep"
VENVS = REPOSITORY / "build" / "bench"
# a call slower than this is repeated less often
PATIENCE_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Contender:
    """Who computes a kernel, in which Python."""

    name: str
    script: Path
    python: Path
    settings: dict[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = ("full", "traced", "loss", "tokens")

    def command(self) -> list[str]:
        """What starts it."""
        return [str(self.python), str(self.script)]


@dataclass(frozen=True, slots=True)
class Case:
    """A kernel: of which network, of what, on how many samples."""

    network: str
    outputs: str
    num_samples: int

    def __str__(self) -> str:
        return f"{self.network} {self.outputs} N={self.num_samples:,}"

    @property
    def memory_gib(self) -> float:
        """What eigensweep is told to hold at most beside the kernel: less than half of what the fastest peer took, but for the loss kernel.

        There a second group of layers costs another forward pass, which is half of the time.
        """
        grows = {"mlp": 0.1, "cnn": min(0.6, 0.2 * self.num_samples / 128), "llama": 0.55 * self.num_samples / 128}
        return 1.5 if self.outputs == "tokens" else grows[self.network]


@dataclass
class Measured:
    """What is known of a contender on a case; `failed` says why nothing is."""

    first: float = 0.0  # processor seconds of the call that is not counted
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    peak_mib: float | None = None
    differs: float | None = None
    gflops_peak: float | None = None
    flops: float | None = None
    failed: str = ""

    @property
    def seconds(self) -> float:
        """Median processor seconds."""
        return statistics.median(self.cpu)


def contenders() -> list[Contender]:
    """Ours first."""
    peers, jax = VENVS / "peers-venv" / "bin" / "python", VENVS / "nt-venv" / "bin" / "python"
    func = PEERS / "entk_torch_func.py"
    return [
        Contender(name=OURS, script=HERE / "entk_ours.py", python=Path(sys.executable)),
        *(
            Contender(name=f"neural-tangents {i}", script=PEERS / "entk_neural_tangents.py", python=jax, settings={"implementation": i})
            for i in (3, 1, 2)
        ),
        Contender(name="torch.func", script=func, python=peers),
        Contender(name="torch.func, an output at a time", script=func, python=peers, settings={"one_by_one": True}, outputs=("traced",)),
        Contender(name="nngeometry", script=PEERS / "entk_nngeometry.py", python=peers),
        Contender(name="BackPACK", script=PEERS / "entk_backpack.py", python=peers),
    ]


def cases(*, quick: bool) -> list[Case]:
    """Those of the bars."""
    sizes = {
        ("mlp", "full"): (256, 512),
        ("mlp", "traced"): (1024, 2048),
        ("cnn", "full"): (128, 256, 512),
        ("cnn", "traced"): (128, 256, 512),
        ("llama", "loss"): (128, 256, 512),
        ("llama", "tokens"): (16,),
    }
    return [Case(*what, size) for what, numbers in sizes.items() for size in (numbers[:1] if quick else numbers)]


@dataclass
class Bench:
    """The files of a run and what has been measured."""

    folder: Path
    repetitions: int
    memory_gib: float | None
    core: int
    found: dict[Case, dict[str, Measured]] = field(default_factory=dict)

    def files(self, case: Case, dtype: str = "float32") -> dict[str, Any]:
        """What a worker is told; weights and inputs are written once."""
        from benchmarks.entk_models import export, inputs

        weights = self.folder / f"{case.network}.npz"
        samples = self.folder / f"{case.network}-{case.num_samples}.npy"
        if not weights.exists():
            export(case.network, self.folder)
        if not samples.exists():
            np.save(samples, inputs(case.network, case.num_samples))
        told = {"network": case.network, "outputs": case.outputs, "weights": str(weights), "inputs": str(samples)}
        return told | {"core": self.core, "memory_gib": self.memory_gib or case.memory_gib, "dtype": dtype}

    def start(self, who: Contender, case: Case, dtype: str = "float32") -> Worker:
        """A worker that is ready; Failed where it is not."""
        worker = Worker(who.command(), self.folder / f"{who.name}.log".replace(" ", "-"))
        worker.start(self.files(case, dtype) | who.settings)
        return worker

    def measure(self, case: Case, who: list[Contender]) -> None:
        """All contenders on a case, interleaved."""
        given_up = self._given_up(case)
        found = self.found[case] = {one.name: Measured(failed=given_up.get(one.name, "")) for one in who}
        workers: dict[str, Worker] = {}
        try:
            for one in who:
                if not found[one.name].failed:
                    self._try(found, workers, one.name, partial(self._warm, case, one, workers, found))
            for repetition in range(self.repetitions):
                for name in [name for name in workers if repetition < self._often(found, name)]:
                    self._try(found, workers, name, partial(note_time, found[name], workers[name]))
            for name in list(workers):
                self._try(found, workers, name, partial(self._last, found[name], workers[name]))
            self._compare(found)
        finally:
            for worker in workers.values():
                worker.end()

    def _often(self, found: dict[str, Measured], name: str) -> int:
        """How often to repeat: once where the first call took over ten times as long as the fastest one's, else for a minute at most."""
        fastest = min(one.first for one in found.values() if not one.failed)
        if found[name].first > 10 * max(fastest, 0.05):
            return 1
        return max(1, min(self.repetitions, int(PATIENCE_SECONDS / found[name].first)))

    def _given_up(self, case: Case) -> dict[str, str]:
        """Who has failed on fewer samples."""
        earlier = [other for other in self.found if (other.network, other.outputs) == (case.network, case.outputs)]
        return {name: m.failed for other in earlier for name, m in self.found[other].items() if m.failed}

    def _try(self, found: dict[str, Measured], workers: dict[str, Worker], name: str, step: Callable[[], None]) -> None:
        try:
            step()
        except Failed as error:
            found[name].failed = str(error)
            say(f"  {name}: {error}")
            if name in workers:
                workers.pop(name).end()

    def _warm(self, case: Case, who: Contender, workers: dict[str, Worker], found: dict[str, Measured]) -> None:
        workers[who.name] = worker = self.start(who, case)
        found[who.name].first = worker.ask({"do": "time"})["cpu"]
        say(f"  {who.name}: first call {short(found[who.name].first)} s")

    def _last(self, found: Measured, worker: Worker) -> None:
        found.peak_mib = worker.ask({"do": "memory"})["peak_mib"]
        worker.ask({"do": "save", "file": str(self.folder / f"kernel-{id(found)}.npy")})
        if worker.command[1].endswith("entk_ours.py"):
            found.gflops_peak, found.flops = worker.ask({"do": "gemm"})["gflops"], worker.ask({"do": "flops"})["flops"]

    def _compare(self, found: dict[str, Measured]) -> None:
        """Relative Frobenius distance of each kernel to the first."""
        first: np.ndarray | None = None
        for measured in found.values():
            file = self.folder / f"kernel-{id(measured)}.npy"
            if file.exists():
                kernel = np.load(file)
                first = kernel if first is None else first
                measured.differs = relative(kernel, first)
                file.unlink()


def note_time(measured: Measured, worker: Worker) -> None:
    """One repetition."""
    answer = worker.ask({"do": "time"})
    measured.cpu.append(answer["cpu"])
    measured.wall.append(answer["wall"])


def relative(kernel: np.ndarray, reference: np.ndarray) -> float:
    """||kernel - reference|| / ||reference||, Frobenius, in float64."""
    difference = sum(float(np.square(row - other, dtype=np.float64).sum()) for row, other in zip(kernel, reference, strict=True))
    return float(np.sqrt(difference / sum(float(np.square(row, dtype=np.float64).sum()) for row in reference)))


# -- accuracy -----------------------------------------------------------------------------------------------------------

SMALL = [
    Case("mlp", "full", 32),
    Case("mlp", "traced", 32),
    Case("cnn", "full", 16),
    Case("cnn", "traced", 16),
    Case("llama", "loss", 16),
    Case("llama", "tokens", 4),
]


def accuracy(bench: Bench, who: list[Contender], networks: set[str], bars: Bars) -> dict[str, dict[str, float | str]]:
    """Relative Frobenius distance of each kernel to that of the float64 Jacobian of the same weights; a table with a row for each case."""
    (func,) = (one for one in contenders() if one.name == "torch.func")
    found: dict[str, dict[str, float | str]] = {}
    for case in SMALL:
        if case.network not in networks:
            continue
        say(f"accuracy, {case}")
        reference = kernel_of(bench, func, case, "float64")
        errors = found[str(case)] = {}
        for one in who:
            for dtype in ("float64", "float32") if one.name == OURS else ("float32",):
                label = f"{one.name}, {dtype}"
                try:
                    errors[label] = relative(kernel_of(bench, one, case, dtype), reference)
                except Failed as error:
                    errors[label] = str(error)
        for dtype, bar in (("float64", 1e-14), ("float32", 5e-7)):
            error = errors.get(f"{OURS}, {dtype}")
            if isinstance(error, float):
                bars.at_most(f"{case}: error in {dtype}", error / bar, 1, f"of {bar:g}")
    return found


def kernel_of(bench: Bench, who: Contender, case: Case, dtype: str) -> np.ndarray:
    """One kernel."""
    if case.outputs not in who.outputs:
        raise Failed("")
    worker, file = bench.start(who, case, dtype), bench.folder / "accuracy.npy"
    try:
        worker.ask({"do": "save", "file": str(file)})
        return np.load(file)
    finally:
        worker.end()


# -- showing ------------------------------------------------------------------------------------------------------------

# network and outputs -> how many times faster than the fastest peer, how much of its memory
BARS = {
    ("mlp", "full"): (2.5, 0.6),
    ("mlp", "traced"): (2.5, 0.6),
    ("cnn", "full"): (1.5, 0.5),
    ("cnn", "traced"): (1.8, 0.5),
    ("llama", "loss"): (2.0, 0.5),
    ("llama", "tokens"): (2.0, 0.5),
}
SHARE_OF_PEAK = 0.6


def show(case: Case, found: dict[str, Measured]) -> None:
    """The table of a case, fastest first."""
    ours = found.get(OURS)
    rows = []
    for name, one in sorted(found.items(), key=lambda item: (bool(item[1].failed), item[1].cpu and item[1].seconds)):
        if one.failed or one.peak_mib is None:
            rows.append([name, one.failed, "", "", "", "", ""])
            continue
        slower = f"{short(one.seconds / ours.seconds)} x" if ours and ours.cpu else ""
        larger = f"{short(one.peak_mib / ours.peak_mib)} x" if ours and ours.peak_mib else ""
        differs = "" if one.differs is None else f"{one.differs:.1e}"
        rows.append([name, spread(one.cpu), slower, f"{len(one.cpu)}", f"{short(one.peak_mib)} MiB", larger, differs])
    table([str(case), "a call", "of ours", "calls", "peak memory", "of ours", "differs"], rows)


def judge(case: Case, found: dict[str, Measured], bars: Bars) -> None:
    """Ours against the fastest peer, in time and in that peer's memory."""
    ours = found.get(OURS)
    peers = {name: one for name, one in found.items() if name != OURS and one.cpu and one.peak_mib}
    if ours is None or not ours.cpu or not ours.peak_mib or not peers:
        return
    name = min(peers, key=lambda name: peers[name].seconds)
    faster, memory = BARS[case.network, case.outputs]
    bars.at_least(f"{case}: time of {name} over ours", peers[name].seconds / ours.seconds, faster, "x")
    bars.at_most(f"{case}: our memory over that of {name}", ours.peak_mib / peers[name].peak_mib, memory, "x")
    if ours.flops and ours.gflops_peak:
        share = ours.flops / ours.seconds / 1e9 / ours.gflops_peak
        bars.at_least(f"{case}: share of torch.mm's {ours.gflops_peak:.0f} GFLOP/s", share, SHARE_OF_PEAK, "")


def show_accuracy(found: dict[str, dict[str, float | str]]) -> None:
    """A row for each contender, a column for each case."""
    labels = list(dict.fromkeys(label for errors in found.values() for label in errors))
    cell = lambda value: f"{value:.1e}" if isinstance(value, float) else value  # noqa: E731
    table(["distance to the float64 Jacobian", *found], [[label, *(cell(e.get(label, "")) for e in found.values())] for label in labels])


def as_json(bench: Bench, errors: dict[str, dict[str, float | str]]) -> dict[str, Any]:
    """Every figure of the run."""
    measured = {str(case): {name: vars(one) for name, one in found.items()} for case, found in bench.found.items()}
    return {"cases": measured, "accuracy": errors}


# -- the command --------------------------------------------------------------------------------------------------------


def chosen(asked: argparse.Namespace) -> list[Contender]:
    """The contenders asked for, whose Pythons are there."""
    known = contenders()
    wanted = [one for one in known if not asked.contenders or any(one.name.startswith(word) for word in asked.contenders.split(","))]
    for one in wanted:
        if not one.python.exists():
            raise SystemExit(f"error: no Python at {one.python} for {one.name}; `make bench-entk` installs the peers")
    if not wanted:
        raise SystemExit(f"error: no contender begins with {asked.contenders!r}; there are {', '.join(one.name for one in known)}")
    return wanted


def options() -> argparse.ArgumentParser:
    """Of the command line."""
    made = parser(__doc__ or "", repetitions=5)
    made.add_argument("--cases", default="mlp,cnn,llama", metavar="NAMES", help="networks, comma-separated")
    made.add_argument("--contenders", default="", metavar="NAMES", help="only those whose names begin so, comma-separated; all by default")
    made.add_argument("--quick", action="store_true", help="the smallest size of each case, two repetitions")
    made.add_argument("--memory-gib", type=float, help="what eigensweep may use; by default by the case")
    made.add_argument("--json", type=Path, metavar="FILE", help="every figure, also those of a run that is cut off")
    made.add_argument("--no-accuracy", action="store_true", help="leave the comparison with the float64 Jacobian out")
    return made


def main() -> int:
    """Measure and show; 1 where a bar is missed."""
    asked = options().parse_args()
    networks = set(asked.cases.split(","))
    if not networks <= {"mlp", "cnn", "llama"}:
        raise SystemExit(f"error: --cases takes mlp, cnn and llama, got {asked.cases!r}")
    who = chosen(asked)
    heading("Empirical kernels", asked.folder, ["torch", "numpy"])
    print(f"Limits of a contender: {MEMORY_LIMIT_GIB} GiB, {CALL_LIMIT_SECONDS} s a call.\n", flush=True)
    bars = Bars()
    with scratch(asked.folder) as folder:
        bench = Bench(folder, 2 if asked.quick else asked.repetitions, asked.memory_gib, core=max(os.sched_getaffinity(0)))
        errors = {} if asked.no_accuracy else accuracy(bench, who, networks, bars)
        if errors:
            show_accuracy(errors)
        for case in cases(quick=asked.quick):
            if case.network not in networks:
                continue
            say(str(case))
            bench.measure(case, [one for one in who if case.outputs in one.outputs])
            show(case, bench.found[case])
            judge(case, bench.found[case], bars)
            if asked.json:
                asked.json.write_text(json.dumps(as_json(bench, errors), indent=1))
    return bars.show(check=not asked.no_check)


if __name__ == "__main__":
    sys.exit(main())
