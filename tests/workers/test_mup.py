"""muP: the standard parameterisation at the base width; at every other activations change by as much (coordinate check)."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from workers import training
from workers.layers import Conv, Dense, parameter_groups
from workers.models.cnn import Cnn
from workers.models.mlp import Mlp
from workers.models.vit import Vit
from workers.models.wide_resnet import WideResnet
from workers.optimizers.adam import Adam
from workers.optimizers.sgd import Sgd
from workers.schedule import ScheduledOptimizer
from workers.workload import Model

SHAPE, NUM_STEPS, SEEDS = (1, 8, 8), 4, range(3)
MLPS = tuple(Mlp(width=width, depth=3, base_width=64, bias=True, activation="tanh") for width in (64, 128, 256, 512, 1024))
CNNS = tuple(Cnn(width=width, depth=2, base_width=8) for width in (8, 16, 32, 64))
RESNETS = tuple(WideResnet(width=width, num_groups=2, base_width=32, activation="tanh") for width in (32, 64, 128))
VITS = tuple(Vit(width=width, base_width=32) for width in (32, 64, 128, 256))
OPTIMIZERS = {"sgd": Sgd(learning_rate=0.1), "adam": Adam(learning_rate=3e-3)}


def changes(model: Model, optimizer: ScheduledOptimizer, seed: int) -> list[float]:
    """Root mean square change of each layer's outputs, on the images of the training."""
    generator = torch.Generator().manual_seed(100 + seed)
    inputs_N, labels_N = torch.randn(32, *SHAPE, generator=generator), torch.randint(0, 10, (32,), generator=generator)
    module = model.build(SHAPE, 10, seed)
    before = outputs(module, inputs_N)
    trained = optimizer.build(parameter_groups(module, normalised=optimizer.normalised))
    for _ in range(NUM_STEPS):
        training.update(module, trained, optimizer.learning_rate, "cross_entropy", inputs_N, labels_N)
    return [float((after - one).square().mean().sqrt()) for one, after in zip(before, outputs(module, inputs_N), strict=True)]


def outputs(module: nn.Module, inputs_N: torch.Tensor) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda _, __, output: found.append(output.detach()))
        for layer in module.modules()
        if isinstance(layer, Dense | Conv)
    ]
    module(inputs_N)
    for hook in hooks:
        hook.remove()
    return found


def slopes(models: tuple[Model, ...], optimizer: ScheduledOptimizer) -> np.ndarray:
    """Of the logarithm of each layer's change against that of the width; the mean over seeds of the logarithms."""
    logs = np.array([np.mean([np.log(changes(model, optimizer, seed)) for seed in SEEDS], axis=0) for model in models])
    return np.polyfit(np.log([model.width for model in models]), logs, 1)[0]


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("models", [MLPS, CNNS, RESNETS, VITS], ids=["mlp", "cnn", "wide_resnet", "vit"])
def test_activations_change_by_as_much_at_every_width(models, name):
    flat = slopes(tuple(replace(model, parameterisation="mup") for model in models), OPTIMIZERS[name])
    assert abs(flat).max() < 0.12, flat
    standard = slopes(models, OPTIMIZERS[name])
    assert standard[-1] > 0.5, standard


@pytest.mark.parametrize("model", [MLPS[0], CNNS[0]], ids=["mlp", "cnn"])
def test_at_the_base_width_it_is_the_standard_one(model):
    inputs_N = torch.randn(3, *SHAPE)
    mup, standard = (replace(model, parameterisation=name).build(SHAPE, 10, seed=5) for name in ("mup", "standard"))
    assert_close(mup(inputs_N), standard(inputs_N), rtol=0, atol=0)
    for normalised in (False, True):
        groups = parameter_groups(mup, normalised=normalised)
        assert [group["rate_factor"] for group in groups] == [1.0]
        assert all(a is b for a, b in zip(groups[0]["params"], mup.parameters(), strict=True))


@pytest.mark.parametrize(
    ("normalised", "expected"),
    [
        (False, {"1.weight": 4, "1.bias": 4, "3.weight": 1, "3.bias": 4, "5.weight": 4, "5.bias": 1}),
        (True, {"1.weight": 1, "1.bias": 1, "3.weight": 0.25, "3.bias": 1, "5.weight": 1, "5.bias": 1}),
    ],
    ids=["sgd", "adam"],
)
def test_learning_rates_follow_the_width_as_in_table_8(normalised, expected):
    module = Mlp(width=64, depth=2, base_width=16, parameterisation="mup").build(SHAPE, 10, 0)
    names = {parameter: name for name, parameter in module.named_parameters()}
    groups = parameter_groups(module, normalised=normalised)
    found = {names[parameter]: group["rate_factor"] for group in groups for parameter in group["params"]}
    assert found == expected


def test_the_readout_keeps_the_base_models_variance_under_a_multiplier():
    module = Mlp(width=4096, depth=1, base_width=64, parameterisation="mup").build(SHAPE, 10, 0)
    readout = module[3]
    assert readout.multiplier == 1 / 64
    assert float(readout.weight.detach().var()) * 64 == pytest.approx(1.0, rel=0.02)


def test_a_network_linear_in_its_inputs_has_nothing_that_grows():
    mup, standard = (Mlp(width=512, depth=0, parameterisation=name).build(SHAPE, 10, 0) for name in ("mup", "standard"))
    assert torch.equal(mup[1].weight, standard[1].weight)
    assert [group["rate_factor"] for group in parameter_groups(mup, normalised=False)] == [1.0]


def test_a_shared_parameter_is_in_one_group():
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    module[1].weight = module[0].weight
    assert [len(group["params"]) for group in parameter_groups(module, normalised=True)] == [3]
