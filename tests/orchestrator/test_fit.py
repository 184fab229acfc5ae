"""The fit: known truth is found and covered, intervals say what the seeds support, and nothing is left out silently."""

import math
import time

import numpy as np
import polars as pl
import pytest

from orchestrator.fit import Fit, Parameter, fit
from orchestrator.fitting import intervals, solver
from orchestrator.fitting.problem import Problem
from orchestrator.laws.power import Power
from workers.errors import ConfigError, UnknownName

WIDTHS = np.array([8, 16, 32, 64, 128, 256, 512])


def runs(num_seeds: int = 3, *, noise: float = 0.01, floor: float = 0.3, exponent: float = 0.5, draw: int = 0) -> pl.DataFrame:
    """Runs of a planted law 0.4 (width / 64)^-exponent + floor with log-normal noise, partly shared by a seed."""
    random = np.random.default_rng(draw)
    width, seed = np.repeat(WIDTHS, num_seeds), np.tile(np.arange(num_seeds), len(WIDTHS))
    shared = 0.5 * noise * random.standard_normal(num_seeds)[seed]
    loss = (floor + 0.4 * (width / 64.0) ** -exponent) * np.exp(noise * random.standard_normal(len(width)) + shared)
    return pl.DataFrame({"width": width, "seed": seed, "loss": loss})


def fitted(table: object, **options: object) -> Fit:
    return fit(table, **{"x": "width", "y": "loss", "num_bootstrap": 200, **options})


@pytest.mark.parametrize("exponent", [0.2, 0.5, 1.5])
def test_a_law_without_noise_is_found_exactly(exponent):
    found = fitted(runs(noise=0.0, exponent=exponent))
    assert found.parameters["exponent"].value == pytest.approx(exponent, rel=1e-5)
    assert found.parameters["irreducible"].value == pytest.approx(0.3, rel=1e-5)
    assert found.x0 == pytest.approx(64)
    assert found.parameters["amplitude"].value == pytest.approx(0.4, rel=1e-5)
    assert found.r_squared == pytest.approx(1)
    assert found.num_agree == found.num_starts == 25
    assert found.held_out.error == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("num_seeds", [3, 5])
def test_95_percent_intervals_cover_planted_parameters(num_seeds):
    covered = {"exponent": 0, "irreducible": 0, "amplitude": 0}
    truth = {"exponent": 0.5, "irreducible": 0.3, "amplitude": 0.4}
    for draw in range(80):
        found = fitted(runs(num_seeds, draw=draw))
        for name, value in truth.items():
            covered[name] += found.parameters[name].low <= value <= found.parameters[name].high
    # a binomial of 80 at 0.95 is below 69 once in 1,400
    assert min(covered.values()) >= 69, covered


def test_the_interval_widens_when_a_seed_is_removed_on_average():
    def width(table):
        parameter = fitted(table).parameters["exponent"]
        return parameter.high - parameter.low

    tables = [runs(4, draw=draw) for draw in range(25)]
    all_four, without_one, without_two = (np.mean([width(t.filter(pl.col("seed") < kept)) for t in tables]) for kept in (4, 3, 2))
    assert all_four < without_one < without_two


def test_where_no_resamples_are_asked_for_nothing_is_said_of_seeds():
    found = fitted(runs(3), num_bootstrap=0)
    assert found.warnings == [] and "no resamples were asked for" in found.interval_method()


def test_an_interval_holds_its_own_estimate_however_few_the_seeds():
    for draw in range(60):
        found = fitted(runs(2, noise=0.05, draw=draw), num_bootstrap=50)
        assert all(one.low <= one.value <= one.high for one in found.parameters.values()), found.summary()


def test_the_band_holds_its_own_curve_however_few_the_seeds():
    for draw in range(30):
        found = fitted(runs(2, noise=0.05, draw=draw), num_bootstrap=20)
        low, high = found.band(WIDTHS)
        assert (low <= found.predict(WIDTHS)).all() and (found.predict(WIDTHS) <= high).all()


def test_weights_of_resampled_runs_are_never_negative_whatever_their_leverage(monkeypatch):
    seen = []

    def refit(problem, weight_BN, *others, **options):
        seen.append(weight_BN)
        return solver.refit(problem, weight_BN, *others, **options)

    monkeypatch.setattr(intervals, "refit", refit)
    x = np.append(np.geomspace(1, 2, 20), 1e4)
    fitted({"width": x, "loss": 0.3 + x**-0.5 * np.exp(0.01 * np.sin(x))}, num_bootstrap=200)
    (weight_BN,) = seen
    assert weight_BN.min() >= 0
    assert weight_BN[:, -1].std() > 2 * weight_BN[:, :-1].std(axis=0).mean(), "the run alone at its end has most leverage"


def test_one_seed_gives_no_interval_and_says_so():
    found = fitted(runs(1))
    assert all(math.isnan(one.low) and math.isnan(one.high) for one in found.parameters.values())
    assert any("one seed per value of width" in warning for warning in found.warnings)
    assert "no intervals" in found.interval_method()
    assert np.isnan(found.band([8])[0]).all()
    assert "[" not in found.equation()


def test_one_run_per_width_under_different_seeds_is_not_taken_for_replicates():
    found = fitted(runs(1).with_columns(seed=pl.int_range(len(WIDTHS))))
    assert found.num_bootstrap == 0


def test_diverged_rows_are_left_out_and_counted():
    table = runs(3).with_columns(status=pl.lit("completed"))
    bad = pl.DataFrame(
        {"width": [8, 8, 16, 16], "seed": [7, 8, 7, 8], "loss": [9.9, math.nan, None, -1.0], "status": ["diverged", *["completed"] * 3]}
    )
    found = fitted(pl.concat([table, bad], how="vertical_relaxed"))
    assert found.excluded == {"diverged": 1, "not finite": 2, "not positive": 1}
    assert "left out: 1 diverged, 2 not finite, 1 not positive" in found.summary()
    assert found.parameters["exponent"].value == fitted(table).parameters["exponent"].value


def test_many_refits_agree_with_scipy_one_by_one():
    table = runs(3, noise=0.03)
    u = np.log(table["width"].to_numpy() / 64.0)[:, None]
    v = np.log(table["loss"].to_numpy())
    weights = np.random.default_rng(1).exponential(size=(5, len(u)))
    problem = Problem(law=Power(), u_NV=u, v_N=v, weight_N=np.ones(len(v)), free_P=np.ones(3, dtype=bool), delta=0.02)
    together, converged = solver.refit(problem, weights, solver.solve(problem, np.zeros(3)).theta_P)
    assert converged.all()
    for weight, theta in zip(weights, together, strict=True):
        assert theta == pytest.approx(_by_scipy(problem, weight), abs=2e-5)


def _by_scipy(problem, weight):
    """The same minimum by a general optimiser without derivatives of ours."""
    from scipy.optimize import minimize

    def loss(theta):
        size = np.abs(problem.law.log_value(theta[None], problem.u_NV)[0][0] - problem.v_N)
        return 1e3 * (weight * np.where(size <= problem.delta, 0.5 * size**2, problem.delta * (size - 0.5 * problem.delta))).sum()

    first = problem.law.starts(problem.u_NV, problem.v_N)[0]
    start = minimize(loss, first, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13, "maxiter": 5000})
    return minimize(loss, start.x, method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-15, "maxiter": 5000}).x


def test_an_outlier_moves_the_robust_fit_less_than_least_squares():
    table = runs(3, noise=0.005)
    spoiled = table.with_columns(loss=pl.when(pl.int_range(pl.len()) == 20).then(pl.col("loss") * 1.3).otherwise(pl.col("loss")))
    shift = {
        name: abs(fitted(spoiled, estimator=name).parameters["exponent"].value - fitted(table, estimator=name).parameters["exponent"].value)
        for name in ("huber", "least_squares")
    }
    assert shift["huber"] < 0.3 * shift["least_squares"]


def test_the_thousand_resamples_take_less_than_two_seconds():
    table = runs(5, noise=0.03)
    fitted(table)
    start = time.perf_counter()
    assert fitted(table, num_bootstrap=1000).num_bootstrap >= 990
    assert time.perf_counter() - start < 2


def test_a_pure_power_law_reports_that_the_irreducible_term_is_not_identified():
    assert any("not identified" in warning for warning in fitted(runs(3, floor=0.0)).warnings)
    alone = fitted(runs(5, floor=0.0), law=Power(irreducible=False))
    assert list(alone.parameters) == ["amplitude", "exponent"]
    assert alone.parameters["exponent"].low < 0.5 < alone.parameters["exponent"].high
    assert alone.warnings == []


def test_a_flat_table_is_said_to_stand_at_the_bound():
    flat = runs(3).with_columns(loss=0.5 + 0.1 * pl.col("width").log())
    assert any("at its bound" in warning for warning in fitted(flat).warnings)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("law", ["power", "loglog", "m3", "m4", "bnsl"])
@pytest.mark.parametrize(
    "estimator", ["huber", *(pytest.param(name, marks=pytest.mark.slow) for name in ("hoffmann", "lad", "least_squares"))]
)
def test_no_shape_of_data_breaks_a_fit_its_profile_or_its_tables(law: str, estimator: str) -> None:
    x = np.geomspace(10, 1e5, 12)
    noise = np.exp(np.random.default_rng(0).normal(size=12))
    for y in (np.full(12, 2.0), x**0.3, noise, 1e-9 * x**-0.5, 1e12 * (1 + x**-0.4)):
        found = fit({"x": x, "y": y}, law, x="x", y="y", estimator=estimator, num_bootstrap=20)
        assert np.isfinite(found.predict(x)).all()
        assert len(found.profile(found.law.parameters()[0], num=5)) >= 2
        assert len(found.sensitivity()) > 1 and found.summary() and len(found.residuals()) == 12


def test_a_short_axis_and_few_points_are_warned_about():
    warnings = fitted(runs(3).filter(pl.col("width") <= 64)).warnings
    assert any("4 values of width for 3 parameters" in warning for warning in warnings)
    assert any("0.90 decades" in warning for warning in warnings)


def test_rows_that_share_width_and_seed_are_warned_about():
    assert any("several rows share" in warning for warning in fitted(pl.concat([runs(2), runs(2, draw=1)])).warnings)


def test_what_two_sizes_of_data_cannot_tell_has_no_interval_and_is_named():
    random = np.random.default_rng(0)
    size, data, seed = (one.ravel() for one in np.meshgrid(np.geomspace(1e4, 1e6, 7), [8e3, 3.2e4], [0, 1, 2], indexing="ij"))
    loss = (0.3 + 40 / size**0.6 + 3 / data**0.3) * np.exp(0.005 * random.standard_normal(size.shape))
    table = {"n": size, "d": data, "seed": seed, "loss": loss}
    found = fit(table, "chinchilla", n="n", d="d", loss="loss", num_bootstrap=200)
    known = [name for name, one in {**found.parameters, **found.derived}.items() if one.high > one.low]
    assert known == ["loss_n", "alpha", "A"]
    (warning,) = (one for one in found.warnings if "do not determine" in one)
    assert "loss_d, beta, E" in warning and "d has 2 values" in warning and "fixed={'E': ...}" in warning
    held = fit(table, "chinchilla", n="n", d="d", loss="loss", num_bootstrap=200, fixed={"E": 0.3})
    assert held.parameters["beta"].low < 0.3 < held.parameters["beta"].high
    assert math.isnan(held.parameters["E"].low) or held.parameters["E"].low == held.parameters["E"].high == pytest.approx(0.3)


def test_too_few_widths_are_refused():
    with pytest.raises(ConfigError, match="3 parameters and needs as many distinct values of width.*have 2"):
        fitted(runs(3).filter(pl.col("width") <= 16))


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(UnknownName, match="no column 'los'; did you mean 'loss'"):
        fitted(runs(), y="los")
    with pytest.raises(UnknownName, match="group=None where runs are not repeated"):
        fitted(runs(), group="replica")
    with pytest.raises(UnknownName, match="no estimator 'hubber'; did you mean 'huber'"):
        fitted(runs(), estimator="hubber")
    with pytest.raises(UnknownName, match="orchestrator/laws/powr.py"):
        fitted(runs(), law="powr")
    with pytest.raises(ConfigError, match="confidence must be between 0 and 1, got 95"):
        fitted(runs(), confidence=95)
    with pytest.raises(ConfigError, match="min_exponent must be below"):
        Power(min_exponent=6.0)


@pytest.mark.parametrize("convert", [pl.DataFrame.lazy, pl.DataFrame.to_pandas, pl.DataFrame.to_arrow, pl.DataFrame.to_dict])
def test_any_kind_of_table_gives_the_same_fit(convert):
    assert fitted(convert(runs())).parameters == fitted(runs()).parameters


def test_the_band_holds_the_curve_and_opens_outside_the_data():
    found = fitted(runs())
    x = np.array([4.0, 64.0, 4096.0])
    low, high = found.band(x)
    assert (low < found.predict(x)).all() and (found.predict(x) < high).all()
    relative = (high - low) / found.predict(x)
    assert relative[1] < relative[0] and relative[1] < relative[2]


def test_prediction_is_the_equation():
    found = fitted(runs())
    one = {name: parameter.value for name, parameter in found.parameters.items()}
    expected = one["irreducible"] + one["amplitude"] * (100 / found.x0) ** -one["exponent"]
    assert found.predict(100)[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (0.52345, 0.48, 0.57, "0.523 [0.480, 0.570]"),
        (269.0, 3.2, 26_000.0, "2.7e+02 [3.2, 2.6e+04]"),
        (0.5, math.nan, math.nan, "0.5"),
        (1.7, 0.0, 1.8, "1.7 [0.0, 1.8]"),
    ],
)
def test_a_number_is_written_to_the_digits_that_its_interval_supports(value: float, low: float, high: float, text: str):
    assert str(Parameter(value=value, low=low, high=high)) == text


def test_csv_holds_each_parameter_with_its_interval_and_estimator(tmp_path):
    found = fitted(runs(), choice={"model": "mlp"})
    read = pl.read_csv(found.to_csv(tmp_path / "fit.csv"))
    assert read["parameter"].to_list() == ["amplitude", "exponent", "irreducible"]
    assert read["value"].to_list() == pytest.approx([one.value for one in found.parameters.values()])
    assert read["model"].to_list() == ["mlp"] * 3 and read["estimator"].to_list() == ["huber"] * 3


def test_the_same_table_gives_the_same_intervals():
    assert fitted(runs()).parameters == fitted(runs()).parameters


def test_a_users_own_law_is_one_module(tmp_path, monkeypatch):
    (tmp_path / "my_laws").mkdir()
    (tmp_path / "my_laws" / "exponential.py").write_text(EXPONENTIAL)
    monkeypatch.syspath_prepend(tmp_path)
    x = np.repeat([1.0, 2.0, 4.0, 8.0, 16.0], 3)
    found = fit({"x": x, "y": 3 * np.exp(-0.2 * np.log(x) ** 2), "seed": list(range(3)) * 5}, x="x", y="y", law="my_laws.exponential")
    assert found.parameters["curvature"].value == pytest.approx(0.2)
    assert found.law.plugin_name() == "my_laws.exponential"


EXPONENTIAL = """
from dataclasses import dataclass
import numpy as np
from orchestrator.laws.law import Law, Term

@dataclass(frozen=True, kw_only=True)
class Exponential(Law):
    def terms(self): return (Term.amplitude("level"), Term.exponent("slope", -9, 9), Term.exponent("curvature", -9, 9))
    def starts(self, u_NV, v_N): return np.zeros((1, 3))
    def log_value(self, theta_BP, u_NV):
        u_N = u_NV[:, 0]
        powers = np.stack([np.ones_like(u_N), -u_N, -u_N**2], axis=-1)
        return theta_BP @ powers.T, np.broadcast_to(powers, (len(theta_BP), *powers.shape))
    def equation(self, values, columns, y, x0): return f"{y} = {values}"
"""
