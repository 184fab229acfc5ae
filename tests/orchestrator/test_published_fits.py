"""Answers that papers printed, from their own tables; where a published point is no minimum, a lower objective is shown.

The tables are not part of the project: EIGENSWEEP_TABLES names a folder that has them, by default one beside the repository.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from orchestrator.fit import Fit, fit
from orchestrator.isoflop import isoflops

TABLES = Path(os.environ.get("EIGENSWEEP_TABLES", Path(__file__).resolve().parents[3] / "shared/data"))
CONFIGURATION = ["file", "dataset", "hparams", "warmup", "decay", "param_count", "val"]


def table(name: str) -> pl.DataFrame:
    path = TABLES / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    return pl.read_csv(path, infer_schema_length=None)


# -- Muennighoff et al. 2023: repeated data ----------------------------------------------------------------------------------


def data_constrained(**options: Any) -> Fit:
    """R_D* and R_N* with the five of the Chinchilla law as published."""
    fixed = {"A": np.exp(6.255414), "B": np.exp(7.3049974), "E": np.exp(0.6254804), "alpha": 0.3526596, "beta": 0.3526596}
    columns = {"n": "n_params", "d": "tokens", "u": "unique_tokens", "loss": "val_loss"}
    return fit(table("muennighoff2023/fit182.csv"), "data_constrained", fixed=fixed, estimator="hoffmann", **columns, **options)


def objective_at(found: Fit, **values: float) -> float:
    """Of the same fit, elsewhere."""
    problem, theta = found._estimated.smooth, found._estimated.solved.theta_P.copy()
    for index, term in enumerate(found.law.terms()):
        if term.name in values:
            theta[index] = term.internal(values[term.name], found._y0, list(found.reference.values()))
    return problem.loss(theta)


def test_the_published_repetitions_have_the_published_objective_and_are_not_the_minimum() -> None:
    found = data_constrained(num_bootstrap=0)
    assert found.num_points == 182
    assert objective_at(found, R_D=15.387756, R_N=5.309743) == pytest.approx(0.015825936570763588, abs=2e-9)
    assert found.objective < 0.0158047
    assert found.parameters["R_D"].value == pytest.approx(96, rel=0.02)
    assert found.parameters["R_N"].value == pytest.approx(1.70, rel=0.01)
    assert any("starts end at this minimum" in warning for warning in found.warnings)


def test_the_flat_direction_of_the_repetitions_is_in_the_profile() -> None:
    """Between R_D* 15 and 540 the objective changes by less than a quarter of a percent."""
    found = data_constrained(num_bootstrap=0)
    profile = found.profile("R_D")
    flat = profile.filter(pl.col("objective") < 1.0025 * pl.col("objective").min())["value"].to_list()
    assert min(flat) < 18 and max(flat) > 300, flat


# -- Porian et al. 2024: compute-optimal sizes --------------------------------------------------------------------------------


def published_exponents() -> list[tuple[tuple[Any, ...], float]]:
    fits = table("porian2024/published_fits.csv").filter(pl.col("estimator") == "bs_median_weighted")
    return [(row[:-1], row[-1]) for row in fits.select(*CONFIGURATION, "n_exponent").rows()]


def of(frame: pl.DataFrame, configuration: tuple[Any, ...]) -> pl.DataFrame:
    return frame.filter([pl.col(name) == value for name, value in zip(CONFIGURATION, configuration, strict=True)])


def test_all_15_exponents_by_weighted_least_squares_to_the_last_digit() -> None:
    pairs = table("porian2024/optimal_pairs.csv").with_columns(weight=1 / pl.col("n_star_std_log") ** 2)
    differences = []
    for configuration, exponent in published_exponents():
        own = of(pairs, configuration)
        found = fit(own, "loglog", x="flops", y="n_star", weights="weight", estimator="least_squares", num_bootstrap=0)
        differences.append(abs(found.parameters["slope"].value - exponent))
    assert len(differences) == 15
    assert max(differences) < 2e-15


def test_all_15_exponents_from_the_runs_by_akima_within_8_thousandths() -> None:
    points = table("porian2024/isoflop_points.csv")
    differences = []
    for configuration, exponent in published_exponents():
        found = isoflops(of(points, configuration), c="flops", n="n", loss="loss", num_bootstrap=0)
        differences.append(abs(found.exponent.value - exponent))
    assert len(differences) == 15
    assert max(differences) < 0.008


def test_a_parabola_through_wide_samples_gives_another_exponent() -> None:
    points = of(table("porian2024/isoflop_points.csv"), published_exponents()[2][0])
    akima, parabola = (
        isoflops(points, c="flops", n="n", loss="loss", method=method, num_bootstrap=0).exponent.value for method in ("akima", "parabola")
    )
    assert abs(akima - 0.602) < 0.008 < 0.05 < parabola - akima


# -- Gadre et al. 2024: over-training and downstream error --------------------------------------------------------------------


def gadre() -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """The five RedPajama runs of the fit, the same with the 1.4 B run at 20 tokens a parameter, and the two that are predicted."""
    every = table("gadre2024/runs.csv").filter(pl.col("train_dataset") == "rpj")
    size, tokens = pl.col("n_params").cast(pl.Float64), pl.col("tokens").cast(pl.Float64)
    every = every.with_columns(c=6 * size * tokens, m=tokens / size)
    small, optimal = pl.col("n_params") < 1e9, pl.col("token_multiplier") == 20
    five = every.filter((small & optimal) | ((pl.col("n_params") < 2e7) & (pl.col("token_multiplier") == 320)))
    one_b = (pl.col("n_params") > 1e9) & (pl.col("n_params") < 2e9)
    test = pl.concat([every.filter(one_b & (pl.col("token_multiplier") == 640)), every.filter(pl.col("n_params") > 2e9)])
    return five, pl.concat([five, every.filter(one_b & optimal)]), test


def test_the_loss_of_the_over_trained_and_of_the_largest_run_is_predicted_with_the_published_errors() -> None:
    five, _, test = gadre()
    options = {"estimator": "least_squares", "space": "linear", "num_bootstrap": 0}
    found = fit(five, "overtraining", c="c", m="m", loss="loss_c4_val", **options)
    observed = test["loss_c4_val"].to_numpy()
    error = np.abs(found.predict(c=test["c"].to_numpy(), m=test["m"].to_numpy()) / observed - 1)
    assert [f"{100 * one:.4f}" for one in error] == ["0.7103", "0.7320"]


def test_the_downstream_error_is_predicted_from_the_loss_with_the_published_errors() -> None:
    _, six, test = gadre()
    five, *_ = gadre()
    options = {"estimator": "least_squares", "space": "linear", "num_bootstrap": 0}
    loss = fit(five, "overtraining", c="c", m="m", loss="loss_c4_val", **options)
    error = fit(six, "task_error", loss="loss_c4_val", y="err_avg17", **options)
    predicted = error.predict(loss=loss.predict(c=test["c"].to_numpy(), m=test["m"].to_numpy()))
    relative = np.abs(predicted / test["err_avg17"].to_numpy() - 1)
    assert [f"{100 * one:.4f}" for one in relative] == ["3.6365", "0.0464"]
