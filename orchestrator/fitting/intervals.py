"""How far the data leave a fit's parameters open: resampled fits, and the loss along each parameter."""

# B resamples, N runs, P internal parameters, S clusters (seeds or runs), G grid points of a profile

import math
from dataclasses import dataclass

from orchestrator.fitting.problem import Problem
from orchestrator.fitting.solver import refit
from orchestrator.laws.law import Array

__all__ = ["Resampled", "profile", "profile_until", "repeated", "resample", "tails"]

# runs of their own for each parameter, below which a resampled fit says more of its own misfit than of noise
LEAST_RUNS_PER_PARAMETER = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Resampled:
    """Resampled fits (B, P). Their deviations are to be widened by `widening`. `unit`: what was resampled, "seed", "run" or nothing;
    `lost`: fits that did not converge."""

    replicate_BP: Array
    widening: float = 1.0
    unit: str = ""
    lost: int = 0
    freedom: float = math.inf
    asked: bool = True

    def deviations(self, replicate_BX: Array, centre_X: Array, confidence: float) -> Array:
        """(2, X) lower and upper deviations of some function of the resamples from its value at the fit, widened.

        They hold 0: of two seeds the resamples may all lie on one side of the fit.
        """
        import numpy as np

        low_X, high_X = np.quantile(replicate_BX - centre_X, tails(confidence), axis=0)
        return self.widening * np.stack([np.minimum(low_X, 0.0), np.maximum(high_X, 0.0)])


def tails(confidence: float) -> tuple[float, float]:
    """The two quantiles of an interval."""
    return (1 - confidence) / 2, (1 + confidence) / 2


def repeated(x_NV: Array, cluster_N: Array) -> bool:
    """Whether any point has runs of two clusters."""
    points = [tuple(row) for row in x_NV.tolist()]
    return len(set(zip(points, cluster_N.tolist(), strict=True))) > len(set(points))


def resample(
    problem: Problem, theta_P: Array, x_NV: Array, cluster_N: Array, *, seeds: bool, number: int, confidence: float, random_seed: int
) -> Resampled:
    """Fits with whole clusters re-weighted (Rubin 1981): smooth where resampling three seeds has ten outcomes, and never short of a corner
    of the grid.

    Where each seed is one replicate of the whole grid, seeds are the clusters; else each run is one. The widening undoes the weights'
    variance, (S - 1) / (S (S + 1)) of the clusters' instead of 1 / S, and puts Student's t for the normal: with S - 1 degrees of
    freedom for seeds, exact for a linear estimator on a balanced grid; with N - P for runs, whose residuals the fit has also shrunk.
    """
    import numpy as np
    from scipy import stats

    none = Resampled(replicate_BP=np.empty((0, len(theta_P))), asked=number > 0)
    by_seed = seeds and repeated(x_NV, cluster_N)
    label_N = np.unique(cluster_N, return_inverse=True)[1] if by_seed else np.arange(len(cluster_N))
    num_clusters, num_free = int(label_N.max()) + 1, int(problem.free_P.sum())
    if number <= 0 or (not by_seed and len(label_N) < LEAST_RUNS_PER_PARAMETER * num_free):
        return none
    # gamma of mean 1: of standard deviation 1 it is the exponential, of more it is wider but never negative, as a weight must not be
    variance_S = np.ones(num_clusters) if by_seed else _leverage(problem, theta_P) ** 2
    draw_BS = np.random.default_rng(random_seed).gamma(1 / variance_S, variance_S, size=(number, num_clusters))
    draw_BS *= num_clusters / draw_BS.sum(axis=1, keepdims=True)
    replicate_BP, converged_B = refit(problem, problem.weight_N * draw_BS[:, label_N], theta_P)
    freedom = num_clusters - 1 if by_seed else num_clusters - num_free
    upper = tails(confidence)[1]
    student = float(stats.t.ppf(upper, freedom) / stats.norm.ppf(upper))
    widening = student * math.sqrt((num_clusters + 1) / (num_clusters - 1 if by_seed else num_clusters))
    return Resampled(
        replicate_BP=replicate_BP[converged_B],
        widening=widening,
        unit="seed" if by_seed else "run",
        lost=int((~converged_B).sum()),
        freedom=freedom,
    )


def _leverage(problem: Problem, theta_P: Array) -> Array:
    """(N,) 1 / (1 - h): how much more a run's residual would be without its own pull on the fit (the HC3 correction of MacKinnon and
    White 1985), at most 3."""
    import numpy as np

    _, jacobian_BNP = problem.residuals(theta_P[None])
    design_NF = np.sqrt(problem.weight_N)[:, None] * jacobian_BNP[0][:, problem.free_P]
    basis_NF = np.linalg.qr(design_NF / np.maximum(np.abs(design_NF).max(axis=0), 1e-300))[0]
    share_N = np.minimum((basis_NF**2).sum(axis=1), 2 / 3)
    corrected_N: Array = 1 / (1 - share_N)
    return corrected_N


def profile_until(problem: Problem, theta_P: Array, at: int, rise: float, num: int) -> tuple[Array, Array, Array]:
    """Values, least losses and parameters of a profile of `num` values, on both sides as far as the loss rises by `rise`, at most 8."""
    import numpy as np

    low, high = (float(bound[at]) for bound in problem.law.bounds())
    least, ends = problem.loss(theta_P), []
    for side in (-1.0, 1.0):
        step, limit = 0.01, min(8.0, high - theta_P[at] if side > 0 else theta_P[at] - low)
        walked, start_P = 0.0, theta_P
        while walked < limit:
            walked = min(limit, walked + step)
            loss_1, found_1P = profile(problem, start_P, at, np.array([theta_P[at] + side * walked]))
            start_P, step = found_1P[0], 1.4 * step
            if loss_1[0] - least >= rise:
                break
        ends.append(side * walked)
    values_G = np.unique(theta_P[at] + np.append(np.linspace(ends[0], ends[1], num), 0.0))
    return values_G, *profile(problem, theta_P, at, values_G)


def profile(problem: Problem, theta_P: Array, at: int, values_G: Array) -> tuple[Array, Array]:
    """The least loss (G,) with one internal parameter held at each value, and the others there (G, P)."""
    import numpy as np

    start_GP = np.tile(theta_P, (len(values_G), 1))
    free_GP = np.tile(problem.free_P, (len(values_G), 1))
    start_GP[:, at], free_GP[:, at] = values_G, False
    weight_GN = np.broadcast_to(problem.weight_N, (len(values_G), len(problem.v_N)))
    # outwards from the minimum, each from the last: along a curved valley a start at the minimum itself may be lost
    found_GP, _ = refit(problem, weight_GN, start_GP, free_GP)
    for _ in range(2 if len(values_G) > 1 else 0):
        for order in (range(1, len(values_G)), range(len(values_G) - 2, -1, -1)):
            step = 1 if order.step > 0 else -1
            beside_GP = found_GP.copy()
            for index in order:
                beside_GP[index] = found_GP[index - step]
            beside_GP[:, at] = values_G
            again_GP, _ = refit(problem, weight_GN, beside_GP, free_GP)
            better = problem.losses(problem.residuals(again_GP)[0], weight_GN) < problem.losses(problem.residuals(found_GP)[0], weight_GN)
            found_GP[better] = again_GP[better]
    return problem.losses(problem.residuals(found_GP)[0], weight_GN), found_GP
