"""Minimises a fit's loss: one BFGS from a projected start, many re-weighted fits at once, and least absolute deviations exactly."""

# B resamples, N points, P internal parameters, K starts

from dataclasses import dataclass
from typing import Any

from orchestrator.fitting.problem import Problem
from orchestrator.laws.law import Array

__all__ = ["Solved", "refit", "sharpen", "solve"]

_AGREE = 1e-6
_NUM_SCATTERED = 24
_MOST_PROGRAMS = 60


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Solved:
    """The best internal parameters; of `num_starts`, how many ended at a loss within 1e-6 of its."""

    theta_P: Array
    loss: float
    converged: bool
    num_starts: int
    num_agree: int


def solve(problem: Problem, given_P: Array, *, exact_l1: bool = False, scattered: bool = True) -> Solved:
    """The minimum over the free parameters; `given_P` has the values of those that are held.

    BFGS from the law's best start, polished by Levenberg-Marquardt; then the law's other starts and a scatter around the minimum are all
    refined at once, so that a lower minimum is seen and the number of starts that agree is known. `exact_l1`: the loss is that of
    least absolute deviations.
    """
    import numpy as np

    low_P, high_P = problem.law.bounds()
    start_KP = np.where(problem.free_P, problem.law.starts(problem.u_NV, problem.v_N), given_P)
    start_KP = np.clip(start_KP, low_P, high_P)
    first_P = _bfgs(problem, start_KP[np.argmin([problem.loss(start) for start in start_KP])])
    tries_KP = np.concatenate([first_P[None], start_KP, *([_scatter(problem, first_P)] if scattered else [])])
    weight_KN = np.broadcast_to(problem.weight_N, (len(tries_KP), len(problem.v_N)))
    theta_KP, converged_K = refit(problem, weight_KN, tries_KP, tolerance=1e-6 if exact_l1 else 1e-9)
    loss_K = problem.losses(problem.residuals(theta_KP)[0], problem.weight_N[None])
    best = int(np.nanargmin(loss_K))
    theta_P, loss = theta_KP[best], float(loss_K[best])
    # of data without noise, losses are as small as their rounding
    spread = 1e-14 * float(problem.weight_N @ problem.v_N**2)
    agree = int((loss_K[1:] <= loss * (1 + _AGREE) + spread).sum())
    theta_P = _least_absolute(problem, theta_P) if exact_l1 else sharpen(problem, theta_P)
    loss = problem.loss(theta_P)
    return Solved(theta_P=theta_P, loss=loss, converged=bool(converged_K[best]), num_starts=len(tries_KP) - 1, num_agree=agree)


def _scatter(problem: Problem, theta_P: Array) -> Array:
    """Starts around a minimum, up to one unit of each free parameter away; the same each time."""
    import numpy as np

    low_P, high_P = problem.law.bounds()
    step_KP = np.random.default_rng(0).uniform(-1.0, 1.0, (_NUM_SCATTERED, len(theta_P)))
    return np.clip(theta_P + step_KP * problem.free_P * np.maximum(1.0, 0.5 * np.abs(theta_P)), low_P, high_P)


def _bfgs(problem: Problem, start_P: Array) -> Array:
    """L-BFGS-B with the analytic gradient, on the loss in units of its value at the start: default tolerances then mean something."""
    import numpy as np
    from scipy.optimize import minimize

    free_P = problem.free_P
    if not free_P.any():
        return start_P
    scale = max(problem.loss(start_P), 1e-300)

    def objective(part: Array) -> tuple[float, Any]:
        theta_P = start_P.copy()
        theta_P[free_P] = part
        residual_BN, jacobian_BNP = problem.residuals(theta_P[None])
        slope_N = problem.weight_N * np.clip(residual_BN[0], -problem.delta, problem.delta)
        gradient_P = slope_N @ jacobian_BNP[0]
        return float(problem.losses(residual_BN, problem.weight_N[None])[0]) / scale, gradient_P[free_P] / scale

    low_P, high_P = problem.law.bounds()
    bounds = list(zip(low_P[free_P], high_P[free_P], strict=True))
    options = {"maxiter": 3000, "maxfun": 4000, "maxcor": 20, "ftol": 1e-15, "gtol": 1e-10}
    found = minimize(objective, start_P[free_P], jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    theta_P = start_P.copy()
    theta_P[free_P] = found.x
    return theta_P if np.isfinite(found.fun) and found.fun <= 1 else start_P


def refit(
    problem: Problem, weight_BN: Array, start_BP: Array, free_BP: Array | None = None, *, tolerance: float = 1e-9
) -> tuple[Array, Array]:
    """Fits with each row of weights, all at once, each from its start (B, P) or all from one (P,): parameters and whether each converged.

    Levenberg-Marquardt on iteratively re-weighted squares, which minimises the Huber loss; a parameter at its bound that wants
    to go further is held, as is one that is not free. Converged: no parameter moves by more than `tolerance`, relative to 1 + its size.
    """
    import numpy as np

    low_P, high_P = problem.law.bounds()
    theta_BP = np.array(np.broadcast_to(start_BP, (len(weight_BN), len(low_P))))
    free_BP = np.broadcast_to(problem.free_P if free_BP is None else free_BP, theta_BP.shape)
    damping_B = np.full(len(weight_BN), 1e-3)
    converged_B = np.zeros(len(weight_BN), dtype=bool)
    loss_B, gradient_BP, hessian_BPP = problem.normal(theta_BP, weight_BN)
    for _ in range(300):
        live = np.flatnonzero(~converged_B)
        if not len(live):
            break
        step = _step(theta_BP[live], gradient_BP[live], hessian_BPP[live], damping_B[live], low_P, high_P, free_BP[live])
        trial = np.clip(theta_BP[live] + step, low_P, high_P)
        loss, gradient, hessian = problem.normal(trial, weight_BN[live])
        better = loss <= loss_B[live]
        small = (np.abs(trial - theta_BP[live]) / (1 + np.abs(trial))).max(axis=1) < tolerance
        converged_B[live[small | (damping_B[live] > 1e12)]] = True
        damping_B[live] = np.where(better, np.maximum(damping_B[live] / 5, 1e-12), damping_B[live] * 4)
        kept = live[better]
        theta_BP[kept], loss_B[kept] = trial[better], loss[better]
        gradient_BP[kept], hessian_BPP[kept] = gradient[better], hessian[better]
    return theta_BP, converged_B


def sharpen(problem: Problem, theta_P: Array) -> Array:
    """The minimum to the last digits: whole steps as long as the gradient falls, where the loss itself has no more digits to fall by."""
    import numpy as np

    low_P, high_P = problem.law.bounds()
    weight_1N, free_1P = problem.weight_N[None], problem.free_P[None]
    _, gradient_1P, hessian_1PP = problem.normal(theta_P[None], weight_1N)
    for _ in range(5):
        step_1P = _step(theta_P[None], gradient_1P, hessian_1PP, np.zeros(1), low_P, high_P, free_1P)
        trial_P = np.clip(theta_P + step_1P[0], low_P, high_P)
        _, trial_gradient_1P, hessian_1PP = problem.normal(trial_P[None], weight_1N)
        if not np.abs(trial_gradient_1P * free_1P).max() < np.abs(gradient_1P * free_1P).max():
            break
        theta_P, gradient_1P = trial_P, trial_gradient_1P
    return theta_P


def _step(theta_BP: Array, gradient_BP: Array, hessian_BPP: Array, damping_B: Array, low_P: Array, high_P: Array, may_BP: Array) -> Array:
    """The damped Newton step (B, P); zero for what is held, and for what stands at a bound and is pushed outwards."""
    import numpy as np

    held_BP = ~may_BP | ((theta_BP <= low_P) & (gradient_BP > 0)) | ((theta_BP >= high_P) & (gradient_BP < 0))
    free_BP = (~held_BP).astype(float)
    identity_PP = np.eye(len(low_P))
    diagonal_BP = np.einsum("bpp->bp", hessian_BPP)
    scale_BP = diagonal_BP * damping_B[:, None] + 1e-14 * diagonal_BP.max(axis=1, keepdims=True) + 1e-300
    system_BPP = hessian_BPP * free_BP[:, :, None] * free_BP[:, None, :]
    system_BPP = system_BPP + identity_PP * np.where(held_BP, 1.0, scale_BP)[:, :, None]
    return np.linalg.solve(system_BPP, -(gradient_BP * free_BP)[:, :, None])[:, :, 0]


def _least_absolute(problem: Problem, theta_P: Array) -> Array:
    """The minimum of the sum of absolute residuals near `theta_P`: linear programs within a shrinking box (Osborne and Watson 1971)."""
    import numpy as np

    low_P, high_P = problem.law.bounds()
    free = np.flatnonzero(problem.free_P)

    def total(theta: Array) -> float:
        return float(problem.weight_N @ np.abs(problem.residuals(theta[None])[0][0]))

    best, radius = total(theta_P), 0.1
    for _ in range(_MOST_PROGRAMS):
        residual_N, jacobian_NP = (part[0] for part in problem.residuals(theta_P[None]))
        step = _linear_program(problem.weight_N, residual_N, jacobian_NP[:, free], theta_P[free], radius, low_P[free], high_P[free])
        trial = theta_P.copy()
        trial[free] = np.clip(trial[free] + step, low_P[free], high_P[free])
        now = total(trial)
        if now < best:
            theta_P, best, radius = trial, now, 2 * radius
        # a short step within a wide box: its linear program and the loss itself have the same minimum
        if np.abs(step).max() < 1e-10:
            break
        radius = radius if now <= best else radius / 4
    return theta_P


def _linear_program(
    weight_N: Array, residual_N: Array, jacobian_NF: Array, theta_F: Array, radius: float, low_F: Array, high_F: Array
) -> Array:
    """The step within the box that minimises the sum of weighted absolute values of residual + jacobian step."""
    import numpy as np
    from scipy import sparse
    from scipy.optimize import linprog

    num, free = jacobian_NF.shape
    identity = sparse.identity(num, format="csr")
    above = sparse.hstack([sparse.csr_matrix(jacobian_NF), -identity])
    below = sparse.hstack([sparse.csr_matrix(-jacobian_NF), -identity])
    bounds = [(max(-radius, low - at), min(radius, high - at)) for at, low, high in zip(theta_F, low_F, high_F, strict=True)]
    found = linprog(
        np.concatenate([np.zeros(free), weight_N]),
        A_ub=sparse.vstack([above, below]),
        b_ub=np.concatenate([-residual_N, residual_N]),
        bounds=bounds + [(0, None)] * num,
        method="highs",
    )
    return found.x[:free] if found.status == 0 else np.zeros(free)
