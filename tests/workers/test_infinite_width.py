"""The kernel of infinite width: against integrals and against networks of finite width."""

from dataclasses import replace

import pytest
import torch

from workers import entk
from workers.errors import ConfigError
from workers.infinite_width import ACTIVATIONS, mlp_kernel
from workers.models.mlp import Mlp

FUNCTIONS = {"relu": torch.relu, "erf": torch.erf}


def inputs(size: int = 6) -> torch.Tensor:
    return torch.randn(size, 1, 3, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize(("first", "second", "correlation"), [(1.0, 1.0, 0.3), (0.5, 2.0, -0.7), (1.5, 0.2, 0.95)])
def test_expectations_of_activations_are_their_gaussian_integrals(name: str, first: float, second: float, correlation: float):
    """On a grid of a million points over eight standard deviations."""
    grid = torch.linspace(-8.0, 8.0, 1001, dtype=torch.float64)
    a, b = grid[:, None], grid[None]
    density = torch.exp(-0.5 * (a.square() + b.square()))
    density = density / density.sum()
    u = first**0.5 * a.expand_as(density)
    v = second**0.5 * (correlation * a + (1 - correlation**2) ** 0.5 * b)
    function = FUNCTIONS[name]
    covariance = correlation * (first * second) ** 0.5
    values, slopes = ACTIVATIONS[name](*(torch.tensor(one, dtype=torch.float64) for one in (covariance, first, second)))
    assert float(values) == pytest.approx(float((density * function(u) * function(v)).sum()), rel=1e-4)
    derivative = {"relu": lambda x: (x > 0).double(), "erf": lambda x: 2 / torch.pi**0.5 * torch.exp(-x.square())}[name]
    # the step of ReLU's derivative lies between points of the grid
    assert float(slopes) == pytest.approx(float((density * derivative(u) * derivative(v)).sum()), abs=2e-3 if name == "relu" else 1e-6)


@pytest.mark.parametrize("activation", ["relu", "erf"])
@pytest.mark.parametrize(("depth", "bias"), [(1, True), (2, False)])
def test_networks_tend_to_it_as_one_over_the_root_of_the_width(activation: str, depth: int, bias: bool):
    model = Mlp(depth=depth, activation=activation, bias=bias, parameterisation="ntk")
    limit = mlp_kernel(model, inputs())
    distances = []
    for width in (64, 1024):
        kernels = [
            entk.gram(replace(model, width=width).build((1, 3, 4), 3, seed).double(), inputs(), outputs="traced") for seed in range(6)
        ]
        distances.append(torch.stack([(kernel - limit).norm() / limit.norm() for kernel in kernels]).square().mean().sqrt())
    assert float(distances[0] / distances[1]) == pytest.approx(4.0, rel=0.5)
    assert float(distances[1]) < 0.1


@pytest.mark.parametrize("activation", ["relu", "erf"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_input_of_zeros_has_the_kernel_of_wide_networks(activation: str, dtype: torch.dtype):
    model = Mlp(depth=2, width=2048, activation=activation, parameterisation="ntk")
    zeros_N = inputs().to(dtype)
    zeros_N[2] = 0.0
    kernel, limit = entk.gram(model.build((1, 3, 4), 3, 0).to(dtype), zeros_N, outputs="traced"), mlp_kernel(model, zeros_N)
    torch.testing.assert_close(kernel[2], limit[2], rtol=0.1, atol=0.0)
    if activation == "relu":  # no unit is active: the bias of the readout alone learns
        torch.testing.assert_close(limit[2], torch.ones(6, dtype=dtype))


def test_without_hidden_layers_it_is_exact_and_a_cross_kernel_is_a_block():
    model = Mlp(depth=0, parameterisation="ntk")
    torch.testing.assert_close(mlp_kernel(model, inputs()), entk.gram(model.build((1, 3, 4), 2, 0).double(), inputs(), outputs="traced"))
    deep = Mlp(depth=2, parameterisation="ntk")
    torch.testing.assert_close(mlp_kernel(deep, inputs()[:2], inputs()[2:]), mlp_kernel(deep, inputs())[:2, 2:])


def test_networks_without_a_closed_form_are_refused():
    with pytest.raises(ConfigError, match="known in closed form for parameterisation=ntk with activation relu or erf"):
        mlp_kernel(Mlp(), inputs())
