"""From a band to a tridiagonal matrix by chasing bulges: sweeps in groups, so that what they touch stays in the cache of a core.

The operations are those of LAPACK's dsytrd_sb2st, which goes along the whole band for each step of its sweeps; here eight sweeps follow
each other closely, and threads follow each other with a group of sweeps each (Haidar, Ltaief and Dongarra, SC 2011). Needs numba.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numba
import numpy as np

# R rows of the matrix; B width of the band; G sweeps of a group; M rows of a block of the matrix: B, or fewer at its end

# A sweep clears a column below its off-diagonal element, and chases what that fills down the band, one block of rows a step.
SWEEPS, STEPS = 8, 8


def tridiagonal(band: np.ndarray, num_threads: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Diagonal (R) and off-diagonal (R - 1) of a tridiagonal matrix similar to a symmetric band (B + 1, R), lower, in float64."""
    width, num_rows = band.shape[0] - 1, band.shape[1]
    if width < 1:
        return band[0].copy(), np.zeros(max(0, num_rows - 1))
    scale = 2.0 ** np.frexp(abs(band).max())[1]  # exact, and squares of what is left do not overflow
    columns = np.zeros((num_rows, 2 * width))  # from the diagonal on; the bulges fill the second half
    columns[:, : width + 1] = band.T / scale
    _Chase(columns.reshape(-1), num_rows, width).run(num_threads)
    return columns[:, 0] * scale, columns[: num_rows - 1, 1] * scale


@dataclass(slots=True, eq=False)
class _Chase:
    """Groups of sweeps, which threads take in turn; each stays behind the group before it.

    Row i of column j of the matrix stands at j (2B - 1) + i of `matrix`: a column is contiguous.
    """

    matrix: np.ndarray
    num_rows: int
    width: int
    done: list[int] = field(init=False)  # stages of each group
    turn: threading.Condition = field(default_factory=threading.Condition)
    failed: bool = False

    def __post_init__(self) -> None:
        self.done = [0] * len(range(0, self.num_rows - 1, SWEEPS))

    def run(self, num_threads: int) -> None:
        groups = iter(range(len(self.done)))
        with ThreadPoolExecutor(num_threads) as pool:
            for work in [pool.submit(self._work, groups) for _ in range(num_threads)]:
                work.result()

    def _work(self, groups: Iterator[int]) -> None:
        try:
            while (group := self._next(groups)) is not None:
                self._sweep(group)
        except BaseException:
            with self.turn:
                self.failed = True
                self.turn.notify_all()
            raise

    def _next(self, groups: Iterator[int]) -> int | None:
        with self.turn:
            return None if self.failed else next(groups, None)

    def _sweep(self, group: int) -> None:
        first = group * SWEEPS
        reflectors_GB = np.empty((min(SWEEPS, self.num_rows - 1 - first), self.width))
        factors_G, spaces_2B = np.empty(len(reflectors_GB)), np.empty((2, self.width))
        for stage in range(self._stages(group)):
            if not self._may_begin(group, stage):
                return
            _run_stage(self.matrix, self.num_rows, first, stage * STEPS, reflectors_GB, factors_G, spaces_2B)
            with self.turn:
                self.done[group] = stage + 1
                self.turn.notify_all()

    def _may_begin(self, group: int, stage: int) -> bool:
        """Wait until the group before is far enough; False where another thread has failed.

        A sweep's steps come after the next step of the sweep before, so each of a group is a step behind the one before it.
        """
        if group > 0:
            ahead = min(self._stages(group - 1), stage + 1 - -SWEEPS // STEPS)
            with self.turn:
                self.turn.wait_for(lambda: self.failed or self.done[group - 1] >= ahead)
        return not self.failed

    def _stages(self, group: int) -> int:
        """Of STEPS steps of each sweep: as many as the last one needs."""
        steps = -(-(self.num_rows - 1 - group * SWEEPS) // self.width)
        return -(-(steps + SWEEPS) // STEPS)


# -- compiled -----------------------------------------------------------------------------------------------------------------


def _compiled(function: Callable[..., Any]) -> Any:
    """What it becomes is kept on disk, where a folder can be written to. Sums are in any order; what is not finite stays so."""
    how: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz", "arcp"}}
    try:
        return numba.njit(function, cache=True, **how)
    except RuntimeError:
        return numba.njit(function, **how)


_inlined = numba.njit(inline="always")


@_compiled
def _run_stage(matrix, num_rows, first, start, reflectors_GB, factors_G, spaces_2B):  # type: ignore[no-untyped-def]
    """STEPS steps from `start` on of the sweep `first`; of each other one of the group, those that are a step behind."""
    width = reflectors_GB.shape[1]
    for sweep in range(first, first + len(reflectors_GB)):
        reflector, behind = reflectors_GB[sweep - first], sweep - first
        steps = -(-(num_rows - 1 - sweep) // width)
        for step in range(max(0, start - behind), min(steps, start + STEPS - behind)):
            row = sweep + 1 + step * width
            end = min(row + width, num_rows)
            if step == 0:
                column = _column(matrix, width, sweep, row, end)
                factors_G[behind] = _reflect(column, reflector)
            else:
                factors_G[behind] = _chase_block(matrix, width, row, end, reflector, factors_G[behind], spaces_2B)
            _turn_diagonal_block(matrix, width, row, reflector[: end - row], factors_G[behind], spaces_2B[0, : end - row])


@_inlined
def _column(matrix, width, column, row, end):  # type: ignore[no-untyped-def]
    start = column * (2 * width - 1)
    return matrix[start + row : start + end]


@_compiled
def _reflect(x, v):  # type: ignore[no-untyped-def]
    """tau, and v with v[0] = 1, of I - tau v v^T, by which x becomes (beta, 0, ..., 0); as dlarfg."""
    squares = 0.0
    for i in range(1, len(x)):
        squares += x[i] * x[i]
    v[:] = 0.0
    v[0] = 1.0
    if squares == 0.0:
        return 0.0
    beta = -np.copysign(np.sqrt(x[0] * x[0] + squares), x[0])
    scale, tau = 1.0 / (x[0] - beta), (beta - x[0]) / beta
    for i in range(1, len(x)):
        v[i] = x[i] * scale
        x[i] = 0.0
    x[0] = beta
    return tau


@_compiled
def _chase_block(matrix, width, row, end, v, tau, spaces_2B):  # type: ignore[no-untyped-def]
    """C (I - tau v v^T), of the block C (M, B) left of the diagonal one; then its first column is cleared from the left.

    v becomes the reflector that does so, whose tau is returned. Four columns at once, or three: what is added to is loaded once.
    """
    size, left = end - row, row - width
    u, w = spaces_2B[0, :size], spaces_2B[1, :size]
    u[:] = 0.0
    for c in range(width % 4):
        p, a = _column(matrix, width, left + c, row, end), v[c]
        for i in range(size):
            u[i] += a * p[i]
    for c in range(width % 4, width, 4):
        p, q = _column(matrix, width, left + c, row, end), _column(matrix, width, left + c + 1, row, end)
        r, s = _column(matrix, width, left + c + 2, row, end), _column(matrix, width, left + c + 3, row, end)
        a, b, d, e = v[c], v[c + 1], v[c + 2], v[c + 3]
        for i in range(size):
            u[i] += a * p[i] + b * q[i] + d * r[i] + e * s[i]
    p = _column(matrix, width, left, row, end)
    for i in range(size):
        u[i] *= tau
        p[i] -= u[i]
    new = _reflect(p, w)
    alone = 1 + (width - 1) % 3
    for c in range(1, alone):
        p, f, a = _column(matrix, width, left + c, row, end), v[c], 0.0
        for i in range(size):
            a += (p[i] - f * u[i]) * w[i]
        a *= new
        for i in range(size):
            p[i] -= f * u[i] + a * w[i]
    for c in range(alone, width, 3):
        p, q = _column(matrix, width, left + c, row, end), _column(matrix, width, left + c + 1, row, end)
        r = _column(matrix, width, left + c + 2, row, end)
        f, g, h = v[c], v[c + 1], v[c + 2]
        a = b = d = 0.0
        for i in range(size):
            a += (p[i] - f * u[i]) * w[i]
            b += (q[i] - g * u[i]) * w[i]
            d += (r[i] - h * u[i]) * w[i]
        a, b, d = new * a, new * b, new * d
        for i in range(size):
            p[i] -= f * u[i] + a * w[i]
            q[i] -= g * u[i] + b * w[i]
            r[i] -= h * u[i] + d * w[i]
    v[:size] = w
    return new


@_compiled
def _turn_diagonal_block(matrix, width, row, v, tau, y):  # type: ignore[no-untyped-def]
    """H D H with H = I - tau v v^T, of the lower triangle D (M, M): D - v y^T - y v^T, where y = tau D v - tau^2 (v^T D v) v / 2."""
    size = len(v)
    y[:] = 0.0
    for c in range(0, size - 3, 4):
        p, q, r, s = _four_columns(matrix, width, row + c, row + size)
        v_c, y_c = v[c:], y[c:]
        f, g, h, k = v_c[0], v_c[1], v_c[2], v_c[3]
        a = f * p[0] + g * p[1] + h * p[2] + k * p[3]
        b = f * p[1] + g * q[0] + h * q[1] + k * q[2]
        d = f * p[2] + g * q[1] + h * r[0] + k * r[1]
        e = f * p[3] + g * q[2] + h * r[1] + k * s[0]
        v_below, y_below, p, q, r, s = v_c[4:], y_c[4:], p[4:], q[3:], r[2:], s[1:]
        for i in range(len(v_below)):
            y_below[i] += f * p[i] + g * q[i] + h * r[i] + k * s[i]
            a += p[i] * v_below[i]
            b += q[i] * v_below[i]
            d += r[i] * v_below[i]
            e += s[i] * v_below[i]
        y_c[0] += a
        y_c[1] += b
        y_c[2] += d
        y_c[3] += e
    for c in range(size - size % 4, size):
        p = _column(matrix, width, row + c, row + c, row + size)
        y[c] += p[0] * v[c]
        for i in range(1, len(p)):
            y[c + i] += p[i] * v[c]
            y[c] += p[i] * v[c + i]
    product = 0.0
    for i in range(size):
        y[i] *= tau
        product += y[i] * v[i]
    product *= 0.5 * tau
    for i in range(size):
        y[i] -= product * v[i]
    for c in range(0, size - 3, 4):
        p, q, r, s = _four_columns(matrix, width, row + c, row + size)
        v_c, y_c = v[c:], y[c:]
        f, g, h, k = v_c[0], v_c[1], v_c[2], v_c[3]
        a, b, d, e = y_c[0], y_c[1], y_c[2], y_c[3]
        for i in range(4):
            p[i] -= f * y_c[i] + a * v_c[i]
        for i in range(3):
            q[i] -= g * y_c[1 + i] + b * v_c[1 + i]
        for i in range(2):
            r[i] -= h * y_c[2 + i] + d * v_c[2 + i]
        s[0] -= 2 * k * e
        v_below, y_below, p, q, r, s = v_c[4:], y_c[4:], p[4:], q[3:], r[2:], s[1:]
        for i in range(len(v_below)):
            p[i] -= f * y_below[i] + a * v_below[i]
            q[i] -= g * y_below[i] + b * v_below[i]
            r[i] -= h * y_below[i] + d * v_below[i]
            s[i] -= k * y_below[i] + e * v_below[i]
    for c in range(size - size % 4, size):
        p = _column(matrix, width, row + c, row + c, row + size)
        for i in range(len(p)):
            p[i] -= v[c] * y[c + i] + y[c] * v[c + i]


@_inlined
def _four_columns(matrix, width, column, end):  # type: ignore[no-untyped-def]
    """Each from the diagonal on."""
    p, q = _column(matrix, width, column, column, end), _column(matrix, width, column + 1, column + 1, end)
    return p, q, _column(matrix, width, column + 2, column + 2, end), _column(matrix, width, column + 3, column + 3, end)
