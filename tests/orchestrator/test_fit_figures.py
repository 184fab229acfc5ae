"""Figures of fits: they draw what their data say, have the equation with its intervals on them, and claim what the fit supports."""

import math
import warnings

import numpy as np
import polars as pl
import pytest

from orchestrator.figures import compute_optimal, equations, style
from orchestrator.figures.choices import choices
from orchestrator.figures.collapse import collapse
from orchestrator.figures.contours import contours
from orchestrator.figures.isoflop import isoflop
from orchestrator.figures.loss_against import loss_against
from orchestrator.figures.observables import observables
from orchestrator.figures.optimum import optimum
from orchestrator.figures.pairs import pairs
from orchestrator.figures.predicted import predicted
from orchestrator.figures.profile import interval, profile
from orchestrator.figures.residuals import residuals
from orchestrator.figures.scaling import scaling
from orchestrator.figures.trajectories import trajectories
from orchestrator.fit import fit
from tests.orchestrator.planted_tables import (
    ALPHA,
    BETA,
    PlantedIsoflops,
    chinchilla_runs,
    planted_isoflops,
    planted_loss,
    width_runs,
)
from workers.errors import ConfigError, UnknownName

SIZES = {"n": "num_params", "d": "tokens", "loss": "loss"}


@pytest.fixture(scope="module")
def runs():
    return chinchilla_runs()


@pytest.fixture(scope="module")
def two(runs):
    """A fit of two variables."""
    return fit(runs, "chinchilla", num_bootstrap=100, **SIZES)


@pytest.fixture(scope="module")
def bare(runs):
    """The same without intervals."""
    return fit(runs, "chinchilla", num_bootstrap=0, **SIZES)


@pytest.fixture(scope="module")
def one():
    """A fit of one variable."""
    return fit(width_runs(), x="width", y="loss", num_bootstrap=100)


@pytest.fixture(autouse=True)
def no_warnings_of_matplotlib():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


FIGURES = {
    "fitted of one variable": lambda two, one: one.plot(),
    "fitted of several": lambda two, one: two.plot(),
    "loss against n": lambda two, one: loss_against(two, "n"),
    "loss against d": lambda two, one: loss_against(two, "d"),
    "loss against compute": lambda two, one: loss_against(two, "c"),
    "contours": lambda two, one: contours(two),
    "predicted": lambda two, one: predicted(two),
    "residuals of several": lambda two, one: residuals(two),
    "residuals of one variable": lambda two, one: residuals(one),
    "profile": lambda two, one: profile(two, "alpha"),
    "choices": lambda two, one: choices({"first": two, "second": two}),
}


def texts(ax):
    """All texts in Axes, those of its insets too."""
    return "\n".join(text.get_text() for part in (ax, *ax.child_axes) for text in part.texts)


def title(ax):
    return " ".join(ax.get_title(loc="left").split())


def offsets(ax):
    """The points of the scatters that carry a tip, as (x, y) rows."""
    found = [part.get_offsets() for part in ax.collections if (part.get_gid() or "").startswith("tips-")]
    return np.concatenate([np.asarray(points) for points in found])


def same_points(drawn, expected):
    return np.allclose(np.array(sorted(map(tuple, drawn))), np.array(sorted(map(tuple, expected))))


@pytest.mark.parametrize("name", FIGURES)
def test_the_equation_stands_on_the_figure_with_every_parameter_and_interval(name, two, one):
    ax = FIGURES[name](two, one)
    found = one if "one variable" in name else two
    written = texts(ax).replace("$", "").replace("\n", " ")
    for parameter, value in found.parameters.items():
        assert f"{equations.symbol(parameter)} = {value.text()}".replace("$", "") in written
    assert title(ax)


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_without_intervals_is_drawn_and_saved(name, bare, tmp_path):
    lone = fit(width_runs(), x="width", y="loss", num_bootstrap=0)
    ax = FIGURES[name](bare, lone)
    png, pdf, csv = style.save(ax, tmp_path / "figure")
    assert png.stat().st_size > 5000 and pdf.read_bytes().startswith(b"%PDF")
    assert len(pl.read_csv(csv, infer_schema_length=None)) == len(style.data(ax)) > 0
    assert "nan" not in texts(ax) and "nan" not in title(ax)


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("intervals", [True, False])
def test_no_text_leaves_the_page(name, intervals, two, bare, one):
    ax = FIGURES[name](two if intervals else bare, one)
    ax.figure.canvas.draw()
    page = ax.figure.bbox
    for part in (ax, *ax.child_axes):
        for text in (*part.texts, part.xaxis.label, part.yaxis.label, part._left_title):
            if text.get_text().strip() and (part.axison or text in part.texts or text is part._left_title):
                box = text.get_window_extent()
                assert box.x0 >= page.x0 - 1 and box.x1 <= page.x1 + 1, text.get_text()
                assert box.y0 >= page.y0 - 1 and box.y1 <= page.y1 + 1, text.get_text()


@pytest.mark.parametrize("name", FIGURES)
def test_a_given_axes_among_others_is_drawn_into_and_returned(name, two, one, monkeypatch):
    from matplotlib.figure import Figure

    given = Figure(figsize=(8, 4)).subplots(1, 2)
    monkeypatch.setattr(style, "axes", lambda ax=None, inches=None: given[0])
    assert FIGURES[name](two, one) is given[0]
    assert not given[1].collections and not given[1].lines


# -- loss against one variable ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variable", "column"), [("n", "num_params"), ("d", "tokens")])
def test_loss_against_a_variable_draws_every_run_and_the_law(two, runs, variable, column):
    ax = loss_against(two, variable)
    data = style.data(ax)
    own = data.filter(pl.col("kind") == "run")
    assert same_points(offsets(ax), runs.select(column, "loss").rows())
    assert sorted(own["loss"]) == pytest.approx(sorted(runs["loss"]))
    assert ax.get_xscale() == ax.get_yscale() == "log"
    law = data.filter(pl.col("kind") == "law")
    assert law["loss"].to_numpy() == pytest.approx(two.predict(n=law["num_params"].to_numpy(), d=law["tokens"].to_numpy()))
    assert len(ax.lines) == law["tokens" if variable == "n" else "num_params"].n_unique() == 5


def test_loss_against_compute_has_the_frontier_below_every_curve_of_the_law(two):
    ax = loss_against(two, "c")
    data = style.data(ax)
    best = data.filter(pl.col("kind") == "frontier")
    law = data.filter(pl.col("kind") == "law")
    least = np.interp(np.log(law["compute"]), np.log(best["compute"]), np.log(best["loss"]))
    assert (np.log(law["loss"].to_numpy()) >= least - 1e-4).all()
    assert best["compute"].max() > data.filter(pl.col("kind") == "run")["compute"].max()
    assert any(line.get_linestyle() == "--" or line.is_dashed() for line in ax.lines)
    assert (best["low"] < best["loss"]).all() and (best["loss"] < best["high"]).all()
    assert title(ax) == f"Compute-optimal parameters grow as compute to the {two.derived['a'].text()}"


def test_the_frontier_is_the_closed_form_of_the_law(two):
    found = compute_optimal.frontier(two, np.geomspace(1e16, 1e24, 9))
    assert found.n_M == pytest.approx(two.derived["G"].value * (found.c_M / 6) ** two.derived["a"].value, rel=1e-4)
    assert found.n_M * found.d_M * 6 == pytest.approx(found.c_M)
    assert found.loss_M == pytest.approx(two.predict(n=found.n_M, d=found.d_M))


def test_the_frontier_without_noise_is_the_planted_one():
    exact = fit(chinchilla_runs(noise=0.0), "chinchilla", num_bootstrap=0, **SIZES)
    found = compute_optimal.frontier(exact, 1e21)
    shifted = [planted_loss(found.n_M * factor, found.d_M / factor) for factor in (0.9, 1.0, 1.1)]
    assert shifted[1] < shifted[0] and shifted[1] < shifted[2]
    assert exact.derived["a"].value == pytest.approx(BETA / (ALPHA + BETA), rel=1e-4)


def test_the_envelope_is_the_runs_that_no_smaller_one_beats():
    x, y = np.array([1.0, 2.0, 3.0, 4.0, 4.0]), np.array([5.0, 6.0, 4.0, 4.5, 3.0])
    assert compute_optimal.envelope(x, y).tolist() == [True, False, True, False, True]


def test_the_overtraining_law_is_drawn_against_its_compute(runs):
    table = runs.with_columns(c=6 * pl.col("num_params") * pl.col("tokens"), m=pl.col("tokens") / pl.col("num_params"))
    found = fit(table, "overtraining", c="c", m="m", loss="loss", num_bootstrap=0)
    data = style.data(loss_against(found, "c"))
    assert set(data["kind"]) == {"run", "law"}
    assert data.filter(pl.col("kind") == "law")["m"].n_unique() == 5


def test_what_cannot_be_drawn_against_says_what_can(two, one):
    with pytest.raises(UnknownName, match="no variable 'x' of the chinchilla law; there are n, d, c"):
        loss_against(two, "x")
    with pytest.raises(ConfigError, match="has one variable, x: draw it with fit.plot"):
        loss_against(one, "x")
    with pytest.raises(ConfigError, match="contours needs a law of parameters n and data d, such as chinchilla; power has x"):
        contours(one)


# -- isoFLOP ------------------------------------------------------------------------------------------------------------


def test_isoflop_draws_runs_interpolations_and_minima():
    found = planted_isoflops()
    ax = isoflop(found)
    data = style.data(ax)
    expected = [(n, loss) for budget in found.curves for n, loss in zip(budget.n_N, budget.loss_N, strict=True)]
    stars = [(budget.n_star, budget.loss_star) for budget in found.curves]
    assert same_points(offsets(ax), expected + stars)
    assert same_points(data.filter(pl.col("kind") == "run").select("num_params", "loss").rows(), expected)
    assert same_points(data.filter(pl.col("kind") == "minimum").select("num_params", "loss").rows(), stars)
    assert len(data.filter(pl.col("kind") == "interpolation")) == sum(len(budget.line_n_M) for budget in found.curves)
    assert ax.get_xscale() == ax.get_yscale() == "log"
    assert title(ax) == "The best parameters grow from 32M to 320M with compute"
    assert "slope = 0.500 [0.480, 0.520]" in texts(ax)


def test_a_minimum_outside_the_sizes_is_hollow_and_said():
    ax = isoflop(planted_isoflops(flagged=True))
    faces = [part.get_facecolor()[0].tolist() for part in ax.collections if len(part.get_offsets()) == 1]
    assert faces.count([1.0, 1.0, 1.0, 1.0]) == 1
    assert "(1 of 5 budgets have no minimum inside)" in title(ax)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["minimum", "no minimum inside"]


def test_budgets_without_any_minimum_have_no_law():
    found = planted_isoflops(flagged=True, line=False)
    found = PlantedIsoflops(found.curves[-1:], None, found.exponent)
    assert title(isoflop(found)) == "None of 1 budgets has its minimum within the sizes that were run"
    assert title(optimum(found)) == "No power law of the best parameters: 0 budgets have a minimum inside"


def test_no_budget_at_all_is_an_error():
    empty = PlantedIsoflops([], None, None)
    for figure in (isoflop, optimum):
        with pytest.raises(ConfigError, match="no budget to draw"):
            figure(empty)


def test_the_optimum_is_extended_beyond_the_data_with_its_band():
    found = planted_isoflops(flagged=True)
    ax = optimum(found, until=1e22)
    data = style.data(ax)
    assert data["num_params"].to_list() == pytest.approx([budget.n_star for budget in found.curves])
    assert data["inside"].to_list() == [True] * 4 + [False]
    assert same_points(offsets(ax), data.select("flops", "num_params").rows())
    dashed = [line for line in ax.lines if line.is_dashed()]
    assert len(dashed) == 1 and dashed[0].get_xdata()[-1] == pytest.approx(1e22)
    assert dashed[0].get_ydata()[-1] == pytest.approx(0.1 * 1e11, rel=1e-6)
    assert title(ax) == "Compute-optimal parameters grow as compute to the 0.500 [0.480, 0.520]"


def test_isoflops_of_a_table_draw_themselves(tmp_path):
    from orchestrator.isoflop import isoflops

    n = np.tile(np.geomspace(1e7, 3e9, 13), 4)
    c = np.repeat(np.geomspace(1e18, 1e20, 4), 13)
    found = isoflops({"n": n, "c": c, "loss": planted_loss(n, c / (6 * n))}, c="c", n="n", loss="loss", num_bootstrap=20)
    assert len(style.save(found.plot(), tmp_path / "isoflop")) == 3
    ax = optimum(found)
    assert len(style.data(ax)) == 4 and found.fit is not None
    assert found.fit.parameters["slope"].value == pytest.approx(BETA / (ALPHA + BETA), abs=0.03)


# -- contours, residuals ------------------------------------------------------------------------------------------------


def test_contours_have_the_runs_and_the_best_path(two, runs):
    ax = contours(two)
    assert same_points(offsets(ax), runs.select("num_params", "tokens").rows())
    data = style.data(ax)
    path = data.filter(pl.col("kind") == "optimum")
    assert path["loss"].to_numpy() == pytest.approx(two.predict(n=path["num_params"].to_numpy(), d=path["tokens"].to_numpy()))
    assert ax.get_xscale() == ax.get_yscale() == "log"
    labels = [float(text.get_text()) for text in ax.texts if text.get_text().replace(".", "").isdigit()]
    assert len(labels) == len(set(labels)) >= 5 and min(labels) > two.parameters["E"].value


def test_predicted_and_its_error_are_those_of_the_fit(two, runs):
    ax = predicted(two)
    upper, lower = ax.child_axes
    data = style.data(ax)
    assert same_points(offsets(upper), data.select("observed", "predicted").rows())
    assert same_points(offsets(lower), [(o, 100 * (p / o - 1)) for o, p in data.select("observed", "predicted").rows()])
    assert sorted(data["observed"]) == pytest.approx(sorted(runs["loss"]))
    assert upper.get_xscale() == upper.get_yscale() == lower.get_xscale() == "log"


def test_an_outlier_is_marked_and_counted():
    found = fit(chinchilla_runs(outlier=True), "chinchilla", num_bootstrap=0, **SIZES)
    ax = residuals(found)
    assert "outliers (> 5 robust sd): 1 of 35 runs" in title(ax)
    data = style.data(ax)
    assert data.filter(pl.col("outlier"))["percent"].to_list() == pytest.approx([100 * (1 / 1.2 - 1)], abs=2)
    for part in ax.child_axes:
        assert sorted(len(points.get_offsets()) for points in part.collections if points.get_gid()) == [1, 34]
    assert "none of 35 runs" in title(residuals(fit(chinchilla_runs(), "chinchilla", num_bootstrap=0, **SIZES)))


@pytest.mark.parametrize("space", ["log", "linear"])
@pytest.mark.parametrize("draw", range(4))
def test_outliers_are_those_that_the_fit_counts(space, draw):
    table = chinchilla_runs(noise=0.002, outlier=True)
    # heavy tails, so that many runs are near the border
    tails = 0.003 * np.random.default_rng(draw).standard_t(1.5, len(table))
    table = table.with_columns(loss=pl.col("loss") * pl.Series(np.exp(tails)))
    found = fit(table, "chinchilla", num_bootstrap=0, space=space, **SIZES)
    counted = next(row for row in found.sensitivity()["choice"] if row.endswith(" outliers"))
    assert f"without {style.data(residuals(found))['outlier'].sum()} outliers" == counted


def test_the_scale_of_a_run_is_relative_in_a_law_of_its_own_units(runs):
    held = {"A": 480.0, "B": 2085.0, "alpha": 0.35, "beta": 0.37, "E": 1.7}
    table = runs.with_columns(unique=pl.col("tokens") / pl.Series(np.resize([1.0, 8.0], len(runs))))
    found = fit(table, "data_constrained", n="num_params", d="tokens", u="unique", loss="loss", fixed=held, num_bootstrap=0)
    assert np.log(style.data(residuals(found))["scale"].to_numpy()).mean() == pytest.approx(0, abs=1e-9)


def test_residuals_stand_against_each_variable_and_the_scale(two, one):
    assert [part.get_xlabel() for part in residuals(two).child_axes] == ["parameters", "tokens seen", "scale of the run (mean 1)"]
    assert [part.get_xlabel() for part in residuals(one).child_axes] == ["width (units per layer)"]
    data = style.data(residuals(two))
    assert data["scale"].to_numpy() == pytest.approx(
        data["num_params"].to_numpy() * data["tokens"].to_numpy() / (two.reference["n"] * two.reference["d"])
    )


# -- uncertainty --------------------------------------------------------------------------------------------------------


def test_pairs_have_a_panel_a_pair_and_mark_the_fit(two):
    ax = pairs(two)
    names = list(two.parameters)
    assert len(ax.child_axes) == len(names) * (len(names) + 1) // 2
    assert style.data(ax).equals(two.replicates().select(names))
    dots = [part for part in ax.child_axes if part.collections]
    assert len(dots) == len(names) * (len(names) - 1) // 2
    first = dots[0]
    assert np.allclose(first.collections[0].get_offsets(), two.replicates().select(names[0], names[1]).to_numpy())
    assert [float(first.lines[-1].get_xdata()[0]), float(first.lines[-1].get_ydata()[0])] == pytest.approx(
        [two.parameters[names[0]].value, two.parameters[names[1]].value]
    )
    correlation = float(np.corrcoef(two.replicates()["loss_n"], two.replicates()["alpha"])[0, 1])
    assert f"{correlation:+.2f}" in [text.get_text() for text in first.texts]


def test_pairs_of_chosen_and_derived_parameters(two):
    assert style.data(pairs(two, ["a", "E"])).columns == ["a", "E"]
    with pytest.raises(UnknownName, match="no parameter 'alfa'; did you mean 'alpha'"):
        pairs(two, ["alfa", "E"])
    with pytest.raises(ConfigError, match="needs two free parameters, got E"):
        pairs(two, ["E"])


def test_a_parameter_of_many_decades_stands_on_a_logarithmic_axis(two, monkeypatch):
    wide = pl.DataFrame({"A": np.geomspace(1e2, 1e6, 50), "E": np.linspace(1, 2, 50)})
    monkeypatch.setattr(type(two), "replicates", lambda _: wide)
    ax = pairs(two, ["A", "E"])
    histogram, dots, other = ax.child_axes
    assert (histogram.get_xscale(), dots.get_xscale(), dots.get_yscale(), other.get_xscale()) == ("log", "log", "linear", "linear")
    assert [text.get_text() for text in dots.texts] == ["+1.00"]


def test_a_parameter_that_was_held_is_shown_as_given(runs):
    found = fit(runs, "chinchilla", num_bootstrap=40, fixed={"E": 1.7}, **SIZES)
    assert "E = 1.7 (given)" in texts(predicted(found))
    assert "E" not in style.data(pairs(found)).columns


def test_pairs_without_resamples_are_refused(bare):
    with pytest.raises(ConfigError, match="no resamples to draw: no intervals: no resamples were asked for"):
        pairs(bare)


def test_the_profile_crosses_its_line_where_its_title_says(two):
    ax = profile(two, "alpha")
    frame = style.data(ax)
    low, high = interval(frame, 3.841)
    assert title(ax) == f"α is between {low:.3g} and {high:.3g} by its profile"
    assert low < two.parameters["alpha"].value < high
    assert np.interp([low, high], frame["value"], frame["rise"]) == pytest.approx([3.84, 3.84], rel=0.02)
    drawn = next(line for line in ax.lines if len(line.get_xdata()) == len(frame))
    assert list(drawn.get_ydata()) == frame["rise"].to_list()


@pytest.mark.parametrize(
    ("rise", "text"),
    [
        ([1.0, 0.0, 9.0], "flat on the other side: the data do not bound it"),
        ([9.0, 0.0, 1.0], "flat on the other side: the data do not bound it"),
        ([1.0, 0.0, 1.0], "not bounded by the data: its profile is flat"),
    ],
)
def test_a_flat_direction_is_said(two, monkeypatch, rise, text):
    flat = pl.DataFrame({"value": [1.0, 1.7, 2.0], "objective": rise, "rise": rise})
    monkeypatch.setattr(type(two), "profile", lambda *_, **__: flat)
    assert text in title(profile(two, "E"))


def test_choices_draw_fits_with_intervals_and_sensitivity_without(two, bare):
    ax = choices({"with": two, "without": bare})
    data = style.data(ax)
    assert data["parameter"].unique().sort().to_list() == ["a", "alpha", "beta"]
    known = data.filter((pl.col("choice") == "with") & (pl.col("parameter") == "alpha")).row(0, named=True)
    assert (known["value"], known["low"], known["high"]) == tuple(
        getattr(two.parameters["alpha"], name) for name in ("value", "low", "high")
    )
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["with", "without"]
    rows = two.sensitivity()
    shown = style.data(choices(rows, ["beta"]))
    assert shown["value"].to_list() == rows["beta"].to_list() and shown["low"].is_nan().all()
    assert title(choices(rows, ["beta"])) == f"β goes from {rows['beta'].min():.3f} to {rows['beta'].max():.3f} over {len(rows)} choices"


def test_only_exponents_that_fits_share_are_compared(two, one):
    assert set(style.data(choices({"a": two, "b": two, "c": one}))["parameter"]) == {"a", "alpha", "beta"}
    assert set(style.data(choices({"alone": one}))["parameter"]) == {"exponent"}
    with pytest.raises(ConfigError, match="which parameters. There are loss_n"):
        choices({"a": two, "b": one})


def test_choices_refuse_nothing_and_unknown_names(two):
    with pytest.raises(ConfigError, match="no choices to compare"):
        choices({})
    with pytest.raises(ConfigError, match="no choices to compare"):
        choices(two.sensitivity().clear())
    with pytest.raises(UnknownName, match="no parameter 'betta'; did you mean 'beta'"):
        choices({"one": two}, ["betta"])


# -- curves along training ----------------------------------------------------------------------------------------------


def curves(floor: float = 0.3, *, bend: float = 0.0) -> pl.DataFrame:
    """Learning curves of three widths that are one curve when rescaled; `bend` > 0: no longer."""
    rows = []
    for width in (32, 64, 128):
        last = 20 * width
        for step in np.unique(np.geomspace(1, last, 40).round()):
            share = step / last
            rows.append((width, int(step), floor + width**-0.4 * share ** -(0.5 + bend * math.log2(width / 64))))
    return pl.DataFrame(rows, schema=["width", "step", "value"], orient="row")


def test_curves_of_one_form_collapse_and_others_do_not():
    ax = collapse(curves(), by="width", irreducible=0.3)
    assert title(ax).startswith("Learning curves of 3 values of width collapse to within 0.")
    data = style.data(ax)
    assert data["rescaled"].to_numpy() == pytest.approx(data["share"].to_numpy() ** -0.5)
    for line in ax.lines:
        assert line.get_xdata()[-1] == line.get_ydata()[-1] == 1.0
    assert "do not collapse: they differ by up to" in title(collapse(curves(bend=0.1), by="width", irreducible=0.3))
    assert "do not collapse" in title(collapse(curves(), by="width", irreducible={32: 0.0, 64: 0.3, 128: 0.3}))


def test_a_curve_below_its_irreducible_part_is_refused():
    with pytest.raises(ConfigError, match="the last value of width 32, 0.55, is not above its irreducible part 9"):
        collapse(curves(), by="width", irreducible=9.0)
    with pytest.raises(ConfigError, match="no curve to rescale: no row with a finite value and step > 0, of 0 rows"):
        collapse(curves().clear(), by="width")


def test_trajectories_of_an_observable_have_a_line_a_value_and_logarithmic_axes():
    ax = trajectories(curves(floor=0.0), name="trace", by="width")
    assert ax.get_xscale() == ax.get_yscale() == "log"
    assert len(ax.lines) == 3 and ax.get_ylabel() == "kernel trace per row"
    assert list(ax.lines[0].get_ydata()) == curves(floor=0.0).filter(pl.col("width") == 32).sort("step")["value"].to_list()
    assert style.data(ax)["trace"].to_list() == curves(floor=0.0)["value"].to_list()
    assert len({line.get_color() for line in ax.lines}) == 3


def test_values_without_a_logarithm_are_counted():
    frame = pl.DataFrame({"step": [1, 2, 3, 4], "value": [2.0, -1.0, math.nan, 1.0]})
    assert title(trajectories(frame, name="entropy")) == "Von Neumann entropy changes x0.5 over training; 2 values <= 0 not drawn"


def test_an_empty_table_is_said_on_the_figure():
    empty = pl.DataFrame(schema={"width": pl.Int64, "step": pl.Int64, "value": pl.Float64, "loss": pl.Float64})
    assert texts(trajectories(empty, name="trace", by="width")) == "no positive value"
    assert texts(observables(empty, x="width", name="trace")) == "no task with a finite value"
    assert texts(scaling(empty, x="width", y="loss")) == "no run with a finite, positive value"


# -- one variable -------------------------------------------------------------------------------------------------------


def test_a_rising_power_says_so_and_leaves_its_corner_free():
    ax = fit(width_runs(), "loglog", x="width", y="trace", num_bootstrap=100).plot()
    assert title(ax).startswith("Kernel trace per row rises as a power of width, exponent 0.699 [")
    assert [text.get_horizontalalignment() for text in ax.texts] == ["left"]


@pytest.mark.parametrize("law", ["m4", "bnsl"])
def test_a_long_equation_stands_below(law):
    ax = fit(width_runs(), law, x="width", y="loss", num_bootstrap=0).plot()
    assert title(ax).startswith(f"Loss follows the {law} law of width to within")
    ax.figure.canvas.draw()
    shown = next(text for text in ax.texts if text.get_text().strip())
    assert shown.get_window_extent().y1 < ax.bbox.y0 and shown.get_window_extent().y0 > 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("y = 2 (x / 64)^-0.5", "y = 2 (x / 64)$^{-0.5}$"),
        ("(x / 1)^--0.5", "(x / 1)$^{0.5}$"),
        ("x^-2.03e-17", "x$^{-2.03\\cdot 10^{-17}}$"),
        ("1.73e+08 and 2e-05", "1.73·10$^{8}$ and 2·10$^{-5}$"),
        ("test_loss", "test loss"),
        ("R_D* and loss_n, my_a_b", "R$_{D}$* and loss$_{n}$, my a$_{b}$"),
        ("x^(-0.1 0.2)", "x$^{(-0.1\\ 0.2)}$"),
    ],
)
def test_an_equation_becomes_mathematics(text, expected):
    assert equations.mathematics(text) == expected
