"""From a sweep's rows to the points of a fit: the right axis, the right groups, one row a run."""

import polars as pl
import pytest

from orchestrator.points import fit_points, fit_sweep, last_values, points
from tests.orchestrator.synthetic_sweep import EXPONENTS, WIDTHS, SyntheticResults
from workers.errors import ConfigError, UnknownName


def test_the_longest_axis_is_fitted_and_the_others_group():
    found = points(SyntheticResults())
    assert (found.x, found.y, found.replicate) == ("width", "test_loss", "seed")
    assert list(found.groups) == ["model", "train_size"]
    assert len(found.frame) == 2 * 2 * 6 * 3


def test_a_point_is_the_last_step_of_its_run():
    results = SyntheticResults(models=("mlp",), train_sizes=(1000,), widths=(16,), num_seeds=1)
    scalars = results.scalars().collect()
    expected = scalars.filter((pl.col("name") == "test_loss") & (pl.col("step") == 512))["value"].item()
    assert last_values(scalars, "test_loss")["test_loss"].item() == expected


def test_each_group_gets_its_own_exponent():
    fits, notes = fit_points(points(SyntheticResults(num_seeds=5)), num_bootstrap=100)
    assert notes == [] and len(fits) == 4
    for fit in fits:
        one = fit.parameters["exponent"]
        assert one.low < EXPONENTS[fit.choice["model"]] < one.high


def test_a_size_that_an_axis_sets_does_not_group_by_that_axis():
    found = points(SyntheticResults(), x="num_params")
    assert list(found.groups) == ["model", "train_size"]
    assert found.frame["num_params"].n_unique() == len(WIDTHS)


def test_a_scalar_of_another_task_that_the_axes_do_not_single_out_is_refused():
    results = SyntheticResults(models=("mlp",), train_sizes=(1000,))
    results.axes = ["width"]
    with pytest.raises(ConfigError, match="num_params has several values for one run of spectrum"):
        points(results, x="num_params", y="trace")


def test_a_sweep_without_a_numeric_axis_is_fitted_along_num_params():
    results = SyntheticResults(models=("mlp",), train_sizes=(1000,))
    results.axes = ["seed"]
    assert points(results).x == "num_params"


def test_texts_of_the_command_line_become_options():
    fits = fit_sweep(
        SyntheticResults(), **{"law": "power", "law.irreducible": "false", "model": "mlp", "num_bootstrap": "50", "x": "width"}
    )
    assert {fit.choice["train_size"] for fit in fits} == {1000, 10000}
    assert all(list(fit.parameters) == ["amplitude", "exponent"] and fit.choice["model"] == "mlp" for fit in fits)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lawn": "power"}, "no option 'lawn' of a fit; did you mean 'law'"),
        ({"law.ireducible": "false"}, "no setting 'law.ireducible'; did you mean 'irreducible'"),
        ({"y": "test_los"}, "no scalar 'test_los'; did you mean 'test_loss'"),
        ({"x": "widht"}, "no scalar or axis 'widht'; did you mean 'width'"),
        ({"estimator": "hubber"}, "did you mean 'huber'"),
    ],
)
def test_a_misspelt_option_is_answered_with_the_nearest(options, message):
    with pytest.raises(UnknownName, match=message):
        fit_sweep(SyntheticResults(), **options)


def test_an_axis_value_that_no_run_has_is_answered_with_those_there_are():
    with pytest.raises(ConfigError, match="no run has train_size=100; there are 1000, 10000"):
        fit_sweep(SyntheticResults(), train_size=100)


def test_a_chosen_value_stands_in_the_fit_with_its_type():
    fits = fit_sweep(SyntheticResults(), train_size="1000", num_bootstrap="0")
    assert [dict(fit.choice) for fit in fits] == [{"train_size": 1000, "model": "cnn"}, {"train_size": 1000, "model": "mlp"}]


def test_a_sweep_that_has_too_few_widths_says_so():
    with pytest.raises(ConfigError, match="needs as many distinct values of width"):
        fit_sweep(SyntheticResults(widths=(16, 32)), x="width")


def test_a_group_with_too_few_points_does_not_stop_the_others():
    results = SyntheticResults(failed=15)
    fits, notes = fit_points(points(results), num_bootstrap=50)
    assert len(fits) == 3 and len(notes) == 1 and notes[0].startswith("model=mlp, train_size=1000: ")
