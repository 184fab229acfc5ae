"""Llama: against a plain one written out, its sizes, and every derivative through it."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.testing import assert_close

from workers import entk, training
from workers.decoder import Rotary, causal_attention
from workers.errors import ConfigError
from workers.layers import num_params
from workers.losses import loss_per_unit
from workers.models.gpt_neox import GptNeox
from workers.models.llama import Llama

VOCABULARY, NUM_PLACES = 11, 6
SMALL = Llama(width=16, head_dim=8, depth=2)
KINDS = {
    "pre": SMALL,
    "post": replace(SMALL, norm="post"),
    "none": replace(SMALL, norm="none"),
    "tied": replace(SMALL, tied=True),
    "ntk": replace(SMALL, parameterisation="ntk", tied=True),
    "mup": replace(SMALL, parameterisation="mup", base_width=8),
}


def built(model: Llama, seed: int = 0) -> nn.Module:
    return model.build((NUM_PLACES,), VOCABULARY, seed).double()


def tokens(num: int = 4, seed: int = 1) -> tuple[Tensor, Tensor]:
    found = torch.randint(VOCABULARY, (num, NUM_PLACES + 1), generator=torch.Generator().manual_seed(seed))
    return found[:, :-1], found[:, 1:].contiguous()


# -- one token after the other ------------------------------------------------------------------------------------------------


def slow_logits(model: Llama, module: nn.Module, sequence: list[int]) -> Tensor:
    """Logits (T, V) of one sequence, head by head, place by place, with rotations as complex numbers."""
    weights = {name: value.detach() for name, value in module.named_parameters()}
    narrow = 1.0 if model.parameterisation != "ntk" else 1 / math.sqrt(model.width)
    narrow_hidden = 1.0 if model.parameterisation != "ntk" else 1 / math.sqrt(model.hidden)
    values = [weights["embedding.weight"][token] for token in sequence]
    share = 1 / math.sqrt(2 * model.depth) if model.norm == "none" else 1.0

    def norm(x: Tensor, name: str) -> Tensor:
        return x / (x.square().mean() + 1e-5).sqrt() * weights[name]

    for number in range(2 * model.depth):
        prefix = {"pre": f"blocks.{number}.branch.1.", "post": f"blocks.{number}.0.branch.", "none": f"blocks.{number}.branch."}
        own = {name.removeprefix(prefix[model.norm]): value for name, value in weights.items() if name.startswith(prefix[model.norm])}
        inputs = [norm(x, f"blocks.{number}.branch.0.weight") for x in values] if model.norm == "pre" else values
        if number % 2 == 0:
            outputs = slow_attention(model, own, inputs, narrow)
        else:
            outputs = []
            for x in inputs:
                gate, inside = (own[f"{name}.weight"] @ x * narrow for name in ("gate", "inside"))
                outputs.append(own["output.weight"] @ (gate / (1 + (-gate).exp()) * inside) * narrow_hidden)
        values = [x + share * y for x, y in zip(values, outputs)]
        if model.norm == "post":
            values = [norm(x, f"blocks.{number}.1.weight") for x in values]
    if model.norm == "pre":
        values = [norm(x, f"blocks.{2 * model.depth}.weight") for x in values]
    growth = model.width / model.base_width if model.parameterisation == "mup" else 1.0
    if model.tied:
        return torch.stack([weights["embedding.weight"] @ x / math.sqrt(model.width * growth) for x in values])
    return torch.stack([weights["readout.weight"] @ x / growth * narrow for x in values])


def slow_attention(model: Llama, own: dict[str, Tensor], inputs: list[Tensor], narrow: float) -> list[Tensor]:
    num_heads, size = model.width // model.head_dim, model.head_dim
    split = [(own["queries_keys_values.weight"] @ x * narrow).view(3, num_heads, size) for x in inputs]
    speeds = [model.rotary_base ** (-2 * pair / size) for pair in range(size // 2)]

    def turned(head: Tensor, place: int) -> Tensor:
        pairs = torch.complex(head[: size // 2], head[size // 2 :])
        angles = torch.tensor([place * speed for speed in speeds], dtype=torch.float64)
        result = pairs * torch.complex(angles.cos(), angles.sin())
        return torch.cat([result.real, result.imag])

    outputs = []
    for place in range(len(inputs)):
        heads = []
        for head in range(num_heads):
            query = turned(split[place][0, head], place)
            scores = torch.stack([query @ turned(split[other][1, head], other) / math.sqrt(size) for other in range(place + 1)])
            heads.append(sum(weight * split[other][2, head] for other, weight in enumerate(scores.softmax(0))))
        outputs.append(own["output.weight"] @ torch.cat(heads) * narrow)
    return outputs


@pytest.mark.parametrize("model", KINDS.values(), ids=KINDS)
def test_logits_are_those_of_one_token_after_the_other(model):
    module, (inputs_NT, _) = built(model), tokens(2)
    with torch.no_grad():
        for weights in module.parameters():  # norms too
            weights.add_(0.1 * torch.randn(weights.shape, generator=torch.Generator().manual_seed(weights.numel())))
    slow = torch.stack([slow_logits(model, module, sequence) for sequence in inputs_NT.tolist()])
    assert_close(module(inputs_NT), slow, rtol=1e-11, atol=1e-11)


def test_a_token_is_seen_by_later_ones_alone():
    module, (inputs_NT, _) = built(SMALL), tokens(1)
    other = inputs_NT.clone()
    other[0, 3] = (other[0, 3] + 1) % VOCABULARY
    changed = (module(inputs_NT) != module(other)).any(-1)[0]
    assert changed.tolist() == [False, False, False, True, True, True]


def test_shorter_sequences_have_the_logits_of_their_places():
    module, (inputs_NT, _) = built(SMALL), tokens()
    assert_close(module(inputs_NT[:, :4]), module(inputs_NT)[:, :4])


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_tokens_are_whole_numbers_of_any_size(dtype):
    module, (inputs_NT, _) = built(SMALL), tokens()
    assert torch.equal(module(inputs_NT.to(dtype)), module(inputs_NT))


def test_rotary_tables_follow_the_precision_and_are_in_no_file():
    """A table that was rounded to float32 on its way would differ by 1e-8."""
    direct = Rotary(32, 8)
    exact = direct.cosines.double()
    found = direct.double().cosines
    angles = torch.arange(32).double()[:, None] * 10000.0 ** (-torch.arange(0, 8, 2).double() / 8)
    assert_close(found[:, 0, :4], angles.cos(), rtol=0, atol=1e-14)
    assert not torch.equal(found, exact)
    assert not direct.state_dict()


# -- sizes --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        # (Llama 2 of 7 and 13 billion: Touvron et al., table 1, and the weights' own count)
        (Llama(width=4096, depth=32, head_dim=128, hidden_multiple=256), 6_738_415_616),
        (Llama(width=5120, depth=40, head_dim=128, hidden_multiple=256), 13_015_864_320),
    ],
)
def test_counts_are_llama_2s(model, expected):
    with torch.device("meta"):
        module = model.build((8,), 32000, 0)
    assert num_params(module) == (expected, expected - 2 * 32000 * model.width)
    hidden = {4096: 11008, 5120: 13824}[model.width]
    assert (
        expected == 2 * 32000 * model.width + model.depth * (4 * model.width**2 + 3 * model.width * hidden + 2 * model.width) + model.width
    )


def test_a_tied_readout_has_no_weights_of_its_own():
    own, tied = (num_params(built(replace(SMALL, tied=tied))) for tied in (False, True))
    assert own[0] - tied[0] == VOCABULARY * SMALL.width
    assert own[1] == tied[1]
    assert "readout.weight" not in built(replace(SMALL, tied=True)).state_dict()


@pytest.mark.parametrize(
    ("width", "ratio", "multiple", "hidden"), [(24, 8 / 3, 8, 64), (32, 8 / 3, 8, 88), (16, 4.0, 1, 64), (8, 1.1, 1, 9)]
)
def test_hidden_units_are_rounded_up_to_a_multiple(width, ratio, multiple, hidden):
    assert Llama(width=width, head_dim=8, hidden_ratio=ratio, hidden_multiple=multiple).hidden == hidden


@pytest.mark.parametrize("model", KINDS.values(), ids=KINDS)
def test_operations_are_those_of_the_layers_and_of_attention(model):
    """Forward, and twice as many backward, but for what the embedding needs not."""
    module, (inputs_NT, targets_NT) = built(model), tokens(1)
    products = sum(2 * layer.positions * layer.fan_in * layer.num_outputs for layer in model.layers((NUM_PLACES,), VOCABULARY))
    attended = 4 * NUM_PLACES**2 * model.width * model.depth
    assert training.count_flops(module, "cross_entropy", inputs_NT, targets_NT) == 3 * (products + attended)


@pytest.mark.parametrize("norm", ["pre", "post", "none"])
def test_logits_stay_bounded_at_any_depth(norm):
    sizes = [built(replace(SMALL, depth=depth, norm=norm, width=64))(tokens()[0]).std().item() for depth in (1, 16)]
    assert 0.5 < sizes[1] / sizes[0] < 2


# -- derivatives --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [KINDS["pre"], KINDS["ntk"]], ids=["untied", "tied"])
def test_kernels_and_derivatives_are_those_of_the_jacobian(model):
    """By torch.func, by forward derivatives, and by our engine with its fast forms for every weight."""
    module, (inputs_NT, targets_NT) = built(model), tokens(3)
    weights = {name: value.detach() for name, value in module.named_parameters()}
    outputs = module(inputs_NT).flatten()
    rows = [torch.autograd.grad(output, list(module.parameters()), retain_graph=True) for output in outputs]
    slow = torch.stack([torch.cat([one.flatten() for one in row]) for row in rows])

    def applied(values: dict[str, Tensor], sequence_T: Tensor) -> Tensor:
        return functional_call(module, values, (sequence_T[None],))[0]

    by_sample = torch.func.vmap(torch.func.jacrev(applied), (None, 0))(weights, inputs_NT)
    assert_close(torch.cat([one.flatten(3) for one in by_sample.values()], dim=-1).flatten(0, 2), slow)
    direction = {name: torch.randn_like(value) for name, value in weights.items()}
    _, pushed = torch.func.jvp(lambda values: functional_call(module, values, (inputs_NT,)), (weights,), (direction,))
    assert_close(pushed.flatten(), slow @ torch.cat([one.flatten() for one in direction.values()]))
    kernel = slow @ slow.T
    assert_close(entk.gram(module, inputs_NT), kernel)
    num_units = inputs_NT.numel()
    traced = kernel.view(num_units, VOCABULARY, num_units, VOCABULARY).diagonal(dim1=1, dim2=3).mean(-1)
    assert_close(entk.gram(module, inputs_NT, outputs="traced"), traced)
    forms = str(entk.plan(module, inputs_NT, outputs="traced"))
    assert "others" not in forms
    found = entk.lnp(module, partial(loss_per_unit, "cross_entropy"), (inputs_NT, targets_NT), estimator="exact")
    assert found.chi_net == pytest.approx(float(kernel.trace()) / num_units)
    assert (found.num_units, found.num_clusters) == (num_units, 3)


@pytest.mark.parametrize(
    "model", [SMALL, replace(SMALL, tied=True, num_key_heads=1), GptNeox(width=16, head_dim=8)], ids=["llama", "tied", "gpt_neox"]
)
def test_several_models_as_one_have_their_own_gradients(model):
    """And each is left as it was, with its buffers."""
    modules, (inputs_NT, targets_NT) = [built(model, seed) for seed in range(3)], tokens()
    stacked, buffers = torch.func.stack_module_state(modules)

    def loss(values: dict[str, Tensor], tables: dict[str, Tensor]) -> Tensor:
        return loss_per_unit("cross_entropy", functional_call(modules[0], (values, tables), (inputs_NT,)), targets_NT).mean()

    found = torch.func.vmap(torch.func.grad(loss))(stacked, buffers)
    for index, module in enumerate(modules):
        own = loss_per_unit("cross_entropy", module(inputs_NT), targets_NT).mean()
        for name, gradient in zip(found, torch.autograd.grad(own, list(module.parameters()))):
            assert_close(found[name][index], gradient)


def test_attention_by_plain_products_is_torchs():
    queries, keys, values = (torch.randn(2, heads, 5, 4, dtype=torch.float64, requires_grad=True) for heads in (4, 2, 2))
    fast = causal_attention(queries, keys, values)
    plain = torch.func.vmap(causal_attention)(queries[:, None], keys[:, None], values[:, None])[:, 0]
    assert_close(plain, fast)
    for one, other in zip(*(torch.autograd.grad(found.square().sum(), (queries, keys, values)) for found in (plain, fast))):
        assert_close(one, other)


def test_a_product_with_the_hessian_is_that_of_two_backward_passes():
    """Forward over backward takes plain products by itself; backward over backward is told to."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    module, (inputs_NT, _) = built(SMALL), tokens()
    weights = {name: value.detach() for name, value in module.named_parameters()}
    direction = {name: torch.randn_like(value) for name, value in weights.items()}

    def loss(values: dict[str, Tensor]) -> Tensor:
        return functional_call(module, values, (inputs_NT,)).square().mean()

    _, forward = torch.func.jvp(torch.func.grad(loss), (weights,), (direction,))
    with sdpa_kernel(SDPBackend.MATH):
        gradient = torch.autograd.grad(module(inputs_NT).square().mean(), list(module.parameters()), create_graph=True)
    product = sum((one * other).sum() for one, other in zip(gradient, direction.values()))
    backward = torch.autograd.grad(product, list(module.parameters()))
    for one, other in zip(forward.values(), backward):
        assert_close(one, other)


# -- what is refused ----------------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="width must be a multiple of head_dim=16, got 24"):
        Llama(width=24)
    with pytest.raises(ConfigError, match="head_dim must be even, as rotary positions turn pairs, got 5"):
        Llama(width=25, head_dim=5)
    with pytest.raises(ConfigError, match="num_key_heads must divide the 2 heads, got 3"):
        replace(SMALL, num_key_heads=3)
    with pytest.raises(ConfigError, match=r"needs sequences of tokens \(T,\), got inputs of shape \(1, 8, 8\); take a data set of text"):
        Llama().build((1, 8, 8), 10, 0)
    with pytest.raises(ConfigError, match="at most 6 tokens, as the model was built for, got 7"):
        built(SMALL)(torch.zeros(1, 7, dtype=torch.int64))
