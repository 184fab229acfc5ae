"""One MPI rank of an eigensolve: fills its part of the kernel from tiles and solves with the others.

`python -P -m workers.sharded.scalapack_rank JOB`; in the place of JOB, `--check` loads the library and prints where it lies.
"""

import ctypes
import json
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.errors import ConfigError, Diverged, EigensweepError, Garbled
from workers.processes import die_with
from workers.sharded.pool_worker import set_up, versions
from workers.sharded.ray_node import mismatch
from workers.sharded.scalapack_band import band_eigenvalues, band_of
from workers.sharded.scalapack_library import (
    CHOICE,
    Grid,
    Library,
    Matrix,
    all_pairs,
    transform_back,
    tridiagonal,
    tridiagonal_eigenvalues,
    tridiagonal_eigenvectors,
)

if TYPE_CHECKING:
    import numpy as np

# R rows of the kernel; K eigenvectors

EIGENVALUES = "eigenvalues.npy"
EIGENVECTORS = "eigenvectors.npy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What all ranks are told. `num_vectors`: of the largest eigenvalues; `whole`: whether all are computed for them."""

    folder: str
    library: str
    num_rows: int
    panel_rows: int
    dtype: str
    block: int
    num_vectors: int
    whole: bool
    tiles: list[tuple[int, int, str]]
    rank_gib: float | None = None  # all that a rank may have; none: no limit
    versions: dict[str, str] = field(default_factory=dict)  # of the process that waits; none: they are not compared

    def save(self, path: Path) -> None:
        """Write it for `load`."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> "Job":
        """As written."""
        return cls(**json.loads(path.read_text()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a rank tells: seconds since MPI had started, of clock and of processor, and its peak of resident memory."""

    seconds: float
    cpu_seconds: float
    memory_bytes: int
    library: str
    fault: str = ""
    kind: str = "Diverged"

    @staticmethod
    def path(folder: Path, rank: int) -> Path:
        """File of a rank's report."""
        return folder / f"rank-{rank:05d}.json"


def main(argument: str) -> int:
    """Run the job; 0 also where this rank or another found a fault, which its report names."""
    import numpy as np

    if argument == "--check":
        return _check()
    die_with(os.getppid())
    job = Job.load(Path(argument))
    if job.versions and (wrong := mismatch(job.versions, versions())):
        return _refuse(job, f"node {wrong}: all nodes must have the same environment and source; the tiles stay")
    grid = Grid.start(Library.load(job.library))
    if job.rank_gib is not None:
        _reserve(grid.library)
        set_up(sys.path, int(job.rank_gib * 2**30))
    began, cpu_began = time.perf_counter(), time.process_time()
    fault: Exception | None = None
    try:
        fault, band = _attempt(job, grid)
        grid.end()  # a rank that waits for another keeps a core busy; what is left is the first one's, which takes the cores of its node's
        if band is not None and grid.rank == 0:
            values_R = band_eigenvalues(grid.library, band, num_threads=grid.node.size, memory_gib=job.rank_gib)
            np.save(Path(job.folder) / EIGENVALUES, values_R)
    except (Diverged, MemoryError) as error:
        fault = error
    report = Report(
        seconds=time.perf_counter() - began,
        cpu_seconds=time.process_time() - cpu_began,
        memory_bytes=_peak_bytes(),
        library=grid.library.path,
        fault=_words(fault, grid.rank, job.rank_gib),
        kind=type(fault).__name__,
    )
    Report.path(Path(job.folder), grid.rank).write_text(json.dumps(asdict(report)))
    return 1 if isinstance(fault, MemoryError) else 0  # at which mpirun ends the others, that wait for this one


def _refuse(job: Job, fault: str) -> int:
    """Say so before MPI begins: its launcher then ends the others."""
    rank = int(os.environ.get("OMPI_COMM_WORLD_RANK", "0"))
    report = Report(seconds=0.0, cpu_seconds=0.0, memory_bytes=0, library=job.library, fault=fault, kind="ConfigError")
    Report.path(Path(job.folder), rank).write_text(json.dumps(asdict(report)))
    return 1


def _reserve(library: Library) -> None:
    """Have ScaLAPACK's BLAS and NumPy's reserve the buffers that they never give back: what is reserved before a limit is not counted."""
    import numpy as np

    size = 256
    one = np.ones((size, size))
    factor = ctypes.c_double(1.0)
    library.call("dgemm", b"N", b"N", size, size, size, factor, one @ one, size, one, size, factor, one.copy(), size)


def _words(fault: Exception | None, rank: int, rank_gib: float | None) -> str:
    if isinstance(fault, MemoryError):
        return no_memory(f"MPI rank {rank} on {os.uname().nodename}", rank_gib)
    return str(fault or "")


def no_memory(who: str, rank_gib: float | None) -> str:
    """What to say of a rank that was refused memory."""
    share = f" above its share, {rank_gib:.2f} GiB" if rank_gib is not None else ""
    return f"{who} found no memory{share}; give more resources.memory_gib, or more nodes"


def _check() -> int:
    try:
        print(Library.load(os.environ.get(CHOICE, "")).path)
    except ConfigError as error:
        sys.exit(str(error))
    return 0


def _attempt(job: Job, grid: Grid) -> "tuple[EigensweepError | None, np.ndarray | None]":
    """What this rank found wrong, and a band whose eigenvalues are wanted. All learn that one did, so that none waits for it."""
    import numpy as np

    band = None
    kernel = Matrix.zeros(grid, (job.num_rows, job.num_rows), job.dtype, job.block)
    fault: EigensweepError | None = None
    try:
        _fill(kernel, job)
    except (Diverged, Garbled) as error:
        fault = error
    faults = np.array([fault is not None], dtype=np.float64)
    grid.add_up(faults)
    if not faults[0]:
        try:
            band = _solve(kernel, job)
        except Diverged as error:  # on all ranks
            fault = error
    return fault, band


def _fill(kernel: Matrix, job: Job) -> None:
    """The lower triangle, from the tiles of the upper one, transposed; Diverged where one of its elements is not finite.

    Rows of a tile are columns here. They are read block by block, and what was read leaves memory again.
    """
    rows, columns = (of(job.num_rows, job.block) for of in (kernel.grid.rows, kernel.grid.columns))
    for tile_row, tile_column, path in job.tiles:
        to_rows, to_columns = (_inside(mine, panel, job.panel_rows) for mine, panel in ((rows, tile_column), (columns, tile_row)))
        if to_rows.start == to_rows.stop or to_columns.start == to_columns.stop:
            continue
        tile = _mapped(path, tile_row, tile_column, job)
        taken = rows[to_rows] - tile_column * job.panel_rows
        for first in range(to_columns.start, to_columns.stop, job.block):
            to = slice(first, min(first + job.block, to_columns.stop))
            part = tile[columns[to] - tile_row * job.panel_rows][:, taken]
            _check_finite(part, path, columns[to], rows[to_rows])
            kernel.part[to_rows, to] = part.T
            _forget(tile)


def _inside(mine: "np.ndarray", panel: int, panel_rows: int) -> slice:
    """Which of a rank's rows (or columns) stand in a panel."""
    first, end = mine.searchsorted([panel * panel_rows, (panel + 1) * panel_rows])
    return slice(int(first), int(end))


def _mapped(path: str, tile_row: int, tile_column: int, job: Job) -> "np.ndarray":
    import numpy as np

    shape = tuple(min(job.panel_rows, job.num_rows - panel * job.panel_rows) for panel in (tile_row, tile_column))
    try:
        tile: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError) as error:
        raise Garbled(f"{path} is no tile: {error}") from None
    if tile.shape != shape or tile.dtype != job.dtype:
        raise Garbled(f"{path} holds {tile.dtype} {tile.shape}, expected {job.dtype} {shape}")
    return tile


def _check_finite(part: "np.ndarray", path: str, rows: "np.ndarray", columns: "np.ndarray") -> None:
    import numpy as np

    finite = np.isfinite(part)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise Diverged(f"the kernel has {part[row, column]} in row {rows[row]}, column {columns[column]}, from the tile {path}")


def _forget(tile: Any) -> None:
    """Pages of a mapped file count as memory of the process until they are given up."""
    import mmap

    tile.base.madvise(mmap.MADV_DONTNEED)


def _solve(kernel: Matrix, job: Job) -> "np.ndarray | None":
    """Eigenvalues and eigenvectors into files; or, where no vectors are asked for, a band that has the same eigenvalues."""
    import numpy as np

    grid, size = kernel.grid, job.num_rows
    if not job.num_vectors:
        return band_of(kernel, size)
    if job.whole:
        vectors = Matrix.zeros(grid, (size, size), job.dtype, job.block)
        eigenvalues_R = all_pairs(kernel, vectors, size)
        _write(vectors, size, size - job.num_vectors, Path(job.folder) / EIGENVECTORS)
    else:
        diagonal, off_diagonal, factors = tridiagonal(kernel, size)
        vectors = _largest(kernel, job, diagonal, off_diagonal)
        transform_back(kernel, factors, vectors, size, job.num_vectors)
        _write(vectors, size, 0, Path(job.folder) / EIGENVECTORS)
        eigenvalues_R = tridiagonal_eigenvalues(grid.library, diagonal, off_diagonal)
    if grid.rank == 0:
        np.save(Path(job.folder) / EIGENVALUES, eigenvalues_R)
    return None


def _largest(kernel: Matrix, job: Job, diagonal: "np.ndarray", off_diagonal: "np.ndarray") -> Matrix:
    """Eigenvectors of the tridiagonal matrix, which each rank computes in float64 and keeps its part of."""
    size, count, grid = job.num_rows, job.num_vectors, kernel.grid
    every_RK = tridiagonal_eigenvectors(grid.library, diagonal, off_diagonal, count)
    column_block = min(job.block, -(-count // grid.shape[1]))
    vectors = Matrix.zeros(grid, (size, count), job.dtype, job.block, column_block)
    rows, columns = grid.rows(size, job.block), grid.columns(count, column_block)
    vectors.part[: len(rows), : len(columns)] = every_RK[rows][:, columns]
    return vectors


def _write(vectors: Matrix, num_rows: int, first: int, path: Path) -> None:
    """Columns from `first` on as a file (R, K), column after column: the ranks of the grid's first row gather blocks and write them."""
    import numpy as np

    grid, block = vectors.grid, vectors.column_block
    num_columns = int(vectors.description[3])
    rows, columns = grid.rows(num_rows, vectors.block), grid.columns(num_columns, block)
    header = _claim(path, (num_rows, num_columns - first), vectors, grid)
    for start in range(0, len(columns), block):
        here = columns[start : start + block]
        gathered = np.zeros((num_rows, len(here)), vectors.part.dtype, order="F")
        gathered[rows] = vectors.part[: len(rows), start : start + len(here)]
        grid.add_up(gathered, b"C", (0, grid.place[1]))
        kept = gathered[:, here >= first]
        if grid.place[0] == 0 and kept.size:
            with path.open("r+b") as file:
                file.seek(header + max(0, int(here[0]) - first) * num_rows * kept.itemsize)
                file.write(kept.T.tobytes())


def _claim(path: Path, shape: tuple[int, int], vectors: Matrix, grid: Grid) -> int:
    """Make the file with its header, whose length is given; no rank goes on before it is there."""
    import io

    import numpy as np

    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": np.lib.format.dtype_to_descr(vectors.part.dtype), "fortran_order": True, "shape": shape}
    )
    if grid.rank == 0:
        with path.open("wb") as file:
            file.write(header.getvalue())
            file.truncate(len(header.getvalue()) + shape[0] * shape[1] * vectors.part.itemsize)
    grid.add_up(np.zeros(1))
    return len(header.getvalue())


def _peak_bytes() -> int:
    """Highest resident memory; the other count of Linux begins with that of the process this one was forked from."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
