"""The data selection study says what was put into its results, and draws it."""

import math

import numpy as np
import polars as pl
import pytest

from orchestrator import study
from orchestrator.figures import style
from orchestrator.selection_runs import agreement, by_set, runs
from orchestrator.studies.data_selection import PAIRS, STUDY, comparisons, correlations
from tests.orchestrator.selection_sweeps import METHODS, PlantedChoices, PlantedSelection

SWEEPS = tuple(STUDY.sweeps)
RATIO = {10: 0.7, 20: 0.8, 30: 1.0, 60: 1.4}


def sections(results):
    """Of the sweeps that there are."""
    return [make(results) for sweep, make in zip(SWEEPS, STUDY.sections, strict=True) if sweep in results]


def drawings(results):
    return [drawing for section in sections(results) for drawing in section.drawings]


def findings(results):
    return [line for section in sections(results) for line in section.findings]


@pytest.fixture(scope="module")
def planted():
    return PlantedSelection(RATIO)


@pytest.fixture(scope="module")
def frame(planted):
    return runs(planted)


def test_a_run_has_its_settings_and_its_first_least_and_last_values(planted, frame):
    assert len(frame) == len(planted.task_rows)
    row = frame.filter(pl.col("key") == "rnd-20-3-0").row(0, named=True)
    values = {(one["name"], one["step"]): one["value"] for one in planted.scalar_rows if one["key"] == row["key"]}
    assert (row["data"], row["model"], row["method"], row["set_size"], row["seed"]) == ("digits", "mlp", "rnd", 20, 3)
    assert (row["test_loss"], row["least_test_loss"]) == (values["test_loss", 100], min(values["test_loss", 10], 2.3))
    assert row["entropy_traced"] == values["entropy_traced", 0]
    assert row["test_accuracy"] is None


def test_the_ratio_of_two_methods_is_the_one_that_was_put_in():
    found = comparisons(runs(PlantedSelection(RATIO, slope=0.0, noise=0.02)), "test_loss").filter(pl.col("method") == "rnd")
    for size, ratio in RATIO.items():
        row = found.filter(pl.col("set_size") == size).row(0, named=True)
        assert row["value"] == pytest.approx(ratio, rel=0.05)
        assert row["verdict"] == ("undecided" if ratio == 1.0 else "lower" if ratio < 1 else "higher")
        assert row["num_pairs"] == 10
        assert row["p_holm"] >= row["p_value"]
    whole = found.filter(pl.col("set_size").is_null()).row(0, named=True)
    assert whole["value"] == pytest.approx(math.prod(RATIO.values()) ** 0.25, rel=0.05)
    assert whole["num_pairs"] == 10


def test_a_diverged_run_takes_its_pair_with_it():
    found = comparisons(runs(PlantedSelection({10: 0.7}, diverged=[("rnd", 10, 4)])), "test_loss")
    assert found.filter((pl.col("method") == "rnd") & (pl.col("set_size") == 10))["num_pairs"].to_list() == [9]


def test_correlation_within_methods_does_not_see_the_difference_of_methods():
    """Without any effect of a set, rnd has more entropy and less loss: all methods together are correlated, within them nothing is."""
    confounded = runs(PlantedSelection({10: 0.3, 20: 0.3}, slope=0.0, num_seeds=16))
    found = correlations(confounded).filter((pl.col("observable") == "entropy_traced") & pl.col("set_size").is_null())
    verdicts = dict(found.select("scope", "verdict").rows())
    assert verdicts == {"all methods": "negative", "within methods": "undecided"}


def test_correlation_within_methods_does_not_see_the_draw_of_a_seed():
    """A seed's network has more trace and more loss for every method, and its sets have no effect: few of 40 such sweeps show one."""
    found = 0
    for draw in range(40):
        random = np.random.default_rng(draw)
        rows = []
        for seed in range(10):
            own = random.normal()
            for method in ("rnd", "random", "maximum_entropy", "pivoted_cholesky"):
                trace, loss = np.exp(own + random.normal(0, 0.1, 2))
                rows.append(
                    {"data": "digits", "model": "mlp", "classes": "any", "method": method, "set_size": 10, "seed": seed, "seed_init": None}
                    | {"seed_subset": None, "seed_noise": None, "test_loss": loss, "trace_traced": trace}
                    | {"entropy_traced": 1.0, "label_entropy": 1.0}
                )
        table = correlations(pl.DataFrame(rows)).filter((pl.col("observable") == "trace_traced") & pl.col("set_size").is_null())
        verdicts = dict(table.select("scope", "verdict").rows())
        assert verdicts["all methods"] == "positive"
        found += verdicts["within methods"] != "undecided"
    assert found <= 7


def test_correlation_within_a_size_does_not_see_the_size(frame):
    """Loss falls and entropy grows with the size, though within a size more entropy was made to cost loss."""
    perverse = runs(PlantedSelection(dict.fromkeys((10, 30, 90), 1.0), slope=4.0))
    assert pl.DataFrame(perverse).select(pl.corr("entropy_traced", "test_loss", method="spearman")).item() < -0.3
    found = correlations(perverse).filter((pl.col("observable") == "entropy_traced") & (pl.col("scope") == "within methods"))
    assert found["verdict"].to_list() == ["positive"] * 4


def test_initialisations_of_one_set_are_one_point():
    found = by_set(runs(PlantedSelection({10: 1.0}, num_inits=3)))
    assert len(found) == 10 * len(METHODS)
    assert found["runs"].to_list() == [3] * len(found)


def test_agreement_is_the_share_of_common_points_of_the_largest_set():
    found = agreement(PlantedChoices({8: 1, 64: 3}), PAIRS).filter(pl.col("first") == "rnd")
    assert found.select("width", "overlap", "chance").rows() == [(8, 0.25, 0.1), (64, 0.75, 0.1)]


def test_findings_follow_the_numbers(planted):
    text = "\n".join(findings({SWEEPS[0]: planted, SWEEPS[2]: PlantedChoices({8: 1, 64: 3})}))
    assert "beats random choice at small set sizes is seen at 10, 20 of the sizes 10, 20 " in text
    assert "At 60 it is worse than random choice." in text
    assert "trace of the sets of random network distillation over that of random choice: x1.50" in text
    assert "within methods: rank correlation of entropy with test loss within one set size: -" in text
    assert "generalise better" not in text
    assert "pivoted Cholesky chooses as well: width 8: 0.25; width 64: 0.75 (by chance 0.10)." in text
    opposite = "\n".join(findings({SWEEPS[0]: PlantedSelection({10: 1.4, 20: 1.5}, slope=2.0)}))
    assert "is contradicted at 10 of the sizes 10" in opposite
    unclear = "\n".join(findings({SWEEPS[0]: PlantedSelection({10: 0.9, 20: 1.0}, num_seeds=5)}))
    assert "is neither seen nor contradicted: none of the sizes 10 is decided" in unclear


def test_every_figure_is_drawn_with_its_data(planted, tmp_path):
    drawn = drawings({SWEEPS[0]: planted, SWEEPS[2]: PlantedChoices({8: 1, 64: 3})})
    names = [one.name for one in drawn]
    assert len(set(names)) == len(names) == 8
    loss = next(one for one in drawn if one.name == "selection-test-loss-digits-mlp")
    data = style.data(loss.ax)
    expected = runs(planted).filter((pl.col("method") == "random") & (pl.col("set_size") == 30))["test_loss"]
    row = data.filter((pl.col("method") == "random") & (pl.col("set_size") == 30)).row(0, named=True)
    assert row["mean"] == pytest.approx(expected.mean())
    assert row["standard_error"] == pytest.approx(expected.std() / math.sqrt(10))
    ratio = next(one for one in drawn if one.name == "selection-over-random-digits-mlp")
    assert "lower at 2 of 4 sizes, higher at 1 of 4 sizes" in " ".join(ratio.ax.get_title(loc="left").split())
    assert style.save(ratio.ax, tmp_path / "one")[0].stat().st_size > 10_000


def test_a_method_has_one_colour_in_every_figure(planted):
    drawn = {one.name: one.ax for one in drawings({SWEEPS[0]: planted})}
    for label in ("rnd", "pivoted cholesky"):
        shades = {
            str(container.lines[0].get_color())
            for name in ("selection-test-loss-digits-mlp", "selection-over-random-digits-mlp")
            for container in drawn[name].containers
            if container.get_label() == label
        }
        assert len(shades) == 1


@pytest.mark.parametrize(("slope", "standing"), [(-2.0, "is seen"), (2.0, "is contradicted"), (0.0, "is neither seen nor contradicted")])
def test_that_entropy_tells_the_loss_is_claimed_of_random_sets(slope: float, standing: str):
    sets = PlantedSelection({10: 1.0, 20: 1.0}, slope=slope, num_seeds=20)
    sets.task_rows = [row for row in sets.task_rows if row["key"].startswith("random")]
    (said,) = (line for line in findings({SWEEPS[1]: sets}) if "correlation of entropy" in line)
    assert f"That sets of more entropy generalise better {standing}." in said


def test_random_sets_are_drawn_against_their_loss():
    sets = PlantedSelection({10: 1.0}, num_inits=2)
    sets.task_rows = [row for row in sets.task_rows if row["key"].startswith("random")]
    drawn = drawings({SWEEPS[1]: sets})
    assert [one.name for one in drawn][0] == "selection-sets-correlation-digits-mlp"
    entropy = next(one for one in drawn if one.name == "selection-sets-entropy-digits-mlp")
    assert len(style.data(entropy.ax)) == 10
    assert "means over 2 initialisations" in entropy.caption


def test_a_sweep_that_has_just_begun_has_no_figures_of_it():
    empty = PlantedSelection({})
    empty.tasks = lambda: pl.DataFrame(schema={"key": pl.String, "workload": pl.String, "settings": pl.String}).lazy()
    schema = {"key": pl.String, "workload": pl.String, "step": pl.Int64, "name": pl.String, "value": pl.Float64}
    empty.scalars = lambda: pl.DataFrame(schema=schema).lazy()
    assert drawings({SWEEPS[0]: empty}) == []
    assert findings({SWEEPS[0]: empty}) == []


def test_the_page_holds_findings_figures_and_tables_and_says_what_is_absent(planted, tmp_path):
    diverged = PlantedSelection({10: 0.7, 20: 0.8}, diverged=[("rnd", 10, 4)])
    found = study.page_of(STUDY, {SWEEPS[0]: diverged}, tmp_path)
    text = found.path.read_text()
    assert "no results yet of data_selection_sets" in text
    assert "digits, mlp: 1 diverged trainings are in no figure" in text
    assert found.findings[0].startswith("digits, mlp: test loss of random network distillation")
    table = pl.read_csv(tmp_path / "tables" / "over-random.csv", null_values=["NaN"])
    expected = comparisons(runs(diverged), "test_loss")
    assert table["value"].to_list() == pytest.approx(expected["value"].to_list())
    assert len(list((tmp_path / "figures").glob("*.png"))) == 7
