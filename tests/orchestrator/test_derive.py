"""Settings that follow from others: worked out at every point, and no other tasks than the same values given by hand."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator import expression
from orchestrator.compose import Composed, compose, setting_names
from orchestrator.sweep import Sweep, expand
from workers import plugins, quantities
from workers.data.digits import Digits
from workers.errors import ConfigError, UnknownName
from workers.layers import num_params
from workers.models.mlp import Mlp
from workers.quantities import quantity

QUIET = "launcher=grid_package.quiet"
MODES, STUDY, TRAIN = "workload=grid_package.modes", "workload=grid_package.study", "workload=train"
ISOFLOP = 'sweep.derive.num_steps="flops / (6 * num_params * units_per_step)"'


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def composed(*words: str) -> Composed:
    return compose([QUIET, "name=s", *words])


def swept(*words: str) -> Sweep:
    return expand(composed(*words))


def points(*words: str) -> list[dict[str, Any]]:
    """The axes of each target, as a manifest gives them back."""
    import json

    sweep = Sweep.from_body(json.loads(json.dumps(swept(*words).to_body())))
    return [sweep.axis_values(i) for i in range(len(sweep)) if sweep.is_target(i)]


def written(text: str, name: str = "s") -> None:
    file = Path("conf/sweep") / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


# -- values -----------------------------------------------------------------------------------------------------------


def test_steps_follow_from_a_budget_of_compute():
    found = points(TRAIN, "flops=1e8,4e8", "batch_size=32", "model.width=4,16", ISOFLOP)
    for one in found:
        params = num_params(Mlp(width=one["width"]).build((1, 8, 8), 10, 0))[0]
        assert one["num_steps"] == round(one["flops"] / (6 * params * 32))
    assert [(one["flops"], one["width"]) for one in found] == [(1e8, 4), (1e8, 16), (4e8, 4), (4e8, 16)]


def test_keys_are_those_of_the_same_values_given_by_hand():
    derived = swept(
        TRAIN, "model.width=8,32", 'sweep.derive.optimizer.learning_rate="0.1 * 64 / width"', 'sweep.derive.num_steps="width * 3.2"'
    )
    by_hand = [swept(TRAIN, f"model.width={w}", f"learning_rate={6.4 / w}", f"num_steps={round(w * 3.2)}").keys[0] for w in (8, 32)]
    assert derived.keys == by_hand


def test_a_rule_follows_rules_axes_settings_and_what_no_setting_is():
    (one, other) = points(
        STUDY, "seed=3,5", "scale=4", "label=b", 'sweep.derive.twice="2 * seed"', 'sweep.derive.train_size="twice + scale * model.width"',
        'sweep.derive.rate="0.5 if label == \'b\' else twice"', "budget_of_mine=7", 'sweep.derive.slope="budget_of_mine + train_size"',
    )  # fmt: skip
    assert one == {"seed": 3, "budget_of_mine": 7, "twice": 6, "train_size": 70, "rate": 0.5, "slope": 77.0}
    assert (other["twice"], other["train_size"], other["slope"]) == (10, 74, 81.0)


def test_functions_are_those_that_they_are_called():
    import math

    texts = {
        "min(3, 2)": 2,
        "max(1, 2)": 2,
        "round(2.6)": 3,
        "sqrt(2)": math.sqrt(2),
        "log(8) / log(2)": 3.0,
        "log2(8)": 3.0,
        "log10(1e3)": 3.0,
    }
    texts |= {"exp(1)": math.e, "abs(-2)": 2, "ceil(1.2) + floor(1.8)": 3, "2 ** 3 // 3 % 2": 0}
    for text, value in texts.items():
        assert expression.compiled(text)(lambda name: None) == pytest.approx(value, rel=1e-15), text
    assert expression.names("min(a.b, c) + f('x', by=['d']) * 2") == {"a.b", "c"}


def test_a_derived_value_reaches_plugins_and_inputs():
    sweep = swept(MODES, "width=1,2", "count=7,8", 'sweep.derive.study.seed="10 * width"', 'sweep.derive.rate="1 / count"')
    studies = [sweep.axis_values(i) for i in range(len(sweep)) if sweep.workload(i) == "grid_package.study"]
    assert {(one["width"], one["seed"], one["rate"]) for one in studies} == {(w, 10 * w, 1 / c) for w in (1, 2) for c in (7, 8)}


def test_a_rule_may_differ_between_plugins():
    words = (
        STUDY,
        "model=grid_package.wide,grid_package.deep",
        "sweep.derive.train_size=\"model.width + (100 if model == 'grid_package.deep' else 0)\"",
    )
    wide, deep = points(*words)
    assert (wide["train_size"], deep["train_size"] - 100) == (16, composed(STUDY, "model=grid_package.deep").combos[0].base.model.width)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", sorted(set(plugins.names("models")) - {"pretrained"}))
def test_parameters_are_counted_without_making_them(name: str):
    model = plugins.load("models", name)()
    shape, num_outputs = ((64,), 256) if model.reads_tokens else ((1, 16, 16), 10)
    assert quantities._num_params(model, shape, num_outputs) == num_params(model.build(shape, num_outputs, 0))


def test_a_step_has_no_more_samples_than_the_training_set():
    counted = {size: quantity("units_per_step", data=Digits(), batch_size=64, train_size=size) for size in (16, 512, None)}
    assert counted == {16: 16, 512: 64, None: 64}
    assert quantity("num_train_samples", data=Digits(), train_size=None) == 1438


def test_commands_that_derive_nothing_import_no_torch():
    import subprocess
    import sys

    code = (
        "import sys; from orchestrator.compose import compose; "
        "found = compose(['workload=train', 'flops=2', 'width=3', 'sweep.derive.num_steps=\\'flops * width * units_per_step\\'']); "
        "print(found.axes[-1].values, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "(384,) False\n"


# -- quantities that are no settings ----------------------------------------------------------------------------------


def test_a_free_axis_reaches_the_inputs_that_it_tells_apart():
    sweep = swept(MODES, "c=1,2", "count=5,6", 'sweep.derive.study.seed="10 * c"')
    by_workload = {name: [sweep.axis_values(i).get("c") for i in range(len(sweep)) if sweep.workload(i) == name] for name in
                   ("grid_package.study", "grid_package.modes")}  # fmt: skip
    assert by_workload == {"grid_package.study": [1, 2], "grid_package.modes": [1, 1, 2, 2]}
    shared = swept(MODES, "c=1,2", 'sweep.derive.count="10 * c"')
    assert [shared.axis_values(i) for i in range(len(shared)) if not shared.is_target(i)] == [{}, {}]


def test_growing_keeps_what_tells_the_points_apart():
    words = (STUDY, 'sweep.derive.train_size="c * 10"')
    grown = swept("c=1,2", *words).union(swept("c=3", *words))
    assert [grown.axis_values(i) for i in range(3)] == [{"c": c, "train_size": 10 * c} for c in (1, 2, 3)]
    assert [(axis.name, axis.values, axis.is_free) for axis in grown.axes] == [("c", (1, 2, 3), True), ("train_size", (10, 20, 30), False)]


def test_free_axes_zip_and_filter_and_take_texts():
    words = (STUDY, "c=1,2,3", "seed=4,5,6", "sweep.zip=[[c,seed]]", 'sweep.derive.train_size="c * seed"')
    assert [one["train_size"] for one in points(*words)] == [4, 10, 18]
    assert [one["c"] for one in points(*words, "sweep.filter='train_size > 4 and c < 3'")] == [2]
    assert [one["c"] for one in points(*words, "sweep.filter='c < 3'")] == [1, 2]
    assert [one["rate"] for one in points(STUDY, "kind=a,b", "sweep.derive.rate=\"1 if kind == 'a' else 2\"")] == [1.0, 2.0]


def test_a_point_that_the_filter_leaves_out_may_have_no_allowed_value():
    words = (STUDY, "c=0,5", 'sweep.derive.train_size="c"')
    with pytest.raises(ConfigError, match=r"train_size must be at least 1, got 0: it follows from 'c' at c=0"):
        points(*words)
    assert [one["train_size"] for one in points(*words, "sweep.filter='train_size > 1'")] == [5]
    assert [one["rate"] for one in points(STUDY, "c=0,5", 'sweep.derive.rate="1 / c"', "sweep.filter='c > 0'")] == [0.2]


# -- files and the command line ---------------------------------------------------------------------------------------

FILE = """
workload: grid_package.study
sweep:
  grid: {c: [1, 2], model.width: {geomspace: [4, 16, 3]}}
  derive:
    train_size: c * width
    rate: 1 / width
  sizes:
    large: {sweep: {grid: {c: [100]}, derive: {rate: 2 / width}}}
"""


def test_a_file_derives_and_its_printed_config_says_the_same():
    import yaml

    written(FILE)
    found = composed("sweep=s")
    section = yaml.safe_load(found.cfg)["sweep"]
    assert section["grid"] == {"c": [1, 2], "model.width": [4, 8, 16]}
    assert section["derive"] == {"train_size": "c * width", "rate": "1 / width"}
    written("workload: grid_package.study\n" + yaml.safe_dump({"sweep": {**section, "workload": None}}), "again")
    assert expand(composed("sweep=again")).keys == expand(found).keys
    assert [(one["train_size"], one["rate"]) for one in points("sweep=s", "size=large", "width=4")] == [(400, 0.5)]


def test_the_command_line_replaces_a_rule_by_a_value_an_axis_or_another_rule():
    written(FILE)
    assert {one["train_size"] for one in points("sweep=s", "sweep.derive.train_size=3*c")} == {3, 6}
    assert {one["c"] for one in points("sweep=s", "c=7")} == {7}
    for words, sizes in ((["train_size=9"], [9]), (["train_size=8,9"], [8, 9]), (["~sweep.derive.train_size"], [None])):
        found = points("sweep=s", "width=4", *words, "~sweep.grid.c")
        assert [one.get("train_size") for one in found] == sizes
        assert {one["rate"] for one in found} == {0.25}
    with pytest.raises(
        ConfigError,
        match="two points of the grid are one task: c=1, width=4, train_size=9, and c=2, .* both with rate=0.25; filter one out, or",
    ):
        points("sweep=s", "train_size=9")


def test_a_filter_may_name_what_the_command_line_gives_and_may_be_taken_away():
    written(FILE.replace("  derive:", "  filter: train_size < 10 and d < 60\n  derive:\n    d: 8 * width"))
    assert [(one["c"], one["width"], one["train_size"], one["d"]) for one in points("sweep=s")] == [(1, 4, 4, 32), (2, 4, 8, 32)]
    assert [(one["c"], one["width"], one["train_size"]) for one in points("sweep=s", "c=1", "train_size=9")] == [(1, 4, 9)]
    # what the filter alone has used is a column still
    assert [one["d"] for one in points("sweep=s", "c=1", "sweep.filter=null")] == [32, 64, 128]


@pytest.mark.parametrize("word", ["num_params=100", "train.num_params=100", "sweep.derive.num_params=100", "sweep.grid.num_params=[100]"])
def test_what_a_workload_counts_of_itself_is_not_given(word: str):
    rule = ISOFLOP.replace("num_params", "train.num_params") if word.startswith("train.") else ISOFLOP
    with pytest.raises(ConfigError, match="num_params is counted from the settings, so that it cannot be given a value"):
        points(TRAIN, "flops=1e8", rule, word)


def test_free_axes_of_a_file_are_completed():
    written(FILE)
    assert "c" in setting_names(["sweep=s"])
    assert "c" not in setting_names([STUDY])


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["seeed=1,2"], r"no setting 'seeed'; did you mean 'seed'"),
        (["c=1", "sweep.derive.train_sise=c"], r"no setting 'train_sise'; did you mean 'train_size'"),
        (["sweep.derive.train_size=2*sead"], r"sweep.derive.train_size: no axis, quantity or setting 'sead'; did you mean 'seed'"),
        (["sweep.derive.train_size=model"], r"train_size must be a whole number"),
        (["sweep.derive.data=3"], r"axis data holds settings|data"),
        (["c=1", "sweep.derive.log_every=c"], r"log_every changes no result"),
        (["c=0,1", 'sweep.derive.rate="1 / c"'], r"rate: cannot work out '1 / c' at c=0 \(float division by zero\)|division by zero"),
        (["c=1", 'sweep.derive.rate="exp(c * 1000)"'], r"cannot work out 'exp\(c \* 1000\)' at c=1"),
        (["c=[1,2]", "sweep.derive.rate=c"], r"c is no setting but a quantity"),
        (["c=1,2", 'sweep.derive.rate="min(c, 1)"'], r"two points of the grid are one task: c=1, and c=2, both with rate=1.0"),
        # the one value stands twice in its axis
        (["c=1,2", "slope=2,2.0", "sweep.zip=[[c,slope]]", 'sweep.derive.rate="min(c, 1)"'], r"one task: c=1, slope=2.0, and c=2"),
        (['sweep.derive.rate="1/slope"', 'sweep.derive.slope="2*rate"'], r"rate -> model.slope -> rate follow from each other"),
        (["sweep.derive=[1]"], r"sweep.derive must hold a setting a line"),
        (['sweep.derive.rate="__import__(1)"'], r"may hold numbers, settings, .* it holds '__import__\(1\)'"),
        (["sweep.derive.rate=true"], r"sweep.derive.rate must be an expression"),
        (["~sweep.derive.rate"], r"sweep.derive has no 'rate'; it has none"),
    ],
)  # fmt: skip
def test_what_cannot_be_derived_is_refused_with_the_reason(words: list[str], error: str):
    with pytest.raises(ConfigError, match=error):
        points(STUDY, *words)


def test_an_axis_that_is_also_derived_is_refused():
    written(FILE.replace("grid: {", "grid: {rate: [1], "))
    with pytest.raises(ConfigError, match="rate is both an axis and derived"):
        points("sweep=s")


def test_a_name_of_several_trainings_takes_more_of_its_path():
    words = ("workload=motion", "flops=1e8")
    with pytest.raises(ConfigError, match=r"'num_params' is ambiguous: it may be gram.train.num_params or reference.train.num_params"):
        points(*words, 'sweep.derive.gram.train.num_steps="flops / num_params"')
    (one,) = points(*words, 'sweep.derive.gram.train.num_steps="flops / gram.train.num_params"')
    assert one["num_steps"] == round(1e8 / quantity("num_params", data=Digits(), model=Mlp()))
    with pytest.raises(UnknownName, match="no axis, quantity or setting 'num_perams'; did you mean 'num_params'"):
        points(*words, 'sweep.derive.gram.train.num_steps="flops / num_perams"')
