"""Models: parameterisations, sizes and what they refuse."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from workers.errors import ConfigError
from workers.layers import Attention, Conv, Dense, Law, Patches
from workers.models.cnn import Cnn
from workers.models.mlp import Mlp
from workers.models.vit import Vit
from workers.models.wide_resnet import WideResnet


def num_params(module: torch.nn.Module) -> int:
    return sum(weights.numel() for weights in module.parameters())


MODELS = {
    "mlp": Mlp(width=16, depth=2),
    "cnn": Cnn(width=4, depth=2),
    "wide_resnet": WideResnet(width=4, depth=2),
    "wide_resnet_batch": WideResnet(width=4, normalisation="batch"),
    "vit": Vit(width=16, head_dim=8, depth=2, patch_size=1),
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
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


def test_a_wide_resnet_is_the_papers():
    """WRN-28-10 has 36.5 million weights; its first convolution has 16 filters, ours as many as the first group."""
    module = WideResnet(width=160, depth=4, normalisation="batch").build((3, 32, 32), 10, 0)
    more = (160 - 16) * (9 * 3 + 9 * 160 + 2) - 16 * 160  # that convolution, the next one, a normalisation; but no skip there
    assert num_params(module) - more == 36_479_194
    convolutions = [layer for layer in module.modules() if isinstance(layer, Conv) and layer.weight.shape[-1] == 3]
    assert len(convolutions) == 28 - 3  # and three skips
    assert module(torch.randn(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_the_layers_that_are_foretold_are_those_that_are_built(model):
    for shape in ((1, 8, 8), (3, 9, 12)):
        module = model.build(shape, 10, 0).eval()
        foretold = model.layers(shape, 10)
        own = [layer for layer in module.modules() if isinstance(layer, Conv | Dense)]
        assert sorted(layer.fan_in * layer.num_outputs for layer in foretold) == sorted(layer.weight.numel() for layer in own)
        with FlopCounterMode(display=False) as counter:
            module(torch.randn(1, *shape))
        attended = 4 * foretold[0].positions ** 2 * model.width * model.depth if isinstance(model, Vit) else 0
        assert counter.get_total_flops() == attended + sum(2 * layer.positions * layer.fan_in * layer.num_outputs for layer in foretold)


def test_without_normalisation_a_wide_resnet_of_any_depth_stays_bounded():
    inputs_N = torch.randn(16, 1, 8, 8)
    sizes = [WideResnet(width=16, depth=depth).build((1, 8, 8), 10, 0)(inputs_N).std().item() for depth in (1, 16)]
    assert 0.5 < sizes[1] / sizes[0] < 2


def test_batch_normalisation_mixes_samples_in_training_alone():
    module = WideResnet(width=2, normalisation="batch").build((1, 8, 8), 10, 0)
    inputs_N = torch.randn(8, 1, 8, 8)
    assert not torch.allclose(module(inputs_N)[:4], module(inputs_N[:4]))
    module.eval()
    assert_close(module(inputs_N)[:4], module(inputs_N[:4]))
    assert WideResnet(normalisation="batch").mixes_samples and not WideResnet().mixes_samples


def test_patches_are_squares_of_the_image_in_reading_order():
    image = torch.arange(2 * 4 * 6.0).reshape(1, 2, 4, 6)
    patches = Patches(2)(image)
    assert patches.shape == (1, 6, 8)
    assert_close(patches[0, 4], image[0, :, 2:, 2:4].reshape(-1))


def test_attention_is_torchs():
    ours, theirs = Attention(16, 4, Law("standard", True, torch.Generator())), torch.nn.MultiheadAttention(16, 4, batch_first=True)
    theirs.in_proj_weight, theirs.in_proj_bias = ours.queries_keys_values.weight, ours.queries_keys_values.bias
    theirs.out_proj.weight, theirs.out_proj.bias = ours.output.weight, ours.output.bias
    inputs = torch.randn(3, 5, 16)
    assert_close(ours(inputs), theirs(inputs, inputs, inputs, need_weights=False)[0])


def test_a_vit_refuses_a_width_that_heads_cannot_share_and_images_that_are_not_patches():
    with pytest.raises(ConfigError, match="width must be a multiple of head_dim=16, got 24"):
        Vit(width=24)
    with pytest.raises(ConfigError, match=r"whose sides are multiples of patch_size=4, got \(1, 8, 10\)"):
        Vit().build((1, 8, 10), 10, 0)


def test_an_image_too_small_for_the_groups_is_refused():
    with pytest.raises(ConfigError, match=r"a wide_resnet of 5 groups needs images \(channels, H, W\) of at least 16 pixels a side, got"):
        WideResnet(num_groups=5).build((1, 8, 8), 10, 0)


def test_an_image_too_small_for_the_stages_is_refused():
    with pytest.raises(
        ConfigError, match=r"needs images \(channels, H, W\) of at least 16 pixels a side, got \(1, 8, 8\); take a smaller depth"
    ):
        Cnn(depth=4).build((1, 8, 8), 10, 0)


def test_an_unknown_activation_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="activation must be one of relu, gelu, tanh, erf, got 'rely'; did you mean 'relu'?"):
        Mlp(activation="rely")
