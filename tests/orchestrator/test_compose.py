"""What a command line and its configs become, and what is refused before anything is written."""

from pathlib import Path

import pytest
from grid_package.deep import Deep
from grid_package.modes import Modes
from grid_package.study import Study

from orchestrator.compose import Composed, compose, option_names, setting_names
from orchestrator.sweep import expand
from workers.errors import ConfigError, UnknownName

QUIET = "launcher=grid_package.quiet"
MODES, STUDY = "workload=grid_package.modes", "workload=grid_package.study"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def composed(*words: str) -> Composed:
    return compose([QUIET, *words])


def written(name: str, text: str, group: str = "sweep") -> None:
    file = Path("conf") / group / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def axes_of(found: Composed) -> dict[str, list[object]]:
    return {axis.name: list(axis.values) for axis in found.axes}


# -- settings ---------------------------------------------------------------------------------------------------------


def test_short_and_full_paths_set_the_same():
    assert composed(MODES, "rate=0.5").combos[0].base == composed(MODES, "kernel.study.rate=0.5").combos[0].base


def test_the_targets_name_may_stand_before_a_full_path():
    assert composed("workload=noop", "noop.seconds=2").combos[0].base.seconds == 2.0  # type: ignore[attr-defined]


def test_a_plugin_is_chosen_by_its_dotted_name_and_its_settings_follow():
    base = composed(MODES, "model=grid_package.deep", "model.width=5", "model.layers=[1,2,3]").combos[0].base
    assert isinstance(base, Modes)
    assert base.kernel.study.model == Deep(width=5, layers=(1, 2, 3))


def test_values_get_their_fields_type():
    base = composed(STUDY, "train_size=1e3", "rate=1").combos[0].base
    assert isinstance(base, Study)
    assert (base.train_size, type(base.train_size), type(base.rate)) == (1000, int, float)


def test_plus_and_tilde_are_understood():
    written("s", "workload: grid_package.study\nrate: 0.5\nsweep:\n  grid: {seed: [0, 1], train_size: [4, 8]}\n")
    found = composed("sweep=s", "~rate", "~sweep.grid.seed", "+label=b")
    assert axes_of(found) == {"train_size": [4, 8]}
    assert (found.combos[0].base.rate, found.combos[0].base.label) == (0.1, "b")  # type: ignore[attr-defined]


def test_the_name_is_the_commands_else_the_files():
    written("s", "workload: grid_package.study\n")
    assert composed("sweep=s").name == "s"
    assert composed("sweep=s", "name=t").name == "t"
    assert composed(STUDY).name == ""


def test_the_root_of_a_chain_wins_only_where_it_exists():
    assert composed("workload=grid_package.kernel", "seed=3").combos[0].base.seed == 3  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="'seed' is ambiguous: it may be kernel.seed or kernel.study.seed; write more of the path"):
        composed(MODES, "seed=3")


def test_a_required_setting_is_asked_for_where_hydra_marks_it_missing():
    written("s", "workload: grid_package.study\nrate: ???\n")
    assert composed("sweep=s").combos[0].base.rate == 0.1  # type: ignore[attr-defined]


# -- axes -------------------------------------------------------------------------------------------------------------


def test_lists_ranges_and_choices_are_axes_in_the_order_of_the_command():
    found = composed(STUDY, "train_size=4,8", "seed=range(0,4)", "model.width=choice(1,2)")
    assert axes_of(found) == {"train_size": [4, 8], "seed": [0, 1, 2, 3], "width": [1, 2]}
    assert found.num_points == 16


def test_a_swept_plugin_is_an_axis_with_names_for_values():
    found = composed(MODES, "model=grid_package.wide,grid_package.deep", "model.width=1,2")
    assert axes_of(found) == {"model": ["grid_package.wide", "grid_package.deep"], "width": [1, 2]}
    assert [combo.base.kernel.study.model.plugin_name() for combo in found.combos] == ["grid_package.wide", "grid_package.deep"]  # type: ignore[attr-defined]


def test_a_file_gives_axes_in_every_form():
    written(
        "s",
        """
# @package _global_
workload: grid_package.study
sweep:
  grid:
    model.width: {geomspace: [1, 100, 3]}
    rate: {linspace: [0.5, 1.5, 3]}
    seed: range(0,2)
    model: {slope: [0.5]}
""",
    )
    found = axes_of(composed("sweep=s"))
    assert found == {"width": [1, 10, 100], "rate": [0.5, 1.0, 1.5], "seed": [0, 1], "slope": [0.5]}


def test_the_command_line_replaces_an_axis_of_the_file_in_place():
    written("s", "workload: grid_package.study\nsweep:\n  grid: {model.width: [1, 2], seed: [0, 1]}\n")
    assert axes_of(composed("sweep=s", "width=7", "rate=1,2")) == {"width": [7], "seed": [0, 1], "rate": [1.0, 2.0]}


def test_zip_and_filter():
    written(
        "s",
        "workload: grid_package.study\nsweep:\n  grid: {model.width: [1, 2, 3], train_size: [4, 5, 6], seed: [0, 1]}\n"
        "  zip: [[width, train_size]]\n  filter: 'model.width < 3 or seed = 0'\n",
    )
    found = composed("sweep=s")
    rows = [tuple(axis.values[i] for axis, i in zip(found.axes, point)) for point in found.combos[0].points]
    assert rows == [(1, 4, 0), (1, 4, 1), (2, 5, 0), (2, 5, 1), (3, 6, 0)]
    assert composed("sweep=s", "sweep.filter='seed = 1'", "sweep.zip=null").num_points == 9


def test_a_size_is_laid_over_the_file():
    written(
        "s",
        "workload: grid_package.study\nrate: 0.5\nsweep:\n  grid: {seed: [0]}\n"
        "  sizes: {paper: {rate: 0.25, sweep: {grid: {seed: [0, 1, 2]}}}}\n",
    )
    assert (composed("sweep=s").num_points, composed("sweep=s", "size=paper").num_points) == (1, 3)
    assert composed("sweep=s", "size=paper").combos[0].base.rate == 0.25  # type: ignore[attr-defined]
    with pytest.raises(UnknownName, match="no size 'papr' in s; did you mean 'paper'"):
        composed("sweep=s", "size=papr")


def test_a_file_may_write_paths_with_dots():
    written("s", "workload: grid_package.modes\nstudy.rate: 0.5\nmodel.width: 3\nkernel: {study.label: b}\nresources.cpus: 2\n")
    study = composed("sweep=s", "rate=2").combos[0].base.kernel.study  # type: ignore[attr-defined]
    assert (study.rate, study.model.width, study.label) == (2.0, 3, "b")
    assert composed("sweep=s", "resources.gpus=1").resources == {"cpus": 2, "gpus": 1}


def test_presets_defaults_lists_and_interpolations_are_hydras():
    written("big", "name: grid_package.wide\nwidth: 512\nslope: ${rate}\n", group="model")
    written("s", "# @package _global_\ndefaults:\n  - override /model: big\nworkload: grid_package.study\nrate: 0.5\n")
    found = composed("sweep=s")
    assert (found.combos[0].base.model.width, found.combos[0].base.model.slope) == (512, 0.5)  # type: ignore[attr-defined]
    assert composed("sweep=s", "rate=2").combos[0].base.model.slope == 2.0  # type: ignore[attr-defined]
    assert composed("sweep=s", "model=grid_package.wide").combos[0].base.model.width == 16  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="cannot follow the axes"):
        composed("sweep=s", "rate=1,2")


def test_a_file_chooses_a_plugin_in_its_defaults_list_only():
    written("s", "workload: grid_package.study\nmodel: grid_package.deep\n")
    with pytest.raises(ConfigError, match="as `- override /model: grid_package.deep`"):
        composed("sweep=s")


def test_a_workload_preset_sets_its_settings():
    written("quick", "# @package _global_\nworkload: grid_package.study\ntrain_size: 2\n", group="workload")
    assert composed("workload=quick", "seed=1").combos[0].base == Study(train_size=2, seed=1)


def test_config_dirs_come_after_the_users_conf(tmp_path: Path):
    other = tmp_path / "other"
    (other / "sweep").mkdir(parents=True)
    (other / "sweep" / "s.yaml").write_text("workload: grid_package.study\nseed: 7\n")
    assert compose([QUIET, "sweep=s"], [other]).combos[0].base.seed == 7  # type: ignore[attr-defined]
    written("s", "workload: grid_package.study\nseed: 8\n")
    assert compose([QUIET, "sweep=s"], [other]).combos[0].base.seed == 8  # type: ignore[attr-defined]


def test_launcher_resources_and_budget_are_kept_apart():
    found = composed(STUDY, "launcher.slots=5", "resources.cpus=2", "budget.gpu_hours=1", "root=/x")
    assert (found.launcher.slots, found.resources, found.budget, found.root) == (5, {"cpus": 2}, {"gpu_hours": 1}, Path("/x"))


def test_cfg_shows_the_whole_config():
    text = composed(MODES, "step=3", "train_size=1,2").cfg
    assert "step: 3" in text
    assert "kernel.study.train_size:" in text


def test_composing_twice_forgets_the_first():
    composed(STUDY, "model=grid_package.deep", "model.width=3")
    assert composed(STUDY).combos[0].base == Study()


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([STUDY, "model.widht=3"], "no setting 'model.widht'; did you mean 'model.width'"),
        ([STUDY, "sede=3"], "no setting 'sede'; did you mean 'seed'"),
        ([STUDY, "seed=1.5"], "seed must be a whole number, got 1.5"),
        ([STUDY, "seed=abc"], "seed must be a whole number, got 'abc'"),
        ([STUDY, "seed=-1"], "seed must be at least 0, got -1"),
        ([STUDY, "seed=0,-1"], "seed must be at least 0, got -1"),
        ([MODES, "model.width=4,0"], r"kernel.study.model.width must be at least 1, got 0"),
        ([STUDY, "rate=nan"], "rate must be a finite number, got nan"),
        ([STUDY, "label=c"], "label must be one of a, b, got 'c'"),
        ([STUDY, "seed=[1,2]"], r"seed must be a whole number, got \[1, 2\]"),
        ([STUDY, "seed=[1,2],[3]"], "an axis is written with commas"),
        ([STUDY, "seed=range(0,0)"], "axis seed has no values, so the grid is empty"),
        ([STUDY, "seed=1,1.0"], "axis seed has the value 1 twice"),
        ([STUDY, "seed=1", "seed=2"], "'seed' is given twice, the second time as 'seed=2'"),
        ([MODES, "rate=1,2", "study.rate=3,4"], "'study.rate=3,4' and 'rate=1,2' set the same kernel.study.rate"),
        ([STUDY, "model=grid_package.nothing"], "no module 'grid_package.nothing'"),
        ([STUDY, "model=mlpp"], "no model 'mlpp'; did you mean 'mlp'"),
        ([STUDY, "model=grid_package.table"], "must define one model class named Table"),
        ([STUDY, "model=3"], "model takes the name of a model, got 3"),
        ([STUDY, "seed"], "cannot read 'seed'"),
        ([STUDY, "seed=interval(0,1)"], "an interval has no end of values"),
        ([STUDY, "seed=glob(*)"], r"glob\(...\) chooses among plug-ins"),
        ([STUDY, "log_every=1,2"], "log_every changes no result"),
        ([MODES, "kernel=grid_package.kernel", "kernel.study=3"], "kernel.study takes the name of a workload, got 3"),
        ([STUDY, "sweep=nope"], "no sweep 'nope'"),
        ([STUDY, "sweep.filte='seed=1'"], "no 'sweep.filte'; did you mean 'filter'"),
        ([STUDY, "sweep.filter=3"], "sweep.filter must be a text"),
        ([STUDY, "sweep.zip=3"], "sweep.zip must be a list of lists"),
        ([STUDY, "sweep.zip=[[seed,rate]]"], "no axis 'seed'. Axes are none"),
        ([STUDY, "seed=1,2", "rate=1,2,3", "sweep.zip=[[seed,rate]]"], "equally many values: seed has 2, rate has 3"),
        ([STUDY, "seed=1,2", "rate=1,2", "sweep.zip=[[seed,rate],[seed]]"], "axis seed is zipped twice"),
        ([STUDY, "seed=1,2", "sweep.filter='sed = 1'"], "names 'sed'; did you mean 'seed'"),
        ([STUDY, "seed=1,2", "sweep.filter='seed = 5'"], "leaves none of the 2 points"),
        ([STUDY, "seed=1,2", "sweep.filter='seed + 1'"], "must be a condition"),
        ([STUDY, "seed=1,2", "sweep.filter='seed ='"], "cannot use filter"),
        ([STUDY, "~sweep.grid.seed"], "the grid has no axis 'seed'"),
        ([STUDY, "sweep.grid.seed={geomspace: [0, 3, 2]}"], r"geomspace takes \[start, stop, num\], numbers above 0"),
        ([STUDY, "sweep.grid.seed={logspace: 3}"], "no setting 'seed.logspace'"),
        ([STUDY, "name=a/b"], "name='a/b' must be letters"),
        ([STUDY, "name=a,b"], "name cannot be swept"),
        ([STUDY, "size=big"], "no size 'big'"),
        ([STUDY, "site=nope"], "no site 'nope'"),
        ([STUDY, "launcher.slot=3"], "no setting 'launcher.slot'; did you mean 'slots'"),
        ([STUDY, "launcher.slots=0"], "launcher.slots must be at least 1, got 0"),
        ([STUDY, "resources.memory_gb=3"], "no setting 'resources.memory_gb'; did you mean 'memory_gib'"),
        ([STUDY, "resources.study.cpu=3"], "no setting 'resources.study.cpu'; did you mean 'study.cpus'"),
        ([STUDY, "resources.cpus=0"], "resources.cpus must be at least 1, got 0"),
        ([STUDY, "resources.cpus='__import__(1)'"], "may hold numbers, settings"),
        ([STUDY, "resources.cpus='1 +'"], "cannot read the expression '1 \\+'"),
        ([STUDY, "budget=3"], "`budget` must hold keys and values, got 3"),
        ([STUDY, "~budget.x"], "nothing sets budget.x"),
        ([STUDY, "budget.gpu_hour=3"], "did you mean 'gpu_hours'?"),
        ([STUDY, "budget.gpu_hours=-3"], "budget.gpu_hours must be a number of hours above 0, got -3"),
        ([STUDY, "budget.cpu_hours=true"], "budget.cpu_hours must be a number of hours above 0, got True"),
        (["workload=nope"], "no workload 'nope'"),
        (["workload=noop,train"], "workload= takes one name"),
        ([], "nothing says what to run; give sweep=NAME"),
    ],
)
def test_refused(words: list[str], message: str):
    with pytest.raises(ConfigError, match=message):
        composed(*words)


def test_an_unknown_launcher_is_refused_by_name():
    with pytest.raises(UnknownName, match="no launcher 'nope'"):
        compose([STUDY, "launcher=nope"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sweep: {grid: {seed: [1]}}", "names no workload; write `workload: train` in it"),
        ("workload: grid_package.study\nsweep: {gird: {}}", "no setting 'sweep.gird'; did you mean 'grid'"),
        ("workload: grid_package.study\nsweep: 3", "`sweep:` must hold"),
        ("workload: grid_package.study\nsweep: {grid: [1]}", "sweep.grid must hold an axis a line"),
        ("workload: grid_package.study\nsweep: {grid: {seed: []}}", "axis seed has no values"),
        ("workload: grid_package.study\nsweep: {grid: {seed: [1], study.seed: [2]}}", "no setting 'study.seed'"),
        ("workload: grid_package.kernel\nsweep: {grid: {rate: [1], study.rate: [2]}}", "axis study.rate is given twice"),
        ("workload: grid_package.study\nsede: 3", "no setting 'sede'; did you mean 'seed'"),
        ("workload: grid_package.study\nmodel: {widht: 3}", "no setting 'model.widht'; did you mean 'model.width'"),
        ("workload: grid_package.study\nmodel: {width: abc}", "model.width must be a whole number, got 'abc'"),
        ("workload: grid_package.kernel\nstudy.rate: 1\nstudy: {rate: 2}\nrate: 3", "study.rate is set twice, to different values"),
        ("workload: grid_package.study\nseed: {a: 1}", "no setting 'seed.a'"),
        ("workload: grid_package.study\nseed: ${nothing}", "cannot resolve the config: Interpolation key 'nothing' not found"),
        ("workload: grid_package.study\ndefaults: [nothing_there]", "no sweep 'nothing_there'. There are .*, s"),
        ("workload: grid_package.study\ndefaults: [override /model: mpl]", "no model 'mpl'; did you mean 'mlp'"),
        ("workload: grid_package.study\ndefaults: [override /modle: mlp]", "Could not override 'modle'.*did you mean 'model'"),
        ("workload: [", "is no YAML"),
        ("[1]", "must hold keys and values, it holds a list"),
    ],
)
def test_refused_in_a_file(text: str, message: str):
    written("s", f"# @package _global_\n{text}\n")
    with pytest.raises(ConfigError, match=message):
        composed("sweep=s")


def test_a_preset_without_a_name_is_refused():
    written("big", "width: 512\n", group="model")
    with pytest.raises(ConfigError, match="model names no model; write `name: ...` in its file"):
        composed(STUDY, "model=big")


def test_a_missing_config_dir_is_refused():
    with pytest.raises(ConfigError, match="--config-dir nowhere is no folder"):
        compose([QUIET, STUDY], [Path("nowhere")])


def test_a_rule_over_two_settings_names_the_point():
    with pytest.raises(ConfigError, match=r"must not both be 1313 \(at train_size=1313 seed=1313\)"):
        expand(composed(STUDY, "train_size=12,1313", "seed=12,1313"))


def test_resource_expressions_that_cannot_be_worked_out_are_refused():
    with pytest.raises(UnknownName, match="resources.cpus: no setting 'widht'; did you mean 'width'"):
        expand(composed(STUDY, "resources.cpus='widht * 2'"))
    with pytest.raises(ConfigError, match="cannot work out '1 / seed' for grid_package.study"):
        expand(composed(STUDY, "resources.cpus='1 / seed'"))
    with pytest.raises(UnknownName, match="resources.train: no task of this sweep is of the workload 'train'"):
        expand(composed(STUDY, "resources.train.cpus=2"))


# -- completion -------------------------------------------------------------------------------------------------------


def test_completion_lists_settings_and_options():
    written("s", "workload: grid_package.study\n")
    assert {"rate", "model", "width", "seed"} <= set(setting_names(["sweep=s"]))
    assert "layers" in setting_names(["sweep=s", "model=grid_package.deep"])
    assert setting_names([]) == []
    written("big", "name: grid_package.wide\n", group="model")
    assert {"big", "mlp"} <= set(option_names("model", ["sweep=s"]))
    assert option_names("sweep") and option_names("seed", ["sweep=s"]) == []
    assert "noop" in option_names("workload")
