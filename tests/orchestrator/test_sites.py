"""Sites: which settings of a launcher count, what is refused, and the examples that we ship."""

from pathlib import Path

import pytest

from orchestrator import confdirs
from orchestrator.compose import Composed, compose, option_names
from orchestrator.hydra_configs import plugin_defaults
from orchestrator.launchers.local import Local
from orchestrator.launchers.slurm import Slurm
from orchestrator.names import launcher_setting_names
from workers.errors import ConfigError, UnknownName

STUDY = "workload=grid_package.study"
SHIPPED = ("example_container", "example_gpu", "slurm_dev")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(group: str, name: str, text: str) -> None:
    file = Path("conf") / group / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def slurm(*words: str) -> Slurm:
    launcher = compose(list(words)).launcher
    assert isinstance(launcher, Slurm)
    return launcher


# -- which settings count -----------------------------------------------------------------------------------------------


def test_a_site_chooses_slurm_and_its_settings():
    written("site", "uni", "partition: gpu\nsbatch: {mail-type: FAIL}\nsetup: [module load cuda]\n")
    assert slurm(STUDY, "site=uni") == Slurm(partition="gpu", sbatch={"mail-type": "FAIL"}, setup=("module load cuda",))


def test_without_site_and_launcher_tasks_run_here():
    assert compose([STUDY]).launcher == Local()


def test_slurm_needs_no_site():
    assert slurm(STUDY, "launcher=slurm", "launcher.qos=long") == Slurm(qos="long")


def test_the_site_comes_above_the_launchers_defaults_below_the_sweeps_file_and_the_command_line():
    written("site", "uni", "partition: gpu\nqos: normal\naccount: physics\n")
    written("sweep", "s", "workload: grid_package.study\nlauncher:\n  qos: long\n  account: ml\n")
    found = slurm("sweep=s", "site=uni", "launcher.account=chem")
    assert (found.partition, found.qos, found.account, found.max_jobs) == ("gpu", "long", "chem", 64)


def test_a_size_of_the_sweep_comes_above_the_site_too():
    written("site", "uni", "max_jobs: 5\n")
    written("sweep", "s", "workload: grid_package.study\nsweep:\n  sizes:\n    full: {launcher.max_jobs: 9}\n")
    assert (slurm("sweep=s", "site=uni").max_jobs, slurm("sweep=s", "site=uni", "size=full").max_jobs) == (5, 9)


def test_keys_of_a_mapping_join_those_of_the_site():
    written("site", "uni", "sbatch: {mail-type: FAIL, nice: 5}\n")
    written("sweep", "s", "workload: grid_package.study\nlauncher.sbatch: {nice: 7}\n")
    assert slurm("sweep=s", "site=uni", "launcher.sbatch.comment=x").sbatch == {"mail-type": "FAIL", "nice": 7, "comment": "x"}


def test_null_takes_a_setting_of_the_site_back():
    written("site", "uni", "account: physics\nsbatch: {nice: 5}\n")
    found = slurm(STUDY, "site=uni", "launcher.account=null", "launcher.sbatch=null")
    assert (found.account, found.sbatch) == (None, None)


def test_a_sweeps_file_may_choose_the_site_and_the_launcher():
    written("site", "uni", "partition: gpu\n")
    written("site", "other", "partition: cpu\n")
    written("sweep", "s", "# @package _global_\ndefaults:\n  - override /site: uni\n\nworkload: grid_package.study\n")
    written("sweep", "plain", "# @package _global_\ndefaults:\n  - override /launcher: slurm\n\nworkload: grid_package.study\n")
    assert slurm("sweep=s").partition == "gpu"
    assert slurm("sweep=s", "site=other").partition == "cpu"
    assert slurm("sweep=plain") == Slurm()


def test_a_sweep_with_a_site_can_still_be_tried_on_this_machine():
    written("site", "uni", "partition: gpu\n")
    written("sweep", "s", "# @package _global_\ndefaults:\n  - override /site: uni\n\nworkload: grid_package.study\n")
    assert compose(["sweep=s", "launcher=local"]).launcher == Local()


def test_the_users_site_comes_before_ours():
    written("site", "example_gpu", "partition: mine\n")
    assert slurm(STUDY, "site=example_gpu") == Slurm(partition="mine")


def test_cfg_shows_the_launcher_with_what_the_site_says():
    written("site", "uni", "partition: gpu\n")
    assert "partition: gpu" in compose([STUDY, "site=uni"]).cfg


# -- refusals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        (
            "partitoin: gpu\n",
            ["site=uni"],
            "conf/site/uni.yaml: no setting 'partitoin'; did you mean 'partition'.* A site holds settings of",
        ),
        ("max_jobs: many\n", ["site=uni"], "launcher.max_jobs must be a whole number, got 'many'"),
        ("sbatch: {job-name: x}\n", ["site=uni"], "launcher.sbatch.job-name is set by the launcher itself"),
        ("- a\n", ["site=uni"], "primary config|List|list"),
        ("qos: a\n", ["site=umi"], "no site 'umi'; did you mean 'uni'"),
        ("qos: a\n", ["site=uni", "launcher=local"], "site=uni holds settings of launcher=slurm, not of launcher=local"),
        ("qos: a\n", ["site=uni", "site.qos=b"], "'site.qos=b': a site is chosen whole; its settings are the launcher's: launcher.qos=b"),
        ("qos: a\n", ["site=uni", "launcher.qso=b"], "no setting 'launcher.qso'; did you mean 'qos'"),
        ("qos: a\n", ["launcher=slrum"], "no launcher 'slrum'; did you mean 'slurm'"),
        ("qos: a\n", ["launcher=slurm", "launcher.partitions.gpu.cpus=3"], "cpus"),
    ],
)
def test_a_wrong_site_is_refused_with_what_is_allowed(text: str, words: list[str], message: str):
    written("site", "uni", text)
    with pytest.raises(ConfigError, match=message):
        compose([STUDY, *words])


@pytest.mark.parametrize("group", ["site", "launcher"])
def test_a_file_that_names_a_site_or_a_launcher_among_its_values_learns_where_it_goes(group: str):
    written("sweep", "s", f"workload: grid_package.study\n{group}: uni\n")
    with pytest.raises(ConfigError, match=f"choose it in the defaults list, as `- override /{group}: uni`"):
        compose(["sweep=s"])


def test_a_defaults_list_that_names_no_launcher_learns_which_there_are():
    written("sweep", "s", "# @package _global_\ndefaults:\n  - override /launcher: slrum\n\nworkload: grid_package.study\n")
    with pytest.raises(UnknownName, match="no launcher 'slrum'; did you mean 'slurm'"):
        compose(["sweep=s"])


# -- what we ship -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_each_site_that_we_ship_composes(name: str):
    found: Composed = compose([STUDY, f"site={name}"])
    assert found.launcher != Slurm()
    assert set(found.site) <= set(plugin_defaults(Slurm))


def test_sites_can_be_completed():
    written("site", "uni", "partition: gpu\n")
    assert option_names("site") == [*SHIPPED[:2], *SHIPPED[2:], "uni"]
    assert "slurm" in option_names("launcher")


def test_every_site_is_tried():
    assert tuple(confdirs.names("site", confdirs.search_path())) == SHIPPED


def test_the_launchers_settings_can_be_completed():
    assert launcher_setting_names(["site=uni"]) == launcher_setting_names(["launcher=slurm"])
    assert "launcher.partition" in launcher_setting_names(["site=uni"])
    assert launcher_setting_names([]) == [f"launcher.{name}" for name in plugin_defaults(Local)]
