"""Paired comparisons and correlations, against scipy and slow ways."""

import math

import numpy as np
import polars as pl
import pytest
from scipy import stats

from orchestrator.pairing import Estimate, correlation, estimate_of, holm, over_clusters, pairs, ratio_of, spearman

RANDOM = np.random.default_rng(1)


def test_a_ratio_is_the_paired_t_interval_and_wilcoxons_test_of_the_logarithms():
    values, references = np.exp(RANDOM.normal(-0.2, 0.3, 12)), np.exp(RANDOM.normal(0, 0.1, 12))
    found = ratio_of(values, references)
    logs = np.log(values / references)
    interval = stats.ttest_1samp(logs, 0.0).confidence_interval(0.95)
    assert [found.value, found.low, found.high] == pytest.approx(np.exp([logs.mean(), interval.low, interval.high]))
    assert found.p_value == stats.wilcoxon(np.log(values), np.log(references)).pvalue
    assert (found.num_pairs, found.num_below) == (12, int((values < references).sum()))


@pytest.mark.parametrize(("shift", "verdict"), [(-0.5, "lower"), (0.5, "higher"), (0.0, "undecided")])
def test_a_verdict_needs_interval_and_test(shift, verdict):
    noise = np.array([-0.2, -0.1, 0.0, 0.1, 0.2, -0.15, 0.15, 0.05, -0.05, 0.12])
    assert ratio_of(np.exp(noise + shift), np.ones(10)).verdict == verdict


def test_five_pairs_decide_nothing_by_wilcoxons_test():
    assert ratio_of(np.full(5, 0.5) + np.arange(5) * 0.01, np.ones(5)).verdict == "undecided"


def test_equal_runs_are_no_evidence_and_one_pair_has_no_interval():
    same, one = ratio_of(np.ones(6), np.ones(6)), ratio_of(np.array([0.5]), np.ones(1))
    assert (same.p_value, same.verdict) == (1.0, "undecided")
    assert one.value == 0.5
    assert math.isnan(one.low)
    assert one.verdict == "undecided"


def test_a_difference_of_two_estimates_is_that_of_welch():
    rng = np.random.default_rng(0)
    first, second = rng.normal(1.0, 0.3, 5), rng.normal(0.5, 0.1, 4)
    made = [Estimate(value=one.mean(), error=one.std(ddof=1) / math.sqrt(len(one)), freedom=len(one) - 1) for one in (first, second)]
    truth = stats.ttest_ind(first, second, equal_var=False)
    difference = made[0].minus(made[1])
    assert difference.p_value == pytest.approx(truth.pvalue)
    assert difference.interval == pytest.approx(tuple(truth.confidence_interval()))
    assert estimate_of(difference.value, *difference.interval, difference.freedom).error == pytest.approx(difference.error)


@pytest.mark.parametrize(
    ("value", "error", "word"),
    [(0.01, 0.01, "equal"), (0.15, 0.01, "different"), (0.01, 0.1, "undecided"), (0.04, 0.01, "different"), (0.0, math.nan, "undecided")],
)
def test_exponents_are_equal_only_where_the_whole_interval_lies_within_the_margin(value: float, error: float, word: str):
    assert Estimate(value=value, error=error, freedom=10).equality(0.05) == word


def test_what_has_no_error_is_told_from_zero_and_an_unknown_error_tells_nothing():
    assert [Estimate(value=value, error=0.0, freedom=2).p_value for value in (0.0, 0.1)] == [1.0, 0.0]
    assert math.isnan(Estimate(value=1.0, error=math.nan, freedom=2).p_value)


def test_holm_rejects_step_by_step():
    assert holm([0.01, 0.04, 0.03, math.nan])[:3] == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert math.isnan(holm([0.1, math.nan])[1])


def test_pairs_agree_in_every_column_and_none_is_made_with_a_diverged_run():
    frame = pl.DataFrame(
        {
            "method": ["a", "b", "a", "b", "a", "b", "a"],
            "seed": [0, 0, 1, 1, 2, 2, 3],
            "own": [None] * 7,
            "loss": [1.0, 2.0, 3.0, math.nan, 5.0, 6.0, 7.0],
        },
        schema_overrides={"own": pl.Int64},
    )
    found = pairs(frame, "method", "a", "b", ["seed", "own"], "loss")
    assert found.select("seed", "loss", "reference").rows() == [(0, 1.0, 2.0), (2, 5.0, 6.0)]


def test_over_clusters_counts_each_once():
    frame = pl.DataFrame({"seed": [0, 0, 1, 1, 2], "loss": [1.0, 4.0, 2.0, 2.0, 8.0], "reference": [1.0, 1.0, 1.0, 1.0, 1.0]})
    found = over_clusters(frame, ["seed"], "loss")
    assert found.num_pairs == 3
    assert found.value == pytest.approx((2 * 2 * 8) ** (1 / 3))


def test_spearman_is_scipys_with_ties():
    x, y = RANDOM.integers(0, 5, 40), RANDOM.normal(size=40)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y)[0])
    assert math.isnan(spearman(np.ones(4), np.arange(4)))


def test_the_interval_of_a_correlation_resamples_whole_clusters():
    """With four equal points of each cluster it is that of one point each, by a slow bootstrap; that of single points is narrower."""
    x = RANDOM.normal(size=20)
    y = x + RANDOM.normal(size=20)
    found = correlation(np.repeat(x, 4), np.repeat(y, 4), np.repeat(np.arange(20), 4))
    slow = [stats.spearmanr(x[index], y[index])[0] for index in np.random.default_rng(5).integers(20, size=(2000, 20))]
    assert [found.low, found.high] == pytest.approx(np.quantile(slow, [0.025, 0.975]), abs=0.06)
    every = correlation(np.repeat(x, 4), np.repeat(y, 4), np.arange(80))
    assert every.high - every.low < 0.7 * (found.high - found.low)
    assert (found.num_points, found.num_clusters) == (80, 20)
    assert found.verdict == "positive"


def test_unequal_clusters_and_missing_values_are_taken():
    x, y = np.array([0.0, 1, 2, 3, 4, math.nan]), np.array([5.0, 4, 3, 2, 1, 0])
    found = correlation(x, y, np.array([0, 0, 1, 2, 2, 3]))
    assert found.value == -1.0
    assert (found.num_points, found.num_clusters) == (5, 3)


def test_too_few_clusters_have_no_interval():
    found = correlation(np.arange(4.0), np.arange(4.0), np.array([0, 0, 1, 1]))
    assert math.isnan(found.low)
    assert found.verdict == "undecided"
