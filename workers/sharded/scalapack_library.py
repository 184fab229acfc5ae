"""ScaLAPACK and BLACS by ctypes: the library found and loaded, a grid of MPI ranks, and the routines of an eigensolve on it.

Routines are named as in the ScaLAPACK Users' Guide (Blackford et al., SIAM 1997), matrices are in its two-dimensional block-cyclic layout.
"""

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.errors import ConfigError, Diverged
from workers.sharded.scalapack_node import Meeting, Node

if TYPE_CHECKING:
    import numpy as np

# R rows of the kernel; K eigenvectors; L local rows, M local columns of the rank

CHOICE = "EIGENSWEEP_SCALAPACK"
MPI = ("libmpi.so.40", "libmpi.so")
SCALAPACK = ("libscalapack-openmpi.so.2.2", "libscalapack-openmpi.so", "libscalapack.so.2.2", "libscalapack.so.2", "libscalapack.so")
# of MKL, each before those that need its data: functions they take from each other are bound when they are first called
MKL = ("libmkl_core.so*", "libmkl_sequential.so*", "libmkl_intel_lp64.so*", "libmkl_blacs_openmpi_lp64.so*", "libmkl_scalapack_lp64.so*")
INSTALL = "on Debian: apt-get install openmpi-bin libscalapack-openmpi2.2 libopenblas0"
# a routine counts elements of a rank's part in 32 bits
MOST_ELEMENTS = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Library:
    """The routines, called with plain values: integers, one-letter texts, arrays in memory order, or ctypes objects to be written to."""

    handle: Any
    path: str

    @classmethod
    def load(cls, choice: str = "") -> "Library":
        """Debian's or the site's ScaLAPACK, or `choice`: its file, or the folder of MKL's libraries. ConfigError where it does not load.

        MPI's symbols have to be there for all: OpenMPI's plug-ins and ScaLAPACK take them from this process.
        """
        _first(MPI)
        path = _mkl(Path(choice)) if choice and Path(choice).is_dir() else _first((choice,) if choice else SCALAPACK)
        return cls(ctypes.CDLL(None), path)

    def has(self, name: str) -> bool:
        """Whether there is a routine: older libraries lack some."""
        return hasattr(self.handle, f"{name}_")

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a Fortran routine; its integer result, where it has one."""
        texts = [ctypes.c_size_t(len(value)) for value in arguments if isinstance(value, bytes)]
        return getattr(self.handle, f"{name}_")(*map(_pointer, arguments), *texts)


def _pointer(value: Any) -> Any:
    if isinstance(value, bytes):
        return ctypes.c_char_p(value)
    if isinstance(value, int):
        return ctypes.byref(ctypes.c_int(value))
    if hasattr(value, "ctypes"):
        return ctypes.c_void_p(value.ctypes.data)
    return value if isinstance(value, ctypes.Array) else ctypes.byref(value)


def _first(names: tuple[str, ...]) -> str:
    """The first library that loads."""
    reasons = []
    for name in names:
        try:
            ctypes.CDLL(name, ctypes.RTLD_GLOBAL)
            return name
        except OSError as error:
            reasons.append(str(error))
    raise ConfigError(f"no library {names[0]} ({reasons[0]}); {INSTALL}, or name a ScaLAPACK for OpenMPI in {CHOICE}")


def _mkl(folder: Path) -> str:
    """MKL's ScaLAPACK with its BLACS for OpenMPI, one thread a rank. Its libraries need each other: each is loaded before all are there."""
    dlopen, dlerror = ctypes.CDLL(None).dlopen, ctypes.CDLL(None).dlerror
    dlopen.restype, dlopen.argtypes, dlerror.restype = ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_int), ctypes.c_char_p
    for pattern in MKL:
        found = sorted(folder.glob(pattern))
        if not found:
            raise ConfigError(
                f"{CHOICE}={folder} has no {pattern.removesuffix('*')}: name a ScaLAPACK's file, or the folder of MKL's libraries"
            )
        if not dlopen(os.fsencode(found[0]), os.RTLD_LAZY | os.RTLD_GLOBAL):
            raise ConfigError(f"{found[0]} does not load: {(dlerror() or b'no reason given').decode()}")
    return str(found[0])


def letter(array: "np.ndarray") -> str:
    """Of its precision, in the names of routines."""
    return {"d": "d", "f": "s"}[array.dtype.char]


def owned(num_rows: int, block: int, position: int, num_positions: int) -> "np.ndarray":
    """Rows (or columns) that stand at a row (or column) of the grid, ascending: blocks are dealt out in turn."""
    import numpy as np

    every = np.arange(num_rows)
    mine: np.ndarray = every[(every // block) % num_positions == position]
    return mine


def shape_of(num_ranks: int) -> tuple[int, int]:
    """Rows and columns of the grid of ranks: as square as it can be, not taller than wide."""
    rows = max(size for size in range(1, int(num_ranks**0.5) + 1) if num_ranks % size == 0)
    return rows, num_ranks // rows


@dataclass(frozen=True, slots=True)
class Grid:
    """The ranks as a grid, and this one's place in it."""

    library: Library
    context: int
    rank: int
    shape: tuple[int, int]
    place: tuple[int, int]
    node: Node

    @classmethod
    def start(cls, library: Library) -> "Grid":
        """All ranks that were started together; starts MPI."""
        meeting = Meeting.begin()
        rank, count, context = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        library.call("blacs_pinfo", rank, count)
        shape = shape_of(count.value)
        library.call("blacs_get", -1, 0, context)
        library.call("blacs_gridinit", context, b"R", *shape)
        library.call("blacs_barrier", context, b"A")
        return cls(library, context.value, rank.value, shape, divmod(rank.value, shape[1]), meeting.met())

    def end(self) -> None:
        """Ends MPI; no rank is left behind."""
        self.library.call("blacs_gridexit", self.context)
        self.library.call("blacs_exit", 0)

    def rows(self, num_rows: int, block: int) -> "np.ndarray":
        """Which rows of a matrix are this rank's."""
        return owned(num_rows, block, self.place[0], self.shape[0])

    def columns(self, num_columns: int, block: int) -> "np.ndarray":
        """Which columns of a matrix are this rank's."""
        return owned(num_columns, block, self.place[1], self.shape[1])

    def sums(self) -> "Callable[[np.ndarray], None]":
        """What adds up arrays of all ranks in place, where nothing else is done between them from here to the last sum."""
        if self.node.size < self.shape[0] * self.shape[1]:
            return self.add_up
        self.library.call("blacs_barrier", self.context, b"A")  # until then a message of BLACS may be under way
        return self.node.add_up

    def add_up(self, array: "np.ndarray", scope: bytes = b"A", to: tuple[int, int] = (-1, -1)) -> None:
        """Sum over all ranks (or those of a "C"olumn), in place; for all of them, or for the one at `to`."""
        self.library.call(f"{letter(array)}gsum2d", self.context, scope, b" ", array.size, 1, array, array.size, *to)


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """A matrix (R, C) over the grid, of which this rank has the part (L, M), in Fortran's order."""

    grid: Grid
    part: "np.ndarray"
    block: int
    column_block: int
    description: Any

    @classmethod
    def zeros(cls, grid: Grid, shape: tuple[int, int], dtype: str, block: int, column_block: int | None = None) -> "Matrix":
        """Memory is used where it is written to first."""
        import numpy as np

        column_block = column_block or block
        rows, columns = grid.rows(shape[0], block), grid.columns(shape[1], column_block)
        part = np.zeros((max(1, len(rows)), max(1, len(columns))), dtype, order="F")
        description = (ctypes.c_int * 9)()
        failed = ctypes.c_int()
        grid.library.call("descinit", description, *shape, block, column_block, 0, 0, grid.context, part.shape[0], failed)
        if failed.value:
            raise RuntimeError(f"descinit refused argument {-failed.value} for {shape} in blocks of {block} on {grid.shape}")
        return cls(grid, part, block, column_block, description)

    @property
    def arguments(self) -> tuple[Any, ...]:
        """As a routine takes a matrix."""
        return self.part, 1, 1, self.description


def tridiagonal(kernel: Matrix, num_rows: int) -> tuple["np.ndarray", "np.ndarray", "np.ndarray"]:
    """Diagonal (R) and off-diagonal (R - 1) in float64 of the similar tridiagonal matrix, on all ranks, and the reflectors' factors (M).

    p?sytrd on the lower triangle, which becomes the reflectors; the strict upper one is neither read nor written.
    """
    import numpy as np

    grid, width = kernel.grid, kernel.part.shape[1]
    diagonal, off_diagonal, factors = (np.zeros(width, kernel.part.dtype) for _ in range(3))
    _solve("sytrd", kernel, b"L", num_rows, *kernel.arguments, diagonal, off_diagonal, factors)
    whole = np.zeros((2, num_rows))
    if grid.place[0] == 0:  # each row of the grid has them all
        mine = grid.columns(num_rows, kernel.block)
        whole[:, mine] = diagonal[: len(mine)], off_diagonal[: len(mine)]
    grid.add_up(whole)
    return whole[0], whole[1, : num_rows - 1], factors


def tridiagonal_eigenvalues(library: Library, diagonal: "np.ndarray", off_diagonal: "np.ndarray") -> "np.ndarray":
    """All eigenvalues (R), ascending, of a tridiagonal matrix: dsterf."""
    found, rest, failed = diagonal.copy(), off_diagonal.copy(), ctypes.c_int()
    library.call("dsterf", len(found), found, rest, failed)
    if failed.value:
        raise Diverged(f"dsterf did not converge (info {failed.value}); is the kernel very badly scaled?")
    return found


def tridiagonal_eigenvectors(library: Library, diagonal: "np.ndarray", off_diagonal: "np.ndarray", count: int) -> "np.ndarray":
    """Eigenvectors (R, K) of the `count` largest eigenvalues, ascending, of a tridiagonal matrix: dstemr. SciPy's takes memory for all."""
    import numpy as np

    size, found, failed = len(diagonal), ctypes.c_int(), ctypes.c_int()
    arrays = diagonal.copy(), np.append(off_diagonal, 0.0)
    vectors_RK, support = np.empty((size, count), order="F"), np.empty(2 * count, np.int32)
    outputs = np.empty(size), vectors_RK, size, count, support
    # the last is a Fortran logical: high relative accuracy where the matrix allows it
    bounds = ctypes.c_double(), ctypes.c_double(), size - count + 1, size, found
    work, integers = np.empty(18 * size), np.empty(10 * size, np.int32)
    spaces = work, len(work), integers, len(integers)
    library.call("dstemr", b"V", b"I", size, *arrays, *bounds, *outputs, 1, *spaces, failed)
    if failed.value or found.value != count:
        raise Diverged(f"dstemr found {found.value} of {count} eigenvectors (info {failed.value}); is the kernel very badly scaled?")
    return vectors_RK


def transform_back(kernel: Matrix, factors: "np.ndarray", vectors: Matrix, num_rows: int, num_vectors: int) -> None:
    """Turn eigenvectors (R, K) of the tridiagonal matrix into those of the kernel, in place: p?ormtr."""
    _solve("ormtr", kernel, b"L", b"L", b"N", num_rows, num_vectors, *kernel.arguments, factors, *vectors.arguments)


def all_pairs(kernel: Matrix, vectors: Matrix, num_rows: int) -> "np.ndarray":
    """All eigenvalues (R), ascending, in float64; `vectors` (R, R) becomes their eigenvectors, the kernel is lost.

    By the three routines that p?syevd calls: MKL's takes half as long again as they do.
    """
    import numpy as np

    diagonal, off_diagonal, factors = tridiagonal(kernel, num_rows)
    eigenvalues_R, rest = diagonal.astype(kernel.part.dtype), np.append(off_diagonal, 0.0).astype(kernel.part.dtype)
    _solve("stedc", kernel, b"I", num_rows, eigenvalues_R, rest, *vectors.arguments, integers=True)
    transform_back(kernel, factors, vectors, num_rows, num_rows)
    return eigenvalues_R.astype(np.float64)


def _solve(name: str, kernel: Matrix, *arguments: Any, integers: bool = False) -> None:
    """Call a routine for the kernel's precision with the work space it asks for; Diverged where it does not converge."""
    import numpy as np

    library, failed = kernel.grid.library, ctypes.c_int()
    name = f"p{letter(kernel.part)}{name}"
    work, integer_work = np.zeros(1, kernel.part.dtype), np.zeros(1, np.int32)
    for size, integer_size in ((-1, -1), (None, None)):
        if size is None:  # a size in float32 is rounded
            size, integer_size = int(work[0] * (1 + 2.0**-20)) + 1, int(integer_work[0])
            work, integer_work = np.empty(size, work.dtype), np.empty(max(1, integer_size), np.int32)
        spaces = [work, size, integer_work, integer_size] if integers else [work, size]
        library.call(name, *arguments, *spaces, failed)
        if failed.value > 0:
            raise Diverged(f"{name} did not converge (info {failed.value}); is the kernel very badly scaled?")
        if failed.value:
            raise RuntimeError(f"{name} refused argument {-failed.value} on {kernel.grid.shape} ranks in blocks of {kernel.block}")
