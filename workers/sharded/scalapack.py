"""All eigenvalues of a kernel in tiles, and eigenvectors, by MPI ranks with ScaLAPACK; no rank holds the whole matrix."""

import contextlib
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from workers.errors import ConfigError, Diverged, Garbled, Interrupted, ProcessLost
from workers.sharded.pool_worker import versions
from workers.sharded.scalapack_library import CHOICE, INSTALL, MOST_ELEMENTS, shape_of
from workers.sharded.scalapack_rank import EIGENVALUES, EIGENVECTORS, Job, Report, no_memory

if TYPE_CHECKING:
    import numpy as np

# R rows of the kernel; K eigenvectors

# width of a band, and of blocks of a matrix whose eigenvectors are wanted: the fastest of 16, 32, 48, 64 and 128
BLOCK, VECTORS_BLOCK = 64, 32
# of p?stedc, for each column of the grid of ranks
FEWEST_BLOCKS = 4
POLL_SECONDS = 0.05
END_SECONDS = 5.0
JOB, LOG = "scalapack.json", "scalapack.log"
LOG_LINES = 15
ITEM_BYTES = {"float64": 8, "float32": 4}
# OpenBLAS ends its process with these words
NO_BUFFER = "Memory allocation still failed"
_FAULTS: Mapping[str, type[Exception]] = {"Diverged": Diverged, "Garbled": Garbled, "MemoryError": MemoryError, "ConfigError": ConfigError}
# Python, NumPy, MPI and the libraries, as measured with Debian 12's
RANK_BYTES = 46 * 2**20
_RANK = ("-P", "-m", "workers.sharded.scalapack_rank")
_START = ("-P", "-m", "workers.sharded.scalapack_start")


class Tiles(Protocol):
    """A symmetric kernel (R, R) in tiles, as `TileSet` has them."""

    @property
    def num_rows(self) -> int: ...
    @property
    def panel_rows(self) -> int: ...
    @property
    def dtype(self) -> str: ...
    def path(self, row: int, column: int) -> Path: ...


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Solved:
    """Eigenvalues (R) in float64, ascending; `vectors`: a `.npy` (R, K) in the kernel's precision, of the K largest, ascending, or None.

    `seconds`: of the slowest rank, from its start to the last file; `cpu_seconds`: of all ranks; `memory_bytes`: the largest peak.
    """

    eigenvalues_R: "np.ndarray"
    vectors: Path | None
    seconds: float
    cpu_seconds: float
    memory_bytes: int
    library: str


def available() -> str:
    """Why no solve can run here, with what to install; "" where one can."""
    return _obstacle(os.environ.get(CHOICE, ""), os.environ.get("PATH", ""))


@functools.cache
def _obstacle(choice: str, path: str) -> str:
    if shutil.which("mpirun", path=path) is None:
        return f"no mpirun on PATH; {INSTALL}"
    version = subprocess.run(["mpirun", "--version"], capture_output=True, text=True).stdout.partition("\n")[0]
    if "Open MPI" not in version and "OpenRTE" not in version:
        return f"the mpirun on PATH is not Open MPI's but {version!r}; {INSTALL}"
    check = subprocess.run([sys.executable, *_RANK, "--check"], capture_output=True, text=True, env={**os.environ, CHOICE: choice})
    return check.stderr.strip().rpartition("\n")[2] if check.returncode else ""


def memory_bytes_needed(num_rows: int, ranks: int, dtype: str, vectors: int | bool = False) -> int:
    """Resident memory of the largest rank of a solve, in bytes, within 20 %; with MKL, whose code is larger, some 10 MiB more."""
    item, count = ITEM_BYTES[dtype], _count(num_rows, vectors)
    rows, columns = (_most_owned(num_rows, positions) for positions in shape_of(ranks))
    kernel, panel = rows * columns * item, num_rows * BLOCK * item
    if _takes_whole(num_rows, count, ranks):
        return RANK_BYTES + 4 * kernel + panel  # the kernel, its eigenvectors, and work space for two more
    if not count:
        return RANK_BYTES + kernel + 10 * panel
    return RANK_BYTES + kernel + num_rows * count * 8 + rows * -(-count // shape_of(ranks)[1]) * item + panel


def _most_owned(num_rows: int, positions: int) -> int:
    """Rows of the rank that has most of them."""
    blocks = -(-num_rows // BLOCK)
    return min(num_rows, -(-blocks // positions) * BLOCK)


def _count(num_rows: int, vectors: int | bool) -> int:
    if vectors is True:
        return num_rows
    if not 0 <= vectors <= num_rows:
        raise ConfigError(f"a kernel of {num_rows} rows has 0 to {num_rows} eigenvectors, {vectors} were asked for")
    return int(vectors)


def _takes_whole(num_rows: int, count: int, ranks: int, block: int = VECTORS_BLOCK) -> bool:
    """Whether all eigenvectors are computed: each rank would hold too many of the tridiagonal matrix.

    Not for kernels of few blocks, on which p?stedc waits for ever or gives wrong vectors: 121 rows in blocks of 64 on 2 ranks or 6.
    """
    return count * ranks > num_rows >= FEWEST_BLOCKS * block * shape_of(ranks)[1]


def solve(
    tiles: Tiles,
    *,
    ranks: int,
    folder: Path,
    vectors: int | bool = False,
    block: int | None = None,
    nodes: Sequence[str] = (),
    stopping: Callable[[], bool] = lambda: False,
    rank_gib: float | None = None,
) -> Solved:
    """All eigenvalues of a kernel (R, R), and the eigenvectors of the `vectors` largest (True: all) as `eigenvectors.npy` in `folder`.

    `ranks` processes of one thread each, on `nodes` of this SLURM job, which all see `folder` and the tiles; else on this machine. For
    eigenvalues alone the kernel becomes a band of width `block` (see `scalapack_band`), for vectors too it becomes tridiagonal (p?sytrd),
    and LAPACK's vectors of that go back (p?ormtr); p?stedc computes all where more than R / ranks are asked for, of many blocks.
    EIGENSWEEP_SCALAPACK names another library, or the folder of MKL's. `rank_gib`: all that a rank may have; none: no limit.

    ConfigError where MPI or ScaLAPACK is absent, for sizes that cannot be, or where a node has another source or Python; Diverged for a
    kernel that is not finite, with its tile; Garbled for a file that is no tile; MemoryError where a rank needs more than it may have;
    Interrupted once `stopping` is true; ProcessLost with the end of the log where a rank dies.
    """
    count = _count(tiles.num_rows, vectors)
    block = (VECTORS_BLOCK if count else BLOCK) if block is None else block
    _check(tiles, ranks, block, nodes)
    if reason := available():
        raise ConfigError(f"no ScaLAPACK: {reason}")
    folder.mkdir(parents=True, exist_ok=True)
    _clear(folder)
    _job(tiles, ranks, folder.resolve(), count, block, rank_gib).save(folder / JOB)
    status = _run(_command(ranks, nodes, folder.resolve() / JOB), folder / LOG, _environment(nodes), stopping)
    solved = _collect(folder, ranks, status, count, tiles, rank_gib)
    _clear(folder, but=EIGENVECTORS)
    return solved


def _check(tiles: Tiles, ranks: int, block: int, nodes: Sequence[str]) -> None:
    if tiles.dtype not in ITEM_BYTES:
        raise ConfigError(f"ScaLAPACK solves kernels of {' or '.join(ITEM_BYTES)}, these tiles are {tiles.dtype}")
    if ranks < max(1, len(nodes)):
        raise ConfigError(f"ranks must be at least 1, and one a node, got {ranks} for {max(1, len(nodes))} nodes")
    if block < 1:
        raise ConfigError(f"block must be at least 1, got {block}")
    rows, columns = shape_of(ranks)
    if (largest := -(-tiles.num_rows // rows) * -(-tiles.num_rows // columns)) > MOST_ELEMENTS // 2:
        enough = 2 * tiles.num_rows**2 // MOST_ELEMENTS + 1
        raise ConfigError(
            f"{ranks} ranks would hold {largest:.2g} elements each, and ScaLAPACK counts up to {MOST_ELEMENTS // 2:.2g}; "
            f"take {enough} or more, the more square a product the better"
        )


def _job(tiles: Tiles, ranks: int, folder: Path, count: int, block: int, rank_gib: float | None) -> Job:
    panels = -(-tiles.num_rows // tiles.panel_rows)
    return Job(
        folder=str(folder),
        library=os.environ.get(CHOICE, ""),
        num_rows=tiles.num_rows,
        panel_rows=tiles.panel_rows,
        dtype=tiles.dtype,
        block=block,
        num_vectors=count,
        whole=_takes_whole(tiles.num_rows, count, ranks, block),
        tiles=[(i, j, str(tiles.path(i, j).resolve())) for i in range(panels) for j in range(i, panels)],
        rank_gib=rank_gib,
        versions=versions(),
    )


def _command(ranks: int, nodes: Sequence[str], job: Path) -> list[str]:
    """Across nodes mpirun starts its daemons by srun, beside the batch script; on one, it starts the ranks itself, over shared memory."""
    where = ["--mca", "pml", "ob1", "--mca", "btl", "self,vader"]
    if len(nodes) > 1:
        step = f"--overlap --overcommit --cpu-bind=none --cpus-per-task={os.environ.get('SLURM_CPUS_PER_TASK') or 1}"
        each = -(-ranks // len(nodes))
        where = ["--host", ",".join(f"{node}:{each}" for node in nodes), "--mca", "plm_slurm_args", step]
    # a rank that waits for another takes a core from no one: four times faster where the cores have other work too
    how = ["--oversubscribe", "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1"]
    # ranks of a node copy through shared memory: containers often forbid to read another process, which is no faster here
    how += ["--mca", "btl_vader_single_copy_mechanism", "none", *where]
    return ["mpirun", "-n", str(ranks), *how, sys.executable, *_RANK, str(job)]


def _environment(nodes: Sequence[str]) -> dict[str, str]:
    """One thread a rank; on one node, nothing of a SLURM job or of other ranks that mpirun would take for its own."""
    theirs = (
        ("PMIX_", "OMPI_COMM_", "OMPI_UNIVERSE_", "ORTE_")
        if len(nodes) > 1
        else ("PMIX_", "OMPI_COMM_", "OMPI_UNIVERSE_", "ORTE_", "SLURM_")
    )
    return {name: value for name, value in os.environ.items() if not name.startswith(theirs)} | {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    }


def _run(command: Sequence[str], log: Path, environment: Mapping[str, str], stopping: Callable[[], bool]) -> int:
    """Exit status of mpirun; it and its ranks die with this process."""
    start = [sys.executable, *_START, str(os.getpid()), *command]
    with log.open("wb") as output:
        process = subprocess.Popen(start, env=dict(environment), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    with _ended(process):
        while process.poll() is None:
            if stopping():
                raise Interrupted("the eigensolve was stopped; it begins anew, from the tiles")
            time.sleep(POLL_SECONDS)
        return process.returncode


@contextlib.contextmanager
def _ended(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """mpirun ends its ranks when it is told to end."""
    try:
        yield
    finally:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END_SECONDS)
        process.kill()
        process.wait()


def _collect(folder: Path, ranks: int, status: int, count: int, tiles: Tiles, rank_gib: float | None) -> Solved:
    """What the ranks left; the errors that they found."""
    import numpy as np

    reports = [Report(**json.loads(path.read_text())) for rank in range(ranks) if (path := Report.path(folder, rank)).exists()]
    for report in reports:
        if report.fault:
            raise _FAULTS[report.kind](report.fault)
    if status and NO_BUFFER in (folder / LOG).read_text(errors="replace"):
        raise MemoryError(no_memory(f"an MPI rank of {ranks}", rank_gib))
    if status or len(reports) < ranks or not (folder / EIGENVALUES).exists():
        raise ProcessLost(_story(folder, ranks, status, tiles, count))
    return Solved(
        eigenvalues_R=np.load(folder / EIGENVALUES),
        vectors=folder / EIGENVECTORS if count else None,
        seconds=max(report.seconds for report in reports),
        cpu_seconds=sum(report.cpu_seconds for report in reports),
        memory_bytes=max(report.memory_bytes for report in reports),
        library=reports[0].library,
    )


def _story(folder: Path, ranks: int, status: int, tiles: Tiles, count: int) -> str:
    """How the ranks ended, and the end of their log."""
    lines = [line for line in (folder / LOG).read_text(errors="replace").splitlines() if line.strip() and set(line.strip()) != {"-"}]
    ended = re.search(r"rank (\d+) .*?exited on signal (\d+)", " ".join(lines))
    what = f"rank {ended[1]} of {ranks} was killed by signal {ended[2]}" if ended else f"mpirun ended with status {status}"
    gib = memory_bytes_needed(tiles.num_rows, ranks, tiles.dtype, count) / 2**30
    hint = f"; each rank needs {gib:.2f} GiB, more ranks or nodes need less each" if ended and ended[2] == "9" else ""
    return f"the eigensolve failed: {what}{hint}. The end of {folder / LOG}:\n" + "\n".join(lines[-LOG_LINES:])


def _clear(folder: Path, but: str = "") -> None:
    """Remove what a solve leaves, or an earlier one that was killed has left."""
    reports = [path for path in folder.iterdir() if re.fullmatch(r"rank-\d{5}\.json", path.name)]
    for path in [*reports, *(folder / name for name in (JOB, LOG, EIGENVALUES, EIGENVECTORS) if name != but)]:
        path.unlink(missing_ok=True)
