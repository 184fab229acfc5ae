"""GPT-NeoX: Pythia's sizes, and what is refused; its numbers are tested where checkpoints are read."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from workers import training
from workers.errors import ConfigError
from workers.layers import num_params
from workers.models.gpt_neox import GptNeox


@pytest.mark.parametrize(
    ("width", "depth", "heads", "expected"),
    # (Biderman et al., arXiv 2304.01373: all weights, and those that are not in embeddings)
    [(512, 6, 8, (70_426_624, 18_915_328)), (768, 12, 12, (162_322_944, 85_056_000)), (1024, 24, 16, (405_334_016, 302_311_424))],
    ids=["70m", "160m", "410m"],
)
def test_counts_are_pythias(width, depth, heads, expected):
    with torch.device("meta"):
        module = GptNeox(width=width, depth=depth, head_dim=width // heads).build((8,), 50304, 0)
    assert num_params(module) == expected


@pytest.mark.parametrize("parallel", [False, True])
def test_operations_are_those_of_the_layers_and_of_attention(parallel):
    model = GptNeox(width=16, head_dim=8, parallel=parallel)
    tokens = torch.randint(11, (1, 7), generator=torch.Generator().manual_seed(0))
    products = sum(2 * layer.positions * layer.fan_in * layer.num_outputs for layer in model.layers((6,), 11))
    flops = training.count_flops(model.build((6,), 11, 0), "cross_entropy", tokens[:, :-1], tokens[:, 1:])
    assert flops == 3 * (products + 4 * 6**2 * 16 * 2)


@pytest.mark.parametrize("tied", [False, True])
def test_both_parameterisations_are_one_function_at_initialisation(tied):
    standard, ntk = (GptNeox(parameterisation=name, tied=tied).build((6,), 11, 3) for name in ("standard", "ntk"))
    tokens = torch.randint(11, (4, 6))
    assert_close(standard(tokens), ntk(tokens))
    assert standard.embedding.weight.std().item() == pytest.approx(1.0, abs=0.1)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="width must be a multiple of head_dim=16, got 24"):
        GptNeox(width=24)
    with pytest.raises(ConfigError, match=r"must be an even number of at least 2, as positions turn pairs, got 1 from rotary_share=0\.25"):
        replace(GptNeox(), head_dim=4)
    with pytest.raises(ConfigError, match=r"a gpt_neox needs sequences of tokens \(T,\), got inputs of shape \(1, 8, 8\)"):
        GptNeox().build((1, 8, 8), 10, 0)
