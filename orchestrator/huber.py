"""Robust least squares of a law on centred logarithms: one point fit by scipy, and many re-weighted fits at once."""

# B resamples, N points, P internal parameters

import math
from typing import Any

from orchestrator.laws.law import Array, Law

# 95 % efficiency at a normal law (Huber 1964)
TUNING = 1.345


def robust_sd(residual_N: Array, num_parameters: int) -> float:
    """1.4826 median |residual|, raised for the degrees of freedom that the fit took."""
    import numpy as np

    freedom = len(residual_N) / max(len(residual_N) - num_parameters, 1)
    return float(1.4826 * np.median(np.abs(residual_N)) * math.sqrt(freedom))


def best(law: Law, u_N: Array, v_N: Array, delta: float) -> Array:
    """The internal parameters (P,) that minimise the Huber loss of the log residuals, from the law's own start."""
    import numpy as np
    from scipy.optimize import least_squares

    low_P, high_P = law.bounds()
    # least_squares starts strictly inside the bounds
    start_P = np.clip(law.start(u_N, v_N), low_P + 1e-6, high_P - 1e-6)

    def residual(theta_P: Array) -> Any:
        return law.log_value(theta_P[None], u_N)[0][0] - v_N

    def jacobian(theta_P: Array) -> Any:
        return law.log_value(theta_P[None], u_N)[1][0]

    loss, scale = ("linear", 1.0) if math.isinf(delta) else ("huber", delta)
    found = least_squares(
        residual, start_P, jacobian, bounds=(low_P, high_P), loss=loss, f_scale=scale, ftol=1e-14, xtol=1e-14, gtol=1e-14, max_nfev=2000
    )
    # an interior method only nears a bound; the last steps may stand on it
    nearest_P = np.where(found.x - low_P < 1e-7, low_P, found.x)
    theta_P: Array = refit(law, u_N, v_N, delta, np.ones((1, len(u_N))), nearest_P)[0][0]
    return theta_P


def refit(law: Law, u_N: Array, v_N: Array, delta: float, weight_BN: Array, start_P: Array) -> tuple[Array, Array]:
    """Fits with each row of weights, all at once, from one start: internal parameters (B, P) and whether each converged (B,).

    Levenberg-Marquardt on iteratively re-weighted squares, which minimises the Huber loss; a parameter at its bound that wants
    to go further is held.
    """
    import numpy as np

    low_P, high_P = law.bounds()
    theta_BP = np.tile(start_P, (len(weight_BN), 1))
    damping_B = np.full(len(weight_BN), 1e-3)
    converged_B = np.zeros(len(weight_BN), dtype=bool)
    loss_B, gradient_BP, hessian_BPP = _normal(law, theta_BP, u_N, v_N, delta, weight_BN)
    for _ in range(300):
        live = np.flatnonzero(~converged_B)
        if not len(live):
            break
        step = _step(theta_BP[live], gradient_BP[live], hessian_BPP[live], damping_B[live], low_P, high_P)
        trial = np.clip(theta_BP[live] + step, low_P, high_P)
        loss, gradient, hessian = _normal(law, trial, u_N, v_N, delta, weight_BN[live])
        better = loss <= loss_B[live]
        small = np.abs(trial - theta_BP[live]).max(axis=1) < 1e-9
        converged_B[live[small | (damping_B[live] > 1e12)]] = True
        damping_B[live] = np.where(better, np.maximum(damping_B[live] / 5, 1e-12), damping_B[live] * 4)
        kept = live[better]
        theta_BP[kept], loss_B[kept] = trial[better], loss[better]
        gradient_BP[kept], hessian_BPP[kept] = gradient[better], hessian[better]
    return theta_BP, converged_B


def _normal(law: Law, theta_BP: Array, u_N: Array, v_N: Array, delta: float, weight_BN: Array) -> tuple[Array, Array, Array]:
    """The weighted Huber loss (B,), its gradient (B, P) and its Gauss-Newton curvature (B, P, P)."""
    import numpy as np

    value_BN, jacobian_BNP = law.log_value(theta_BP, u_N)
    residual_BN = value_BN - v_N
    size_BN = np.abs(residual_BN)
    inside_BN = size_BN <= delta
    loss_BN = 0.5 * residual_BN**2
    down_BN = weight_BN
    if not inside_BN.all():
        loss_BN = np.where(inside_BN, loss_BN, delta * (size_BN - 0.5 * delta))
        down_BN = weight_BN * np.where(inside_BN, 1.0, delta / np.maximum(size_BN, 1e-300))
    weighted_BNP = down_BN[:, :, None] * jacobian_BNP
    gradient_BP = np.matmul(residual_BN[:, None, :], weighted_BNP)[:, 0]
    hessian_BPP = np.matmul(jacobian_BNP.transpose(0, 2, 1), weighted_BNP)
    return (weight_BN * loss_BN).sum(axis=1), gradient_BP, hessian_BPP


def _step(theta_BP: Array, gradient_BP: Array, hessian_BPP: Array, damping_B: Array, low_P: Array, high_P: Array) -> Array:
    """The damped Newton step (B, P); zero for what stands at a bound and is pushed outwards."""
    import numpy as np

    held_BP = ((theta_BP <= low_P) & (gradient_BP > 0)) | ((theta_BP >= high_P) & (gradient_BP < 0))
    free_BP = (~held_BP).astype(float)
    identity_PP = np.eye(len(low_P))
    diagonal_BP = np.einsum("bpp->bp", hessian_BPP)
    scale_BP = diagonal_BP * damping_B[:, None] + 1e-14 * diagonal_BP.max(axis=1, keepdims=True) + 1e-300
    system_BPP = hessian_BPP * free_BP[:, :, None] * free_BP[:, None, :]
    system_BPP = system_BPP + identity_PP * np.where(held_BP, 1.0, scale_BP)[:, :, None]
    return np.linalg.solve(system_BPP, -(gradient_BP * free_BP)[:, :, None])[:, :, 0]
