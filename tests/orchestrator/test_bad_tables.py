"""A table that cannot be fitted gets one message that says what to do, from `es.fit` and from the command; one that can be fitted in
part is, and says what was left out."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import eigensweep as es
from orchestrator import cli
from tests.orchestrator.chinchilla_runs import runs
from workers.errors import ConfigError, UnknownName

# numpy's own warnings would stand on a user's terminal
pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")
GIVEN = {"law": "chinchilla", "n": "num_params", "d": "tokens", "loss": "val_loss", "num_bootstrap": 20}
NAN = float("nan")

Change = Callable[[pl.DataFrame], pl.DataFrame]


def having(**columns: Any) -> Change:
    """Columns that take the place of the table's."""
    return lambda table: table.with_columns(**{n: c if isinstance(c, pl.Expr) else pl.lit(c) for n, c in columns.items()})


def same(table: pl.DataFrame) -> pl.DataFrame:
    return table


REFUSED: dict[str, tuple[Change, dict[str, Any], type[ConfigError], tuple[str, ...]]] = {
    "all NaN": (
        having(val_loss=NAN), {}, ConfigError,
        ("none of the 90 rows can be fitted: 90 not finite", "check the columns and their units"),
    ),
    "all infinite": (having(val_loss=float("inf")), {}, ConfigError, ("90 not finite",)),
    "all missing": (having(val_loss=None), {}, ConfigError, ("90 not finite",)),
    "zero loss": (having(val_loss=0.0), {}, ConfigError, ("90 not positive", "Logarithms need finite numbers above 0")),
    "negative loss": (having(val_loss=-pl.col("val_loss")), {}, ConfigError, ("90 not positive",)),
    "all diverged": (having(status="diverged"), {}, ConfigError, ("90 diverged",)),
    "some of each, none left": (
        lambda table: table.head(3).with_columns(val_loss=pl.Series([NAN, 0.0, 3.0]), status=pl.Series(["ok", "ok", "diverged"])),
        {},
        ConfigError,
        ("1 not finite, 1 not positive, 1 diverged",),
    ),
    "constant n": (
        having(num_params=1e8), {}, ConfigError,
        ("num_params has one value, 1e+08, in all 90 usable rows", "choose a law without it"),
    ),
    "constant x": (
        having(num_params=1e8),
        {"law": "power", "n": None, "d": None, "x": "num_params"},
        ConfigError,
        ("needs as many distinct values of num_params", "have 1", "choose a law with fewer parameters"),
    ),
    "three rows": (lambda table: table.head(3), {}, ConfigError, ("has 5 parameters", "rows have 3", "choose a law with fewer parameters")),
    "one row many times": (lambda table: pl.concat([table.head(1)] * 20), {}, ConfigError, ("one value",)),
    "four rows many times": (lambda table: pl.concat([table.head(4)] * 20), {}, ConfigError, ("rows have 4",)),
    "no rows": (lambda table: table.clear(), {}, ConfigError, ("the table has no rows",)),
    "no columns": (lambda table: pl.DataFrame(), {}, UnknownName, ("no column 'num_params'",)),
    "absent n": (
        same, {"n": "num_param"}, UnknownName,
        ("no column 'num_param'; did you mean 'num_params'? The table has: num_params, tokens",),
    ),
    "absent loss": (same, {"loss": "loss"}, UnknownName, ("no column 'loss'; did you mean 'val_loss'?",)),
    "absent weights": (same, {"weights": "token"}, UnknownName, ("no column 'token'; did you mean 'tokens'?",)),
    "absent group": (same, {"group": "seed"}, UnknownName, ("no column 'seed'", "group=None where runs are not repeated")),
    "text for numbers": (
        having(val_loss="3.1 nats"), {}, ConfigError,
        ("column 'val_loss' must hold numbers, it holds String", "3.1 nats"),
    ),
    "text among numbers": (
        having(num_params=pl.when(pl.int_range(90) == 0).then(pl.lit("n/a")).otherwise(pl.col("num_params").cast(pl.String))),
        {},
        ConfigError,
        ("column 'num_params' must hold numbers",),
    ),
    "a date for a number": (having(tokens=pl.date(2026, 1, 1)), {}, ConfigError, ("column 'tokens' must hold numbers",)),
    "where selects nothing": (
        same, {"where": "num_params > 1e30"}, ConfigError,
        ("the table has no rows where num_params > 1e30; choose others",),
    ),
    "where is no SQL": (same, {"where": "num_params >> 3 and"}, ConfigError, ("where must be a condition on the columns, such as",)),
    "where of an absent column": (same, {"where": "flops < 1e20"}, ConfigError, ("where must be a condition on the columns", "flops")),
    "where is no condition": (same, {"where": "num_params"}, ConfigError, ("where must be a condition on the columns",)),
    "weights not above 0": (having(w=0.0), {"weights": "w"}, ConfigError, ("90 not positive",)),
    "negative weights": (having(w=-1.0), {"weights": "w"}, ConfigError, ("90 not positive",)),
    "unknown estimator": (
        same, {"estimator": "hubber"}, UnknownName,
        ("no estimator 'hubber'; did you mean 'huber'?", "least_squares, lad"),
    ),
    "delta 0": (same, {"estimator": 0.0}, ConfigError, ("delta of the Huber loss must be a number above 0",)),
    "delta NaN": (same, {"estimator": NAN}, ConfigError, ("delta of the Huber loss must be a number above 0",)),
    "unknown space": (same, {"space": "logs"}, ConfigError, ("space must be log",)),
    "unknown law": (
        same, {"law": "chinchila"}, UnknownName,
        ("no law 'chinchila'; did you mean 'chinchilla'?", "There are bnsl, chinchilla"),
    ),
    "law of an unknown variable": (same, {"x": "tokens"}, UnknownName, ("'x'", "n, d")),
    "law without a column": (same, {"d": None}, ConfigError, ("needs a column for each of n, d: d=COLUMN",)),
    "no loss": (same, {"loss": None}, ConfigError, ("which column is to be fitted? Name it by y=",)),
    "unknown parameter to fix": (
        same, {"fixed": {"gamma": 1.0}}, UnknownName,
        ("no parameter 'gamma' to fix", "loss_n, alpha, loss_d, beta, E"),
    ),
    "all parameters fixed": (
        same,
        {"fixed": dict.fromkeys(("loss_n", "alpha", "loss_d", "beta", "E"), 1.0)},
        ConfigError,
        ("all 5 parameters", "leave at least one free"),
    ),
    "fixed beyond its bounds": (
        same, {"fixed": {"alpha": -0.5}}, ConfigError,
        ("alpha of the chinchilla law must be between 0 and 3 to be fixed, got -0.5",),
    ),
    "fixed amplitude of 0": (same, {"fixed": {"loss_n": 0.0}}, ConfigError, ("loss_n of the chinchilla law must be a number above 0",)),
    "fixed at NaN": (same, {"fixed": {"E": NAN}}, ConfigError, ("E of the chinchilla law must be at least 0 to be fixed, got nan",)),
    "reference of 0": (same, {"reference": {"n": 0.0}}, ConfigError, ("reference must give positive numbers for n, d",)),
    "reference of another variable": (same, {"reference": {"x": 1.0}}, ConfigError, ("reference must give positive numbers for n, d",)),
    "reference NaN": (same, {"reference": {"n": NAN}}, ConfigError, ("reference must give positive numbers for n, d",)),
    "confidence of 95": (same, {"confidence": 95.0}, ConfigError, ("confidence must be between 0 and 1, got 95",)),
}  # fmt: skip


def of(change: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**GIVEN, **change}.items() if value is not None}


def words_of(options: dict[str, Any]) -> list[str]:
    """The same options as words of the command line."""
    found = []
    for name, value in options.items():
        found += [f"{name}.{part}={one}" for part, one in value.items()] if isinstance(value, dict) else [f"{name}={value}"]
    return found


@pytest.mark.parametrize("case", REFUSED)
def test_a_table_that_cannot_be_fitted_says_what_to_do(case: str):
    change, options, error, parts = REFUSED[case]
    with pytest.raises(error) as refused:
        es.fit(change(runs()), **of(options))
    assert type(refused.value) is error
    assert all(part in str(refused.value) for part in parts), refused.value
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("case", REFUSED)
def test_the_command_says_the_same_in_one_message_and_writes_nothing(case: str, tmp_path: Path, monkeypatch, capfd):
    change, options, _, parts = REFUSED[case]
    monkeypatch.chdir(tmp_path)
    change(runs()).write_parquet("runs.parquet")
    assert cli.main(["fit", "runs.parquet", *words_of(of(options)), "--out", "made"]) == 2
    printed = capfd.readouterr()
    assert printed.out == ""
    first, *rest = printed.err.splitlines()
    assert first.startswith("error: ") and all(line.startswith("next: eigensweep fit --help") for line in rest) and len(rest) <= 1
    assert all(part in first for part in parts), first
    assert os.listdir(tmp_path) == ["runs.parquet"]


# -- tables that cannot be read -----------------------------------------------------------------------------------------


def truncated(path: Path) -> str:
    runs().write_parquet(path / "t.parquet")
    (path / "t.parquet").write_bytes((path / "t.parquet").read_bytes()[:-50])
    return "t.parquet"


def named(name: str, content: bytes | None) -> Callable[[Path], str]:
    def make(path: Path) -> str:
        if content is not None:
            (path / name).write_bytes(content)
        return name

    return make


def a_folder(path: Path) -> str:
    (path / "t.parquet").mkdir()
    return "t.parquet"


UNREADABLE = {
    "absent": (named("t.parquet", None), "t.parquet cannot be read as a table"),
    "absent csv": (named("t.csv", None), "t.csv cannot be read as a table"),
    "truncated": (truncated, "t.parquet cannot be read as a table"),
    "empty": (named("t.parquet", b""), "t.parquet cannot be read as a table"),
    "empty csv": (named("t.csv", b""), "t.csv cannot be read as a table"),
    "csv with the name of parquet": (named("t.parquet", b"a,b\n1,2\n"), "t.parquet cannot be read as a table"),
    "parquet with the name of csv": (named("t.csv", b"PAR1\x00\xff\xfe\x01\x02PAR1"), "t"),
    "rows of different lengths": (named("t.csv", b"num_params,tokens,val_loss\n1,2,3\n1,2,3,4,5\n"), "t.csv cannot be read as a table"),
    "a folder": (a_folder, "t.parquet cannot be read as a table"),
    "another kind": (named("./t.xlsx", b""), "a table must be a .parquet or .csv file, got './t.xlsx'"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_file_that_cannot_be_read_is_named_with_what_it_must_be(case: str, tmp_path: Path, monkeypatch, capfd):
    make, message = UNREADABLE[case]
    monkeypatch.chdir(tmp_path)
    name = make(tmp_path)
    before = os.listdir(tmp_path)
    with pytest.raises(ConfigError) as refused:
        es.fit(name, **of({}))
    assert message in str(refused.value)
    assert cli.main(["fit", name, *words_of(GIVEN), "--out", "made"]) == 2
    printed = capfd.readouterr()
    assert printed.err.startswith(f"error: {refused.value}\n") and printed.out == ""
    assert os.listdir(tmp_path) == before


@pytest.mark.parametrize(
    ("table", "given"),
    [(42, "int"), (None, "NoneType"), ([1, 2], "list"), ({"num_params": [1.0, 2.0], "tokens": [1.0]}, "dict"), (object(), "object")],
    ids=["int", "None", "list", "uneven dict", "object"],
)
def test_what_is_no_table_is_told_what_one_is(table: object, given: str):
    with pytest.raises(ConfigError, match=f"a table must be a polars, pandas or Arrow table.*, got {given}"):
        es.fit(table, **of({}))


# -- tables that can be fitted in part ----------------------------------------------------------------------------------

SOME = pl.int_range(90) < 4
PARTLY: dict[str, tuple[Change, dict[str, Any], str, int]] = {
    "some NaN": (having(val_loss=pl.when(SOME).then(NAN).otherwise("val_loss")), {}, "left out: 4 not finite", 86),
    "some missing": (having(tokens=pl.when(SOME).then(None).otherwise("tokens")), {}, "left out: 4 not finite", 86),
    "some zero": (having(val_loss=pl.when(SOME).then(0.0).otherwise("val_loss")), {}, "left out: 4 not positive", 86),
    "some negative": (having(val_loss=pl.when(SOME).then(-1.0).otherwise("val_loss")), {}, "left out: 4 not positive", 86),
    "some diverged": (having(status=pl.when(SOME).then(pl.lit("diverged")).otherwise(pl.lit("ok"))), {}, "left out: 4 diverged", 86),
    "some weights of 0": (having(w=pl.when(SOME).then(0.0).otherwise(1.0)), {"weights": "w"}, "left out: 4 not positive", 86),
    "copies": (lambda table: pl.concat([table, table.head(7)]), {}, "left out: 7 copies", 90),
    "few rows": (lambda table: table.head(6), {}, "for 5 parameters: too few to see misfit", 6),
    "n and d move together": (having(tokens=pl.col("num_params") * 20), {}, "their terms can hardly be told apart", 90),
    "a short range": (having(num_params=1e8 * (1 + pl.int_range(90) % 9)), {}, "less than one decade seldom extrapolates", 90),
    "one seed": (lambda table: having(seed=0)(table.head(12)), {}, "no intervals", 12),
}


@pytest.mark.parametrize("case", PARTLY)
def test_what_can_be_fitted_is_and_says_what_was_wrong(case: str, tmp_path: Path, monkeypatch, capfd):
    change, options, warning, number = PARTLY[case]
    monkeypatch.chdir(tmp_path)
    table = change(runs())
    found = es.fit(table, **of(options))
    assert any(warning in one for one in found.warnings), found.warnings
    assert found.num_points == number
    table.write_parquet("runs.parquet")
    assert cli.main(["fit", "runs.parquet", *words_of(of(options))]) == 0
    printed = capfd.readouterr()
    assert f"  warning: {next(one for one in found.warnings if warning in one)}" in printed.out
    assert printed.err == ""


def test_what_is_left_out_does_not_move_the_fit():
    whole = es.fit(runs().slice(4), **of({}))
    for case in ("some NaN", "some zero", "some negative", "some diverged"):
        assert es.fit(PARTLY[case][0](runs()), **of({})).digest == whole.digest
    assert es.fit(PARTLY["copies"][0](runs()), **of({})).digest == es.fit(runs(), **of({})).digest
