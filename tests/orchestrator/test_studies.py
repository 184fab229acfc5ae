"""Studies: what they submit, the page of what there is, and findings that follow numbers which were put in."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from orchestrator import cli, frozen_sections, reaches, study, verbs
from orchestrator.studies import ntk_lens, spectral_reach
from orchestrator.study import Section, Study, Table
from orchestrator.study_tables import sign
from workers.errors import ConfigError, UnknownName
from workers.mode_flow import closed_form_reach, mode_flow, power_law_modes


class Planted:
    """Results of a sweep as studies read them, from rows (axes, workload, step, scalars)."""

    def __init__(self, name: str, rows: list[dict[str, Any]], settings: dict[str, Any] | None = None) -> None:
        self.name, self.rows, self._settings = name, rows, settings or {}

    def scalars(self) -> pl.LazyFrame:
        found = []
        for row in self.rows:
            key = row.get("key", f"{row['workload']}-{row['axes']}")
            common = {
                "key": key,
                "workload": row["workload"],
                "status": row.get("status", "ok"),
                "code": "one",
                "step": row["step"],
                **row["axes"],
            }
            found += [{**common, "name": name, "value": float(value)} for name, value in row["values"].items()]
        return pl.DataFrame(found, infer_schema_length=None).lazy()

    def tasks(self) -> pl.LazyFrame:
        return self.scalars().select("key", "workload", settings=pl.lit(json.dumps(self._settings))).unique()


def jitter(*parts: object, size: float = 0.02) -> float:
    """A factor near 1 that depends on what it is of."""
    seed = sum(ord(letter) * (at + 1) for at, letter in enumerate(str(parts)))
    return math.exp(size * float(np.random.default_rng(seed).standard_normal()))


# -- the frame ------------------------------------------------------------------------------------------------------------------


def test_every_study_names_sweeps_that_there_are_and_is_found_by_its_file():
    folder = Path(study.__file__).parents[1] / "conf" / "sweep"
    assert set(study.names()) >= {"data_selection", "ntk_lens", "spectral_reach"}
    for name in study.names():
        one = study.load(name)
        assert one.name == name
        assert one.sections
        for sweep in one.sweeps:
            own = (folder / f"{sweep}.yaml").read_text()
            # a sweep may go on from another's file
            text = own + "".join((folder / f"{other}.yaml").read_text() for other in one.sweeps if f"\n  - {other}\n" in own)
            assert "    small:" in text
            assert "    paper:" in text
    with pytest.raises(UnknownName, match="no study 'ntk_lense'; did you mean 'ntk_lens'"):
        study.load("ntk_lense")


def test_a_size_tells_the_sweeps_of_a_study_apart_and_other_settings_are_refused():
    one = study.load("ntk_lens")
    words = one.submissions(["size=small", "launcher=local"])
    assert words["ntk_lens_data"] == ["sweep=ntk_lens_data", "name=ntk_lens_data_small", "size=small", "launcher=local"]
    assert one.submissions([])["ntk_lens_width"] == ["sweep=ntk_lens_width", "name=ntk_lens_width"]
    for word in ("+size=small", "size='small'"):
        assert one.submissions([word])["ntk_lens_width"] == ["sweep=ntk_lens_width", "name=ntk_lens_width_small", word]
    with pytest.raises(ConfigError, match="takes settings of all its sweeps .* got 'num_steps=5'"):
        one.submissions(["num_steps=5"])
    with pytest.raises(ConfigError, match="size= takes one name, got 'size=small,paper'"):
        one.submissions(["size=small,paper"])


@pytest.fixture
def two_sweeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> Path:
    """A study of a sweep of kernels, and one of trainings."""
    monkeypatch.chdir(tmp_path)
    Path("conf/sweep").mkdir(parents=True)
    small = "train_size: 64\nnum_steps: 2\n"
    Path("conf/sweep/kernels.yaml").write_text(
        f"# @package _global_\nworkload: gram\n{small}probe_size: 4\nsweep: {{grid: {{seed: [0]}}}}\n"
    )
    Path("conf/sweep/trainings.yaml").write_text(f"# @package _global_\nworkload: train\n{small}sweep: {{grid: {{seed: [1]}}}}\n")
    one = Study(name="mine", title="Mine", sweeps={"kernels": "this", "trainings": "that"}, sections=())
    monkeypatch.setattr(study, "load", lambda name: one)
    return root


def test_resources_of_a_workload_go_to_the_sweeps_that_have_it(two_sweeps: Path):
    for word in ("resources.gram.cpus=2", "+resources.gram={cpus: 2}"):
        found = verbs._submissions("mine", ["launcher=inline", "resources.train.cpus=1", word], two_sweeps, ())
        given = ["launcher=inline", "resources.train.cpus=1"]
        assert found == {
            "kernels": ["sweep=kernels", "name=kernels", *given, word],
            "trainings": ["sweep=trainings", "name=trainings", *given],
        }
    with pytest.raises(UnknownName, match=r"resources.trian: no task of this sweep is of the workload 'trian'"):
        verbs.plan_study("mine", ["resources.trian.cpus=1"], two_sweeps)


def test_nothing_of_a_study_is_sent_where_one_of_its_sweeps_cannot_be(two_sweeps: Path):
    with pytest.raises(UnknownName, match=r"resources.gram: no task of this sweep"):
        verbs.study("mine", ["launcher=inline", "resources={gram: {cpus: 1}}"], two_sweeps)
    assert verbs.sweeps(two_sweeps) == []
    done = verbs.study("mine", ["launcher=inline", "resources.gram.cpus=1"], two_sweeps)
    assert [status.counts for status in done.sweeps.values()] == [{"completed": 2}, {"completed": 1}]


def test_the_page_holds_what_there_is_and_notes_what_is_not(tmp_path: Path):
    def good(results: Mapping[str, Any]) -> Section:
        rows = [{"a": 1, "b": ("one half", 0.5)}]
        return Section(title="Found <it>", findings=["7 > 6"], tables=[Table(name="both", heading="Both", rows=rows)])

    def lacking(results: Mapping[str, Any]) -> Section:
        raise ConfigError("no results yet of the sweep two")

    one = Study(name="mine", title="Mine", sweeps={"first": "this", "second": "that"}, sections=(good, lacking))
    results = {"first": Planted("first_small", [{"axes": {"x": 1}, "workload": "train", "step": 0, "values": {"y": 1}}])}
    page = study.page_of(one, results, tmp_path)
    text = page.path.read_text()
    assert page.findings == ["7 > 6"]
    assert "Found &lt;it&gt;" in text
    assert "7 &gt; 6" in text
    assert "no results yet of second" in text
    assert "no results yet of the sweep two" in text
    assert (tmp_path / "tables" / "both.csv").read_text() == "a,b\n1,0.5\n"


def test_the_verb_lists_studies_plans_one_and_says_when_there_is_nothing_to_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = ["--root", str(tmp_path / "store")]
    assert cli.main(["init", *root]) == 0
    assert cli.main(["study", *root]) == 0
    assert "ntk_lens_width" in capsys.readouterr().out
    assert cli.main(["study", "spectral_reach", "size=huge", "--dry-run", *root]) == 2
    assert "no size 'huge'" in capsys.readouterr().err
    assert cli.main(["study", "ntk_lens", "--page", *root, "--out", str(tmp_path / "page")]) == 0
    assert "no results yet of ntk_lens_data" in (tmp_path / "page" / "report.html").read_text()


# -- the NTK lens ---------------------------------------------------------------------------------------------------------------


def lens_data(slopes: Mapping[str, tuple[float, float]], *, suffix: str = "", noise: float = 0.02) -> Planted:
    """Losses falling with the first exponent, kernels' traces going with the second, by model; kernels' names end in `suffix`."""
    rows = []
    for model, (loss, trace) in slopes.items():
        for size in (64, 128, 256, 512, 1024):
            for seed in range(3):
                axes = {"data": "digits", "model": model, "train_size": size, "seed": seed}
                value = size**-loss * jitter(model, size, seed, size=noise)
                rows.append({"axes": axes, "workload": "train", "step": 100, "values": {"test_loss": value}})
                for step, grown in ((0, 0.0), (100, 1.0)):
                    kernel = {
                        "trace": 5 * size ** (grown * trace) * jitter(size, seed, model),
                        "entropy": 3 + grown,
                        "effective_rank": 20.0,
                    }
                    kernel = {f"{name}{suffix}": value for name, value in kernel.items()}
                    rows.append({"axes": axes, "workload": "kernel_dynamics", "step": step, "values": kernel})
    return Planted("ntk_lens_data_small", rows)


def test_equal_loss_exponents_with_opposite_kernels_are_told():
    section = ntk_lens.data_scaling({ntk_lens.DATA: lens_data({"cnn": (0.3, 0.4), "mlp": (0.3, -0.4)})})
    text = " ".join(section.findings)
    assert "Pairs of tasks: 1. Their loss exponents are equal in 1 (the 95% interval of the difference lies within ±0.05)" in text
    assert "Of the equal ones 1 have kernels that go opposite ways, with Holm's correction for 1 pairs and 3 observables" in text
    assert "digits cnn and digits mlp (trace). This agrees with the claim" in text
    assert "With the training set's size test loss falls for digits cnn (exponent -0.3" in text
    pair = section.tables[1].rows[0]
    assert (pair["exponents are"], pair["observables with opposite slopes"]) == ("equal", "trace")
    exponents = {row["task"]: row["test_loss"][1] for row in section.tables[0].rows}
    assert exponents == {"digits cnn": pytest.approx(-0.3, abs=0.02), "digits mlp": pytest.approx(-0.3, abs=0.02)}


@pytest.mark.parametrize("slopes", [{"cnn": (0.3, 0.4), "mlp": (0.5, -0.4)}, {"cnn": (0.3, 0.4), "mlp": (0.3, 0.2)}])
def test_other_exponents_or_kernels_that_go_one_way_do_not_show_the_claim(slopes: Mapping[str, tuple[float, float]]):
    section = ntk_lens.data_scaling({ntk_lens.DATA: lens_data(slopes)})
    assert any("his sweep does not show the claim" in line for line in section.findings)


def test_exponents_that_noise_does_not_tell_apart_are_not_called_equal():
    section = ntk_lens.data_scaling({ntk_lens.DATA: lens_data({"cnn": (0.3, 0.4), "mlp": (0.3, -0.4)}, noise=0.2)})
    assert section.tables[1].rows[0]["exponents are"] == "undecided"
    assert any("No pair is shown to have equal exponents" in line for line in section.findings)


def test_a_sign_that_is_clear_by_itself_is_not_so_among_three_observables():
    results = lens_data({"cnn": (0.3, 0.0), "mlp": (0.3, 0.0)})
    for row in results.rows:
        if row["workload"] == "kernel_dynamics" and row["step"]:
            # three seeds' slopes of deviation 0.03 about 0.1: p = 0.029; of the other network p is far less
            noise = 0.03 if row["axes"]["model"] == "cnn" else -0.001
            slope = math.copysign(0.1, noise) + noise * (row["axes"]["seed"] - 1)
            row["values"]["trace"] = 5.0 * row["axes"]["train_size"] ** slope
    frame = ntk_lens._tasks(ntk_lens._read(results, ("test_loss",), ntk_lens.OBSERVABLES))
    fits = {name: ntk_lens.slopes(frame, "train_size", name, "task") for name in ("test_loss", *ntk_lens.OBSERVABLES)}
    found = [ntk_lens._pairs(fits, observables)[0] for observables in (("trace",), ntk_lens.OBSERVABLES)]
    assert [row["observables with opposite slopes"] for row in found] == ["trace", "none"]


def test_a_loss_that_does_not_fall_is_not_said_to_fall():
    text = ntk_lens.data_scaling({ntk_lens.DATA: lens_data({"cnn": (-0.3, 0.4), "mlp": (0.0, -0.4)})}).findings[0]
    assert "grows for digits cnn (exponent 0.299 [" in text
    assert "has no clear trend for digits mlp" in text


def test_of_one_task_nothing_is_said_of_pairs():
    findings = ntk_lens.data_scaling({ntk_lens.DATA: lens_data({"cnn": (0.3, 0.4)})}).findings
    assert findings
    assert not any("claim" in line or "airs" in line for line in findings)


def test_traced_kernels_are_read_and_said_to_be_so():
    planted = lens_data({"cnn": (0.3, 0.4), "mlp": (0.3, -0.4)}, suffix="_traced")
    section = ntk_lens.data_scaling({ntk_lens.DATA: planted})
    text = " ".join(section.findings)
    assert "The final traced kernel's trace grows for digits cnn (+0.4" in text
    assert "digits cnn and digits mlp (trace_traced). This agrees with the claim" in text
    assert "full" not in text
    course = ntk_lens.along_training({ntk_lens.DATA: planted})
    assert "the traced kernel's entropy goes from 3.00 to 4.00 nats" in course.findings[0]
    assert len(course.drawings) == 4


def test_traced_kernels_beside_full_ones_of_the_same_trainings_are_not_mixed_with_them():
    full, traced = (lens_data({"cnn": (0.3, 0.4)}, suffix=suffix).rows for suffix in ("", "_traced"))
    more = [row | {"key": f"traced-{row['axes']}"} for row in traced if row["workload"] == "kernel_dynamics"]
    read = ntk_lens._read(Planted("both", full + more), ("test_loss",), ntk_lens.OBSERVABLES)
    assert read.kernel == "full kernel"
    assert ntk_lens._tasks(read)["trace"].null_count() == 0
    assert len(ntk_lens._tasks(read)) == 15


def test_a_training_that_diverged_is_left_out_and_counted():
    planted = lens_data({"cnn": (0.3, 0.4)})
    planted.rows[0] |= {"status": "diverged", "values": {"test_loss": math.nan}}
    section = ntk_lens.data_scaling({ntk_lens.DATA: planted})
    assert section.notes == ["1 task diverged: left out"]
    assert section.tables[0].rows[0]["test_loss"][1] == pytest.approx(-0.3, abs=0.03)


def test_the_course_of_entropy_is_told():
    section = ntk_lens.along_training({ntk_lens.DATA: lens_data({"cnn": (0.3, 0.4)})})
    assert "entropy goes from 3.00 to 4.00 nats" in section.findings[0]
    assert len(section.drawings) == 2


def lens_width(bend: float, *, seeds: int = 4, power: float = -0.5, suffix: str = "", noise: float = 0.02) -> Planted:
    """Changes of the kernel of 0.5 up to `bend`, beyond it going as width^`power`; linearised networks 10 % worse."""
    rows = []
    for width in (8, 16, 32, 64, 128, 256, 512, 1024):
        for seed in range(seeds):
            for frozen in ("none", "linearised"):
                axes = {"parameterisation": "ntk", "width": width, "frozen": frozen, "seed": seed}
                change = 0.5 * max(1.0, width / bend) ** power * jitter(width, seed, size=noise) * (frozen == "none")
                for step, loss in ((0, 1.0), (10, 0.5), (100, 0.1)):
                    worse = 1.1 if frozen == "linearised" else 1.0
                    rows.append(
                        {"axes": axes, "workload": "train", "step": step, "values": {"train_loss": loss, "test_loss": loss * worse}}
                    )
                    start = {"infinite_width_distance": width**-0.5 * jitter(seed, width)}
                    kernel = {f"relative_kernel_change{suffix}": change} if step else start
                    rows.append({"axes": axes, "workload": "kernel_dynamics", "step": step, "values": kernel})
    return Planted("ntk_lens_width_small", rows)


def test_the_critical_width_the_limit_and_the_gain_are_those_that_were_put_in():
    section = ntk_lens.width_limit({ntk_lens.WIDTH: lens_width(64)})
    text = " ".join(section.findings)
    assert "ntk: at training loss 0.1 the full kernel's change falls as width^-0.5" in text
    assert "32 is the widest that leaves this law, below it" in text
    assert "as width^-0.50" in text or "as width^-0.49" in text
    assert "-9.1% ± 0.0% at width 8" in text
    assert {drawing.name for drawing in section.drawings} == {"kernel-change-width", "infinite-width", "linearised-test-loss"}
    assert not section.notes


def test_the_change_of_traced_kernels_is_read_and_said_to_be_so():
    section = ntk_lens.width_limit({ntk_lens.WIDTH: lens_width(64, suffix="_traced")})
    assert "the traced kernel's change falls as width^-0.5" in section.findings[0]
    assert "the traced kernel" in section.drawings[0].caption


@pytest.mark.parametrize(
    ("power", "seeds", "said"),
    [
        (0.0, 4, "the full kernel's change has no clear trend (width^"),
        (0.5, 4, "the full kernel's change rises as width^0.5"),
        (-0.5, 1, "over all widths; whether one leaves that law cannot be tested with one seed"),
        (-0.5, 4, "none of which clearly leaves that law. This is only a bound"),
    ],
)
def test_the_law_of_the_change_is_said_by_its_sign_and_by_what_can_be_tested(power: float, seeds: int, said: str):
    section = ntk_lens.width_limit({ntk_lens.WIDTH: lens_width(1, power=power, seeds=seeds)})
    assert said in section.findings[0]
    assert ("not tested" in section.drawings[0].ax.get_title(loc="left")) == (seeds == 1)


def test_the_error_of_the_gain_is_that_of_the_ratio():
    planted = lens_width(64)
    for row in planted.rows:
        if row["axes"]["frozen"] == "none" and "test_loss" in row["values"]:
            row["values"]["test_loss"] *= (1.2, 1.3, 1.4, 1.5)[row["axes"]["seed"]]
    logs = np.log(np.array([1.2, 1.3, 1.4, 1.5]) / 1.1)
    gain, error = math.expm1(logs.mean()), math.exp(logs.mean()) * logs.std(ddof=1) / 2
    assert f"{gain:+.1%} ± {error:.1%} at width 8" in " ".join(ntk_lens.width_limit({ntk_lens.WIDTH: planted}).findings)


def test_trainings_that_diverged_or_have_no_kernel_before_the_loss_are_left_out_and_counted():
    planted = lens_width(64)
    for row in planted.rows:
        axes = row["axes"]
        if (axes["width"], axes["seed"]) == (1024, 0):  # ends far above the others' loss
            row |= {"status": "diverged", "values": {name: math.nan if "loss" in name else 0.9 for name in row["values"]}}
            row["values"] |= {"train_loss": 0.9} if row["workload"] == "train" else {}
        if (axes["width"], axes["seed"]) == (8, 1) and row["step"] == 10 and row["workload"] == "train":
            row["values"]["train_loss"] = 0.09
    section = ntk_lens.width_limit({ntk_lens.WIDTH: planted})
    text = " ".join(section.findings)
    assert "at training loss 0.1 " in text
    assert "-9.1% ± 0.0% at width 1024" in text
    assert section.notes == ["4 tasks diverged: left out", "1 of 31 trainings have no kernels on both sides of training loss 0.1: left out"]


# -- spectral reach -------------------------------------------------------------------------------------------------------------


def reach_rows(axes: dict[str, Any], features: int, steps: np.ndarray, *, num_params: int) -> list[dict[str, Any]]:
    """A training that follows the flow of so many features; the self position has a floor that grows with the size."""
    flow = mode_flow(*power_law_modes(4096, 1.5, 1.8, features), steps)
    rows = []
    for at, step in enumerate(steps):
        position = float(flow.chi_pos_T[at])
        values = {"batch_loss": flow.loss_T[at], "chi_pos": position, "chi_pos_self": position + 1e-4 * num_params, "chi_net": flow.chi_net}
        values |= {"probe_loss": flow.loss_T[at], "probe_chi_pos": position, "probe_chi_net": flow.chi_net, "chi_loss": 1.0}
        rows.append({"axes": axes, "workload": "train", "step": int(step), "values": values})
    ends = {"num_params": num_params, "num_params_non_embedding": num_params, "flops_6nd": 1e3 * num_params * steps[-1]}
    ends |= {"test_loss": num_params**-0.2, "train_loss": num_params**-0.3}
    return [*rows, {"axes": axes, "workload": "train", "step": int(steps[-1]) + 1, "values": ends}]


STEPS = np.unique(np.round(np.geomspace(1, 1e6, 61)))


def sizes(features_of: Callable[[int], int]) -> Planted:
    rows = []
    for width in (8, 16, 32, 64, 128, 256):
        for seed in range(2):
            axes = {"width": width, "train_size": 1024, "seed": seed}
            rows += reach_rows(axes, features_of(width), STEPS, num_params=width**2)
    return Planted("spectral_reach_small", rows)


def test_larger_models_that_reach_further_agree_with_the_claim_but_by_the_biased_estimator():
    section = spectral_reach.text({spectral_reach.TEXT: sizes(lambda width: width)})
    text = " ".join(section.findings)
    assert "grows by the unbiased estimator" in text
    assert "By the unbiased estimator this agrees with the paper's claim" in text
    assert "depends on the estimator" in text
    assert "Test loss against the number of parameters falls as a power with 1024 samples (exponent 0.200" in text
    reach = {
        row["parameters"]: row["reach at 0.05"][1]
        for row in section.tables[1].rows
        if row["estimator"] == "unbiased" and row["over"] == "whole training"
    }
    assert reach[64**2] == pytest.approx(4.7, rel=0.05)


def test_larger_models_that_reach_less_contradict_it():
    section = spectral_reach.text({spectral_reach.TEXT: sizes(lambda width: 4096 // width)})
    assert any("contradicts the paper's claim" in line for line in section.findings)


def test_a_loss_that_rises_with_size_is_not_told_as_falling():
    rows = [
        {**row, "values": {name: 1 / value if name == "test_loss" else value for name, value in row["values"].items()}}
        for row in sizes(lambda width: width).rows
    ]
    section = spectral_reach.text({spectral_reach.TEXT: Planted("spectral_reach_small", rows)})
    told = [line for line in section.findings if line.startswith("Test loss")]
    assert "rises with 1024 samples (exponent -0.200" in told[0]


def test_what_is_particular_to_a_size_is_no_trend():
    """Runs of one size share what is particular to it: many seeds make no interval small. Of 100 sets without a trend few show one."""
    found = 0
    for draw in range(100):
        random = np.random.default_rng(draw)
        rows = [
            {
                "num_params": 10.0 ** (3 + size / 2),
                "train_size": data,
                "estimator": "self",
                "epsilon": 0.1,
                "is_bound": False,
                "reach": reach,
            }
            for size in range(6)
            for own in [random.normal(5.0, 0.1)]
            for data in (1, 2)
            for reach in random.normal(own, 0.05, 4)
        ]
        one = reaches.trend(pl.DataFrame(rows), "self", 0.1)
        assert one is not None
        found += sign(one) != 0
    assert found < 13


def test_bounds_are_counted_among_runs_that_have_a_reach_and_shown_as_bounds():
    """One run still learns at its end, the other is lost in noise: one bound of one reach."""
    rows = sizes(lambda width: width).rows
    late = {"width": 8, "train_size": 1024, "seed": 0}
    kept = [row for row in rows if row["axes"] != late or row["step"] < 10 or "num_params" in row["values"]]
    lost = {"width": 8, "train_size": 1024, "seed": 1}
    for row in kept:
        if row["axes"] == lost and "chi_pos" in row["values"]:
            row["values"]["chi_pos"] = -1.0
    section = spectral_reach.text({spectral_reach.TEXT: Planted("spectral_reach_small", kept)})
    (row,) = (
        row for row in section.tables[1].rows if (row["parameters"], row["estimator"], row["over"]) == (64, "unbiased", "whole training")
    )
    assert row["bounds at 0.05"][0] == "1 of 1"
    assert row["reach at 0.05"][0].startswith("≥ ")
    assert any("1 of 11 runs being lower bounds, 1 more without reach" in line for line in section.findings)


@pytest.mark.parametrize("num_modes", [4096, 20000])
def test_random_features_are_measured_against_their_closed_form(num_modes: int):
    rows = []
    for features in (16, 64):
        rows += reach_rows({"num_features": features, "seed": 0}, features, STEPS, num_params=features)
    data = {"num_modes": num_modes, "feature_exponent": 1.5, "target_exponent": 1.8}
    section = spectral_reach.features({spectral_reach.FEATURES: Planted("features", rows, settings={"data": data})})
    exact = [closed_form_reach(0.05, num_features=features, num_modes=num_modes) for features in (16, 64)]
    assert [row["closed form"][1] for row in section.tables[0].rows] == exact
    assert exact == pytest.approx([3.8, 4.7], rel=0.05)
    assert all(abs(row["error"][1]) < 0.05 * row["closed form"][1] for row in section.tables[0].rows)


def frozen_sweep(ends: Mapping[int, Mapping[str, float]]) -> Planted:
    """Test loss at the end by width and mode."""
    rows = []
    for width, by_mode in ends.items():
        for frozen, loss in by_mode.items():
            axes = {"frozen": frozen, "frozen_at": 0.0, "parameterisation": "standard", "width": width, "seed": 0}
            for step in (1, 10, 100):
                values = {"batch_loss": 3.0, "chi_pos": 0.1, "chi_pos_self": 0.1, "probe_chi_pos": 0.1}
                values["probe_chi_net"] = 5.0 ** (step / 100) if frozen == "none" else 1.0
                rows.append({"axes": axes, "workload": "train", "step": step, "values": values})
            last = {"num_params": 10, "flops_6nd": 1e6, "test_loss": loss, "train_loss": loss, "num_params_non_embedding": 5}
            rows.append({"axes": axes, "workload": "train", "step": 101, "values": last})
    return Planted("frozen", rows)


@pytest.mark.parametrize(
    ("ends", "told"),
    [
        ({64: {"none": 3.0, "linearised": 3.5, "readout": 4.0}, 256: {"none": 2.0, "linearised": 2.5}}, "in 2 of 2 pairs"),
        ({64: {"none": 3.0, "linearised": 2.5}, 256: {"none": 2.0, "linearised": 1.5}}, "in 0 of 2 pairs"),
        ({64: {"none": 3.0, "linearised": 3.5}, 256: {"none": 2.0, "linearised": 1.5}}, "in 1 of 2 pairs"),
    ],
)
def test_feature_learning_is_set_beside_the_frozen_mode_of_the_same_width(ends: Mapping[int, Mapping[str, float]], told: str):
    section = frozen_sections.frozen_modes({frozen_sections.FROZEN: frozen_sweep(ends)})
    assert told in section.findings[0]
    agrees = {"in 2": "agrees with", "in 0": "contradicts", "in 1": "neither shows nor contradicts"}[told[:4]]
    assert agrees in section.findings[0]


def test_kernels_of_later_times_are_told_beside_the_network():
    rows = []
    for width in (32, 128):
        axes = {"parameterisation": "ntk", "width": width, "seed": 0, "snapshot": None}
        rows.append({"axes": axes, "workload": "train", "step": 9, "values": {"test_loss": 0.1}})
        for snapshot, loss in (("init", 0.4), ("100", 0.2), ("10", 0.3)):
            rows.append({"axes": {**axes, "snapshot": snapshot}, "workload": "kernel_descent", "step": 9, "values": {"test_loss": loss}})
    section = frozen_sections.kernel_modes({frozen_sections.KERNEL: Planted("kernel", rows)})
    told = "0.4000 by the kernel of initialisation, 0.3000 by the kernel of step 10 and 0.2000 by the kernel of step 100."
    assert section.findings == [f"ntk, width 128: test loss 0.1000 by the network, {told}"]


def test_an_intervention_that_reaches_further_is_named():
    rows = []
    for optimizer, features in (("adam", 256), ("sgd", 16), ("muon", 64)):
        for seed in range(2):
            axes = {"optimizer": optimizer, "norm": "pre", "depth": 2, "width": 48, "seed": seed}
            rows += reach_rows(axes, features, STEPS, num_params=features)
    section = spectral_reach.interventions({spectral_reach.INTERVENTIONS: Planted("interventions", rows)})
    assert "adam pre 2 48 reaches furthest" in section.findings[0]
    assert "sgd pre 2 48 least" in section.findings[0]
    assert "correlation of reach with test loss is -1.00" in section.findings[1]
    assert "too few or too unlike models to tell the loss by reach" in section.findings[1]


@pytest.mark.parametrize("make", [*ntk_lens.STUDY.sections, *spectral_reach.STUDY.sections])
def test_a_section_without_results_says_which_sweep_lacks(make: Any):
    with pytest.raises(ConfigError, match="no results yet of the sweep"):
        make({})
