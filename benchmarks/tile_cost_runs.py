"""Kernels in tiles and their eigenvalues on nodes of a SLURM cluster on this machine, and what each of their processes has used."""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import HERE, REPOSITORY, CommandFailed
from benchmarks.measure import run as measured
from workers import taskdir
from workers.data.fashion_mnist import FashionMnist
from workers.execute import execute
from workers.models.cnn import Cnn
from workers.models.mlp import Mlp
from workers.sharded.tiles import INDEX, TileSet
from workers.taskdir import Commit, Task
from workers.workload import Model, Resources, Workload
from workers.workloads.tiled_gram import TiledGram
from workers.workloads.tiled_spectrum import TiledSpectrum
from workers.workloads.train import Train

CLUSTER = REPOSITORY / "slurm" / "dev" / "cluster"
NUM_NODES = 4
MODELS: Mapping[str, Model] = {"cnn": Cnn(width=16, depth=2, input_pooling=2), "mlp": Mlp(width=256, depth=2)}
NUM_VECTORS = 100
TASK, RANK, ENGINE, MPI = "benchmarks.tile_cost_task", "workers.sharded.making", "workers.sharded.answers", "workers.sharded.scalapack_rank"
MOST_SECONDS = 1800


@dataclass(frozen=True, slots=True)
class Case:
    """`part`: "tiles", or the engine of the eigenvalues, with `few` eigenvectors from Lanczos or many from the engine itself."""

    model: str
    images: int
    nodes: int
    part: str
    vectors: int = NUM_VECTORS

    def __str__(self) -> str:
        many = f", {self.vectors:,} vectors" if self.vectors != NUM_VECTORS else ""
        return f"{self.model}, {10 * self.images:,} rows, {self.nodes} node{'s' if self.nodes > 1 else ''}: {self.part}{many}"

    def gram(self) -> TiledGram:
        """Tiles of a quarter of the rows."""
        train = Train(data=FashionMnist(), model=MODELS[self.model], num_steps=50, train_size=2000)
        return TiledGram(train=train, probe_size=self.images, panel_rows=10 * self.images // 4)

    def workload(self) -> TiledGram | TiledSpectrum:
        """What is run."""
        if self.part == "tiles":
            return self.gram()
        count = self.vectors if self.part == "lanczos" else None
        return TiledSpectrum(gram=self.gram(), num_eigenvalues=count, num_eigenvectors=self.vectors, engine=self.part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """What one process has used."""

    module: str
    node: str
    rank: int
    cpu_seconds: float
    peak_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a task has used. `sent_bytes`: over the network, all nodes; `tile_seconds`: of a core, for all tiles; `products`: with one
    vector."""

    case: Case
    processes: tuple[Process, ...]
    sent_bytes: int
    disk_bytes: int
    tile_seconds: float
    products: int

    def of(self, module: str) -> list[Process]:
        """Its processes that ran a module, by rank."""
        return sorted((one for one in self.processes if one.module == module), key=lambda one: one.rank)

    def cpu_seconds(self, *modules: str) -> float:
        """Of all processes that ran some modules; of all where none is named."""
        return sum(one.cpu_seconds for one in self.processes if not modules or one.module in modules)

    def node_bytes(self, node: str) -> int:
        """Of the task's process and its ranks on a node, each at its peak; MPI's ranks are gone when the others begin."""
        peaks = {module: sum(one.peak_bytes for one in self.of(module) if one.node == node) for module in (TASK, RANK, ENGINE, MPI)}
        return peaks[TASK] + max(peaks[RANK], peaks[ENGINE], peaks[MPI])

    def to_plain(self) -> dict[str, Any]:
        """For `from_plain`, through JSON."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Measured":
        """As it was."""
        given = {**plain, "case": Case(**plain["case"]), "processes": tuple(Process(**one) for one in plain["processes"])}
        return cls(**given)


# -- the cluster ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Nodes:
    """A cluster that is up."""

    name: str

    @property
    def state(self) -> Path:
        """Its files."""
        return Path(f"/var/tmp/eigensweep-cluster-{self.name}")

    def sent_bytes(self) -> int:
        """By all nodes since they are up, over their network devices, headers too."""
        return sum(self._sent(f"n{index}") for index in range(1, NUM_NODES + 1))

    def _sent(self, node: str) -> int:
        printed = subprocess.run([CLUSTER, "--name", self.name, "on", node, "cat", "/proc/net/dev"], capture_output=True, text=True).stdout
        (found,) = re.findall(r"eth0:(.*)", printed)
        return int(found.split()[8])

    def job(self, command: list[str | Path], nodes: int, memory_gib: float, folder: Path) -> None:
        """Run a command on the first of so many nodes, with so much memory on each; CommandFailed with its output where that fails."""
        ended = folder / "ended"
        words = " ".join(shlex.quote(str(word)) for word in command)
        script = f"#!/bin/sh\ncd {REPOSITORY}\n{words}\necho $? > {ended}.new\nmv {ended}.new {ended}\n"
        options = [f"--nodelist=n[1-{nodes}]", f"--nodes={nodes}", "--ntasks-per-node=1", f"--mem={1024 * memory_gib:.0f}M"]
        sbatch = [self.state / "bin" / "sbatch", "--parsable", *options, f"--output={folder}/log"]
        subprocess.run(sbatch, input=script, text=True, check=True, capture_output=True, cwd=folder)
        deadline = time.monotonic() + MOST_SECONDS
        while not ended.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        if not ended.exists() or ended.read_text().strip() != "0":
            raise CommandFailed(f"a job of {nodes} nodes failed: {words}\n{(folder / 'log').read_text()[-5000:]}")


@contextlib.contextmanager
def cluster(name: str = "cost") -> Iterator[Nodes]:
    """Four nodes, which go at the end."""
    measured([CLUSTER, "--name", name, "up", str(NUM_NODES), "--fresh", f"--owner={os.getpid()}"])
    try:
        yield Nodes(name)
    finally:
        measured([CLUSTER, "--name", name, "down", "--purge"])


# -- tasks ----------------------------------------------------------------------------------------------------------------


def task_of(workload: Workload, nodes: int = 1) -> Task:
    """A task under a key of its settings and number of nodes; its inputs are those that one node has made."""
    return Task(
        key=hashlib.sha256(f"{nodes} {workload!r}".encode()).hexdigest()[:26],
        workload=workload.plugin_name(),
        version=workload.version,
        settings=workload.to_plain(),
        inputs={field: task_of(value).key for field, value in workload.inputs().items()},
        resources=dataclasses.asdict(workload.adapted(Resources(nodes=nodes))),
    )


def resources(case: Case) -> Resources:
    """What its task has."""
    return Resources(**task_of(case.workload(), case.nodes).resources)


def prepare(root: Path, case: Case) -> None:
    """The network of a case, here, and its tiles where they are wanted."""
    needed: list[Workload] = [case.gram().train] + ([] if case.part == "tiles" else [case.gram()])
    for workload in needed:
        if not taskdir.is_committed(root, task_of(workload).commit_name):
            execute(root, task_of(workload), attempt="first", code="benchmark", reraise=True)


def run(nodes: Nodes, root: Path, case: Case) -> Measured:
    """One attempt at the task of a case, as a job of the cluster."""
    task = task_of(case.workload(), case.nodes)
    folder = root.parent / f"job-{time.monotonic_ns()}"
    used = folder / "used"
    used.mkdir(parents=True)
    (folder / "task.json").write_text(json.dumps(task.to_plain()))
    paths = f"{HERE / 'recorded'}:{REPOSITORY}"
    environment = [f"{name}=1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")]
    environment += [f"PYTHONPATH={paths}", f"EIGENSWEEP_USED={used}"]
    command = ["env", *environment, sys.executable, "-m", TASK, root, folder / "task.json", *(f"n{n}" for n in range(1, case.nodes + 1))]
    before = nodes.sent_bytes()
    nodes.job(command, case.nodes, resources(case).memory_gib, folder)
    sent = nodes.sent_bytes() - before
    commit = taskdir.read_commit(root, task.commit_name)
    log = (folder / "log").read_text()
    return Measured(
        case=case,
        processes=tuple(Process(**json.loads(path.read_text())) for path in sorted(used.iterdir())),
        sent_bytes=sent,
        disk_bytes=sum(path.stat().st_size for path in taskdir.task_dir(root, task.commit_name).rglob("*") if path.is_file()),
        tile_seconds=_tile_seconds(root, commit) if case.part == "tiles" else 0.0,
        products=int(found[1].replace(",", "")) if (found := re.search(r"took ([\d,]+) products", log)) else 0,
    )


def _tile_seconds(root: Path, commit: Commit) -> float:
    return sum(one.seconds for one in TileSet.load(taskdir.payload_path(root, commit, INDEX)).facts.values())
