"""Compute-optimal sizes: planted optima are found from budgets and from training curves, and what is no minimum is said to be none."""

import math

import numpy as np
import polars as pl
import pytest

from orchestrator.envelope import envelope
from orchestrator.isoflop import isoflops
from workers.errors import ConfigError, UnknownName

A, ALPHA, B, BETA, E = 480.0, 0.34, 1800.0, 0.34, 1.8
BUDGETS = np.geomspace(1e18, 1e21, 7)


def optimum(c: float) -> float:
    """n of least loss at compute 6 n d = c; its exponent is 1/2, as alpha = beta."""
    return float((ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA)) * (c / 6) ** (BETA / (ALPHA + BETA)))


def loss(n, d):
    return E + A / n**ALPHA + B / d**BETA


def runs(*, noise: float = 0.0, low: float = 0.15, high: float = 6.0, num: int = 9, draw: int = 0) -> pl.DataFrame:
    """Runs of each budget at sizes from `low` to `high` times the optimum."""
    random = np.random.default_rng(draw)
    frames = []
    for c in BUDGETS:
        n = optimum(c) * np.geomspace(low, high, num)
        values = loss(n, c / 6 / n) * np.exp(noise * random.standard_normal(num))
        frames.append(pl.DataFrame({"flops": np.full(num, c), "size": n, "val_loss": values}))
    return pl.concat(frames)


COLUMNS = {"c": "flops", "n": "size", "loss": "val_loss"}


@pytest.mark.parametrize(("method", "tolerance"), [("akima", 0.02), ("parabola", 0.3)])
def test_planted_optima_are_found(method: str, tolerance: float) -> None:
    found = isoflops(runs(), method=method, **COLUMNS)
    assert [one.c for one in found.curves] == pytest.approx(BUDGETS.tolist())
    assert all(one.inside for one in found.curves)
    assert [one.n_star / optimum(one.c) for one in found.curves] == pytest.approx([1.0] * 7, rel=tolerance)
    assert found.exponent.value == pytest.approx(0.5, abs=2e-3)
    assert found.warnings == []


def test_the_interval_of_the_exponent_comes_from_noise_and_covers() -> None:
    inside = 0
    for draw in range(40):
        found = isoflops(runs(noise=0.002, draw=draw), num_bootstrap=200, random_seed=draw, **COLUMNS)
        assert found.exponent.low < found.exponent.value < found.exponent.high
        inside += found.exponent.low <= 0.5 <= found.exponent.high
    # a binomial of 40 at 0.95 is below 33 once in 500; the noise itself is estimated
    assert inside >= 33
    assert found.noise == pytest.approx(0.002, rel=0.6)


def test_a_minimum_outside_the_sizes_is_flagged_and_left_out() -> None:
    every = runs()
    largest = BUDGETS[-1]
    cut = every.filter((pl.col("flops") < largest) | (pl.col("size") < 0.8 * optimum(largest)))
    found = isoflops(cut, **COLUMNS)
    assert [one.inside for one in found.curves] == [True] * 6 + [False]
    assert any(f"flops {largest:.3g} is left out" in warning and "both sides" in warning for warning in found.warnings)
    assert found.fit is not None and found.fit.num_points == 6
    assert found.exponent.value == pytest.approx(0.5, abs=0.01)


def test_nothing_is_pretended_where_no_budget_has_a_minimum() -> None:
    found = isoflops(runs(low=1.5, high=20.0), **COLUMNS)
    assert found.fit is None and math.isnan(found.exponent.value)
    assert any("no exponent: it needs minima inside at two values of flops" in warning for warning in found.warnings)


def test_too_few_sizes_are_no_curve() -> None:
    found = isoflops(runs(num=3), **COLUMNS)
    assert all(math.isnan(one.n_star) for one in found.curves)
    assert "3 sizes, and a minimum needs 4" in found.warnings[0]


def test_a_window_takes_most_of_the_error_of_a_parabola_through_lopsided_samples() -> None:
    wide = isoflops(runs(low=0.1, high=100.0, num=21), method="parabola", **COLUMNS)
    near = isoflops(runs(low=0.1, high=100.0, num=21), method="parabola", window=5.0, **COLUMNS)

    def error(found):
        return max(abs(math.log(one.n_star / optimum(one.c))) for one in found.curves)

    assert error(near) < 0.3 * error(wide)


def test_seeds_of_one_size_are_averaged() -> None:
    one, other = runs(noise=0.01, draw=1), runs(noise=0.01, draw=2)
    both = isoflops(pl.concat([one, other]), num_bootstrap=0, **COLUMNS)
    assert all(len(curve.n_N) == 9 for curve in both.curves)
    geometric = np.sqrt(one["val_loss"].to_numpy() * other["val_loss"].to_numpy())[:9]
    assert both.curves[0].loss_N == pytest.approx(geometric)


def test_bad_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="method must be one of akima, parabola, got 'spline'"):
        isoflops(runs(), method="spline", **COLUMNS)
    with pytest.raises(ConfigError, match="window must be a factor above 1"):
        isoflops(runs(), window=0.5, **COLUMNS)
    with pytest.raises(UnknownName, match="no column 'sizes'; did you mean 'size'"):
        isoflops(runs(), c="flops", n="sizes", loss="val_loss")


# -- training curves ----------------------------------------------------------------------------------------------------


def curves() -> pl.DataFrame:
    """40 sizes, each with its loss along training of a constant learning rate, so that the law holds at every point."""
    frames = []
    for number, n in enumerate(np.geomspace(1e6, 1e10, 40)):
        d = np.geomspace(1e7, 1e12, 300)
        frames.append(pl.DataFrame({"run": [f"r{number}"] * 300, "size": np.full(300, n), "flops": 6 * n * d, "val_loss": loss(n, d)}))
    return pl.concat(frames)


def test_the_envelope_of_training_curves_has_the_planted_exponent() -> None:
    found = envelope(curves(), run="run", c="flops", n="size", loss="val_loss")
    assert found.size is not None and found.loss is not None
    assert found.size.parameters["slope"].value == pytest.approx(0.5, abs=0.02)
    assert found.loss.parameters["irreducible"].value == pytest.approx(1.8, rel=0.02)
    inside = found.frame().filter("inside")
    ratio = inside["size"] / np.array([optimum(c) for c in inside["flops"]])
    # between two sizes that are a factor 1.27 apart
    assert ratio.min() > 0.75 and ratio.max() < 1.35


def test_an_envelope_needs_two_runs_and_sizes_of_which_several_are_best() -> None:
    with pytest.raises(ConfigError, match="needs the curves of two runs or more, run has 1"):
        envelope(curves().filter(pl.col("run") == "r3"), run="run", c="flops", n="size", loss="val_loss")
    few = envelope(curves().filter(pl.col("run").is_in(["r3", "r30"])), run="run", c="flops", n="size", loss="val_loss")
    assert few.size is None
    assert "run more sizes" in few.warnings[0]
