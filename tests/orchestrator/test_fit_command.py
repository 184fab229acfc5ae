"""`es.fit`, `sweep.fit` and `eigensweep fit`: any table, any law of several variables, fits that are kept, code that is not mixed."""

import json
import os
import re
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import store_fakes as fakes
from store_fakes import fake_sweeps, tree, write_sweep  # noqa: F401

import eigensweep as es
from orchestrator import cli, completion, fit_options, fits_table
from orchestrator.store import Store
from tests.orchestrator.chinchilla_runs import TRUTH, runs
from tests.orchestrator.synthetic_sweep import SyntheticResults
from workers.errors import ConfigError, StoreError, UnknownName

CHINCHILLA = ("law=chinchilla", "n=num_params", "d=tokens", "loss=val_loss")
OF_SWEEP = ("law=chinchilla", "n=num_params", "d=train_size", "y=test_loss", "num_bootstrap=50")
FEW = "num_bootstrap=50"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own working folder with runs.parquet and runs.csv."""
    monkeypatch.chdir(tmp_path)
    runs().write_parquet(tmp_path / "runs.parquet")
    runs().write_csv(tmp_path / "runs.csv")
    return tmp_path


@pytest.fixture
def sweep(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A finished sweep w1 of width, train_size and seed, with a planted law of num_params and train_size."""
    _sweep(store)
    monkeypatch.setenv("EIGENSWEEP_ROOT", str(store.root))
    return store


def _sweep(store: Store, codes: tuple[str, ...] = ("c0de",)) -> None:
    random = np.random.default_rng(0)
    points = [{"width": w, "train_size": d, "seed": s} for w in (8, 16, 32, 64, 128) for d in (100, 1000, 10_000) for s in range(3)]
    for i, (key, point) in enumerate(zip(write_sweep(store, "w1", points), points, strict=True)):
        num_params = 50.0 * point["width"]
        loss = (0.3 + (num_params / 400) ** -0.6 + 2 * point["train_size"] ** -0.3) * np.exp(0.004 * random.standard_normal())
        rows = {"scalars": {"step": [0, 9], "name": ["num_params", "test_loss"], "value": [num_params, float(loss)]}}
        fakes.commit(store, key, ["w1"], rows=rows, code=codes[i % len(codes)])


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """What a command prints, on stdout where it is good, else on stderr."""
    assert cli.main(["fit", *arguments]) == code, capsys.readouterr()
    printed = capsys.readouterr()
    return printed.err if code else printed.out


# -- the function -------------------------------------------------------------------------------------------------------


def test_a_table_of_any_kind_gives_the_same_fit(folder: Path):
    frame = runs()
    tables = {
        "polars": frame,
        "lazy": frame.lazy(),
        "pandas": frame.to_pandas(),
        "arrow": frame.to_arrow(),
        "record batch": frame.to_arrow().to_batches()[0],
        "dict": frame.to_dict(as_series=False),
        "arrays": {name: frame[name].to_numpy() for name in frame.columns},
        "parquet": "runs.parquet",
        "path": folder / "runs.parquet",
        "csv": "runs.csv",
    }
    fits = {
        kind: es.fit(table, law="chinchilla", n="num_params", d="tokens", loss="val_loss", num_bootstrap=0)
        for kind, table in tables.items()
    }
    assert len({fit.digest for fit in fits.values()}) == 1
    assert len({fits_table.fit_id(fit) for fit in fits.values()}) == 1
    assert fits["csv"].parameters["alpha"].value == pytest.approx(TRUTH["alpha"], abs=0.03)


def test_a_pandas_index_and_nullable_columns_are_no_hindrance():
    frame = runs().to_pandas().sample(frac=1, random_state=0).convert_dtypes()
    frame.loc[frame.index[0], "val_loss"] = pd.NA
    found = es.fit(frame, "chinchilla", n="num_params", d="tokens", loss="val_loss", num_bootstrap=0)
    assert (found.num_points, dict(found.excluded)) == (len(frame) - 1, {"not finite": 1})


def test_the_name_of_a_sweep_is_answered_with_how_sweeps_are_fitted():
    with pytest.raises(ConfigError, match=re.escape("a sweep is fitted by es.load('w1').fit(...)")):
        es.fit("w1", x="width", y="loss")


def test_the_public_names_are_the_function_and_its_class():
    assert isinstance(es.fit(runs(), x="num_params", y="val_loss", num_bootstrap=0), es.Fit)


# -- a sweep ------------------------------------------------------------------------------------------------------------


def test_a_law_of_several_variables_is_fitted_to_axes_and_scalars_of_a_sweep(sweep: Store):
    (found,) = es.load("w1").fit(law="chinchilla", n="num_params", d="train_size", y="test_loss", num_bootstrap=50)
    assert (found.num_points, found.group, dict(found.choice)) == (45, "seed", {})
    assert found.parameters["alpha"].value == pytest.approx(0.6, abs=0.05)
    assert found.parameters["beta"].value == pytest.approx(0.3, abs=0.05)


def test_the_other_axes_group_the_fits_of_a_law_of_several_variables():
    from orchestrator.points import fit_sweep

    results = SyntheticResults(train_sizes=(1000, 3000, 10000))
    fits = fit_sweep(results, law="chinchilla", n="num_params", d="train_size", y="test_loss", num_bootstrap=0)
    assert [dict(fit.choice) for fit in fits] == [{"model": "cnn"}, {"model": "mlp"}]
    by_axis = fit_sweep(results, law="chinchilla", n="width", d="train_size", num_bootstrap=0, model="mlp")
    assert [dict(fit.choice) for fit in by_axis] == [{"model": "mlp"}]


def test_an_observable_is_fitted_against_a_scalar_of_another_task_of_the_same_point():
    from orchestrator.points import fit_sweep

    (found,) = fit_sweep(SyntheticResults(models=("mlp",), train_sizes=(1000,)), law="loglog", x="num_params", y="trace", num_bootstrap=0)
    (by_width,) = fit_sweep(SyntheticResults(models=("mlp",), train_sizes=(1000,)), law="loglog", x="width", y="trace", num_bootstrap=0)
    assert by_width.parameters["slope"].value == pytest.approx(0.9, abs=0.05)
    assert found.num_points == by_width.num_points == 18
    assert found.ranges["x"] == (784.0 * 16 + 16**2, 784.0 * 512 + 512**2)


def test_options_may_be_values_or_texts(sweep: Store):
    results = es.load("w1")
    given = dict(law="chinchilla", n="num_params", d="train_size", y="test_loss", num_bootstrap=0)
    (values,) = results.fit(**given, fixed={"E": 0.3}, estimator=1e-3, reference={"n": 400.0}, where="width > 8", group=None)
    words = {"fixed.E": "0.3", "estimator": "1e-3", "reference.n": "400", "where": "width > 8", "group": "none"}
    (texts,) = results.fit(**given, **words)
    assert fits_table.fit_id(values) == fits_table.fit_id(texts)
    assert (values.fixed, values.delta, values.reference["n"], values.group) == ({"E": 0.3}, 1e-3, 400.0, None)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"law": "chinchilla", "n": "num_params"}, ConfigError, "needs an axis or a scalar of the sweep for each of n, d: d=..."),
        ({"law": "chinchilla", "n": "num_parms", "d": "train_size"}, UnknownName, "did you mean 'num_params'"),
        ({"y": "test_loss", "loss": "test_loss"}, ConfigError, "both name the column to fit"),
        ({"confidence": "high"}, ConfigError, "confidence must be a number, got 'high'"),
        ({"num_bootstrap": "1.5"}, ConfigError, "num_bootstrap must be a whole number, not negative, got '1.5'"),
        ({"fixed.E": "low"}, ConfigError, "fixed.E must be a number, got 'low'"),
        ({"fixed": 1.8}, ConfigError, "fixed must map names to numbers"),
        ({"fixed.Q": "1"}, UnknownName, "no parameter 'Q' to fix"),
        ({"where": "width = 7"}, ConfigError, "no run of sweep 'w1' is chosen by width = 7"),
        ({"where": "widht = 8"}, ConfigError, "where must be a condition on the columns"),
        ({"weigths": "width"}, UnknownName, "no option 'weigths' of a fit; did you mean 'weights'"),
    ],
    ids=str,
)
def test_a_wrong_option_says_what_is_right(options: dict, error: type, message: str, sweep: Store):
    with pytest.raises(error, match=re.escape(message)):
        es.load("w1").fit(**{"x": "width", **options} if "n" not in options else options)


def test_an_option_of_the_fit_has_its_name_before_an_axis():
    asked = fit_options.parse({"law": "chinchilla", "n": "num_params", "d": "3", "seed": "1"}, axes=("d", "seed"))
    assert (dict(asked.columns), dict(asked.choice)) == ({"n": "num_params", "d": "3"}, {"seed": "1"})
    assert dict(fit_options.parse({"d": "3"}, axes=("d",)).choice) == {"d": "3"}


def test_a_word_that_is_given_twice_is_refused():
    with pytest.raises(ConfigError, match="x is given twice: x=width and x=depth"):
        fit_options.of_words(["x=width", "x=depth"])


# -- fits that are kept -------------------------------------------------------------------------------------------------


def test_the_command_keeps_the_fits_of_a_sweep_each_once(sweep: Store, capsys):
    path = sweep.root / "sweeps/w1/fits.parquet"
    assert f"kept in {path}" in said(capsys, "w1", *OF_SWEEP)
    said(capsys, "w1", *OF_SWEEP)
    said(capsys, "w1", "law=power", "x=width", FEW)
    found = es.load("w1").fits()
    assert isinstance(found, pl.LazyFrame)
    rows = found.collect()
    assert rows["law"].to_list() == ["chinchilla"] + ["power"] * 3
    assert [json.loads(one) for one in rows["choice"]] == [{}, {"train_size": 100}, {"train_size": 1000}, {"train_size": 10_000}]
    assert [json.loads(one) for one in rows["codes"]] == [{"c0de": 45}] + [{"c0de": 15}] * 3


def test_the_function_keeps_fits_on_demand_only(sweep: Store):
    results = es.load("w1")
    results.fit(x="width", num_bootstrap=0)
    assert results.fits().collect().is_empty()
    results.fit(x="width", num_bootstrap=0, keep=True)
    assert len(results.fits().collect()) == 3


def test_who_may_only_read_gets_the_fit_and_writes_nothing(sweep: Store, capsys, monkeypatch):
    monkeypatch.setattr(Store, "is_mine", property(lambda self: False))
    before = tree(sweep.root)
    text = said(capsys, "w1", *OF_SWEEP)
    assert "chinchilla law of test_loss" in text and "not kept: this store is read-only for you" in text
    with pytest.raises(StoreError, match="cannot keep fits"):
        es.load("w1").fit(x="width", num_bootstrap=0, keep=True)
    assert tree(sweep.root) == before


def test_a_refused_fit_keeps_nothing(sweep: Store, capsys):
    before = tree(sweep.root)
    assert "did you mean 'num_params'" in said(capsys, "w1", "law=chinchilla", "n=num_parms", "d=train_size", code=2)
    assert tree(sweep.root) == before


# -- code that is not mixed ---------------------------------------------------------------------------------------------


def test_code_of_a_sweep_is_not_mixed_unless_told_to(store: Store, capsys, monkeypatch):
    _sweep(store, codes=("old", "new"))
    monkeypatch.setenv("EIGENSWEEP_ROOT", str(store.root))
    assert "2 different code fingerprints: old (23 tasks), new (22 tasks)" in said(capsys, "w1", *OF_SWEEP, code=1)
    said(capsys, "w1", *OF_SWEEP, "--mixed-code")
    assert json.loads(es.load("w1", mixed_code=True).fits().collect()["codes"].item()) == {"old": 23, "new": 22}


def test_code_in_a_table_is_not_mixed_unless_told_to(folder: Path, capsys):
    table = runs().with_columns(code=pl.Series(["old", "new"] * 45))
    table.write_parquet("runs.parquet")
    given = dict(law="chinchilla", n="num_params", d="tokens", loss="val_loss", num_bootstrap=0)
    with pytest.raises(StoreError, match=re.escape("2 different code fingerprints: new (45 rows), old (45 rows)")) as refused:
        es.fit(table.sort("code"), **given)
    assert "mixed_code=True" in str(refused.value) and "where=\"code = 'new'\"" in str(refused.value)
    assert dict(es.fit(table, **given, mixed_code=True).codes) == {"old": 45, "new": 45}
    assert dict(es.fit(table, **given, where="code = 'new'").codes) == {"new": 45}
    message = said(capsys, "runs.parquet", *CHINCHILLA, FEW, code=1)
    assert "--mixed-code" in message and len(message.splitlines()) == 1
    assert "chinchilla law" in said(capsys, "runs.parquet", *CHINCHILLA, FEW, "--mixed-code")


def test_rows_that_are_left_out_mix_no_code():
    table = runs().with_columns(code=pl.Series(["old"] + ["new"] * 89), val_loss=pl.Series([None] + runs()["val_loss"].to_list()[1:]))
    found = es.fit(table, "chinchilla", n="num_params", d="tokens", loss="val_loss", num_bootstrap=0)
    assert dict(found.codes) == {"new": 89}


# -- a file -------------------------------------------------------------------------------------------------------------


def test_a_file_is_fitted_without_a_store_and_without_writing(folder: Path, capsys):
    before = sorted(os.listdir(folder))
    text = said(capsys, "runs.parquet", *CHINCHILLA, "estimator=hoffmann", "where=num_params > 2e7", FEW)
    expected = es.fit(
        "runs.parquet", "chinchilla", n="num_params", d="tokens", loss="val_loss", estimator="hoffmann",
        where="num_params > 2e7", num_bootstrap=50,
    )  # fmt: skip
    assert text.startswith(expected.summary() + "\nnext: eigensweep fit runs.parquet law=chinchilla")
    assert said(capsys, "runs.csv", *CHINCHILLA, FEW, "--quiet").splitlines()[0] == expected.summary().splitlines()[0]
    assert sorted(os.listdir(folder)) == before


def test_json_has_parameters_by_name_and_the_choices(folder: Path, capsys):
    body = json.loads(said(capsys, "runs.parquet", *CHINCHILLA, "num_bootstrap=0", "fixed.E=1.7", "--json"))
    (one,) = body["fits"]
    assert one["parameters"]["E"] == {"value": pytest.approx(1.7), "low": None, "high": None}
    assert (one["law"], one["variables"], one["fixed"]) == ("chinchilla", {"n": "num_params", "d": "tokens"}, {"E": 1.7})
    assert "bootstrap" not in one and body["files"] == []


def test_out_writes_tables_and_a_report(folder: Path, capsys):
    text = said(capsys, "runs.parquet", *CHINCHILLA, FEW, "--out", "made/fits")
    made = Path("made/fits")
    assert text.splitlines()[-1] == "next: open made/fits/fits.html in a browser"
    assert {"fits.parquet", "fits.csv", "fits.html"} <= set(os.listdir(made))
    row = fits_table.read(made / "fits.parquet").row(0, named=True)
    table = pl.read_csv(made / "fits.csv")
    assert (
        dict(zip(row["parameter_names"], row["parameter_values"], strict=True)).items()
        <= dict(table.select("parameter", "value").rows()).items()
    )
    assert list((made / "figures").glob("*.png")) and list((made / "figures").glob("*.pdf"))
    assert "chinchilla" in (made / "fits.html").read_text()


def test_out_of_a_sweep_is_written_beside_what_the_store_keeps(sweep: Store, tmp_path: Path, capsys, monkeypatch):
    # the figures take long, and are drawn in the test above
    monkeypatch.setattr("orchestrator.fit_report.fit_report", lambda fits, folder, title: folder / "fits.html")
    text = said(capsys, "w1", "law=power", "x=width", "num_bootstrap=0", "--out", str(tmp_path / "made"))
    assert f"kept in {sweep.root}" in text and f"wrote {tmp_path}/made/fits.parquet" in text
    assert fits_table.read(tmp_path / "made/fits.parquet")["fit_id"].to_list() == es.load("w1").fits().collect()["fit_id"].to_list()


def test_the_lines_of_the_readme_on_fits_run(folder: Path, sweep: Store):
    import matplotlib.figure

    text = (Path(es.__file__).parent / "README.md").read_text().partition("## Fit a scaling law")[2].partition("\n## ")[0]
    lines = [line[4:] for line in text.splitlines() if line.startswith("    ") and not line.startswith("    eigensweep")]
    table = runs().rename({"tokens": "tokens_seen", "val_loss": "loss"})
    names = {"es": es, "table": table, "ax": matplotlib.figure.Figure().subplots(), "sweep": es.load("w1")}
    exec("\n".join(lines), names)
    assert len(lines) == 6 and isinstance(names["fit"], es.Fit) and Path("fit.csv").exists()


def test_every_table_of_a_sweep_is_lazy_and_has_its_axes(sweep: Store):
    results = es.load("w1")
    for table in (results.tasks(wide=True), results.tasks(), results.scalars(), results.spectra(), results.attempts()):
        assert isinstance(table, pl.LazyFrame) and {"key", "width", "train_size", "seed"} <= set(table.collect_schema())
    wide = results.tasks(wide=True).collect()
    assert len(wide) == 45 and {"num_params", "test_loss"} <= set(wide.columns) and wide["test_loss"].null_count() == 0


# -- help and completion ------------------------------------------------------------------------------------------------


def test_help_names_each_law_with_its_variables_and_its_line(capsys):
    with pytest.raises(SystemExit):
        cli.main(["fit", "--help"])
    text = capsys.readouterr().out
    laws = fit_options.laws()
    assert {"power", "chinchilla", "data_constrained", "overtraining", "m3", "m4", "bnsl"} <= set(laws) and "projection" not in laws
    for name, (variables, line) in laws.items():
        assert f"\n  {name} {' '.join(f'{one}=' for one in variables)}\n      {line}\n" in text
    assert all(f"\n  {name.partition('=')[0]}" in text for name in fit_options.OPTIONS if name not in ("law", "loss", "y"))


def offered(prefix: str, *words: str, root: object = None) -> list[str]:
    return completion._words(prefix, Namespace(verb="fit", words=list(words), root=root and str(root)))


def test_completion_offers_the_columns_of_the_file(folder: Path):
    columns = ["num_params", "tokens", "val_loss"]
    table = runs().with_columns(model=pl.lit("mlp"))
    table.write_parquet("runs.parquet")
    table.write_csv("runs.csv")
    for file in ("runs.parquet", "runs.csv"):
        assert offered("n=", file, "law=chinchilla") == [f"n={column}" for column in columns]
        assert offered("group=m", file) == ["group=model"]
    assert offered("loss=v", "runs.parquet", "law=chinchilla") == ["loss=val_loss"]
    assert offered("runs", root=folder) == ["runs.csv", "runs.parquet"]


def test_completion_offers_what_the_typed_law_has():
    assert {"n=", "d=", "fixed.alpha=", "reference.n=", "law.irreducible=", "estimator="} <= set(offered("", "r.csv", "law=chinchilla"))
    assert "x=" in offered("", "r.csv") and "n=" not in offered("", "r.csv")
    assert offered("estimator=h", "r.csv") == ["estimator=huber", "estimator=hoffmann"]
    assert offered("space=", "r.csv") == ["space=log", "space=linear"]
    assert "law=chinchilla" in offered("law=", "r.csv")


def test_completion_offers_axes_and_scalars_of_the_sweep(sweep: Store):
    assert offered("x=", "w1", root=sweep.root) == [f"x={name}" for name in ("width", "train_size", "seed", "num_params", "test_loss")]
    assert offered("w", root=sweep.root)[:1] == ["w1"]


def test_the_sweep_s_exponents_are_the_planted_ones_from_its_wide_table(sweep: Store):
    """`tasks(wide=True)` is a table that `es.fit` takes as it is."""
    found = es.fit(es.load("w1").tasks(wide=True), "chinchilla", n="num_params", d="train_size", y="test_loss", num_bootstrap=0)
    (same,) = es.load("w1").fit(law="chinchilla", n="num_params", d="train_size", y="test_loss", num_bootstrap=0)
    assert found.parameters["alpha"].value == pytest.approx(same.parameters["alpha"].value, rel=1e-6)
