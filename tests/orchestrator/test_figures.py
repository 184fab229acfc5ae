"""Figures: they draw what the frame holds, claim no more than the fit, and are written with their data."""

import math

import polars as pl
import pytest

from orchestrator.figures import style
from orchestrator.figures.learning_curves import learning_curves
from orchestrator.figures.observables import observables
from orchestrator.figures.scaling import scaling
from orchestrator.figures.spectra import spectra
from orchestrator.points import fit_points, points
from tests.orchestrator.synthetic_sweep import WIDTHS, SyntheticResults


@pytest.fixture(scope="module")
def results():
    return SyntheticResults(models=("mlp",))


@pytest.fixture(scope="module")
def found(results):
    return points(results)


@pytest.fixture(scope="module")
def fits(found):
    return fit_points(found, num_bootstrap=50)[0]


def test_scaling_draws_every_run_and_every_law(found, fits):
    ax = scaling(found.frame, fits, x="width", y="test_loss", by="train_size")
    assert sum(len(one.get_offsets()) for one in ax.collections if one.get_gid()) == len(found.frame)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        f"{label}: {fit.parameters['exponent']}" for label, fit in zip(("1000", "10k"), fits, strict=True)
    ]
    assert ax.get_xscale() == ax.get_yscale() == "log"
    assert [tick.get_text() for tick in ax.get_xticklabels()] == [str(width) for width in WIDTHS]


def test_a_title_claims_no_law_that_does_not_fit(found, fits):
    flat = found.frame.with_columns(test_loss=1.0 + 0.1 * (pl.int_range(pl.len()) % 3))
    from orchestrator.fit import fit

    noise = fit(flat, x="width", y="test_loss", num_bootstrap=20)
    assert "no clear power" in scaling(flat, [noise], x="width", y="test_loss").get_title(loc="left")
    assert (
        scaling(found.frame, fits, x="width", y="test_loss", by="train_size").get_title(loc="left").startswith("Test loss falls as a power")
    )


def test_diverged_runs_are_not_drawn_but_stay_in_the_data(found):
    spoiled = pl.concat([found.frame, found.frame[:1].with_columns(test_loss=math.nan)])
    ax = scaling(spoiled, x="width", y="test_loss")
    assert sum(len(one.get_offsets()) for one in ax.collections if one.get_gid()) == len(found.frame)
    assert len(style.data(ax)) == len(spoiled)


def test_spectra_are_drawn_from_the_largest_and_count_what_has_no_logarithm(results):
    frame = results.spectra().collect()
    negative = frame.with_columns(eigenvalue=pl.when(pl.col("index") == 0).then(-1e-9).otherwise(pl.col("eigenvalue")))
    ax = spectra(negative, by="width", noise_floor=0.01)
    assert len(ax.get_lines()) == len(WIDTHS) + 1
    y = ax.get_lines()[0].get_ydata()
    assert y[0] == max(y)
    assert f"{negative['key'].n_unique()} eigenvalues <= 0 not drawn" in " ".join(ax.get_title(loc="left").split())
    assert [text.get_text() for text in ax.texts] == ["noise floor"]


def test_learning_curves_show_step_0_beside_logarithmic_steps(results):
    scalars = results.scalars().collect().filter(pl.col("name") == "test_loss")
    ax = learning_curves(scalars, by="width")
    assert ax.get_xticklabels()[0].get_text() == "0"
    assert list(ax.get_lines()[0].get_xdata())[:3] == [0, 1, 2]


def test_an_observable_says_how_much_it_changes(results):
    scalars = results.scalars().collect()
    trace = scalars.filter(pl.col("name") == "trace")
    assert observables(trace, x="width", name="trace", by="train_size").get_title(loc="left").startswith("Kernel trace per row grows x2")
    flat = trace.with_columns(value=pl.lit(2.0))
    assert "hardly depends on width" in observables(flat, x="width", name="trace").get_title(loc="left").replace("\n", " ")


def test_a_given_axes_is_drawn_into_and_returned(results):
    from matplotlib.figure import Figure

    given = Figure().add_subplot()
    trace = results.scalars().collect().filter(pl.col("name") == "trace")
    assert observables(trace, x="width", name="trace", ax=given) is given


def test_more_values_than_colours_are_thinned_and_said():
    frame = pl.DataFrame({"key": [f"{w}" for w in range(1, 21)], "width": range(1, 21), "step": 1, "value": [1.0] * 20})
    ax = learning_curves(frame, by="width")
    assert len(ax.get_lines()) == 8
    assert "(8 of 20 width values)" in " ".join(ax.get_title(loc="left").split())


def test_save_writes_png_pdf_and_the_data(tmp_path, found, fits):
    ax = scaling(found.frame, fits, x="width", y="test_loss", by="train_size")
    png, pdf, csv = style.save(ax, tmp_path / "deep" / "scaling.png")
    assert png.read_bytes().startswith(b"\x89PNG") and pdf.read_bytes().startswith(b"%PDF")
    assert pl.read_csv(csv)["test_loss"].to_list() == pytest.approx(found.frame["test_loss"].to_list())


def test_the_inline_drawing_names_every_run(found, fits):
    drawing = style.svg(scaling(found.frame, fits, x="width", y="test_loss", by="train_size"), "a")
    assert drawing.count("data-tip=") == len(found.frame)
    assert 'data-tip="width 16, train_size 1000, seed 0, ' in drawing
    assert 'id="' in drawing and 'id="figure' not in drawing and "<metadata>" not in drawing


@pytest.mark.parametrize(("value", "text"), [(0.05, "0.05"), (64, "64"), (20000, "20k"), (3e6, "3M"), (1e-5, "10$^{-5}$"), (0, "0")])
def test_numbers_on_ticks_are_short(value, text):
    assert style.number(value) == text


@pytest.mark.parametrize(("low", "high"), [(0.44, 0.96), (0.3, 0.5), (2.46, 2.61), (16, 512), (1e-9, 10), (1, 60), (1, 1)])
def test_a_logarithmic_axis_has_some_but_not_many_ticks(low, high):
    shown = [tick for tick in style._nice_ticks(low, high) if low * 0.9 <= tick <= high * 1.1]
    assert (1 if low == high else 2) <= len(shown) <= 10


def test_a_title_never_leaves_the_figure(results):
    trace = results.scalars().collect().filter(pl.col("name") == "trace")
    ax = observables(trace, x="width", name="trace", by="train_size")
    for text in ("Von Neumann entropy hardly depends on width (model=cnn)", "W" * 16 + " WWW", "exponent 0.343 [0.300, 0.355] " * 3):
        style.title(ax, text)
        ax.figure.canvas.draw()
        assert ax.title.get_text() == "" and ax._left_title.get_window_extent().x1 <= ax.figure.bbox.x1
