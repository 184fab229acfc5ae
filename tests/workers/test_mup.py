"""muP: the standard parameterisation at the base width; at every other activations change by as much (coordinate check)."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from workers import training
from workers.decoder import Embedding, Readout
from workers.layers import Conv, Dense, parameter_groups
from workers.models.cnn import Cnn
from workers.models.gpt_neox import GptNeox
from workers.models.llama import Llama
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
# narrower ones are not wide yet: what logits at initialisation add to the changes still falls
LLAMAS = tuple(Llama(width=width, depth=1, head_dim=8, base_width=64) for width in (128, 256, 512))
TIED = tuple(replace(model, tied=True) for model in LLAMAS)
NEOXS = tuple(GptNeox(width=width, depth=1, head_dim=8, base_width=64) for width in (128, 256, 512))
OPTIMIZERS = {"sgd": Sgd(learning_rate=0.1), "adam": Adam(learning_rate=3e-3)}
OF_TOKENS = {"sgd": Sgd(learning_rate=0.5), "adam": Adam(learning_rate=6e-3)}


def batch_of(model: Model, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images with labels, or tokens with the next ones."""
    generator = torch.Generator().manual_seed(100 + seed)
    if model.reads_tokens:
        tokens = torch.randint(0, 32, (16, 9), generator=generator)
        return tokens[:, :-1], tokens[:, 1:].contiguous()
    return torch.randn(32, *SHAPE, generator=generator), torch.randint(0, 10, (32,), generator=generator)


def changes(model: Model, optimizer: ScheduledOptimizer, seed: int) -> list[float]:
    """Root mean square change of each layer's outputs, on the samples of the training."""
    inputs_N, labels_N = batch_of(model, seed)
    module = model.build(tuple(inputs_N.shape[1:]), 32 if model.reads_tokens else 10, seed)
    before = outputs(module, inputs_N)
    trained = optimizer.over(module)
    for _ in range(NUM_STEPS):
        training.update(module, trained, optimizer.learning_rate, "cross_entropy", inputs_N, labels_N)
    return [float((after - one).square().mean().sqrt()) for one, after in zip(before, outputs(module, inputs_N), strict=True)]


def outputs(module: nn.Module, inputs_N: torch.Tensor) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda _, __, output: found.append(output.detach()))
        for layer in module.modules()
        if isinstance(layer, Dense | Conv | Embedding | Readout)
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
@pytest.mark.parametrize(
    "models", [MLPS, CNNS, RESNETS, VITS, LLAMAS, TIED, NEOXS], ids=["mlp", "cnn", "wide_resnet", "vit", "llama", "llama_tied", "gpt_neox"]
)
def test_activations_change_by_as_much_at_every_width(models, name):
    optimizer = (OF_TOKENS if models[0].reads_tokens else OPTIMIZERS)[name]
    flat = slopes(tuple(replace(model, parameterisation="mup") for model in models), optimizer)
    assert abs(flat).max() < 0.12, flat
    standard = slopes(models, optimizer)
    assert abs(standard).max() > 0.5, standard


AT_BASE = {"mlp": MLPS[0], "cnn": CNNS[0], "llama": Llama(), "llama_tied": Llama(tied=True)}


@pytest.mark.parametrize("model", AT_BASE.values(), ids=AT_BASE)
def test_at_the_base_width_it_is_the_standard_one(model):
    inputs_N, _ = batch_of(model, seed=0)
    shape = tuple(inputs_N.shape[1:])
    mup, standard = (replace(model, parameterisation=name).build(shape, 32, seed=5) for name in ("mup", "standard"))
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


@pytest.mark.parametrize(
    ("normalised", "embedding", "hidden", "norm", "readout"), [(False, 4, 1, 4, 4), (True, 1, 0.25, 1, 1)], ids=["sgd", "adam"]
)
@pytest.mark.parametrize("tied", [False, True])
def test_rates_of_a_language_model_are_those_of_table_8(tied, normalised, embedding, hidden, norm, readout):
    """A tied table is an input and a readout at once, whose rates are equal."""
    module = Llama(width=64, base_width=16, parameterisation="mup", tied=tied).build((8,), 32, 0)
    names = {parameter: name for name, parameter in module.named_parameters()}
    groups = parameter_groups(module, normalised=normalised)
    found = {names[parameter]: group["rate_factor"] for group in groups for parameter in group["params"]}
    expected = {"embedding": embedding} if tied else {"embedding": embedding, "readout": readout}
    for name, factor in found.items():
        own = expected.get(name.partition(".")[0])
        assert factor == (own or (norm if module.get_parameter(name).dim() == 1 else hidden)), name
    assert ("readout.weight" in found) != tied


@pytest.mark.parametrize("parameterisation", ["standard", "ntk", "mup"])
def test_logits_of_a_tied_readout_are_as_large_as_those_of_one_of_its_own(parameterisation):
    model = Llama(width=512, base_width=64, parameterisation=parameterisation)
    inputs = torch.randn(64, 512)
    tied, own = (replace(model, tied=tied).build((8,), 64, 0) for tied in (True, False))
    sizes = [module.readout(inputs, torch.randn(64, 512)).std().item() for module in (tied, own)]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


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
