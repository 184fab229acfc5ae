"""Every sweep file that we bring composes, and those that are fitted span enough of their axis."""

import math
from pathlib import Path

import pytest

from orchestrator.compose import compose
from orchestrator.sweep import expand

NAMES = sorted(path.stem for path in (Path(__file__).parents[2] / "conf" / "sweep").glob("*.yaml"))
FITTED = ("width_scaling", "cnn_scaling", "digits")


@pytest.mark.parametrize("name", NAMES)
def test_a_sweep_file_composes_to_tasks_and_their_inputs(name: str):
    composed = compose([f"sweep={name}"])
    sweep = expand(composed)
    assert composed.name == name
    num_inputs = {"noop": 0}.get(name, 2)
    assert len(sweep) == composed.num_points * (1 + num_inputs)


@pytest.mark.parametrize("name", FITTED)
def test_a_fitted_axis_has_six_values_over_one_and_a_half_decades_and_three_seeds(name: str):
    values = {axis.name: axis.values for axis in compose([f"sweep={name}"]).axes}
    assert len(values["width"]) >= 6
    assert math.log10(max(values["width"]) / min(values["width"])) >= 1.5
    assert len(values["seed"]) == 3
