"""How residuals are weighed: Huber with a delta of their own or a given one, least squares, least absolute deviations; the fit by each."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.fitting.problem import Problem
from orchestrator.fitting.solver import Solved, refit, sharpen, solve
from orchestrator.laws.law import Array
from workers.errors import ConfigError, UnknownName, nearest

__all__ = ["ESTIMATORS", "Estimated", "Estimator", "estimate"]

# delta of the Huber loss; None: it follows from the residuals
ESTIMATORS: Mapping[str, float | None] = {"huber": None, "hoffmann": 1e-3, "least_squares": math.inf, "lad": 0.0}
# 95 % efficiency at a normal law (Huber 1964)
TUNING = 1.345
# resamples of least absolute deviations are of a loss that is quadratic up to this many robust standard deviations
_SOFTENING = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimator:
    """`delta` of the Huber loss: None for 1.345 robust standard deviations, infinite for least squares, 0 for least absolute deviations."""

    name: str
    delta: float | None
    linear: bool = False
    weighted: bool = False

    @classmethod
    def of(cls, given: str | float, space: str, *, weighted: bool) -> "Estimator":
        """From a name or a delta; raises UnknownName or ConfigError."""
        if space not in ("log", "linear"):
            raise ConfigError(f"space must be log (residuals of ln y) or linear (residuals of y), got {space!r}")
        try:
            delta: float | None = float(given)
        except ValueError:
            if given not in ESTIMATORS:
                raise UnknownName(
                    f"no estimator {given!r}{nearest(str(given), ESTIMATORS)} There are {', '.join(ESTIMATORS)}, and any delta of "
                    "the Huber loss as a number, such as 1e-4"
                ) from None
            return cls(name=str(given), delta=ESTIMATORS[str(given)], linear=space == "linear", weighted=weighted)
        if not delta or not delta > 0 or math.isinf(delta):
            raise ConfigError(f"delta of the Huber loss must be a number above 0, got {given}; least_squares and lad are its two ends")
        return cls(name="huber", delta=delta, linear=space == "linear", weighted=weighted)

    def __str__(self) -> str:
        """As every result names it."""
        given = f" delta {self.delta:g}" if self.name == "huber" and self.delta is not None else ""
        return f"{self.name}{given}{', weighted' * self.weighted}{', linear residuals' * self.linear}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Estimated:
    """The minimum, at the `delta` that was used; `smooth` and `smooth_P`: the problem, and its minimum, from which resamples begin."""

    solved: Solved
    delta: float
    objective: float
    robust_sd: float
    smooth: Problem
    smooth_P: Array


def estimate(problem: Problem, given_P: Array, estimator: Estimator, *, scattered: bool = True) -> Estimated:
    """Fit by an estimator; `given_P` has the values of parameters that are held. `scattered`: from many starts, not the law's own alone."""
    if estimator.delta is None or estimator.delta == 0.0:
        solved = solve(problem.at(1e-3), given_P, scattered=scattered and estimator.delta is None)
        # the scale from a nearly-L1 fit, then once more from the fit with that scale
        delta = problem.delta
        for _ in range(2):
            delta = max(TUNING * _robust_sd(problem, solved.theta_P), 1e-9)
            problem = problem.at(delta)
            solved = _polished(problem, solved)
        if estimator.delta is None:
            return _estimated(problem, solved, delta)
        smooth = problem.at(delta * _SOFTENING / TUNING)
        softened = _polished(smooth, solved)
        exact = solve(smooth, given_P, exact_l1=True, scattered=scattered)
        loss = float(problem.weight_N @ abs(problem.residuals(exact.theta_P[None])[0][0]))
        sd = _robust_sd(problem, exact.theta_P)
        return Estimated(solved=exact, delta=0.0, objective=loss, robust_sd=sd, smooth=smooth, smooth_P=softened.theta_P)
    problem = problem.at(estimator.delta)
    return _estimated(problem, solve(problem, given_P, scattered=scattered), estimator.delta)


def _polished(problem: Problem, solved: Solved) -> Solved:
    theta_BP, converged_B = refit(problem, problem.weight_N[None], solved.theta_P)
    theta_P = sharpen(problem, theta_BP[0])
    return Solved(
        theta_P=theta_P,
        loss=problem.loss(theta_P),
        converged=bool(converged_B[0]),
        num_starts=solved.num_starts,
        num_agree=solved.num_agree,
    )


def _estimated(problem: Problem, solved: Solved, delta: float) -> Estimated:
    sd = _robust_sd(problem, solved.theta_P)
    return Estimated(solved=solved, delta=delta, objective=solved.loss, robust_sd=sd, smooth=problem, smooth_P=solved.theta_P)


def _robust_sd(problem: Problem, theta_P: Array) -> float:
    """1.4826 median |residual|, raised for the degrees of freedom that the fit took."""
    import numpy as np

    residual_N = problem.residuals(theta_P[None])[0][0]
    freedom = len(residual_N) / max(len(residual_N) - int(problem.free_P.sum()), 1)
    return float(1.4826 * np.median(np.abs(residual_N)) * math.sqrt(freedom))
