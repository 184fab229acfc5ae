"""The usual way to fit loss = E + A / n^alpha + B / d^beta (Hoffmann et al. 2022, appendix D.2; Besiroglu et al. 2024).

The sum of Huber's losses (delta 1e-3) of log residuals in log-sum-exp form, minimised by L-BFGS-B from each of 4,500 starts; the least is
kept. The gradient is analytic, which the usual code leaves to automatic or finite differences.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

Array = NDArray[np.float64]
DELTA = 1e-3
# ln A, ln B, ln E, alpha, beta
STARTS = list(itertools.product(range(0, 30, 5), range(0, 30, 5), np.arange(-1, 1.5, 0.5), np.arange(0, 2.5, 0.5), np.arange(0, 2.5, 0.5)))


@dataclass(frozen=True)
class Grid:
    """The objective of each start's end, in the order of STARTS."""

    objective_K: Array


def fit(n_N: Array, d_N: Array, loss_N: Array, *, tight: bool = False, every: int = 1) -> Grid:
    """Each `every`-th start; `tight`: the objective times 1e6, and tolerances of 1e-15, where the defaults stop early."""
    ln_n, ln_d, ln_loss = np.log(n_N), np.log(d_N), np.log(loss_N)
    scale = 1e6 if tight else 1.0
    options = {"maxiter": 10_000, "maxfun": 10_000, **({"ftol": 1e-15, "gtol": 1e-12} if tight else {})}

    def objective(theta: Array) -> tuple[float, Array]:
        a, b, e, alpha, beta = theta
        terms_3N = np.stack([a - alpha * ln_n, b - beta * ln_d, np.full_like(ln_n, e)])
        top_N = terms_3N.max(axis=0)
        value_N = top_N + np.log(np.exp(terms_3N - top_N).sum(axis=0))
        share_3N = np.exp(terms_3N - value_N)
        residual_N = value_N - ln_loss
        size_N = np.abs(residual_N)
        total = np.where(size_N <= DELTA, 0.5 * size_N**2, DELTA * (size_N - 0.5 * DELTA)).sum()
        slope_N = np.clip(residual_N, -DELTA, DELTA)
        sums = share_3N @ slope_N
        gradient = np.array([*sums, -(share_3N[0] * ln_n) @ slope_N, -(share_3N[1] * ln_d) @ slope_N])
        return scale * total, scale * gradient

    with np.errstate(over="ignore"):
        ends = [minimize(objective, np.array(start, float), jac=True, method="L-BFGS-B", options=options) for start in STARTS[::every]]
    return Grid(np.array([one.fun / scale for one in ends]))
