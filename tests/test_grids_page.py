"""The page on grids says what happens: its files compose, and its commands run."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import eigensweep as es
from orchestrator import cli
from orchestrator.points import points

PAGE = Path(__file__).parent.parent / "docs/grids.md"


@pytest.fixture
def here(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the page's files, and an empty store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EIGENSWEEP_ROOT", str(root))
    for name, text in re.findall(r"```yaml\n# (\S+)\n(.*?)```", PAGE.read_text(), re.S):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
    return root


def run(section: str) -> list[int]:
    """Exit codes of a section's commands, with tasks in this process."""
    (text,) = re.findall(rf"\n## {section}\n(.*?)(?=\n## |\Z)", PAGE.read_text(), re.S)
    codes = []
    for line in re.findall(r"\n    eigensweep (.*)", text):
        words = shlex.split(line)
        inline = ["launcher=inline"] if words[0] == "submit" else []
        codes.append(cli.main([*words, *inline, "--quiet"]))
    return codes


def test_derived_settings(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("Derived settings") == [0] * 5
    runs = es.load("isoflop").tasks(wide=True).collect()
    assert sorted(set(runs["flops"])) == [1e7, 2e7, 4e7]
    # within the rounding of steps, which are at least 20
    assert max(abs(actual / asked - 1) for actual, asked in zip(runs["flops_6nd"], runs["flops"])) < 0.5 / 20
    assert runs["learning_rate"].to_list() == [1.6 / width for width in runs["width"]]
    assert len(runs) == 9
    # what follows from the axes tells no runs apart
    assert points(es.load("isoflop"), x="num_params", y="test_loss").groups == ["flops"]
    assert [name for name, _ in es.load("isoflop").status().by_axis] == ["flops", "width", "seed"]
    assert "derived  num_steps = " in capsys.readouterr().out


def test_two_stages(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("Two stages") == [0] * 3
    scan, best = (es.load(name).tasks(wide=True).collect() for name in ("lr_scan", "at_best_lr"))
    for width in (4, 8):
        at = scan.filter(width=width).sort("test_loss")
        assert set(best.filter(width=width)["learning_rate"]) == {at["learning_rate"][0]}
    assert "best learning_rate by min test_loss (median) for each width in 'lr_scan', revision 1, 6 runs" in capsys.readouterr().out


def _settings(results: Any) -> list[dict[str, Any]]:
    return [json.loads(row["settings"]) | {"status": row["status"]} for row in results.tasks().collect().to_dicts()]


def test_longer_trainings_and_what_is_measured_afterwards(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("Longer trainings") == [0] * 2
    assert run("Looking at a finished training") == [0] * 2
    told = capsys.readouterr().out
    assert [told.count("goes on from step 60 of a training that is committed\n"), told.count("trains again from step 0 to step 40,")] == [
        2,
        2,
    ]
    # the rows of the first part are those of the longer trainings too, and are there once
    longer = es.load("longer")
    assert [(one["num_steps"], one["status"]) for one in _settings(longer)] == [(100, "ok")] * 2
    losses = longer.scalars().filter(name="test_loss", seed=0).collect()
    assert losses["step"].is_duplicated().sum() == 0
    assert {0, 60, 100} <= set(losses["step"])
    assert longer.missing() == []
    assert set(longer.costs().collect()["kind"]) == {"useful"}
    # nothing of a finished training ran again: its task was committed once, by the first sweep
    keys = {name: set(es.load(name).tasks().filter(workload="train").collect()["key"]) for name in ("first", "positions", "spectra")}
    assert keys["positions"] == keys["spectra"] == keys["first"]
    assert len(keys["first"]) == 2
