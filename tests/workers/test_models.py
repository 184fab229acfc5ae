"""Models: parameterisations, sizes and what they refuse."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from workers.errors import ConfigError
from workers.models.cnn import Cnn
from workers.models.mlp import Mlp


def num_params(module: torch.nn.Module) -> int:
    return sum(weights.numel() for weights in module.parameters())


@pytest.mark.parametrize("model", [Mlp(width=16, depth=2), Cnn(width=4, depth=2)], ids=["mlp", "cnn"])
def test_both_parameterisations_are_one_function_at_initialisation(model):
    inputs_N = torch.randn(3, 1, 8, 8)
    standard = model.build((1, 8, 8), 10, seed=5)
    ntk = replace(model, parameterisation="ntk").build((1, 8, 8), 10, seed=5)
    assert_close(standard(inputs_N), ntk(inputs_N))


def test_standard_initialisation_has_lecuns_variance():
    weights = Mlp(width=1000, depth=2).build((1, 8, 8), 10, seed=0)[3].weight.detach()
    assert float(weights.var()) * 1000 == pytest.approx(1.0, rel=0.02)


def test_ntk_weights_are_unit_normal():
    weights = Mlp(width=1000, depth=2, parameterisation="ntk").build((1, 8, 8), 10, seed=0)[3].weight.detach()
    assert float(weights.var()) == pytest.approx(1.0, rel=0.02)


def test_the_seed_alone_decides_the_weights():
    torch.manual_seed(1)
    one = Mlp().build((1, 8, 8), 10, seed=3)
    torch.manual_seed(2)
    other = Mlp().build((1, 8, 8), 10, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters()))
    assert not torch.equal(next(one.parameters()), next(Mlp().build((1, 8, 8), 10, seed=4).parameters()))


def test_numbers_of_parameters():
    assert num_params(Mlp(width=7, depth=2).build((1, 8, 8), 10, 0)) == (64 * 7 + 7) + (7 * 7 + 7) + (7 * 10 + 10)
    assert num_params(Mlp(width=7, depth=0, bias=False).build((1, 8, 8), 10, 0)) == 64 * 10
    assert num_params(Cnn(width=2, depth=2).build((1, 8, 8), 10, 0)) == (9 * 2 + 2) + (9 * 2 * 4 + 4) + (2 * 2 * 4 * 10 + 10)
    assert num_params(Cnn(width=2, depth=2, readout="mean").build((1, 8, 8), 10, 0)) == (9 * 2 + 2) + (9 * 2 * 4 + 4) + (4 * 10 + 10)


def test_an_image_too_small_for_the_stages_is_refused():
    with pytest.raises(
        ConfigError, match=r"needs images \(channels, H, W\) of at least 16 pixels a side, got \(1, 8, 8\); take a smaller depth"
    ):
        Cnn(depth=4).build((1, 8, 8), 10, 0)


def test_an_unknown_activation_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="activation must be one of relu, gelu, tanh, erf, got 'rely'; did you mean 'relu'?"):
        Mlp(activation="rely")
