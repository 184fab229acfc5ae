"""The report of fits: one page that needs no network, with every number that the fits have, and its tables beside it."""

import base64
import re
from html.parser import HTMLParser

import numpy as np
import polars as pl
import pytest

from orchestrator.fit import fit
from orchestrator.fit_report import fit_report
from tests.orchestrator.planted_tables import chinchilla_runs, planted_isoflops, width_runs
from workers.errors import ConfigError

SIZES = {"n": "num_params", "d": "tokens", "loss": "loss"}


@pytest.fixture(scope="module")
def two():
    return fit(chinchilla_runs(outlier=True), "chinchilla", num_bootstrap=60, **SIZES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, two):
    """A report of two fits and of isoFLOPs."""
    given = tmp_path_factory.mktemp("report")
    one = fit(width_runs(), x="width", y="loss", num_bootstrap=0)
    assert fit_report({"sizes": two, "width <b>": one}, given, isoflops=planted_isoflops(flagged=True)) == given / "fits.html"
    return given


@pytest.fixture(scope="module")
def text(folder):
    return (folder / "fits.html").read_text()


class Reader(HTMLParser):
    """Cells of the tables, warnings, tips, and whether elements are closed."""

    def __init__(self):
        super().__init__()
        self.tables, self.open, self.tips, self.items, self.links = [], [], 0, [], []

    def handle_starttag(self, tag, attributes):
        known = dict(attributes)
        self.tips += "data-tip" in known
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag == "a" and "download" in known:
            self.links.append((known["download"], known["href"]))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "button"):
            self.tables[-1][-1].append(data)
        if self.open and self.open[-1] == "li":
            self.items.append(data)


@pytest.fixture(scope="module")
def read(text):
    reader = Reader()
    reader.feed(text)
    assert not reader.open
    return reader


def test_the_page_asks_for_nothing_from_anywhere(text):
    assert "default-src 'none'" in text
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', text)
    assert not re.findall(r"url\((?!#)", text)


def test_every_id_is_there_once(text):
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(ids)


def test_the_tables_have_every_parameter_with_its_interval(read, two):
    cells = {row[0]: row for table in read.tables for row in table if len(row) == 5 and row[-1] in ("fitted", "derived", "given")}
    for name, one in {**two.parameters, **two.derived}.items():
        assert cells[name][1:4] == [f"{number:.5g}" for number in (one.value, one.low, one.high)]
    assert cells["a"][4] == "derived" and cells["alpha"][4] == "fitted"
    # without intervals
    assert cells["exponent"][2:4] == ["–", "–"]


def test_method_warnings_and_held_out_error_are_said(read, text, two):
    method = {row[0]: row[1] for table in read.tables for row in table if len(row) == 2}
    assert two.digest in {row[1] for table in read.tables for row in table if len(row) == 2 and row[0].startswith("hash")}
    assert "no intervals: no resamples were asked for" in method["intervals"]
    assert f"{two.held_out.error:+.1%} on average" in text
    assert any("robust standard deviations" in one for one in two.warnings)
    assert set(two.warnings) <= set(read.items)


def test_the_sensitivity_table_has_every_choice(read, two):
    rows = {row[0] for table in read.tables for row in table if row}
    assert set(two.sensitivity()["choice"]) <= rows


def test_a_label_is_text_not_html(text):
    assert "width &lt;b&gt;" in text and "width <b>" not in text


def test_all_figures_that_apply_are_written_and_drawn(folder, text, two):
    # the two laws have no exponent in common, so nothing compares them
    expected = {"isoflop", "optimum"}
    expected |= {f"fit-1-{name}" for name in ("fitted", "residuals", "choices", "pairs", "contours", "against-n", "against-d", "against-c")}
    expected |= {f"fit-1-profile-{name}" for name in two.parameters}
    expected |= {
        f"fit-2-{name}" for name in ("fitted", "residuals", "choices", "profile-exponent", "profile-amplitude", "profile-irreducible")
    }
    assert {path.stem for path in (folder / "figures").glob("*.png")} == expected
    assert (
        {path.stem for path in (folder / "figures").glob("*.pdf")} == {path.stem for path in (folder / "figures").glob("*.csv")} == expected
    )
    assert text.count("<figure") == len(expected)


def test_runs_carry_their_numbers_under_the_pointer(read, two):
    # each run on the fitted figure twice, against three variables, on the contours, and in three panels of residuals
    assert read.tips >= 9 * two.num_points


def test_what_can_be_downloaded_is_what_stands_beside_the_page(folder, read, two):
    links = dict(read.links)
    for name in (
        "fits.csv",
        "fit-1-parameters.csv",
        "fit-1-residuals.csv",
        "fit-1-sensitivity.csv",
        "fit-1-resamples.csv",
        "isoflop-minima.csv",
    ):
        assert base64.b64decode(links[name].partition("base64,")[2]) == (folder / name).read_bytes()
    assert "fit-2-resamples.csv" not in links
    assert pl.read_csv(folder / "fit-1-resamples.csv")["alpha"].to_numpy() == pytest.approx(two.replicates()["alpha"].to_numpy())
    assert pl.read_csv(folder / "fits.csv")["value"][0] == pytest.approx(two.parameters["loss_n"].value)
    minima = pl.read_csv(folder / "isoflop-minima.csv")
    assert minima["inside"].to_list() == ["yes"] * 4 + ["no"]


def test_fits_of_one_law_are_told_apart(tmp_path, monkeypatch):
    from orchestrator import fit_report as module

    monkeypatch.setattr(module, "_MOST_DRAWN", 0)
    table = width_runs()
    same = [fit(table, x="width", y="loss", num_bootstrap=0, choice={"set": name}) for name in ("a", "a", "b")]
    fit_report(same, tmp_path)
    assert pl.read_csv(tmp_path / "fits.csv")["fit"].unique(maintain_order=True).to_list() == ["set=a", "set=a (2)", "set=b"]
    assert pl.read_csv(tmp_path / "figures" / "choices.csv")["choice"].to_list() == ["set=a", "set=a (2)", "set=b"]


def test_of_many_fits_six_are_drawn_and_that_is_said(tmp_path, monkeypatch):
    from orchestrator import fit_report as module

    monkeypatch.setattr(module, "_MOST_DRAWN", 1)
    one = fit(width_runs(), x="width", y="loss", num_bootstrap=0)
    written = fit_report([one, one, one], tmp_path, title="Three <fits>").read_text()
    assert "figures and details are of the first 1 of 3 fits" in written
    assert "<h1>Three &lt;fits&gt;</h1>" in written
    assert len(pl.read_csv(tmp_path / "fits.csv")) == 3 * len(one.rows())


def test_isoflops_alone_are_a_report(tmp_path):
    written = fit_report([], tmp_path, isoflops=planted_isoflops()).read_text()
    assert "Compute-optimal num_params from runs at equal compute" in written
    assert "0.500 [0.480, 0.520]" in written and "5 of 5" in written


def test_nothing_to_report_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="nothing to report: give a fit"):
        fit_report([], tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_fixed_parameters_and_laws_of_three_variables_are_reported(tmp_path):
    random = np.random.default_rng(0)
    table = chinchilla_runs()
    table = table.with_columns(unique=pl.col("tokens") / pl.Series(random.choice([1.0, 4.0, 16.0], len(table))))
    held = {"A": 480.0, "B": 2085.0, "alpha": 0.35, "beta": 0.37, "E": 1.7}
    found = fit(table, "data_constrained", n="num_params", d="tokens", u="unique", loss="loss", fixed=held, num_bootstrap=20)
    written = fit_report(found, tmp_path).read_text()
    assert written.count(">given<") == 5
    assert (tmp_path / "figures" / "fit-1-contours.png").exists() and (tmp_path / "figures" / "fit-1-against-u.png").exists()
    assert not (tmp_path / "figures" / "fit-1-profile-A.png").exists()
