"""A sweep's tasks: the grid's and their inputs, each once, and what a manifest gives back of them."""

import json
from pathlib import Path
from typing import Any

import pytest
from grid_package.table import Table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.compose import compose
from orchestrator.content import data_content
from orchestrator.identity import task_key
from orchestrator.sweep import Sweep, expand
from workers import plugins
from workers.errors import ConfigError
from workers.settings import Settings
from workers.workload import Data, Workload

QUIET = "launcher=grid_package.quiet"
MODES, STUDY, PAIR = "workload=grid_package.modes", "workload=grid_package.study", "workload=grid_package.pair"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def swept(*words: str) -> Sweep:
    return expand(compose([QUIET, "name=s", *words]))


def reloaded(sweep: Sweep) -> Sweep:
    return Sweep.from_body(json.loads(json.dumps(sweep.to_body())))


def slow_key(workload: Workload) -> str:
    """The key of a workload, each input's made anew."""
    content = {name: data_content(value) for name in vars(workload) if isinstance(value := getattr(workload, name), Data)}
    return task_key(workload, content, {name: slow_key(value) for name, value in workload.inputs().items()})


def instance(sweep: Sweep, index: int) -> Any:
    task = sweep.task(index)
    return plugins.load("workloads", task.workload).from_plain(task.settings)


def count(sweep: Sweep, workload: str) -> int:
    return sum(sweep.workload(index) == workload for index in range(len(sweep)))


def test_a_grid_has_its_inputs_once_and_before_what_needs_them():
    sweep = swept(MODES, "model.width=1,2", "study.seed=0,1,2", "count=1,2", "step=0,5")
    assert [count(sweep, f"grid_package.{name}") for name in ("study", "kernel", "modes")] == [6, 12, 24]
    assert len(set(sweep.keys)) == len(sweep) == 42
    for index in range(len(sweep)):
        assert all(position < index for position in sweep.inputs(index))
        assert [sweep.keys[position] for position in sweep.inputs(index)] == list(sweep.task(index).inputs.values())
    assert sum(sweep.is_target(index) for index in range(len(sweep))) == 24


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.sampled_from(
            [
                "model.width=1,2",
                "model=grid_package.wide,grid_package.deep",
                "study.seed=range(0,3)",
                "kernel.seed=1,2",
                "count=null,3",
                "rate=0.5,1",
                "scale=1,2",
                "step=4,5",
            ]
        ),
        unique=True,
        max_size=4,
    )
)
def test_every_key_is_that_of_the_tasks_own_settings(words: list[str]):
    sweep = reloaded(swept(MODES, *words))
    for index in range(len(sweep)):
        assert slow_key(instance(sweep, index)) == sweep.keys[index]
        assert instance(sweep, index).resources() == sweep.resources(index)
        assert instance(sweep, index).estimated_seconds() == sweep.estimated_seconds(index)


def test_a_task_is_plain_and_complete():
    sweep = swept(STUDY, "seed=3,4", "rate=0.5")
    task = sweep.task(1, {sweep.keys[1]: 2})
    assert (task.workload, task.version, task.settings["seed"], task.settings["rate"]) == ("grid_package.study", 1, 4, 0.5)
    assert (task.generation, task.sweeps, task.commit_name) == (2, ["s"], f"{sweep.keys[1]}.2")
    assert task.content == {"data": data_content(Table())}
    assert json.loads(json.dumps(task.to_plain())) == task.to_plain()


def test_axis_values_are_those_of_the_axes_that_reach_a_task():
    sweep = swept(MODES, "model=grid_package.wide,grid_package.deep", "width=1,2", "count=7,8")
    last = len(sweep) - 1
    assert sweep.axis_values(last) == {"model": "grid_package.deep", "width": 2, "count": 8}
    study = next(i for i in range(len(sweep)) if sweep.workload(i) == "grid_package.study")
    assert sweep.axis_values(study) == {"model": "grid_package.wide", "width": 1}
    assert sweep.column("count")[study] is None


def test_a_list_can_be_an_axis():
    sweep = reloaded(swept(STUDY, "model=grid_package.deep", "model.layers=[1,2],[3]"))
    assert [instance(sweep, i).model.layers for i in range(2)] == [(1, 2), (3,)]
    assert sweep.axes[0].values == ((1, 2), (3,))


def test_two_inputs_share_a_task_where_they_are_the_same():
    sweep = swept(PAIR, "one.seed=0,1", "other.seed=0,1")
    assert (count(sweep, "grid_package.study"), count(sweep, "grid_package.pair")) == (2, 4)


def test_resources_follow_the_settings_and_the_users_words():
    assert [swept(STUDY, "model.width=1024,2048").resources(i).memory_gib for i in range(2)] == [2.0, 3.0]
    by_expression = swept(
        STUDY, "model.width=1000,2000", "resources.memory_gib='0.5 + model.width * 1e-3'", "resources.cpus='ceil(width / 900)'"
    )
    assert [(by_expression.resources(i).memory_gib, by_expression.resources(i).cpus) for i in range(2)] == [(1.5, 2), (2.5, 3)]
    of_one = swept("workload=grid_package.kernel", "resources.grid_package.kernel.gpus=1", "resources.cpus=2")
    assert [(of_one.resources(i).gpus, of_one.resources(i).cpus) for i in range(2)] == [(0, 2), (1, 2)]


def test_resources_are_in_no_key():
    assert swept(STUDY, "resources.cpus=3", "launcher.slots=7", "root=/x").keys == swept(STUDY).keys


def test_the_order_of_axes_and_overrides_changes_no_key():
    assert sorted(swept(MODES, "count=1,2", "rate=1,2").keys) == sorted(swept(MODES, "rate=2.0,1e0", "count=2,1").keys)


def test_data_files_decide_keys_and_their_place_does_not(tmp_path: Path):
    for place, data in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / place).mkdir()
        (tmp_path / place / "x").write_bytes(data)
    one, other, third = (swept(STUDY, f"data.path={tmp_path}/{place}/x").keys[0] for place in "abc")
    assert one == other != third


def test_a_manifest_gives_the_sweep_back():
    sweep = swept(MODES, "model=grid_package.wide,grid_package.deep", "width=1,2", "count=null,8", "sweep.filter='width = 1'")
    again = reloaded(sweep)
    assert again.to_body() == sweep.to_body()
    assert [again.task(i) for i in range(len(again))] == [sweep.task(i) for i in range(len(sweep))]
    assert again.axes == sweep.axes
    assert again.accepts_diverged(len(again) - 1) and not again.accepts_diverged(0)


def test_the_users_modules_are_named():
    assert swept(MODES).modules() == [f"grid_package.{name}" for name in ("kernel", "modes", "quiet", "study", "table", "wide")]


def test_a_union_has_the_tasks_of_both_once():
    one, other = swept(MODES, "width=1,2", "count=1,2"), swept(MODES, "width=2,3", "count=2,3", "rate=0.1,0.2")
    both = reloaded(one.union(other))
    assert both.keys[: len(one)] == one.keys
    assert set(both.keys) == {*one.keys, *other.keys}
    assert len(both.keys) == len(set(both.keys))
    for index in range(len(both)):
        assert slow_key(instance(both, index)) == both.keys[index]
        assert [slow_key(one) for one in instance(both, index).inputs().values()] == [both.keys[i] for i in both.inputs(index)]
    assert {axis.name: axis.values for axis in both.axes} == {"width": (1, 2, 3), "count": (1, 2, 3), "rate": (0.1, 0.2)}
    assert both.axis_values(both.keys.index(one.keys[-1])) == {"width": 2, "count": 2, "rate": 0.1}
    assert [one.union(one).keys, one.union(other).union(one).keys] == [one.keys, one.union(other).keys]


def test_a_union_of_two_targets_is_refused():
    with pytest.raises(ConfigError, match="is of grid_package.study, not of grid_package.modes; give the new points a name"):
        swept(STUDY).union(swept(MODES))


def test_a_target_that_is_also_an_input_stays_a_target():
    sweep = swept(STUDY, "seed=0,1")
    assert all(sweep.is_target(i) for i in range(2))


def test_no_settings_object_is_left_in_a_task():
    def walk(value: object) -> None:
        assert not isinstance(value, Settings | tuple)
        for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            walk(one)

    walk(swept(MODES, "model=grid_package.deep").task(2).to_plain())


def test_what_a_training_goes_on_from_is_a_task_of_its_own_and_no_point_of_the_grid():
    words = ("workload=train", "train_size=64", "num_steps=40")
    sweep = reloaded(swept(*words, "seed=0,1", "continue_from=[10,20]"))
    assert [sweep.axis_values(i) | {"num_steps": sweep.task(i).settings["num_steps"]} for i in range(len(sweep))] == [
        {"seed": seed, "num_steps": steps} for seed, steps in ((0, 10), (0, 20), (1, 10), (1, 20), (0, 40), (1, 40))
    ]
    assert [sweep.is_target(i) for i in range(6)] == [False] * 4 + [True] * 2
    assert [sweep.inputs(i) for i in range(6)] == [[], [0], [], [2], [1], [3]]
    assert sweep.task(4).inputs == {"earlier": sweep.keys[1]}
    # those keys are of trainings that anybody may have run already
    by_hand = [
        swept(*words[:2], f"num_steps={steps}", "seed=1", f"continue_from={before}").keys[-1]
        for steps, before in ((10, "[]"), (20, "[10]"))
    ]
    assert sweep.keys[2:4] == by_hand
    assert sweep.keys[4] != swept(*words, "seed=0").keys[0]


def test_lengths_of_a_grid_that_go_on_from_each_other_are_its_own_points():
    words = ("workload=train", "train_size=64", "sweep.zip=[[num_steps,continue_from]]")
    sweep = reloaded(swept(*words, "num_steps=10,20,40", "continue_from=[],[10],[10,20]"))
    assert len(sweep) == 3
    assert all(sweep.is_target(i) for i in range(3))
    at = {sweep.axis_values(i)["num_steps"]: i for i in range(3)}
    assert [sweep.inputs(at[steps]) for steps in (10, 20, 40)] == [[], [at[10]], [at[20]]]
    grown = swept(*words[:2], "num_steps=40", "continue_from=[10,20]").union(swept(*words[:2], "num_steps=20,80", "continue_from=[10]"))
    assert [(grown.is_target(i), [grown.keys[one] for one in grown.inputs(i)]) for i in range(len(grown))] == [
        (False, []), (True, [grown.keys[0]]), (True, [grown.keys[1]]), (True, [grown.keys[0]])
    ]  # fmt: skip


def test_an_input_that_another_goes_on_from_is_a_point_of_the_grid_too():
    words = ("workload=position", "train.train_size=64", "sweep.zip=[[train.num_steps,train.continue_from]]")
    long, short = "train.num_steps=10 train.continue_from=[6]".split(), "train.num_steps=6 train.continue_from=[]".split()
    for lengths in ("6,10", "10,6"):
        froms = "[],[6]" if lengths == "6,10" else "[6],[]"
        sweep = reloaded(swept(*words, f"train.num_steps={lengths}", f"train.continue_from={froms}"))
        assert [sweep.is_point(i) for i in range(len(sweep))] == [True] * 4
        assert [sweep.is_target(i) for i in range(len(sweep))] == [False, False, True, True]
    alone = reloaded(swept(*words[:2], *long))
    assert [alone.is_point(i) for i in range(len(alone))] == [False, True, True]
    grown = reloaded(alone.union(swept(*words[:2], *short)))
    assert [grown.is_point(i) for i in range(len(grown))] == [True] * 4
    assert reloaded(grown.union(alone)).extra_points == grown.extra_points == [0]


def test_a_kernel_reads_a_training_that_goes_on():
    sweep = swept("workload=gram", "train_size=64", "num_steps=40", "continue_from=[20]", "snapshot=init,17,20,final", "probe_size=4")
    assert [sweep.workload(i) for i in range(len(sweep))] == ["train", "train", *["gram"] * 4]
    assert [sweep.inputs(i) for i in range(len(sweep))] == [[], [0], *[[1]] * 4]
