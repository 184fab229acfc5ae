"""The table of fits: every choice and number is in it, it reads back, and a fit that is made again is one row."""

import json
import os
import stat

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from orchestrator import fits_table
from orchestrator.fit import Fit, fit
from tests.orchestrator.chinchilla_runs import TRUTH, runs
from workers.errors import Garbled


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    return runs()


def fitted(table: pl.DataFrame, **options: object) -> Fit:
    given = {"law": "chinchilla", "n": "num_params", "d": "tokens", "loss": "val_loss", "num_bootstrap": 40, **options}
    return fit(table, **given)


@pytest.fixture(scope="module")
def one(table: pl.DataFrame) -> Fit:
    return fitted(table, where="val_loss < 100", estimator="hoffmann", choice={"model": "mlp"})


def test_a_row_says_what_was_fitted_how_and_with_what_result(one: Fit, table: pl.DataFrame, tmp_path):
    frame = fits_table.read(fits_table.write([one], tmp_path / "fits.parquet"))
    assert frame.columns == list(fits_table.COLUMNS)
    row = frame.row(0, named=True)
    assert (row["law"], row["law_version"], row["y"], row["row_filter"], row["group_column"], row["weight_column"]) == (
        "chinchilla",
        1,
        "val_loss",
        "val_loss < 100",
        None,
        None,
    )
    assert json.loads(row["variables"]) == {"n": "num_params", "d": "tokens"}
    assert json.loads(row["choice"]) == {"model": "mlp"}
    assert json.loads(row["law_settings"])["irreducible"] is True
    assert (row["estimator"], row["delta"], row["space"], row["input_hash"]) == ("hoffmann", 1e-3, "log", one.digest)
    assert dict(zip(row["parameter_names"], row["parameter_values"], strict=True)) == {name: p.value for name, p in one.parameters.items()}
    assert dict(zip(row["derived_names"], row["derived_high"], strict=True)) == {name: p.high for name, p in one.derived.items()}
    assert row["parameter_values"][row["parameter_names"].index("alpha")] == pytest.approx(TRUTH["alpha"], abs=0.03)
    assert (row["num_points"], row["num_bootstrap"], row["unit"], row["converged"]) == (len(table), 40, "run", True)
    assert (row["held_out_rmsle"], row["held_out_points"]) == (one.held_out.rmsle, one.held_out.num_points)
    assert (row["objective"], row["num_starts"], row["num_agree"]) == (one.objective, one.num_starts, one.num_agree)
    assert set(json.loads(row["versions"])) == {"eigensweep", "numpy", "scipy", "polars", "python"}
    assert row["created"].tzinfo is not None


def test_no_column_is_left_empty_by_oversight(one: Fit):
    row = fits_table.row(one)
    assert sorted(row) == sorted(fits_table.COLUMNS)
    assert {name for name, value in row.items() if value is None} == {"weight_column", "group_column"}


def test_replicates_and_their_covariance_are_those_of_the_fit(one: Fit, tmp_path):
    row = fits_table.read(fits_table.write([one], tmp_path / "fits.parquet")).row(0, named=True)
    replicates = one.replicates()
    assert row["bootstrap"] == [replicates[name].to_list() for name in (*row["parameter_names"], *row["derived_names"])]
    size = len(row["parameter_names"])
    expected = np.cov(replicates.select(row["parameter_names"]).to_numpy(), rowvar=False)
    assert np.array(row["covariance"]).reshape(size, size) == pytest.approx(expected)


def test_intervals_follow_from_what_the_table_keeps(one: Fit):
    """Of an exponent: the best value and the widened quantiles of the replicates around it."""
    row = fits_table.row(one)
    at = row["parameter_names"].index("alpha")
    low, high = np.quantile(np.array(row["bootstrap"][at]) - row["parameter_values"][at], [0.025, 0.975]) * row["widening"]
    assert (row["parameter_values"][at] + low, row["parameter_values"][at] + high) == pytest.approx(
        (row["parameter_low"][at], row["parameter_high"][at])
    )


def test_a_fit_without_intervals_has_empty_lists_and_nan_bounds(table: pl.DataFrame, tmp_path):
    row = fits_table.read(fits_table.write([fitted(table, num_bootstrap=0)], tmp_path / "fits.parquet")).row(0, named=True)
    assert (row["bootstrap"], row["covariance"], row["unit"], row["num_bootstrap"]) == ([], [], "", 0)
    assert all(np.isnan(row["parameter_low"])) and all(np.isnan(row["parameter_high"]))


def test_units_and_meanings_stand_in_the_file(one: Fit, tmp_path):
    schema = pq.read_schema(fits_table.write([one], tmp_path / "fits.parquet"))
    assert schema.metadata[b"eigensweep.table"] == b"fits"
    assert schema.field("created").metadata[b"unit"] == b"UTC"
    assert schema.field("residual_sd").metadata[b"unit"] == b"ln y"
    assert b"not widened" in schema.field("covariance").metadata[b"description"]
    assert all(field.metadata and b"description" in field.metadata for field in schema)


@pytest.mark.parametrize(
    "change",
    [
        {"estimator": "lad"},
        {"estimator": 1e-4},
        {"space": "linear"},
        {"where": "num_params > 1e7"},
        {"fixed": {"E": 1.8}},
        {"reference": {"n": 1e9}},
        {"confidence": 0.9},
        {"num_bootstrap": 0},
        {"weights": "val_loss"},
        {"choice": {"model": "cnn"}},
        {"law": "overtraining", "n": None, "d": None, "c": "num_params", "m": "tokens"},
    ],
    ids=str,
)
def test_another_choice_is_another_fit(change: dict, one: Fit, table: pl.DataFrame):
    given = {key: value for key, value in {"n": "num_params", "d": "tokens", **change}.items() if value is not None}
    other = fit(table, **{"law": "chinchilla", "loss": "val_loss", "num_bootstrap": 40, **given})
    same = fitted(table)
    assert fits_table.fit_id(other) != fits_table.fit_id(same)
    assert fits_table.fit_id(fitted(table)) == fits_table.fit_id(same)


def test_other_data_are_another_fit(table: pl.DataFrame):
    assert fits_table.fit_id(fitted(table, num_bootstrap=0)) != fits_table.fit_id(fitted(table.head(-1), num_bootstrap=0))


def test_a_fit_that_is_made_again_takes_its_own_place(table: pl.DataFrame, tmp_path):
    path = tmp_path / "fits.parquet"
    first, second = fitted(table, num_bootstrap=0), fitted(table, num_bootstrap=0, estimator="lad")
    fits_table.keep([first, second], path)
    made = fits_table.read(path)["created"].to_list()
    fits_table.keep([fitted(table, num_bootstrap=0)], path)
    again = fits_table.read(path)
    assert sorted(again["fit_id"]) == sorted(fits_table.fit_id(one) for one in (first, second))
    assert again.filter(pl.col("fit_id") == fits_table.fit_id(first))["created"].item() > made[0]
    assert again.filter(pl.col("fit_id") == fits_table.fit_id(second))["created"].item() == made[1]


def test_a_table_of_an_earlier_version_has_nulls_in_new_columns(one: Fit, tmp_path):
    path = fits_table.write([one], tmp_path / "fits.parquet")
    pq.write_table(pq.read_table(path).drop_columns(["condition"]), path)
    fits_table.keep([fitted(runs(num_rows=60), num_bootstrap=0)], path)
    frame = fits_table.read(path)
    assert frame.columns == list(fits_table.COLUMNS)
    assert sorted(frame["condition"].is_null()) == [False, True]


def test_the_file_is_for_the_group_to_read_and_leaves_nothing_aside(one: Fit, tmp_path):
    path = fits_table.write([one], tmp_path / "fits.parquet")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o640
    assert os.listdir(tmp_path) == ["fits.parquet"]


@pytest.mark.parametrize("content", [b"", b"PAR1 but no more", None])
def test_a_file_that_is_no_table_of_fits_is_named_and_left_alone(content: bytes | None, one: Fit, tmp_path):
    path = tmp_path / "fits.parquet"
    if content is None:
        pl.DataFrame({"a": [1]}).write_parquet(path)
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    for act in (lambda: fits_table.read(path), lambda: fits_table.keep([one], path)):
        with pytest.raises(Garbled, match="remove it"):
            act()
    assert path.read_bytes() == before


def test_without_a_file_there_are_no_fits_but_all_columns(tmp_path):
    frame = fits_table.read(tmp_path / "fits.parquet")
    assert (len(frame), frame.columns) == (0, list(fits_table.COLUMNS))


def test_duckdb_and_pandas_read_it_and_no_column_needs_quotes(one: Fit, tmp_path):
    import duckdb
    import pandas as pd

    path = fits_table.write([one], tmp_path / "fits.parquet")
    table = f"read_parquet('{path}')"
    assert duckdb.sql(f"select {', '.join(fits_table.COLUMNS)} from {table}").columns == list(fits_table.COLUMNS)
    found = duckdb.sql(f"select parameter_values[list_position(parameter_names, 'alpha')] from {table}").fetchall()
    assert found == [(one.parameters["alpha"].value,)]
    assert pd.read_parquet(path)["law"].tolist() == ["chinchilla"]
    for column in fits_table.COLUMNS:
        pl.read_parquet(path).sql(f"select {column} from self")
