"""All eigenvalues in two stages: the kernel becomes a narrow band by products of matrices, and the band tridiagonal on one rank.

The reduction straight to a tridiagonal matrix spends half of its work in products with single vectors, at the speed of memory; to a band
all work is in products of matrices (Bischof, Lang and Sun, ACM TOMS 26, 2000), which is three times as fast on one core. Only BLACS and
BLAS are needed: each rank holds the panel of the moment whole, R x width.
"""

import ctypes
import functools
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workers.sharded.scalapack_library import Library, Matrix, letter, tridiagonal_eigenvalues

if TYPE_CHECKING:
    import numpy as np

    AddUp = Callable[[np.ndarray], None]

# R rows of the kernel; B width of the band; M rows below the panel; L local rows and C local columns of the rank, below and right of it

# local columns that are multiplied at once: what is above the diagonal among them is wasted
CHUNK = 256
# columns that LAPACK's QR decomposition takes at once
LAPACK_BLOCK = 64
# of the reflectors, in float64 in the processor's cache
ROWS_AT_ONCE = 2048
# for fewer rows LAPACK takes less than a second more than numba, which takes half a second to load, and four where it compiles
FEWEST_CHASED = 8192
# more would wait for Python's lock
CHASING_THREADS = 8
# numba while it compiles, and this process beside it
NUMBA_BYTES = 250 * 2**20


def band_of(kernel: Matrix, num_rows: int) -> "np.ndarray":
    """The lower band (B + 1, R) in float64, on all ranks, of a matrix similar to the kernel, whose block is B. The kernel is lost.

    Block of columns after block: Q of the QR decomposition of what is below the band there, applied from both sides.
    """
    import numpy as np

    width, add_up = kernel.block, kernel.grid.sums()
    band = np.zeros((width + 1, num_rows), order="F")
    for first in range(0, num_rows, width):
        end = min(first + width, num_rows)
        panel = _panel(kernel, first, end, num_rows, add_up)
        below = panel[end - first :]
        if len(below):
            reflectors_MB, triangle, factor_BB = _reflectors(kernel.grid.library, below)
            below[:] = 0
            below[: len(triangle)] = triangle
            _apply(_Trailing.of(kernel, end, num_rows), reflectors_MB, factor_BB, kernel, add_up)
        for column in range(end - first):
            kept = panel[column : column + width + 1, column]
            band[: len(kept), first + column] = kept
    return band


def band_eigenvalues(library: Library, band: "np.ndarray", *, num_threads: int = 1, memory_gib: float | None = None) -> "np.ndarray":
    """All eigenvalues (R), ascending, of a symmetric band (B + 1, R), lower: of the tridiagonal matrix that it becomes.

    A large one by `bulge_chasing`, where numba is installed and `memory_gib` leaves room for it; else by LAPACK on one thread, which takes
    twice as long: by Householder's reflections (dsytrd_sb2st, LAPACK 3.7), or, for twice of that, by rotations (dsbtrd).
    """
    import numpy as np

    height, num_rows = band.shape
    if _chases_itself(band, memory_gib):
        from workers.sharded.bulge_chasing import tridiagonal

        return tridiagonal_eigenvalues(library, *tridiagonal(band, min(num_threads, CHASING_THREADS)))
    diagonal, off_diagonal = np.empty(num_rows), np.empty(max(1, num_rows - 1))
    matrix = b"L", num_rows, height - 1, np.asfortranarray(band), height, diagonal, off_diagonal
    if library.has("dsytrd_sb2st") and num_rows > 4 * height:
        _by_reflections(library, matrix)
    else:
        _checked(library, "dsbtrd", b"N", *matrix, np.empty(1), 1, np.empty(num_rows))
    return tridiagonal_eigenvalues(library, diagonal, off_diagonal[: num_rows - 1])


def _chases_itself(band: "np.ndarray", memory_gib: float | None) -> bool:
    fits = memory_gib is None or 4 * band.nbytes + NUMBA_BYTES < memory_gib * 2**30
    return band.shape[1] >= FEWEST_CHASED and fits and importlib.util.find_spec("numba") is not None


def _by_reflections(library: Library, matrix: tuple[Any, ...]) -> None:
    import numpy as np

    spaces = [np.empty(1), np.empty(1)]
    for sizes in ((-1, -1), (0, 0)):
        if not any(sizes):
            sizes = int(spaces[0][0]), int(spaces[1][0])
            spaces = [np.empty(max(1, size)) for size in sizes]
        _checked(library, "dsytrd_sb2st", b"N", b"N", *matrix, spaces[0], sizes[0], spaces[1], sizes[1])


def _checked(library: Library, name: str, *arguments: Any) -> None:
    failed = ctypes.c_int()
    library.call(name, *arguments, failed)
    if failed.value:
        raise RuntimeError(f"{name} refused argument {-failed.value}")


def _panel(kernel: Matrix, first: int, end: int, num_rows: int, add_up: "AddUp") -> "np.ndarray":
    """Columns `first` to `end` from row `first` on, on all ranks."""
    import numpy as np

    grid = kernel.grid
    panel = np.zeros((num_rows - first, end - first), kernel.part.dtype, order="F")
    if first // kernel.block % grid.shape[1] == grid.place[1]:
        rows, columns = grid.rows(num_rows, kernel.block), grid.columns(num_rows, kernel.block)
        row, column = int(rows.searchsorted(first)), int(columns.searchsorted(first))
        panel[rows[row:] - first] = kernel.part[row : len(rows), column : column + end - first]
    add_up(panel)
    return panel


def _reflectors(library: Library, below_MB: "np.ndarray") -> tuple["np.ndarray", "np.ndarray", "np.ndarray"]:
    """V (M, B), R and T (B, B) of a QR decomposition whose Q is I - V T V^T; of an orthogonal Q as far as V is exact."""
    import numpy as np

    height, width = below_MB.shape
    packed, count = np.array(below_MB, order="F"), min(height, width)
    factors, work = np.empty(count, packed.dtype), np.empty(width * LAPACK_BLOCK, packed.dtype)
    _checked(library, f"{letter(packed)}geqrf", height, width, packed, height, factors, work, len(work))
    triangle, reflectors = np.triu(packed[:count]), packed[:, :count]
    reflectors[:count] = np.tril(packed[:count, :count], -1) + np.eye(count)
    reflectors[:, factors == 0] = 0.0  # which is the identity
    inverse = np.zeros((count, count))
    for first in range(0, height, ROWS_AT_ONCE):
        part = reflectors[first : first + ROWS_AT_ONCE].astype(np.float64)
        inverse += part.T @ part
    inverse = np.triu(inverse, 1) + np.diag(np.where(factors == 0, 1.0, inverse.diagonal() / 2))
    return reflectors, triangle, np.linalg.inv(inverse).astype(below_MB.dtype)


@dataclass(frozen=True, slots=True, eq=False)
class _Trailing:
    """The part of a rank from a row and column on: where it begins, and which rows and columns it has, counted from there."""

    row: int
    column: int
    rows: "np.ndarray"
    columns: "np.ndarray"

    @classmethod
    def of(cls, kernel: Matrix, first: int, num_rows: int) -> "_Trailing":
        rows, columns = kernel.grid.rows(num_rows, kernel.block), kernel.grid.columns(num_rows, kernel.block)
        row, column = int(rows.searchsorted(first)), int(columns.searchsorted(first))
        return cls(row, column, rows[row:] - first, columns[column:] - first)

    def chunks(self) -> Iterator[tuple[slice, int, int]]:
        """Local columns of a chunk, its first local row on or below the diagonal, and its first below the diagonal of all of them."""
        for start in range(0, len(self.columns), CHUNK):
            chunk = slice(start, min(start + CHUNK, len(self.columns)))
            first, last = self.columns[chunk.start], self.columns[chunk.stop - 1]
            yield chunk, int(self.rows.searchsorted(first)), int(self.rows.searchsorted(last, side="right"))


def _apply(trailing: _Trailing, reflectors_MB: "np.ndarray", factor_BB: "np.ndarray", kernel: Matrix, add_up: "AddUp") -> None:
    """Q^T A Q of the lower triangle A below and right of the panel: A - V W^T - W V^T, where W = A V T - V (T^T V^T A V T) / 2."""
    product_MB = _times(trailing, kernel, reflectors_MB, add_up)
    small_BB = factor_BB.T @ (reflectors_MB.T @ product_MB) @ factor_BB
    other_BM = factor_BB.T @ product_MB.T - (small_BB.T / 2) @ reflectors_MB.T
    left, right = _picked((reflectors_MB.T, other_BM), trailing.rows), _picked((other_BM, reflectors_MB.T), trailing.columns)
    for chunk, first, _ in trailing.chunks():
        target = kernel.part[trailing.row + first :, trailing.column + chunk.start : trailing.column + chunk.stop]
        _add_product(kernel.grid.library, target[: len(trailing.rows) - first], left[first:], right[chunk], -1.0, b"N", b"T")


def _times(trailing: _Trailing, kernel: Matrix, vectors_MB: "np.ndarray", add_up: "AddUp") -> "np.ndarray":
    """A V (M, B), on all ranks, of a symmetric matrix whose lower triangle A is."""
    import numpy as np

    library, width = kernel.grid.library, vectors_MB.shape[1]
    of_rows, of_columns = (_picked((vectors_MB.T,), mine) for mine in (trailing.rows, trailing.columns))
    to_rows, to_columns = (np.zeros((len(mine), width), vectors_MB.dtype, order="F") for mine in (trailing.rows, trailing.columns))
    for chunk, first, below in trailing.chunks():
        part = kernel.part[trailing.row : trailing.row + len(trailing.rows), trailing.column + chunk.start : trailing.column + chunk.stop]
        lower = part[first:below] * _weights(trailing.rows[first:below], trailing.columns[chunk]).astype(part.dtype, copy=False)
        for rows, block in ((slice(first, below), lower), (slice(below, None), part[below:])):
            if block.size:
                _add_product(library, to_rows[rows], block, of_columns[chunk], 1.0, b"N", b"N")
                _add_product(library, to_columns[chunk], block, of_rows[rows], 1.0, b"T", b"N")
    found_BM = np.zeros(vectors_MB.shape[::-1], vectors_MB.dtype)
    found_BM[:, trailing.rows] = to_rows.T
    found_BM[:, trailing.columns] += to_columns.T
    add_up(found_BM)
    return found_BM.T


def _picked(arrays: "Sequence[np.ndarray]", mine: "np.ndarray") -> "np.ndarray":
    """Columns `mine` of arrays (B, M) as rows of one (len(mine), B + B + ...), of columns in memory order."""
    import numpy as np

    return np.concatenate([np.take(array, mine, axis=1) for array in arrays]).T


def _weights(rows: "np.ndarray", columns: "np.ndarray") -> "np.ndarray":
    """Of elements at these rows and columns in a product with the lower triangle: 1 below the diagonal, 1/2 on it, 0 above."""
    if not len(rows):
        import numpy as np

        return np.empty((0, len(columns)), order="F")
    return _cached_weights((rows - columns[0]).tobytes(), (columns - columns[0]).tobytes())


@functools.lru_cache(64)
def _cached_weights(rows: bytes, columns: bytes) -> "np.ndarray":
    import numpy as np

    distances = np.subtract.outer(np.frombuffer(columns, int), np.frombuffer(rows, int)).T
    weights: np.ndarray = (np.sign(-distances) + 1.0) / 2
    return weights


def _add_product(library: Library, to: "np.ndarray", a: "np.ndarray", b: "np.ndarray", scale: float, turn_a: bytes, turn_b: bytes) -> None:
    """to += scale a b, of columns in memory order, in place: NumPy would make a copy of the size of `to`."""
    inner = a.shape[0 if turn_a == b"T" else 1]
    number: Any = {"d": ctypes.c_double, "s": ctypes.c_float}[letter(to)]
    sides = a, _stride(a), b, _stride(b)
    library.call(f"{letter(to)}gemm", turn_a, turn_b, *to.shape, inner, number(scale), *sides, number(1.0), to, _stride(to))


def _stride(array: "np.ndarray") -> int:
    return max(1, array.strides[1] // array.itemsize) if array.shape[1] > 1 else max(1, array.shape[0])
