"""Exact tiles of kernels against the engine in float64, and what they cost beside products with unit vectors."""

import copy

import pytest
import torch
from torch import nn

from tests.workers.entk.networks import case
from workers import entk
from workers.entk.exact_tiles import double_tiles
from workers.errors import ConfigError

NAMES = ["mlp", "language model", "cnn"]


@pytest.mark.parametrize("outputs", ["full", "traced", "sum_logits"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("memory_gib", [2.0, 1e-9])
def test_tiles_are_those_of_the_double_kernel_in_any_memory(name, outputs, memory_gib):
    model, x = case(name)
    kernel = entk.gram(model, x, outputs=outputs)
    tile = double_tiles(model, x, outputs, memory_gib=memory_gib)
    generator = torch.Generator().manual_seed(0)
    rows, columns = (torch.randperm(len(kernel), generator=generator)[:7] for _ in range(2))
    for index in (rows, columns):
        torch.testing.assert_close(tile(rows, index), kernel[rows][:, index], rtol=1e-10, atol=1e-10)


def test_the_error_of_a_kernel_in_single_precision_is_that_of_all_its_entries():
    model, x = case("cnn")
    single = copy.deepcopy(model).float()
    kernel, exact = entk.gram(single, x.float()), entk.gram(copy.deepcopy(single).double(), x.float().double())
    found = entk.kernel_error(kernel, double_tiles(single, x.float()))
    assert found.value == pytest.approx(float((kernel - exact).norm()), rel=0.05)
    assert next(single.parameters()).dtype == torch.float32


def test_batch_statistics_are_those_of_the_whole_probe_set():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double(), torch.randn(9, 3).double()
    kernel = entk.gram(model, x, statistics="batch")
    rows, columns = torch.arange(3), torch.arange(10, 16)
    torch.testing.assert_close(double_tiles(model, x, statistics="batch")(rows, columns), kernel[rows][:, columns])
    with pytest.raises(ConfigError, match="batch statistics are active in 1"):
        double_tiles(model, x)(rows, columns)


def test_frozen_weights_do_not_count_and_wrapped_models_are_taken():
    model, x = case("mlp")
    model[0].weight.requires_grad_(False)
    kernel, rows = entk.gram(model, x), torch.arange(5)
    torch.testing.assert_close(double_tiles(nn.DataParallel(model), x)(rows, rows), kernel[:5, :5])


def test_a_model_without_an_axis_of_outputs_and_an_unknown_kernel_are_refused():
    model, x = case("mlp")
    with pytest.raises(ConfigError, match="the last axis of the outputs must be outputs"):
        double_tiles(nn.Sequential(model, nn.Flatten(0)), x[:1])(torch.tensor([0]), torch.tensor([0]))
    with pytest.raises(ConfigError, match="outputs must be one of full, traced, sum_logits, got 'per_class'"):
        double_tiles(model, x, "per_class")
