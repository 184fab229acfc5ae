"""Every sweep file that we bring composes, and those that are fitted span enough of their axis."""

import math
from pathlib import Path

import pytest

from orchestrator.compose import compose
from orchestrator.sweep import expand

NAMES = sorted(path.stem for path in (Path(__file__).parents[2] / "conf" / "sweep").glob("*.yaml"))
# a selection serves trainings of six sizes, or two
INPUTS_PER_POINT = {"noop": 0, "data_selection": 1 / 6, "data_selection_sets": 1 / 2, "data_selection_width": 0, "ntk_lens_data": 1}
INPUTS_PER_POINT |= {"ntk_lens_width": 1} | {name: 0 for name in NAMES if name.startswith("spectral_reach")}
INPUTS_PER_POINT["spectral_reach_kernel"] = 1 / 3  # a training serves three snapshots
INPUTS_PER_POINT |= dict.fromkeys(("chemotaxis", "gradient_search", "rod_rotation"), 1)
INPUTS_PER_POINT |= dict.fromkeys(
    ("gradient_transfer", "rod_transfer", "gradient_schedules", "rod_schedules"), 1 / 5
)  # each policy at five temperatures
STUDIES = [name for name in NAMES if name.startswith(("data_selection", "ntk_lens", "spectral_reach"))]
FITTED = ("width_scaling", "cnn_scaling", "digits")


@pytest.mark.parametrize("name", NAMES)
def test_a_sweep_file_composes_to_tasks_and_their_inputs(name: str):
    composed = compose([f"sweep={name}"])
    sweep = expand(composed)
    assert composed.name == name
    num_inputs = INPUTS_PER_POINT.get(name, 2)
    assert len(sweep) == composed.num_points * (1 + num_inputs)


@pytest.mark.parametrize("name", FITTED)
def test_a_fitted_axis_has_six_values_over_one_and_a_half_decades_and_three_seeds(name: str):
    values = {axis.name: axis.values for axis in compose([f"sweep={name}"]).axes}
    assert len(values["width"]) >= 6
    assert math.log10(max(values["width"]) / min(values["width"])) >= 1.5
    assert len(values["seed"]) == 3


@pytest.mark.parametrize("size", ["small", "paper"])
@pytest.mark.parametrize("name", STUDIES)
def test_a_study_composes_at_each_size_and_asks_for_gpus_at_the_papers(name: str, size: str):
    sweep = expand(compose([f"sweep={name}", f"size={size}"]))
    gpus = {resources["gpus"] for block in sweep.blocks for resources in block.resources}
    assert gpus == {1 if size == "paper" else 0}
