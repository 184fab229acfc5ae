"""Every data set file that needs nothing but its defaults: two loads are equal, and are what the class says of them."""

import re

import numpy as np
import pytest

from workers import plugins
from workers.errors import ConfigError
from workers.samples import Samples
from workers.workload import Data

SPLITS = ("train", "test")


def missing(name: str) -> str:
    """What a data set says it lacks at its defaults; "" where it has all."""
    try:
        plugins.load("data", name)().files()
    except ConfigError as error:
        return str(error)
    return ""


MISSING = {name: missing(name) for name in plugins.names("data")}
THERE = [name for name, what in MISSING.items() if not what]


def at_defaults(name: str) -> Data:
    return plugins.load("data", name)()


def beginning(samples: Samples) -> list[np.ndarray]:
    return [getattr(samples, f"{split}_{what}")[np.arange(50)] for split in SPLITS for what in ("inputs", "targets")]


@pytest.mark.parametrize("name", THERE)
def test_a_data_set_is_what_it_says_and_is_so_again(name: str):
    data = at_defaults(name)
    samples = data.load()
    for one, other in zip(beginning(samples), beginning(data.load())):
        np.testing.assert_array_equal(one, other)
    for split in SPLITS:
        inputs, targets = getattr(samples, f"{split}_inputs"), getattr(samples, f"{split}_targets")
        assert len(inputs) == len(targets) > 0
        assert inputs.shape[1:] == samples.input_shape
    _, train_targets, _, test_targets = beginning(samples)
    if train_targets.dtype.kind == "f":
        assert train_targets.shape == (50, samples.num_outputs)
    else:
        assert 0 <= min(train_targets.min(), test_targets.min()) <= max(train_targets.max(), test_targets.max()) < samples.num_outputs
    if (shapes := data.shapes()) is not None:
        assert shapes == (samples.train_inputs.shape, samples.test_inputs.shape)


@pytest.mark.parametrize("name", THERE)
def test_what_torch_gets_is_of_the_asked_type_or_whole(name: str):
    import torch

    inputs, targets = at_defaults(name).load().train(np.array([3, 1, 3]), "cpu", torch.float64)
    for values in (inputs, targets):
        assert values.dtype in (torch.float64, torch.int32, torch.int64)
        torch.testing.assert_close(values[0], values[2])


@pytest.mark.parametrize("name", MISSING)
def test_settings_survive_the_way_to_the_node(name: str):
    data = at_defaults(name)
    assert type(data).from_plain(data.to_plain()) == data


@pytest.mark.parametrize("name", [name for name in MISSING if name not in THERE])
def test_a_data_set_without_its_files_says_what_to_do(name: str):
    assert re.search("data.path=|pip install|apt-get install", MISSING[name])
