"""Studies: what they submit, the page of what there is, and findings that follow numbers which were put in."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from orchestrator import cli, frozen_sections, study, verbs
from orchestrator.studies import ntk_lens, spectral_reach
from orchestrator.study import Section, Study, Table
from workers.errors import ConfigError, UnknownName
from workers.mode_flow import mode_flow, power_law_modes


class Planted:
    """Results of a sweep as studies read them, from rows (axes, workload, step, scalars)."""

    def __init__(self, name: str, rows: list[dict[str, Any]]) -> None:
        self.name, self._rows = name, rows

    @property
    def axis_names(self) -> list[str]:
        return list(self._rows[0]["axes"])

    def scalars(self) -> pl.LazyFrame:
        found = []
        for row in self._rows:
            key = f"{row['workload']}-{row['axes']}"
            common = {"key": key, "workload": row["workload"], "status": "ok", "code": "one", "step": row["step"], **row["axes"]}
            found += [{**common, "name": name, "value": float(value)} for name, value in row["values"].items()]
        return pl.DataFrame(found, infer_schema_length=None).lazy()

    def tasks(self) -> pl.LazyFrame:
        return self.scalars().select("key", "workload").unique()


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
            text = (folder / f"{sweep}.yaml").read_text()
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


def lens_data(slopes: Mapping[str, tuple[float, float]]) -> Planted:
    """Losses falling with the first exponent, kernels' traces going with the second, by model."""
    rows = []
    for model, (loss, trace) in slopes.items():
        for size in (64, 128, 256, 512, 1024):
            for seed in range(3):
                axes = {"data": "digits", "model": model, "train_size": size, "seed": seed}
                value = size**-loss * jitter(model, size, seed)
                rows.append({"axes": axes, "workload": "train", "step": 100, "values": {"test_loss": value}})
                for step, grown in ((0, 0.0), (100, 1.0)):
                    kernel = {
                        "trace": 5 * size ** (grown * trace) * jitter(size, seed, model),
                        "entropy": 3 + grown,
                        "effective_rank": 20.0,
                    }
                    rows.append({"axes": axes, "workload": "kernel_dynamics", "step": step, "values": kernel})
    return Planted("ntk_lens_data_small", rows)


def test_equal_loss_exponents_with_opposite_kernels_are_told():
    section = ntk_lens.data_scaling({ntk_lens.DATA: lens_data({"cnn": (0.3, 0.4), "mlp": (0.3, -0.4)})})
    assert any("1 of these have kernels that go opposite ways: digits cnn and digits mlp (trace)" in line for line in section.findings)
    assert any("This agrees with the claim" in line for line in section.findings)
    pair = section.tables[1].rows[0]
    assert (pair["equal within intervals"], pair["observables with opposite slopes"]) == ("yes", "trace")
    exponents = {row["task"]: row["test_loss"][1] for row in section.tables[0].rows}
    assert exponents == {"digits cnn": pytest.approx(-0.3, abs=0.02), "digits mlp": pytest.approx(-0.3, abs=0.02)}


@pytest.mark.parametrize("slopes", [{"cnn": (0.3, 0.4), "mlp": (0.5, -0.4)}, {"cnn": (0.3, 0.4), "mlp": (0.3, 0.2)}])
def test_other_exponents_or_kernels_that_go_one_way_do_not_show_the_claim(slopes: Mapping[str, tuple[float, float]]):
    section = ntk_lens.data_scaling({ntk_lens.DATA: lens_data(slopes)})
    assert any("This sweep does not show the claim" in line for line in section.findings)


def test_the_course_of_entropy_is_told():
    section = ntk_lens.along_training({ntk_lens.DATA: lens_data({"cnn": (0.3, 0.4)})})
    assert "entropy goes from 3.00 to 4.00 nats" in section.findings[0]
    assert len(section.drawings) == 2


def lens_width(bend: float) -> Planted:
    """Changes of the kernel of 0.5 up to `bend`, beyond it falling as the root of the width; linearised networks 10 % worse."""
    rows = []
    for width in (8, 16, 32, 64, 128, 256, 512, 1024):
        for seed in range(4):
            for frozen in ("none", "linearised"):
                axes = {"parameterisation": "ntk", "width": width, "frozen": frozen, "seed": seed}
                change = 0.5 * min(1.0, (bend / width) ** 0.5) * jitter(width, seed) * (frozen == "none")
                for step, loss in ((0, 1.0), (10, 0.5), (100, 0.1)):
                    worse = 1.1 if frozen == "linearised" else 1.0
                    rows.append(
                        {"axes": axes, "workload": "train", "step": step, "values": {"train_loss": loss, "test_loss": loss * worse}}
                    )
                    kernel = {"relative_kernel_change": change} if step else {"infinite_width_distance": width**-0.5 * jitter(seed, width)}
                    rows.append({"axes": axes, "workload": "kernel_dynamics", "step": step, "values": kernel})
    return Planted("ntk_lens_width_small", rows)


def test_the_critical_width_the_limit_and_the_gain_are_those_that_were_put_in():
    section = ntk_lens.width_limit({ntk_lens.WIDTH: lens_width(64)})
    text = " ".join(section.findings)
    assert "ntk: at training loss 0.1 the kernel's change falls as width^-0.5" in text
    assert "32 is the widest that leaves this law, below it" in text
    assert "as width^-0.50" in text or "as width^-0.49" in text
    assert "-9.5% ± 0.0% at width 8" in text
    assert {drawing.name for drawing in section.drawings} == {"kernel-change-width", "infinite-width", "linearised-test-loss"}


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
    assert "exponent 0.200" in text
    reach = {
        row["num_params"]: row["reach"][1]
        for row in section.tables[1].rows
        if (row["estimator"], row["epsilon"]) == ("unbiased", 0.05) and row["over"] == "whole training"
    }
    assert reach[64**2] == pytest.approx(4.7, rel=0.05)


def test_larger_models_that_reach_less_contradict_it():
    section = spectral_reach.text({spectral_reach.TEXT: sizes(lambda width: 4096 // width)})
    assert any("contradicts the paper's claim" in line for line in section.findings)


def test_random_features_are_measured_against_their_closed_form():
    rows = []
    for features in (16, 64):
        rows += reach_rows({"num_features": features, "seed": 0}, features, STEPS, num_params=features)
    section = spectral_reach.features({spectral_reach.FEATURES: Planted("features", rows)})
    assert all(abs(row["error"][1]) < 0.05 for row in section.tables[0].rows)
    assert [row["closed form"][1] for row in section.tables[0].rows] == pytest.approx([3.8, 4.7], rel=0.05)


def test_frozen_modes_that_stall_agree_with_the_claim():
    rows = []
    for frozen, loss, growth in (("none", 1.0, 5.0), ("linearised", 2.0, 1.0), ("readout", 3.0, 1.0)):
        axes = {"frozen": frozen, "frozen_at": 0.0, "parameterisation": "standard"}
        for step in (1, 10, 100):
            values = {"batch_loss": 3.0, "chi_pos": 0.1, "chi_pos_self": 0.1, "probe_chi_net": growth ** (step / 100), "probe_chi_pos": 0.1}
            rows.append({"axes": axes, "workload": "train", "step": step, "values": values})
        ends = {"num_params": 10, "flops_6nd": 1e6, "test_loss": loss, "train_loss": loss, "num_params_non_embedding": 5}
        rows.append({"axes": axes, "workload": "train", "step": 101, "values": ends})
    section = frozen_sections.frozen_modes({frozen_sections.FROZEN: Planted("frozen", rows)})
    assert "the best of the frozen modes (linearised) ends at 2.0000" in section.findings[0]
    assert "agrees with" in section.findings[0]


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


@pytest.mark.parametrize("make", [*ntk_lens.STUDY.sections, *spectral_reach.STUDY.sections])
def test_a_section_without_results_says_which_sweep_lacks(make: Any):
    with pytest.raises(ConfigError, match="no results yet of the sweep"):
        make({})
