"""Every workload file: at its defaults on the CPU, twice, with equal rows, in five seconds; one changed setting changes them."""

import dataclasses
import time
from dataclasses import replace
from pathlib import Path

import pytest
from task_runs import committed, rows

from workers import plugins
from workers.workload import Workload

NAMES = plugins.names("workloads")
MAX_SECONDS = 5.0


def at_defaults(name: str) -> Workload:
    return plugins.load("workloads", name)()


def changed(workload: Workload) -> Workload:
    """The workload with another seed, its own or the nearest input's; without one, with its first whole number raised."""
    names = [field.name for field in dataclasses.fields(workload)]
    if "seed" in names:
        return replace(workload, seed=workload.seed + 1)
    for field, input in workload.inputs().items():
        return replace(workload, **{field: changed(input)})
    first = next(name for name in names if type(getattr(workload, name)) is int)
    return replace(workload, **{first: getattr(workload, first) + 1})


@pytest.mark.parametrize("name", NAMES)
def test_two_runs_at_the_defaults_give_equal_rows_in_five_seconds(name: str, tmp_path: Path):
    import torch  # noqa: F401  (its import is not the workload's time)

    results, seconds = [], []
    for run in ("one", "two"):
        begun = time.monotonic()
        results.append(rows(tmp_path / run, committed(tmp_path / run, at_defaults(name))))
        seconds.append(time.monotonic() - begun)
    assert results[0] == results[1]
    assert results[0], "a workload yields rows"
    assert min(seconds) < MAX_SECONDS  # the better of the two: other tests share the cores


@pytest.mark.parametrize("name", NAMES)
def test_one_changed_setting_changes_the_rows(name: str, tmp_path: Path):
    workload = at_defaults(name)
    assert rows(tmp_path, committed(tmp_path, workload)) != rows(tmp_path, committed(tmp_path, changed(workload)))


@pytest.mark.parametrize("name", NAMES)
def test_settings_survive_the_way_to_the_node(name: str):
    workload = changed(at_defaults(name))
    assert type(workload).from_plain(workload.to_plain()) == workload


@pytest.mark.parametrize("name", NAMES)
def test_resources_and_estimate_are_positive(name: str):
    workload = at_defaults(name)
    assert workload.resources().memory_gib > 0
    estimate = workload.estimated_seconds()
    assert estimate is None or estimate >= 0
