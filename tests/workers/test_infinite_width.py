"""The kernel of infinite width: against integrals, networks of finite width, and the tasks that compare with it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from task_runs import committed, last

from workers import entk
from workers.errors import ConfigError
from workers.infinite_width import ACTIVATIONS, mlp_kernel
from workers.models.cnn import Cnn
from workers.models.mlp import Mlp
from workers.subsets import probe
from workers.workloads.gram import Gram
from workers.workloads.infinite_width import InfiniteWidth
from workers.workloads.train import Train

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


def test_without_hidden_layers_it_is_exact_and_a_cross_kernel_is_a_block():
    model = Mlp(depth=0, parameterisation="ntk")
    torch.testing.assert_close(mlp_kernel(model, inputs()), entk.gram(model.build((1, 3, 4), 2, 0).double(), inputs(), outputs="traced"))
    deep = Mlp(depth=2, parameterisation="ntk")
    torch.testing.assert_close(mlp_kernel(deep, inputs()[:2], inputs()[2:]), mlp_kernel(deep, inputs())[:2, 2:])


def test_a_task_gives_the_distance_of_its_kernel(tmp_path: Path):
    model = Mlp(width=256, parameterisation="ntk")
    task = InfiniteWidth(gram=Gram(train=Train(model=model, num_steps=1), snapshot="init", full=False, probe_size=12))
    found = last(committed(tmp_path, task))
    samples = task.gram.train.data.load()
    x_N = torch.from_numpy(samples.test_inputs[probe(len(samples.test_targets), 12)]).double()
    limit, kernel = mlp_kernel(model, x_N), entk.gram(task.gram.train.build(samples).double(), x_N, outputs="traced")
    assert found["relative_kernel_change_traced"] == pytest.approx(float((kernel - limit).norm() / limit.norm()), rel=1e-6)
    assert found["num_rows"] == 12


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Mlp(), "got model=mlp with standard and relu"),
        (Mlp(parameterisation="ntk", activation="gelu"), "got model=mlp with ntk and gelu"),
        (Cnn(), "got model=cnn with standard and relu"),
    ],
)
def test_networks_without_a_closed_form_are_refused_when_planned(model: Mlp | Cnn, message: str):
    with pytest.raises(ConfigError, match=message):
        InfiniteWidth(gram=Gram(train=Train(model=model)))


def test_the_function_refuses_them_too():
    with pytest.raises(ConfigError, match="known in closed form for parameterisation=ntk with activation relu or erf"):
        mlp_kernel(Mlp(), inputs())
