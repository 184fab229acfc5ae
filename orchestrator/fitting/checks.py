"""What a fit does not know: the error at the largest runs, the choice of estimator and outliers, and what its data cannot tell."""

# N runs, V variables, P internal parameters

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.fitting.intervals import LEAST_RUNS_PER_PARAMETER, Resampled
from orchestrator.fitting.problem import Problem
from orchestrator.fitting.solver import refit
from orchestrator.laws.law import Array, Law
from workers.errors import ConfigError

if TYPE_CHECKING:
    from orchestrator.fit import Parameter
    from orchestrator.fitting.table import Runs

__all__ = [
    "HeldOut",
    "check_enough",
    "condition",
    "held_out",
    "notes_of_fit",
    "notes_of_unknown",
    "outliers",
    "r_squared",
    "undetermined",
    "warnings",
]

# of the runs, how many of the largest are held out where there are several variables
HELD_OUT_SHARE = 0.2
OUTLIER_SDS = 5.0
_CONDITION = 1e6
_CORRELATION = 0.995
# relative singular value of the Jacobian below which a direction is lost in the rounding of its entries
_SINGULAR = 1e-7
_LOST = 1 / _SINGULAR**2


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """The law, fitted without the largest runs, against them: mean relative error, predicted over observed less 1; root mean square error
    of logarithms; how many runs. NaN where too few are left to fit."""

    error: float = math.nan
    rmsle: float = math.nan
    num_points: int = 0


def check_enough(law: Law, runs: "Runs", columns: Mapping[str, str], num_free: int) -> None:
    """Raise ConfigError where the rows cannot determine the law."""
    import numpy as np

    for position, (variable, column) in enumerate(columns.items()):
        values = np.unique(runs.x_NV[:, position])
        if len(values) == 1 and len(columns) > 1:
            raise ConfigError(
                f"{column} has one value, {values[0]:g}, in all {len(runs.y_N)} usable rows, so nothing can be said of how the "
                f"{law.plugin_name()} law depends on {variable}: add rows with other values, or choose a law without it"
            )
    distinct = len(np.unique(runs.x_NV, axis=0))
    if distinct < num_free:
        what = " and ".join(columns.values())
        raise ConfigError(
            f"the {law.plugin_name()} law has {num_free} parameters and needs as many distinct values of {what}; the finite, positive rows "
            f"have {distinct}. Add values with `eigensweep add`, or choose a law with fewer parameters (law=power law.irreducible=false)"
        )


def held_out(problem: Problem, theta_P: Array) -> HeldOut:
    """By the largest scale (`Law.scale`): the runs of the largest x where there is one variable, else the largest fifth."""
    import numpy as np

    scale_N = problem.law.scale(problem.u_NV)
    if problem.u_NV.shape[1] == 1:
        threshold = scale_N.max()
    else:
        threshold = np.sort(scale_N)[max(0, math.floor(len(scale_N) * (1 - HELD_OUT_SHARE)))]
    held_N = scale_N >= threshold - 1e-9 * abs(threshold)
    kept = problem.of(~held_N)
    if held_N.all() or len(np.unique(kept.u_NV, axis=0)) < int(problem.free_P.sum()):
        return HeldOut()
    start_KP = np.concatenate([theta_P[None], np.where(problem.free_P, problem.law.starts(kept.u_NV, kept.v_N), theta_P)])
    start_KP = np.clip(start_KP, *problem.law.bounds())
    found_KP, _ = refit(kept, np.broadcast_to(kept.weight_N, (len(start_KP), len(kept.v_N))), start_KP)
    best_P = found_KP[int(np.nanargmin(kept.losses(kept.residuals(found_KP)[0], kept.weight_N[None])))]
    test = problem.of(held_N)
    residual_N = test.law.log_value(best_P[None], test.u_NV)[0][0] - test.v_N
    return HeldOut(error=math.expm1(float(residual_N.mean())), rmsle=float(np.sqrt((residual_N**2).mean())), num_points=int(held_N.sum()))


def r_squared(residual_N: Array, v_N: Array) -> float:
    """Of the logarithms; NaN where they do not vary."""
    total = float(((v_N - v_N.mean()) ** 2).sum())
    return 1 - float((residual_N**2).sum()) / total if total > 0 else math.nan


def condition(problem: Problem, theta_P: Array) -> tuple[float, tuple[str, str, float]]:
    """Condition number of J'J in units of each parameter, and the two internal parameters that are most correlated."""
    import numpy as np

    free = np.flatnonzero(problem.free_P)
    _, jacobian_BNP = problem.residuals(theta_P[None])
    design_NF = np.sqrt(problem.weight_N)[:, None] * jacobian_BNP[0][:, free]
    design_NF = design_NF / np.maximum(np.sqrt((design_NF**2).sum(axis=0)), 1e-300)
    gram_FF = design_NF.T @ design_NF
    eigenvalues = np.linalg.eigvalsh(gram_FF)
    number = float(eigenvalues[-1] / max(eigenvalues[0], 1e-300))
    covariance = np.linalg.pinv(gram_FF)
    sd = np.sqrt(np.maximum(np.diag(covariance), 1e-300))
    correlation = np.triu(covariance / np.outer(sd, sd), 1)
    names = problem.law.parameters()
    if len(free) < 2:
        return number, ("", "", 0.0)
    one, other = np.unravel_index(int(np.argmax(np.abs(correlation))), correlation.shape)
    return number, (names[free[one]], names[free[other]], float(correlation[one, other]))


def undetermined(problem: Problem, theta_P: Array) -> Array:
    """(K, P) directions of the internal parameters along which no run's value changes: the data say nothing of them."""
    import numpy as np

    free = np.flatnonzero(problem.free_P)
    _, jacobian_BNP = problem.residuals(theta_P[None])
    design_NF = jacobian_BNP[0][:, free]
    size_F = np.maximum(np.sqrt((design_NF**2).sum(axis=0)), 1e-300)
    _, singular, vector_FF = np.linalg.svd(design_NF / size_F, full_matrices=True)
    singular_F = np.append(singular, np.zeros(len(free) - len(singular)))
    direction_KP = np.zeros((int((singular_F < _SINGULAR * singular_F[0]).sum()), len(theta_P)))
    direction_KP[:, free] = vector_FF[singular_F < _SINGULAR * singular_F[0]] / size_F
    flat_KP: Array = direction_KP / np.maximum(np.abs(direction_KP).max(axis=1, keepdims=True), 1e-300)
    return flat_KP


def outliers(problem: Problem, theta_P: Array, robust_sd: float) -> Array:
    """(N,) whether a run is more than 5 robust standard deviations from the law."""
    import numpy as np

    far_N: Array = np.abs(problem.residuals(theta_P[None])[0][0]) > OUTLIER_SDS * max(robust_sd, 1e-12)
    return far_N


def warnings(
    law: Law,
    runs: "Runs",
    columns: Mapping[str, str],
    parameters: Mapping[str, "Parameter"],
    resampled: Resampled,
    num_free: int,
    notes: Sequence[str],
) -> list[str]:
    """What a reader of the fit must know, in words."""
    bounds = [{name: getattr(one, side) for name, one in parameters.items()} for side in ("value", "low", "high")]
    return [*_of_range(runs, columns, num_free), *_of_seeds(runs, columns, resampled, num_free), *notes, *law.concerns(*bounds)]


def _of_range(runs: "Runs", columns: Mapping[str, str], num_free: int) -> Iterator[str]:
    import numpy as np

    distinct, names = len(np.unique(runs.x_NV, axis=0)), " and ".join(columns.values())
    if distinct < num_free + 3:
        yield f"{distinct} values of {names} for {num_free} parameters: too few to see misfit; {num_free + 3} or more would"
    for position, column in enumerate(columns.values()):
        decades = math.log10(float(runs.x_NV[:, position].max()) / float(runs.x_NV[:, position].min()))
        if decades < 1:
            yield f"{column} spans {decades:.2f} decades: an exponent from less than one decade seldom extrapolates"
    if len(columns) > 1 and (shared := _shared_direction(runs.x_NV)) > 0.98:
        yield f"{names} move together (correlation {shared:.3f} of their logarithms): their terms can hardly be told apart"
    if runs.excluded:
        yield "left out: " + ", ".join(f"{count} {reason}" for reason, count in runs.excluded.items())


def _shared_direction(x_NV: Array) -> float:
    import numpy as np

    matrix = np.corrcoef(np.log(x_NV), rowvar=False)
    return float(np.abs(np.triu(matrix, 1)).max())


def _of_seeds(runs: "Runs", columns: Mapping[str, str], resampled: Resampled, num_free: int) -> Iterator[str]:
    import numpy as np

    names = " and ".join(columns.values())
    points = [tuple(row) for row in runs.x_NV.tolist()]
    if resampled.unit == "seed":
        if (seeds := len(np.unique(runs.cluster_N))) < 3:
            yield f"{seeds} seeds: the intervals rest on one degree of freedom; run at least 3"
        if len(set(zip(points, runs.cluster_N.tolist(), strict=True))) < len(points):
            yield f"several rows share {names} and {runs.group}: other axes or steps are mixed; choose among them before the fit"
    elif not resampled.unit and resampled.asked:
        yield (
            f"one seed per value of {names}, and {len(points)} runs for {num_free} parameters: no intervals, because noise cannot be told "
            f"from misfit; run at least 3 seeds, or {LEAST_RUNS_PER_PARAMETER} runs for each parameter"
        )
    if resampled.lost:
        yield f"{resampled.lost} bootstrap fits did not converge and are not in the intervals"


def notes_of_unknown(runs: "Runs", columns: Mapping[str, str], unknown: Sequence[str]) -> Iterator[str]:
    """What no table with these values of its variables could tell."""
    import numpy as np

    if not unknown:
        return
    counts = {column: len(np.unique(runs.x_NV[:, position])) for position, column in enumerate(columns.values())}
    fewest = min(counts, key=lambda column: counts[column])
    yield (
        f"the runs do not determine {', '.join(unknown)}: others along a line fit equally well, so these have no intervals; {fewest} has "
        f"{counts[fewest]} values, more would help, or hold one of them: fixed={{'{unknown[-1]}': ...}}"
    )


def notes_of_fit(
    law: Law, theta_P: Array, free_P: Array, conditioned: tuple[float, tuple[str, str, float]], starts: tuple[int, int], num_outliers: int
) -> Iterator[str]:
    """What the minimum itself says: bounds, flat directions, other minima, outliers."""
    low_P, high_P = law.bounds()
    for position, term in enumerate(law.terms()):
        span = high_P[position] - low_P[position]
        at_low = term.low > -math.inf and theta_P[position] - term.low < 1e-6 * (span if math.isfinite(span) else 1.0)
        at_high = term.high < math.inf and term.high - theta_P[position] < 1e-6 * (span if math.isfinite(span) else 1.0)
        # a level at 0 is what `concerns` tells of
        if free_P[position] and (at_high or (at_low and not (term.low == 0 and term.y_power))):
            yield f"the {term.name} stands at its bound: the data do not follow this law, or the bound is too tight"
    number, (one, other, correlation) = conditioned
    if number < _LOST and (number > _CONDITION or abs(correlation) > _CORRELATION):
        yield f"{one} and {other} can hardly be told apart (correlation {correlation:.4f}, condition {number:.2g}): see profile()"
    if 2 * starts[1] < starts[0]:
        yield f"only {starts[1]} of {starts[0]} starts end at this minimum: there are others near it"
    if num_outliers:
        yield f"{num_outliers} runs lie more than {OUTLIER_SDS:g} robust standard deviations from the law: see sensitivity()"
