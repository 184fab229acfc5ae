"""The report: one file, no request, the numbers of the fits, and honest about a sweep that has hardly begun."""

import base64
import re
from types import SimpleNamespace

import polars as pl
import pytest
from store_fakes import commit, fake_sweeps, spectrum_rows, write_sweep  # noqa: F401

from orchestrator.points import fit_points, points
from orchestrator.report import report
from tests.orchestrator.synthetic_sweep import SyntheticResults
from workers.errors import UnknownName


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return report(SyntheticResults(failed=2), tmp_path_factory.mktemp("report"))


def test_the_page_asks_the_network_for_nothing(written):
    text = written.read_text()
    assert re.findall(r"""(?:src|href)\s*=\s*["'](?!data:|#)[^"']*""", text) == []
    assert re.findall(r"url\((?!#)[^)]*\)", text) == [] and "@import" not in text
    assert "default-src 'none'" in text
    assert len(text) < 3_000_000


def test_each_figure_stands_beside_the_page_as_png_pdf_and_csv(written):
    names = {path.stem for path in (written.parent / "figures").iterdir()}
    assert {"scaling-mlp", "scaling-cnn", "learning-curves-mlp-10000", "spectra-cnn-10000", "trace-mlp", "entropy-cnn"} <= names
    for name in names:
        assert {path.suffix for path in (written.parent / "figures").glob(f"{name}.*")} == {".png", ".pdf", ".csv"}
    assert written.read_text().count("<figure>") == len(names)


def test_the_page_holds_every_fit_with_its_interval_and_its_csv(written):
    results = SyntheticResults(failed=2)
    text = written.read_text()
    for fit in fit_points(points(results))[0]:
        assert str(fit.parameters["exponent"]) in text and fit.equation() in text
    inside = base64.b64decode(re.search(r'download="fits.csv" href="data:text/csv;base64,([^"]+)"', text).group(1))
    assert inside == (written.parent / "fits.csv").read_bytes()
    assert len(pl.read_csv(inside)) == 4 * 3


def test_the_summary_counts_tasks_by_state(written):
    text = written.read_text()
    assert "<b>210 of 216</b>" in text and "<b>2</b><span>tasks failed</span>" in text and "<b>4</b><span>tasks blocked</span>" in text
    assert "ab12cd34ef56" in text


def test_status_adds_what_has_no_result_and_the_causes_of_failure(tmp_path):
    causes = [("user_error", 3, "ValueError: <bad> width", "correct the code")]
    status = SimpleNamespace(by_workload={"train": {"completed": 5, "running": 2}}, causes=causes)
    text = report(
        SyntheticResults(models=("mlp",), train_sizes=(1000,)).without_spectra(without_curves=True), tmp_path, status=status
    ).read_text()
    assert "<b>5 of 7</b>" in text and "tasks running" in text
    assert "ValueError: &lt;bad&gt; width" in text and "<bad>" not in text


def test_a_sweep_without_any_result_still_has_a_report(tmp_path):
    empty = SyntheticResults(widths=(16,), num_seeds=1, models=("mlp",), train_sizes=(1000,))
    empty._scalars, empty._spectra = empty._scalars.clear(), empty._spectra.clear()
    text = report(empty, tmp_path).read_text()
    assert "which scalar to fit?" in text and "Sweep w1" in text


def test_a_sweep_with_one_width_says_why_there_is_no_fit(tmp_path):
    text = report(
        SyntheticResults(widths=(16, 32), models=("mlp",), train_sizes=(1000,)).without_spectra(without_curves=True), tmp_path
    ).read_text()
    assert "no fit for" in text and "needs as many distinct values" in text


def test_a_misspelt_axis_is_an_error_and_no_report(tmp_path):
    with pytest.raises(UnknownName, match="did you mean 'width'"):
        report(SyntheticResults(), tmp_path, x="widht")
    assert not (tmp_path / "report.html").exists()


def test_more_panels_than_fit_the_page_are_named(tmp_path):
    results = SyntheticResults(train_sizes=(1000,), widths=(16, 64, 256), num_seeds=2).without_spectra(without_curves=True)
    copies = [results._scalars.with_columns(model=pl.lit(f"m{i}")) for i in range(7)]
    results._scalars = pl.concat(copies)
    text = report(results, tmp_path).read_text()
    assert "figures show the first 6 of 7 combinations of model" in text


def test_the_results_of_a_store_give_the_report(store, tmp_path):
    from orchestrator.results import load

    grid = [{"width": width, "seed": seed} for width in (16, 32, 64, 128, 256) for seed in range(3)]
    for point, key in zip(grid, write_sweep(store, "w1", grid), strict=True):
        loss = 0.3 + (point["width"] / 16) ** -0.5 * (1 + 0.01 * point["seed"])
        rows = spectrum_rows([1.0 / k for k in range(1, 9)])
        for column, values in {"step": [0, 5, 9], "name": ["test_loss"] * 3, "value": [2.3, 2.0, loss]}.items():
            rows["scalars"][column] += values
        commit(store, key, ["w1"], rows=rows, workload="spectrum", settings={"loss": "cross_entropy"})
    text = report(load("w1", store.root), tmp_path).read_text()
    assert "<b>15 of 15</b>" in text and "computing time of all attempts" in text and "c0de" in text
    assert {"scaling.csv", "spectra.csv", "learning-curves.csv"} <= {path.name for path in (tmp_path / "figures").iterdir()}
