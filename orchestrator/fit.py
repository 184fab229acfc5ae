"""Fits a scaling law to a table of runs, with intervals, and with what the data cannot tell."""

# B resamples, N runs, V variables, P internal parameters, M points asked for; arrays float64

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.fitting import checks, intervals
from orchestrator.fitting.checks import HeldOut
from orchestrator.fitting.estimators import ESTIMATORS, Estimated, Estimator, estimate
from orchestrator.fitting.intervals import Resampled
from orchestrator.fitting.parameters import Parameter, reported, undetermined, with_intervals
from orchestrator.fitting.problem import Problem
from orchestrator.fitting.table import AUTO, Runs, read
from orchestrator.laws.law import Array, Law
from workers import plugins
from workers.errors import ConfigError, UnknownName, nearest

if TYPE_CHECKING:
    import polars as pl

__all__ = ["ESTIMATORS", "Fit", "Parameter", "fit"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """A fitted law. `parameters` has its terms, `derived` what follows from them; `columns`: variable -> column.

    `objective` is the minimised sum (of squares halved, of Huber's losses, or of absolute values); of `num_starts`, `num_agree` ended
    at this minimum. `condition`: of J'J in units of each parameter. `unit`: what was resampled, "seed" or "run", or nothing.
    `excluded` counts the rows left out, by reason; `choice` says which runs these are.
    """

    law: Law
    columns: Mapping[str, str]
    y: str
    group: str | None
    weights: str | None
    where: str | None
    choice: Mapping[str, Any]
    estimator: Estimator
    delta: float
    confidence: float
    parameters: Mapping[str, Parameter]
    derived: Mapping[str, Parameter]
    fixed: Mapping[str, float]
    num_points: int
    num_clusters: int
    num_bootstrap: int
    unit: str
    excluded: Mapping[str, int]
    reference: Mapping[str, float]
    ranges: Mapping[str, tuple[float, float]]
    r_squared: float
    residual_sd: float
    robust_sd: float
    objective: float
    converged: bool
    num_starts: int
    num_agree: int
    condition: float
    held_out: HeldOut
    digest: str
    warnings: Sequence[str]
    _y0: float = field(repr=False)
    _estimated: Estimated = field(repr=False)
    _resampled: Resampled = field(repr=False)
    _runs: Runs = field(repr=False)

    @property
    def codes(self) -> Mapping[str, int]:
        """Code fingerprint -> runs, where the table has a column `code`."""
        return self._runs.codes

    @property
    def widening(self) -> float:
        """By how much the deviations of the replicates are widened to intervals."""
        return self._resampled.widening

    # -- of a law of one variable -------------------------------------------------------------------------------------

    @property
    def x(self) -> str:
        """Column of the first variable."""
        return next(iter(self.columns.values()))

    @property
    def x0(self) -> float:
        """Reference of the first variable."""
        return next(iter(self.reference.values()))

    @property
    def x_min(self) -> float:
        """Least value of the first variable."""
        return next(iter(self.ranges.values()))[0]

    @property
    def x_max(self) -> float:
        """Largest value of the first variable."""
        return next(iter(self.ranges.values()))[1]

    # -- the law ------------------------------------------------------------------------------------------------------

    def predict(self, x: Any = None, **values: Any) -> Array:
        """The law in the units of y, at `x` or at a value or array for each variable: `predict(n=1e9, d=2e10)`; at least 1-D."""
        import numpy as np

        u_MV = self._points(x, values)
        y_M: Array = self._y0 * np.exp(self.law.log_value(self._estimated.solved.theta_P[None], u_MV)[0][0])
        return y_M

    def band(self, x: Any = None, **values: Any) -> tuple[Array, Array]:
        """Pointwise interval of the law itself (not of a new run) at points as for `predict`; NaN where there is no interval."""
        import numpy as np

        u_MV, replicate_BP = self._points(x, values), self._resampled.replicate_BP
        if not len(replicate_BP):
            return np.full(len(u_MV), math.nan), np.full(len(u_MV), math.nan)
        best_M = self.law.log_value(self._estimated.smooth_P[None], u_MV)[0][0]
        low_M, high_M = self._resampled.deviations(self.law.log_value(replicate_BP, u_MV)[0], best_M, self.confidence)
        y_M = self.predict(x, **values)
        return y_M * np.exp(low_M), y_M * np.exp(high_M)

    def _points(self, x: Any, values: Mapping[str, Any]) -> Array:
        import numpy as np

        given = {**({next(iter(self.columns)): x} if x is not None else {}), **values}
        if set(given) != set(self.columns):
            raise ConfigError(
                f"a point of the {self.law.plugin_name()} law has {', '.join(self.columns)}; got {', '.join(given) or 'none'}"
            )
        columns = np.broadcast_arrays(*(np.atleast_1d(np.asarray(given[name], dtype=float)).ravel() for name in self.columns))
        u_MV: Array = np.log(np.column_stack(columns) / np.array(list(self.reference.values())))
        return u_MV

    def equation(self, *, intervals: bool = True) -> str:
        """The fitted law as one line of text."""
        values = {name: parameter.text(interval=intervals) for name, parameter in self.parameters.items()}
        reference = {name: f"{value:.4g}" for name, value in self.reference.items()}
        return self.law.equation(values, self.columns, self.y, reference)

    # -- what it does not know ----------------------------------------------------------------------------------------

    def interval_method(self) -> str:
        """One sentence on what the intervals are, or why there are none."""
        if not self.num_bootstrap:
            why = (
                "noise cannot be told from misfit with one seed and so few runs" if self._resampled.asked else "no resamples were asked for"
            )
            return f"no intervals: {why}"
        widened = f"widened x{self._resampled.widening:.2f} to Student's t with {self._resampled.freedom:g} degrees of freedom"
        what = "whole seeds" if self.unit == "seed" else "runs, corrected for their leverage"
        resamples = f"{self.num_bootstrap} Bayesian-bootstrap resamples of {self.num_clusters} {what}"
        return f"{self.confidence:.0%} intervals from {resamples}, {widened}"

    def profile(self, name: str, *, num: int = 41, rise: float = 8.0) -> "pl.DataFrame":
        """The least objective with the parameter `name` held: value, objective, `rise` above the minimum in units of the noise, the others.

        `rise` is 2 (objective - least) / s^2, with s the scale of the residuals: below 3.84 the data do not tell such a value from the best
        at 95 %. The range goes on until it is reached on both sides, at most to e^8 of the value or 8: a flat direction is a long range.
        """
        import polars as pl

        names = self.law.parameters()
        if name not in names:
            raise UnknownName(f"no parameter {name!r}{nearest(name, names)} The {self.law.plugin_name()} law has {', '.join(names)}")
        problem, best_P = self._estimated.smooth, self._estimated.smooth_P
        if not problem.free_P[names.index(name)]:
            raise ConfigError(f"{name} was fixed at {self.fixed[name]:g}: fit with it free to see its profile")
        values_G, loss_G, theta_GP = intervals.profile_until(problem, best_P, names.index(name), 0.5 * rise * self._scale() ** 2, num)
        least = float(loss_G.min())
        x0 = list(self.reference.values())
        columns = {one.name: one.reported(theta_GP[:, i], self._y0, x0) for i, one in enumerate(self.law.terms())}
        return pl.DataFrame({"value": columns.pop(name), "objective": loss_G, "rise": 2 * (loss_G - least) / self._scale() ** 2, **columns})

    def _scale(self) -> float:
        """Of the residuals in the objective: the root of E[psi^2] / E[psi'], which is their standard deviation for least squares.

        With a small delta E[psi'] is a density at 0, taken over a wider window, without the runs that the fit goes through.
        """
        import numpy as np

        if math.isinf(self.delta):
            return max(self.residual_sd, 1e-12)
        problem = self._estimated.smooth
        size_N, delta = np.abs(problem.residuals(self._estimated.smooth_P[None])[0][0]), problem.delta
        number, free = len(size_N), int(problem.free_P.sum())
        window = max(delta, 1.06 * self.robust_sd * number**-0.2)
        through = free if delta < window else 0
        slope = max(int((size_N <= window).sum()) - through, 1) / max(number - through, 1) * delta / window
        variance = (np.minimum(size_N, delta) ** 2).mean() * number / max(number - free, 1)
        return max(math.sqrt(float(variance) / slope), 1e-12)

    def sensitivity(self) -> "pl.DataFrame":
        """The parameters by other choices: estimator and delta, without outliers, without the largest and the smallest runs; a row each."""
        import numpy as np
        import polars as pl

        problem, theta_P = self._estimated.smooth, self._estimated.solved.theta_P
        scale_N = self.law.scale(problem.u_NV)
        far_N = checks.outliers(problem, theta_P, self.robust_sd)
        choices: list[tuple[str, Problem, Estimator]] = [
            (str(other), problem, other)
            for other in (
                Estimator.of(name, "linear" if self.estimator.linear else "log", weighted=self.estimator.weighted) for name in _TRIED
            )
        ]
        if far_N.any():
            choices.append((f"without {int(far_N.sum())} outliers", problem.of(~far_N), self.estimator))
        for what, kept_N in (("largest", scale_N < np.quantile(scale_N, 0.9)), ("smallest", scale_N > np.quantile(scale_N, 0.1))):
            choices.append((f"without the {what} tenth", problem.of(kept_N), self.estimator))
        rows = [self._row_of("as fitted", theta_P, self.delta, len(problem.v_N))]
        for what, part, estimator in choices:
            if len(part.v_N) > int(problem.free_P.sum()):
                found = estimate(part, theta_P, estimator, scattered=False)
                rows.append(self._row_of(what, found.solved.theta_P, found.delta, len(part.v_N)))
        return pl.DataFrame(rows)

    def _row_of(self, what: str, theta_P: Array, delta: float, num_points: int) -> dict[str, Any]:
        values = reported(self.law, theta_P[None], self._y0, self.reference)
        return {"choice": what, "delta": delta, "num_points": num_points, **{name: float(one[0]) for name, one in values.items()}}

    def residuals(self) -> "pl.DataFrame":
        """One row a run that was fitted: its variables, observed, predicted, and the logarithm of predicted over observed."""
        import numpy as np
        import polars as pl

        predicted_N = self.predict(**{name: self._runs.x_NV[:, i] for i, name in enumerate(self.columns)})
        columns = {column: self._runs.x_NV[:, i] for i, column in enumerate(self.columns.values())}
        residual_N = np.log(predicted_N / self._runs.y_N)
        return pl.DataFrame({**columns, "observed": self._runs.y_N, "predicted": predicted_N, "residual": residual_N})

    def replicates(self) -> "pl.DataFrame":
        """The resampled fits: a column a parameter, derived ones too. Not widened (see `interval_method`)."""
        import polars as pl

        return pl.DataFrame(reported(self.law, self._resampled.replicate_BP, self._y0, self.reference))

    # -- tables and texts ---------------------------------------------------------------------------------------------

    def rows(self) -> list[dict[str, Any]]:
        """One row a parameter, for tables."""
        common = {
            **self.choice,
            "law": self.law.plugin_name(),
            "x": ", ".join(self.columns.values()),
            "y": self.y,
            "x0": self.x0,
            "estimator": str(self.estimator),
            "delta": self.delta,
            "confidence": self.confidence,
            "num_points": self.num_points,
            "num_seeds": self.num_clusters,
            "num_excluded": sum(self.excluded.values()),
            "r_squared": self.r_squared,
            "extrapolation_error": self.held_out.error,
            "warnings": "; ".join(self.warnings),
        }
        return [
            {"parameter": name, "value": one.value, "low": one.low, "high": one.high, **common}
            for name, one in {**self.parameters, **self.derived}.items()
        ]

    def to_csv(self, path: str | Path) -> Path:
        """Write `rows` as CSV."""
        import polars as pl

        pl.DataFrame(self.rows()).write_csv(path)
        return Path(path)

    def plot(self, ax: Any = None) -> Any:
        """Runs, law and band along its variable, or predicted against observed where there are several; the Axes."""
        from orchestrator.figures.fitted import fitted

        return fitted(self, ax=ax)

    def __str__(self) -> str:
        return self.summary()

    def summary(self) -> str:
        """The fit as lines of text, warnings last."""
        left_out = ", ".join(f"{count} {reason}" for reason, count in self.excluded.items()) or "none"
        chosen = ", ".join(f"{name}={value}" for name, value in self.choice.items())
        spans = ", ".join(f"{self.columns[name]} from {low:g} to {high:g}" for name, (low, high) in self.ranges.items())
        clusters = f"{self.num_clusters} {'seeds' if self.group else 'runs of their own'}"
        lines = [
            f"{self.law.plugin_name()} law of {self.y} against {', '.join(self.columns.values())}" + (f" ({chosen})" if chosen else ""),
            f"  {self.equation()}",
            *(f"  {name:<12} {parameter}" for name, parameter in {**self.parameters, **self.derived}.items()),
            f"  {self.num_points} runs, {clusters}, {spans}; left out: {left_out}",
            f"  R^2 of logarithms {self.r_squared:.4f}, residual sd {self.residual_sd:.2%}, objective {self.objective:.6g}; "
            f"error at the {self.held_out.num_points} held-out largest runs {self.held_out.error:+.1%}",
            f"  estimator {self.estimator}, delta {self.delta:.3g}; {self.num_agree} of {self.num_starts} starts agree, "
            f"condition {self.condition:.2g}",
            f"  {self.interval_method()}",
            *(f"  warning: {warning}" for warning in self.warnings),
        ]
        return "\n".join(lines)


# whose parameters stand beside the chosen estimator's
_TRIED = ("lad", "1e-4", "hoffmann", "huber", "least_squares")


def fit(
    table: Any,
    law: str | Law = "power",
    *,
    y: str | None = None,
    loss: str | None = None,
    group: str | None = AUTO,
    weights: str | None = None,
    where: str | None = None,
    estimator: str | float = "huber",
    space: str = "log",
    fixed: Mapping[str, float] | None = None,
    reference: Mapping[str, float] | None = None,
    num_bootstrap: int = 1000,
    confidence: float = 0.95,
    random_seed: int = 0,
    choice: Mapping[str, Any] | None = None,
    mixed_code: bool = False,
    **columns: str,
) -> Fit:
    """Fit a law to a polars, pandas or Arrow table, a dict of columns, or a Parquet or CSV file, one row a run.

    `columns` names the law's variables: `fit(table, "chinchilla", n="num_params", d="tokens_seen", loss="loss")`; y or loss names the
    target. Runs of one `group` are resampled together: by default a column `seed` where there is one; None: each run is alone.
    `weights`: a column, such as 1 / variance. `where`: a condition on the columns, in SQL. `estimator`: huber (delta 1.345 robust standard
    deviations), hoffmann (1e-3), least_squares, lad, or a delta; of residuals in `space` log or linear. `fixed`: parameter -> value.
    `reference`: variable -> x0, default the geometric mean. Rows that diverged, are not finite, not positive, or exact copies are left
    out and counted. `choice`: a note of which runs these are. Raises ConfigError or UnknownName, with what the table has, and
    StoreError where its column `code` has several fingerprints, unless `mixed_code`.
    """
    import numpy as np

    if not 0 < confidence < 1:
        raise ConfigError(f"confidence must be between 0 and 1, got {confidence}; 0.95 is usual")
    law = _law(law)
    used, y = _columns(law, columns, y, loss)
    chosen = Estimator.of(estimator, space, weighted=weights is not None)
    runs = read(table, list(used.values()), y, group=group, weights=weights, where=where, mixed_code=mixed_code)
    held = _held(law, fixed or {})
    checks.check_enough(law, runs, used, len(law.terms()) - len(held))
    x0 = _reference(law, runs, used, reference)
    y0 = math.exp(float(np.log(runs.y_N).mean()))
    given_P = np.array([one.internal(held[one.name], y0, list(x0.values())) if one.name in held else 0.0 for one in law.terms()])
    _check_held(law, held, given_P)
    problem = Problem(
        law=law,
        u_NV=np.log(runs.x_NV / np.array(list(x0.values()))),
        v_N=np.log(runs.y_N / y0),
        weight_N=runs.weight_N / runs.weight_N.mean() if weights else runs.weight_N,
        free_P=np.array([one.name not in held for one in law.terms()]),
        linear=chosen.linear,
    )
    found = estimate(problem, given_P, chosen)
    return _assembled(law, used, y, runs, chosen, found, x0, y0, held, weights, where, num_bootstrap, confidence, random_seed, choice or {})


def _assembled(
    law: Law,
    columns: Mapping[str, str],
    y: str,
    runs: Runs,
    estimator: Estimator,
    found: Estimated,
    x0: Mapping[str, float],
    y0: float,
    held: Mapping[str, float],
    weights: str | None,
    where: str | None,
    num_bootstrap: int,
    confidence: float,
    random_seed: int,
    choice: Mapping[str, Any],
) -> Fit:
    import numpy as np

    problem, theta_P = found.smooth, found.solved.theta_P
    resampled = intervals.resample(
        problem,
        found.smooth_P,
        runs.x_NV,
        runs.cluster_N,
        seeds=runs.group is not None,
        number=num_bootstrap,
        confidence=confidence,
        random_seed=random_seed,
    )
    unknown = undetermined(law, checks.undetermined(problem, found.smooth_P), found.smooth_P, y0, x0)
    every = with_intervals(law, found, resampled, confidence, y0, x0, unknown)
    parameters = {name: every[name] for name in law.parameters()}
    residual_N = law.log_value(theta_P[None], problem.u_NV)[0][0] - problem.v_N
    conditioned = checks.condition(problem, found.smooth_P)
    starts = (found.solved.num_starts, found.solved.num_agree)
    far_N = checks.outliers(problem, theta_P, found.robust_sd)
    notes = [
        *checks.notes_of_unknown(runs, columns, [name for name in unknown if name in law.parameters()]),
        *checks.notes_of_fit(law, theta_P, problem.free_P, conditioned, starts, int(far_N.sum())),
    ]
    num_free = int(problem.free_P.sum())
    return Fit(
        law=law,
        columns=columns,
        y=y,
        group=runs.group,
        weights=weights,
        where=where,
        choice=dict(choice),
        estimator=estimator,
        delta=found.delta,
        confidence=confidence,
        parameters=parameters,
        derived={name: one for name, one in every.items() if name not in parameters},
        fixed=dict(held),
        num_points=len(runs.y_N),
        num_clusters=len(np.unique(runs.cluster_N)),
        num_bootstrap=len(resampled.replicate_BP),
        unit=resampled.unit,
        excluded=runs.excluded,
        reference=x0,
        ranges={name: (float(runs.x_NV[:, i].min()), float(runs.x_NV[:, i].max())) for i, name in enumerate(columns)},
        r_squared=checks.r_squared(residual_N, problem.v_N),
        residual_sd=float(np.sqrt((residual_N**2).sum() / max(len(residual_N) - num_free, 1))),
        robust_sd=found.robust_sd,
        objective=found.objective,
        converged=found.solved.converged,
        num_starts=starts[0],
        num_agree=starts[1],
        condition=conditioned[0],
        held_out=checks.held_out(problem, theta_P),
        digest=runs.digest,
        warnings=checks.warnings(law, runs, columns, every, resampled, num_free, notes),
        _y0=y0,
        _estimated=found,
        _resampled=resampled,
        _runs=runs,
    )


# -- what was asked for -------------------------------------------------------------------------------------------------


def _law(law: str | Law) -> Law:
    made: Law = plugins.load("laws", law, "orchestrator")() if isinstance(law, str) else law
    return made


def _columns(law: Law, given: Mapping[str, str], y: str | None, loss: str | None) -> tuple[dict[str, str], str]:
    """The column of each variable, and that of the target."""
    variables, name = law.variables(), law.plugin_name()
    if loss is not None and "loss" in variables:
        given, loss = {**given, "loss": loss}, None
    if (y is None) == (loss is None):
        raise ConfigError(f"which column is to be fitted? Name it by y=...{' (or loss=...)' if 'loss' not in variables else ''}, once")
    if unknown := [one for one in given if one not in variables]:
        raise UnknownName(f"the {name} law has no variable {unknown[0]!r}{nearest(unknown[0], variables)} It has {', '.join(variables)}")
    if missing := [one for one in variables if one not in given]:
        raise ConfigError(
            f"the {name} law needs a column for each of {', '.join(variables)}: {' '.join(f'{one}=COLUMN' for one in missing)}"
        )
    return {one: given[one] for one in variables}, y or loss or ""


def _held(law: Law, fixed: Mapping[str, float]) -> dict[str, float]:
    names = law.parameters()
    for name in fixed:
        if name not in names:
            raise UnknownName(f"no parameter {name!r} to fix{nearest(name, names)} The {law.plugin_name()} law has {', '.join(names)}")
    if len(fixed) == len(names):
        raise ConfigError(f"all {len(names)} parameters of the {law.plugin_name()} law are fixed: leave at least one free")
    return {name: float(value) for name, value in fixed.items()}


def _check_held(law: Law, held: Mapping[str, float], given_P: Array) -> None:
    """Raise ConfigError where a parameter is held at what the law cannot have."""
    low_P, high_P = law.bounds()
    for term, given, low, high in zip(law.terms(), given_P.tolist(), low_P.tolist(), high_P.tolist(), strict=True):
        if term.name in held and not low <= given <= high:
            allowed = "a number above 0" if term.log else f"at least {low:g}" if math.isinf(high) else f"between {low:g} and {high:g}"
            raise ConfigError(f"{term.name} of the {law.plugin_name()} law must be {allowed} to be fixed, got {held[term.name]:g}")


def _reference(law: Law, runs: Runs, columns: Mapping[str, str], given: Mapping[str, float] | None) -> dict[str, float]:
    """x0 of each variable."""
    import numpy as np

    means = [1.0] * len(columns) if law.own_units else np.exp(np.log(runs.x_NV).mean(axis=0)).tolist()
    found = {**dict(zip(columns, means, strict=True)), **{name: float(value) for name, value in (given or {}).items()}}
    if len(found) > len(columns) or not all(0 < value < math.inf for value in found.values()):
        raise ConfigError(f"reference must give positive numbers for {', '.join(columns)}, got {given}")
    return found
