"""Variable projection: for exponents on a grid, the linear terms of a law have a closed form (Golub and Pereyra 1973)."""

# G grid points, N points, L linear terms, K starts, P internal parameters

import itertools

from orchestrator.laws.law import Array

__all__ = ["best_of", "non_negative"]

_TINY = 1e-12


def non_negative(columns_GNL: Array) -> tuple[Array, Array]:
    """Least squares of 1 on the columns with coefficients >= 0: coefficients (G, L) and sums of squares (G,).

    With columns divided by y these are relative residuals, which stand for log residuals. Of few columns, each subset is tried.
    """
    import numpy as np

    num_terms = columns_GNL.shape[2]
    gram_GLL = np.matmul(columns_GNL.transpose(0, 2, 1), columns_GNL)
    target_GL = columns_GNL.sum(axis=1)
    # equal scales, so that "singular" means parallel columns
    size_GL = np.sqrt(np.maximum(np.einsum("gll->gl", gram_GLL), 1e-300))
    gram_GLL = gram_GLL / (size_GL[:, :, None] * size_GL[:, None, :])
    target_GL = target_GL / size_GL
    best_GL, gain_G = np.zeros_like(target_GL), np.zeros(len(target_GL))
    for number in range(1, num_terms + 1):
        for kept in map(list, itertools.combinations(range(num_terms), number)):
            part_GLL = gram_GLL[:, kept][:, :, kept] + _TINY * np.eye(number)
            solved_GL = np.linalg.solve(part_GLL, target_GL[:, kept][:, :, None])[:, :, 0]
            own_G = (solved_GL * target_GL[:, kept]).sum(axis=1)
            better = (solved_GL >= 0).all(axis=1) & (own_G > gain_G)
            best_GL[better] = 0.0
            best_GL[np.ix_(better, kept)] = solved_GL[better]
            gain_G = np.where(better, own_G, gain_G)
    return best_GL / size_GL, columns_GNL.shape[1] - gain_G


def best_of(theta_GP: Array, error_G: Array, shape: tuple[int, ...], most: int = 4) -> Array:
    """(K, P) the points of a grid of this shape that are lower than their neighbours, lowest first, at most `most`."""
    import numpy as np

    error = np.where(np.isfinite(error_G), error_G, np.inf).reshape(shape)
    padded = np.pad(error, 1, constant_values=np.inf)
    lowest = np.ones(shape, dtype=bool)
    for axis in range(len(shape)):
        for shift in (-1, 1):
            beside = np.roll(padded, shift, axis=axis)[tuple(slice(1, -1) for _ in shape)]
            lowest &= error <= beside
    found = np.flatnonzero(lowest.ravel() & np.isfinite(error.ravel()))
    # where the linear terms have no admissible solution anywhere, the middle of the grid is as good as any
    chosen = found[np.argsort(error.ravel()[found])][:most] if len(found) else [error.size // 2]
    minima_KP: Array = theta_GP[chosen]
    return minima_KP
