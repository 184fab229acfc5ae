"""`eigensweep deploy`: a saved policy acts, from a file or a store, and what it did is written."""

import json
from argparse import Namespace
from pathlib import Path

import polars as pl
import pytest

from orchestrator import cli, completion, schema, verbs
from workers.ensembles.groups import ensemble_size, group_of
from workers.taskdir import Task

SMALL = (
    "workload=swarm_deploy train.curriculum.episodes=[2,1] robots.num_agents=3 timing.slice_seconds=0.1 deployment.num_slices=10 "
    "deployment.slices_per_frame=1 deployment.scored_from_frame=2 launcher=inline"
).split()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("store")
    verbs.init(made)
    verbs.submit([*SMALL, "name=swarm", "train.seed=0,1", "temperature_kelvin=0,300"], made)
    return made


@pytest.fixture(scope="module")
def file(root: Path) -> Path:
    return verbs.load("swarm", root).task(workload="swarm_train", seed=0).file("policy.safetensors")


def said(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    assert cli.main(["deploy", *words, "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_a_policy_acts_from_its_file_and_everything_is_saved(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    names = [str(tmp_path / "out" / f"swarm{suffix}") for suffix in (".h5md", ".parquet", ".html", ".gif")]
    found = said(capsys, str(file), "num_slices=5", "num_agents=2", "temperature_kelvin=350", *(f"--save={name}" for name in names))
    assert (found["num_agents"], found["temperature_kelvin"], found["seconds"]) == (2, 350.0, 0.5)
    assert found["files"] == names
    assert all(Path(name).stat().st_size for name in names)


def test_a_policy_is_found_by_the_key_of_its_training_or_its_deployment(root: Path, capsys: pytest.CaptureFixture[str]):
    results = verbs.load("swarm", root)
    training = results.task(workload="swarm_train", seed=1)
    deployment = next(key for key in results.tasks().filter(pl.col("workload") == "swarm_deploy", pl.col("seed") == 1).collect()["key"])
    found = [said(capsys, "swarm", key[:10], "num_slices=2", f"--root={root}")["policy"] for key in (training.key, deployment)]
    assert found[0] == found[1] == str(training.file("policy.safetensors"))
    assert said(capsys, training.key, "num_slices=2", f"--root={root}")["policy"] == found[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["num_slice=3"], "no setting 'num_slice' of deploy; did you mean 'num_slices'?"),
        (["num_slices=many"], "num_slices must be a whole number, got 'many'"),
        (["--save=swarm.csv"], "--save takes .h5md, .h5, .parquet, .html, .gif files, got 'swarm.csv'"),
    ],
)
def test_what_is_asked_wrongly_is_refused_before_anything_runs(
    file: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    assert cli.main(["deploy", str(file), *words]) == 2
    assert message in capsys.readouterr().err


def test_files_that_are_no_policies_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["deploy", str(tmp_path / "none.safetensors")]) == 2
    assert "give the path of a policy.safetensors" in capsys.readouterr().err


def test_completion_offers_policies_and_settings(file: Path, root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(file.parent)
    assert completion._words("", Namespace(verb="deploy", words=[], root=str(root)))[:2] == ["swarm", "policy.safetensors"]
    assert completion._words("num", Namespace(verb="deploy", words=["policy.safetensors"], root=None)) == ["num_slices=", "num_agents="]


def test_tables_of_a_swarm_have_the_types_that_they_declare(root: Path):
    frames = verbs.load("swarm", root).table("frames").collect()
    assert frames.schema["environment"] == pl.Int32
    assert frames["frame"].max() == 10
    assert schema.dataset_table("select", "select.points") == schema.dataset_table("select", "points") == "select.points"
    declared = schema.declared("select", "select.points")
    assert declared is not None
    assert str(declared.field("rank").type) == "int32"


def deployment(commit: str, **changed: object) -> Task:
    settings = {"name": "swarm_deploy", "ensemble": True, "train": {"seed": 1}, "temperature_kelvin": 3.0, "seed": 0, "num_agents": 5}
    return Task(key="k", workload="swarm_deploy", version=1, settings=settings | changed, inputs={"train": commit})


def test_deployments_of_different_trainings_act_together():
    one = group_of(deployment("a"))
    assert one == group_of(deployment("b", train={"seed": 2}, temperature_kelvin=5.0))
    assert one != group_of(deployment("a", num_agents=6))
    assert ensemble_size(deployment("a")) == 256
