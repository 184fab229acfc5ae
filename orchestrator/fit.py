"""Fits a scaling law to a table of runs, with intervals from a bootstrap over seeds and warnings about what the data cannot tell."""

# B resamples, N runs, P internal parameters, S seeds (clusters), M points asked for; arrays float64

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator import huber
from orchestrator.laws.law import Array, Law
from workers import plugins
from workers.errors import ConfigError, UnknownName, nearest

if TYPE_CHECKING:
    import polars as pl

# delta of the Huber loss on log residuals; None: 1.345 robust standard deviations of the residuals themselves
ESTIMATORS: Mapping[str, float | None] = {"huber": None, "hoffmann": 1e-3, "least_squares": math.inf}


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A fitted number with its interval; NaN bounds where there is no interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return self.text()

    def text(self, *, interval: bool = True) -> str:
        """The value to the digits that its interval supports, and the interval in brackets."""
        width = self.high - self.low
        digits = 4 if not (math.isfinite(width) and width > 0) else 1 - math.floor(math.log10(width))
        value, low, high = (_rounded(number, digits, width) for number in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]" if interval and math.isfinite(width) else value


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """A fitted law. `extrapolation_error`: relative error at the largest x of the same fit made without it.

    `num_seeds` clusters were resampled; `excluded` counts the rows left out, by reason; `choice` says which runs these are.
    """

    law: Law
    x: str
    y: str
    group: str | None
    choice: Mapping[str, Any]
    estimator: str
    delta: float
    confidence: float
    parameters: Mapping[str, Parameter]
    num_points: int
    num_seeds: int
    num_bootstrap: int
    excluded: Mapping[str, int]
    x0: float
    x_min: float
    x_max: float
    r_squared: float
    residual_sd: float
    extrapolation_error: float
    warnings: Sequence[str]
    _y0: float = field(repr=False)
    _theta_P: Array = field(repr=False)
    _replicate_BP: Array = field(repr=False)
    _widening: float = field(repr=False)

    def predict(self, x: Any) -> Array:
        """The law at `x`, in the units of y; shape of `x`, at least 1-D."""
        import numpy as np

        u_M = np.log(np.atleast_1d(np.asarray(x, dtype=float)) / self.x0)
        y_M: Array = self._y0 * np.exp(self.law.log_value(self._theta_P[None], u_M)[0][0])
        return y_M

    def band(self, x: Any) -> tuple[Array, Array]:
        """Pointwise interval of the law itself (not of a new run) at `x`; NaN where there is no interval."""
        import numpy as np

        u_M = np.log(np.atleast_1d(np.asarray(x, dtype=float)) / self.x0)
        if not len(self._replicate_BP):
            return np.full(len(u_M), math.nan), np.full(len(u_M), math.nan)
        best_M = self.law.log_value(self._theta_P[None], u_M)[0][0]
        deviation_BM = self.law.log_value(self._replicate_BP, u_M)[0] - best_M
        low_M, high_M = np.quantile(deviation_BM, _tails(self.confidence), axis=0) * self._widening
        return self._y0 * np.exp(best_M + low_M), self._y0 * np.exp(best_M + high_M)

    def equation(self, *, intervals: bool = True) -> str:
        """The fitted law as one line of text."""
        values = {name: parameter.text(interval=intervals) for name, parameter in self.parameters.items()}
        return self.law.equation(values, self.x, self.y, f"{self.x0:.4g}")

    def __str__(self) -> str:
        return self.summary()

    def interval_method(self) -> str:
        """One sentence on what the intervals are, or why there are none."""
        if not self.num_bootstrap:
            return "no intervals: no x has runs of two seeds, so noise cannot be told from misfit"
        return (
            f"{self.confidence:.0%} intervals from {self.num_bootstrap} Bayesian-bootstrap resamples of {self.num_seeds} whole seeds, "
            f"widened x{self._widening:.2f} to Student's t with {self.num_seeds - 1} degrees of freedom"
        )

    def rows(self) -> list[dict[str, Any]]:
        """One row a parameter, for tables."""
        common = {
            **self.choice,
            "law": self.law.plugin_name(),
            "x": self.x,
            "y": self.y,
            "x0": self.x0,
            "estimator": self.estimator,
            "delta": self.delta,
            "confidence": self.confidence,
            "num_points": self.num_points,
            "num_seeds": self.num_seeds,
            "num_excluded": sum(self.excluded.values()),
            "r_squared": self.r_squared,
            "extrapolation_error": self.extrapolation_error,
            "warnings": "; ".join(self.warnings),
        }
        return [
            {"parameter": name, "value": one.value, "low": one.low, "high": one.high, **common} for name, one in self.parameters.items()
        ]

    def to_csv(self, path: str | Path) -> Path:
        """Write `rows` as CSV."""
        import polars as pl

        pl.DataFrame(self.rows()).write_csv(path)
        return Path(path)

    def summary(self) -> str:
        """The fit as lines of text, warnings last."""
        left_out = ", ".join(f"{count} {reason}" for reason, count in self.excluded.items()) or "none"
        chosen = ", ".join(f"{name}={value}" for name, value in self.choice.items())
        lines = [
            f"{self.law.plugin_name()} law of {self.y} against {self.x}" + (f" ({chosen})" if chosen else ""),
            f"  {self.equation()}",
            *(f"  {name:<12} {parameter}" for name, parameter in self.parameters.items()),
            f"  {self.num_points} runs, {self.num_seeds} seeds, {self.x} from {self.x_min:g} to {self.x_max:g}; left out: {left_out}",
            f"  R^2 of logarithms {self.r_squared:.4f}, residual sd {self.residual_sd:.2%}, "
            f"error at the held-out largest {self.x} {self.extrapolation_error:+.1%}",
            f"  estimator {self.estimator}, delta {self.delta:.3g} on log residuals; {self.interval_method()}",
            *(f"  warning: {warning}" for warning in self.warnings),
        ]
        return "\n".join(lines)


def fit(
    table: Any,
    *,
    x: str,
    y: str,
    law: str | Law = "power",
    group: str | None = "seed",
    num_bootstrap: int = 1000,
    confidence: float = 0.95,
    estimator: str = "huber",
    random_seed: int = 0,
    choice: Mapping[str, Any] | None = None,
) -> Fit:
    """Fit `law` to columns `x` and `y` of a polars, pandas or Arrow table or of a dict of columns, one row a run.

    `group` names the column of seeds, whose runs are resampled together. Rows that diverged (status, NaN) or are not positive are
    left out and counted. `choice` is a note of which runs these are, e.g. {"model": "mlp"}.
    """
    _check(estimator, confidence)
    law = _law(law)
    x_N, y_N, seed_N, excluded = _runs(table, x, y, group)
    _check_enough(x_N, law, x)
    import numpy as np

    x0, y0 = math.exp(np.log(x_N).mean()), math.exp(np.log(y_N).mean())
    u_N, v_N = np.log(x_N / x0), np.log(y_N / y0)
    theta_P, delta = _robust(law, u_N, v_N, estimator)
    replicate_BP, widening, lost = _bootstrap(law, u_N, v_N, delta, theta_P, seed_N, num_bootstrap, confidence, random_seed)
    residual_N = law.log_value(theta_P[None], u_N)[0][0] - v_N
    parameters = _parameters(law, theta_P, replicate_BP, widening, confidence, y0)
    return Fit(
        law=law,
        x=x,
        y=y,
        group=group,
        choice=dict(choice or {}),
        estimator=estimator,
        delta=delta,
        confidence=confidence,
        parameters=parameters,
        num_points=len(x_N),
        num_seeds=len(set(seed_N.tolist())),
        num_bootstrap=len(replicate_BP),
        excluded=excluded,
        x0=x0,
        x_min=float(x_N.min()),
        x_max=float(x_N.max()),
        r_squared=_r_squared(residual_N, v_N),
        residual_sd=float(np.sqrt((residual_N**2).sum() / max(len(x_N) - len(theta_P), 1))),
        extrapolation_error=_extrapolation_error(law, x_N, v_N, estimator),
        warnings=_warnings(law, x_N, seed_N, x, parameters, excluded, lost),
        _y0=y0,
        _theta_P=theta_P,
        _replicate_BP=replicate_BP,
        _widening=widening,
    )


def _check(estimator: str, confidence: float) -> None:
    if estimator not in ESTIMATORS:
        raise UnknownName(f"no estimator {estimator!r}{nearest(estimator, ESTIMATORS)} There are {', '.join(ESTIMATORS)}")
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence must be between 0 and 1, got {confidence}; 0.95 is usual")


def _law(law: str | Law) -> Law:
    made: Law = plugins.load("laws", law, "orchestrator")() if isinstance(law, str) else law
    return made


def _check_enough(x_N: Array, law: Law, x: str) -> None:
    distinct, needed = len(set(x_N.tolist())), len(law.parameters())
    if distinct < needed:
        raise ConfigError(
            f"the {law.plugin_name()} law has {needed} parameters and needs as many distinct values of {x}; the finite, positive rows have "
            f"{distinct}. Add values with `eigensweep add`, or choose a law with fewer parameters (law.irreducible=false)"
        )


def _runs(table: Any, x: str, y: str, group: str | None) -> tuple[Array, Array, Any, dict[str, int]]:
    """x, y and seed labels (N,) of the usable rows, and how many were left out by reason."""
    import numpy as np
    import polars as pl

    frame = _frame(table)
    for name in filter(None, (x, y, group)):
        if name not in frame.columns:
            hint = "; group=None where runs are not repeated" if name == group else ""
            raise UnknownName(f"no column {name!r}{nearest(name, frame.columns)} The table has: {', '.join(frame.columns)}{hint}")
    x_N, y_N = (frame[name].cast(pl.Float64).fill_null(math.nan).to_numpy() for name in (x, y))
    diverged_N = (
        (frame["status"].cast(pl.String).fill_null("") == "diverged").to_numpy()
        if "status" in frame.columns
        else np.zeros(len(frame), bool)
    )
    finite_N = np.isfinite(x_N) & np.isfinite(y_N)
    positive_N = (np.nan_to_num(x_N) > 0) & (np.nan_to_num(y_N) > 0)
    counts = {
        "diverged": int(diverged_N.sum()),
        "not finite": int((~diverged_N & ~finite_N).sum()),
        "not positive": int((~diverged_N & finite_N & ~positive_N).sum()),
    }
    good_N = ~diverged_N & finite_N & positive_N
    seed_N = (
        np.unique(frame[group].cast(pl.String).fill_null("").to_numpy(), return_inverse=True)[1] if group else np.zeros(len(frame), int)
    )
    return x_N[good_N], y_N[good_N], seed_N[good_N], {reason: count for reason, count in counts.items() if count}


def _frame(table: Any) -> "pl.DataFrame":
    import polars as pl

    if isinstance(table, pl.LazyFrame):
        return table.collect()
    if isinstance(table, pl.DataFrame):
        return table
    if isinstance(table, Mapping):
        return pl.DataFrame(dict(table), strict=False)
    if type(table).__module__.startswith("pandas"):
        return pl.from_pandas(table)
    made = pl.from_arrow(table)
    return made.to_frame() if isinstance(made, pl.Series) else made


def _robust(law: Law, u_N: Array, v_N: Array, estimator: str) -> tuple[Array, float]:
    """Internal parameters (P,) and the delta of the loss that they minimise."""
    given = ESTIMATORS[estimator]
    if given is not None:
        return huber.best(law, u_N, v_N, given), given
    theta_P = huber.best(law, u_N, v_N, 1e-3)
    delta = math.inf
    # the scale from a nearly-L1 fit, then once more from the fit with that scale
    for _ in range(2):
        residual_N = law.log_value(theta_P[None], u_N)[0][0] - v_N
        delta = max(huber.TUNING * huber.robust_sd(residual_N, len(theta_P)), 1e-9)
        theta_P = huber.best(law, u_N, v_N, delta)
    return theta_P, delta


def _bootstrap(
    law: Law, u_N: Array, v_N: Array, delta: float, theta_P: Array, seed_N: Any, num_bootstrap: int, confidence: float, random_seed: int
) -> tuple[Array, float, int]:
    """Replicates (B, P), the factor by which their deviations are widened, and how many did not converge.

    Whole seeds get Dirichlet weights (Rubin 1981), smooth where resampling three seeds has ten outcomes. The widening undoes
    the weights' variance, (S - 1) / (S (S + 1)) of the seeds' instead of 1 / S, and puts Student's t with S - 1 degrees of freedom
    for the normal: exact for a linear estimator on a balanced grid, where each seed is one replicate of the whole curve.
    """
    import numpy as np
    from scipy import stats

    num_seeds = len(set(seed_N.tolist()))
    if num_bootstrap <= 0 or not _repeated(u_N, seed_N):
        return np.empty((0, len(theta_P))), 1.0, 0
    label_N = np.unique(seed_N, return_inverse=True)[1]
    draw_BS = np.random.default_rng(random_seed).exponential(size=(num_bootstrap, num_seeds))
    weight_BN = (num_seeds * draw_BS / draw_BS.sum(axis=1, keepdims=True))[:, label_N]
    replicate_BP, converged_B = huber.refit(law, u_N, v_N, delta, weight_BN, theta_P)
    upper = _tails(confidence)[1]
    widening = math.sqrt((num_seeds + 1) / (num_seeds - 1)) * float(stats.t.ppf(upper, num_seeds - 1) / stats.norm.ppf(upper))
    return replicate_BP[converged_B], widening, int((~converged_B).sum())


def _repeated(u_N: Array, seed_N: Any) -> bool:
    """Whether any x has runs of two seeds."""
    pairs = set(zip(u_N.tolist(), seed_N.tolist(), strict=True))
    return len(pairs) > len(set(u_N.tolist()))


def _parameters(law: Law, theta_P: Array, replicate_BP: Array, widening: float, confidence: float, y0: float) -> dict[str, Parameter]:
    import numpy as np

    low_P = high_P = np.full(len(theta_P), math.nan)
    if len(replicate_BP):
        # widened as internal parameters, so that an amplitude stays positive and a bound stays a bound
        quantiles = np.quantile(replicate_BP - theta_P, _tails(confidence), axis=0) * widening
        low_P, high_P = np.clip(theta_P + quantiles, *law.bounds())
    values, lows, highs = (law.reported(one[None], y0) for one in (theta_P, low_P, high_P))
    return {
        name: Parameter(value=float(values[name][0]), low=float(lows[name][0]), high=float(highs[name][0])) for name in law.parameters()
    }


def _tails(confidence: float) -> tuple[float, float]:
    return (1 - confidence) / 2, (1 + confidence) / 2


def _r_squared(residual_N: Array, v_N: Array) -> float:
    total = float(((v_N - v_N.mean()) ** 2).sum())
    return 1 - float((residual_N**2).sum()) / total if total > 0 else math.nan


def _extrapolation_error(law: Law, x_N: Array, v_N: Array, estimator: str) -> float:
    """Predicted over observed at the largest x, less 1, by a fit without it; NaN where too little remains."""
    import numpy as np

    held_N = x_N == x_N.max()
    if len(set(x_N[~held_N].tolist())) < len(law.parameters()):
        return math.nan
    u_N = np.log(x_N) - np.log(x_N[~held_N]).mean()
    shift = v_N[~held_N].mean()
    theta_P, _ = _robust(law, u_N[~held_N], v_N[~held_N] - shift, estimator)
    predicted = law.log_value(theta_P[None], u_N[held_N][:1])[0][0, 0] + shift
    return math.expm1(float(predicted) - float(v_N[held_N].mean()))


def _warnings(
    law: Law, x_N: Array, seed_N: Any, x: str, parameters: Mapping[str, Parameter], excluded: Mapping[str, int], lost: int
) -> list[str]:
    distinct, needed = len(set(x_N.tolist())), len(law.parameters())
    decades = math.log10(float(x_N.max()) / float(x_N.min()))
    seeds = len(set(seed_N.tolist()))
    found = []
    if distinct < needed + 3:
        found.append(f"{distinct} values of {x} for {needed} parameters: too few to see misfit; {needed + 3} or more would")
    if decades < 1:
        found.append(f"{x} spans {decades:.2f} decades: an exponent from less than one decade seldom extrapolates")
    if not _repeated(x_N, seed_N):
        found.append(f"one seed per value of {x}: no intervals, because noise cannot be told from misfit; run at least 3 seeds")
    elif seeds < 3:
        found.append(f"{seeds} seeds: the intervals rest on one degree of freedom; run at least 3")
    if len(set(zip(x_N.tolist(), seed_N.tolist(), strict=True))) < len(x_N) and _repeated(x_N, seed_N):
        found.append(f"several rows share {x} and seed: other axes or steps are mixed; choose among them before the fit")
    if excluded:
        found.append("left out: " + ", ".join(f"{count} {reason}" for reason, count in excluded.items()))
    if lost:
        found.append(f"{lost} bootstrap fits did not converge and are not in the intervals")
    bounds = [{name: getattr(one, side) for name, one in parameters.items()} for side in ("value", "low", "high")]
    return found + law.concerns(*bounds)


def _rounded(number: float, digits: int, width: float) -> str:
    """`number` to `digits` significant digits, or, with an interval, to `digits` decimals."""
    if not math.isfinite(width) or width <= 0 or abs(number) >= 1e6 or 0 < abs(number) < 1e-4:
        return f"{number:.3g}" if math.isfinite(width) and width > 0 else f"{number:.{digits}g}"
    return f"{round(number, digits):.{max(digits, 0)}f}"
