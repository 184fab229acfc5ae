"""Kernels against one backward pass for each sample and output, in float64, over many architectures."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from tests.workers.entk.networks import CASES, case, images, slow_jacobian, tokens, vectors
from workers import entk
from workers.entk.norms import squared_gradient_norms
from workers.errors import ConfigError


def error(found: Tensor, slow: Tensor) -> float:
    """Relative, in Frobenius' norm."""
    assert found.shape == slow.shape
    return float((found - slow).norm() / slow.norm())


def slow_kernel(model: nn.Module, x: Tensor, outputs: str, z: Tensor | None = None) -> Tensor:
    left = slow_jacobian(model, x)
    full = left @ (left if z is None else slow_jacobian(model, z)).T
    num_outputs = model(x[:1]).shape[-1]
    blocks = full.unflatten(1, (-1, num_outputs)).unflatten(0, (-1, num_outputs))
    if outputs == "traced":
        return blocks.diagonal(dim1=1, dim2=3).mean(-1)
    if outputs == "per_class":
        return blocks.diagonal(dim1=1, dim2=3).permute(2, 0, 1)
    return full if outputs == "full" else blocks.sum((1, 3))


@pytest.mark.parametrize("outputs", ["full", "traced", "sum_logits"])
@pytest.mark.parametrize("name", CASES)
def test_kernel_is_the_jacobian_times_its_transpose(name, outputs):
    model, x = case(name)
    assert error(entk.gram(model, x, outputs=outputs), slow_kernel(model, x, outputs)) < 1e-14


@pytest.mark.parametrize("name", CASES)
def test_cross_kernel_is_the_product_of_two_jacobians(name):
    model, x = case(name)
    z = x.flip(0)[:3]
    assert error(entk.gram(model, x, z), slow_kernel(model, x, "full", z)) < 1e-14


@pytest.mark.parametrize("name", ["mlp", "cnn", "norms", "few positions", "a module applied twice"])
def test_kernel_of_each_output_alone(name):
    model, x = case(name)
    assert error(entk.gram(model, x, outputs="per_class"), slow_kernel(model, x, "per_class")) < 1e-14


@pytest.mark.parametrize("name", CASES)
def test_kernels_of_the_weights_add_up_and_each_is_its_own(name):
    model, x = case(name)
    found = entk.gram(model, x, layers="weight")
    start, slow = 0, slow_jacobian(model, x)
    for weight_name, weight in model.named_parameters():
        part = slow[:, start : start + weight.numel()]
        start += weight.numel()
        if part.abs().max() > 0:
            # one weight between two norms is the small rest of large numbers
            assert error(found[weight_name], part @ part.T) < 1e-12, weight_name
    assert error(sum(found.values()), slow @ slow.T) < 1e-14


def test_kernels_of_modules_and_of_groups():
    model, x = case("cnn")
    whole = entk.gram(model, x)
    modules = entk.gram(model, x, layers="module")
    assert set(modules) == {"0", "3", "5.1"}
    two = entk.gram(model, x, layers=lambda name: "first" if name.startswith("0") else "rest")
    assert error(two["first"], modules["0"]) < 1e-14
    assert error(two["first"] + two["rest"], whole) < 1e-14


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_random_networks(data: st.DataObject):
    """Architectures, shapes, sizes and memory that nobody has chosen."""
    torch.manual_seed(data.draw(st.integers(0, 2**31), label="seed"))
    num_samples = data.draw(st.integers(1, 7), label="samples")
    model, shape = random_network(data)
    x = torch.randn(num_samples, *shape, dtype=torch.float64)
    outputs = data.draw(st.sampled_from(["full", "traced", "sum_logits"]), label="outputs")
    memory_gib = data.draw(st.sampled_from([2.0, 1e-3]), label="memory")
    slow = slow_kernel(model, x, outputs)
    assert float((entk.gram(model, x, outputs=outputs, memory_gib=memory_gib) - slow).norm()) <= 1e-12 * float(slow.norm())


def random_network(data: st.DataObject) -> tuple[nn.Module, tuple[int, ...]]:
    layers: list[nn.Module] = []
    if data.draw(st.booleans(), label="images"):
        channels, side = data.draw(st.integers(1, 3)), data.draw(st.integers(4, 7))
        shape: tuple[int, ...] = (channels, side, side)
        for _ in range(data.draw(st.integers(1, 3), label="convolutions")):
            groups = data.draw(st.sampled_from([g for g in (1, 2, 3) if channels % g == 0]))
            filters = groups * data.draw(st.integers(1, 3))
            padding, stride, bias = data.draw(st.integers(0, 2)), data.draw(st.integers(1, 2)), data.draw(st.booleans())
            kernel = data.draw(st.integers(1, min(3, side + 2 * padding)))
            side = (side + 2 * padding - kernel) // stride + 1
            layers += [nn.Conv2d(channels, filters, kernel, stride, padding, groups=groups, bias=bias), activation(data)]
            channels = filters
            if side > 1 and data.draw(st.booleans()):
                layers.append(nn.GroupNorm(data.draw(st.sampled_from([1, channels])), channels))
        layers += [nn.AdaptiveAvgPool2d(2), nn.Flatten()]
        width = 4 * channels
    else:
        width = data.draw(st.integers(1, 6))
        shape = (width,) if data.draw(st.booleans(), label="vectors") else (data.draw(st.integers(1, 4)), width)
    for _ in range(data.draw(st.integers(0, 3), label="dense")):
        size = data.draw(st.integers(1, 9))
        layers += [nn.Linear(width, size, bias=data.draw(st.booleans())), activation(data)]
        width = size
        layers += [nn.LayerNorm(width)] if width > 3 and data.draw(st.booleans()) else []
    return nn.Sequential(*layers, nn.Linear(width, data.draw(st.integers(1, 4)))).double(), shape


def activation(data: st.DataObject) -> nn.Module:
    return data.draw(st.sampled_from([nn.ReLU, nn.Tanh, nn.GELU, nn.SiLU]))()


@pytest.mark.parametrize("name", ["mlp", "cnn", "tied language model", "lstm", "norms", "few positions", "strides, dilation, groups"])
def test_little_memory_gives_the_same_kernel(name):
    """Down to one tile of one sample: groups of layers, then panels of samples."""
    model, x = case(name)
    whole, whole_cross = entk.gram(model, x), entk.gram(model, x, x[:3])
    for memory_gib in (1e-3, 3e-4, 1e-4):
        try:
            found = entk.gram(model, x, memory_gib=memory_gib)
        except entk.MemoryCap:
            continue
        assert error(found, whole) < 1e-14
        assert error(entk.gram(model, x, x[:3], memory_gib=memory_gib), whole_cross) < 1e-14


@pytest.mark.parametrize("name", ["mlp", "cnn", "language model", "class token"])
def test_float32_is_as_exact_as_float32_can_be(name):
    model, x = case(name)
    slow = slow_kernel(model, x, "full")
    single = copy.deepcopy(model).float()
    assert error(entk.gram(single, x.float() if x.is_floating_point() else x).double(), slow) < 5e-7


def test_kernel_is_exactly_symmetric():
    model, x = case("cnn")
    kernel = entk.gram(model.float(), x.float())
    assert torch.equal(kernel, kernel.T)


def test_more_tiles_than_one_cover_everything():
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    x = torch.randn(401, 6, dtype=torch.float64)
    jacobian = torch.cat(list(entk.jacobian(model, x).values()), dim=2).flatten(0, 1)
    assert error(entk.gram(model, x), jacobian @ jacobian.T) < 1e-14
    assert error(entk.gram(model, x, x[:130]), jacobian @ jacobian[:390].T) < 1e-14


@pytest.mark.parametrize("name", ["cnn", "language model"])
def test_scales_weigh_the_kernel_of_each_weight(name):
    model, x = case(name)
    alone = entk.gram(model, x, layers="weight")
    scales = {weight: 0.5 + index for index, weight in enumerate(alone) if index % 2}
    expected = sum(scales.get(weight, 1.0) * kernel for weight, kernel in alone.items())
    assert error(entk.gram(model, x, scales=scales), expected) < 1e-14


def test_ntk_scales_give_the_kernel_of_the_same_function_in_ntk_parameterisation():
    standard = nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    x = vectors()

    def forward(sample: Tensor) -> Tensor:
        hidden = torch.tanh(functional.linear(sample, weights[0] / 6**0.5, weights[1]))
        return functional.linear(hidden, weights[2] / 7**0.5, weights[3])

    fan_ins = (6, 1, 7, 1)
    weights = [nn.Parameter(w.detach() * n**0.5) for w, n in zip(standard.parameters(), fan_ins)]
    ntk = nn.ParameterList(weights)
    jacobian = slow_jacobian(ntk, x, forward)
    assert error(entk.gram(standard, x, scales="ntk"), jacobian @ jacobian.T) < 1e-14


@pytest.mark.parametrize("name", ["mlp", "language model"])
def test_the_plain_jacobian_is_that_of_single_backward_passes_of_wrapped_models_too(name):
    model, x = case(name)
    slow = slow_jacobian(model, x)
    for wrapped in (model, nn.DataParallel(model), torch.compile(model, backend="eager")):
        found = torch.cat(list(entk.jacobian(wrapped, x).values()), dim=-1)
        assert found.shape[:-1] == model(x).shape
        assert error(found.flatten(0, -2), slow) < 1e-14


@pytest.mark.parametrize("factor", [-1.0, float("nan"), float("inf"), "2", True])
def test_scales_that_are_no_factors_are_refused(factor):
    model, x = case("mlp")
    with pytest.raises(ConfigError, match="the scale of 0.weight must be a finite number, at least 0, got "):
        entk.gram(model, x, scales={"0.weight": factor})


@pytest.mark.parametrize("scales", ["mup", ["0.weight"], 2.0])
def test_scales_are_those_of_named_weights(scales):
    model, x = case("mlp")
    with pytest.raises(ConfigError, match="scales must be 'ntk' or a factor for each weight's name, got "):
        entk.gram(model, x, scales=scales)


def test_frozen_weights_leave_the_kernel():
    model, x = case("mlp")
    model[0].weight.requires_grad_(False)
    jacobian = slow_jacobian(model, x)
    assert error(entk.gram(model, x), jacobian @ jacobian.T) < 1e-14


def unit_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(outputs.movedim(-1, 1), targets, reduction="none")


@pytest.mark.parametrize("per_unit", [False, True])
@pytest.mark.parametrize("name", ["mlp", "language model"])
def test_loss_kernel_holds_inner_products_of_gradients(name, per_unit):
    model, x = case(name)
    shape = model(x).shape
    y = torch.randint(0, shape[-1], shape[:-1], generator=torch.Generator().manual_seed(0))
    rows = []
    for index in range(len(x)):
        losses = unit_loss(model(x[index : index + 1]), y[index : index + 1]).flatten()
        for loss in losses if per_unit else [losses.mean()]:
            rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)]))
    jacobian = torch.stack(rows)
    assert error(entk.loss_gram(model, unit_loss, (x, y), per_unit=per_unit), jacobian @ jacobian.T) < 1e-14
    cross = entk.loss_gram(model, unit_loss, (x, y), (x[:2], y[:2]), per_unit=per_unit)
    assert error(cross, jacobian @ jacobian[: cross.shape[1]].T) < 1e-14


@pytest.mark.parametrize("per_unit", [False, True])
def test_a_loss_kernel_takes_the_losses_that_lnp_takes(per_unit):
    model, x = case("language model")
    shape = model(x).shape
    y = torch.randint(0, shape[-1], shape[:-1], generator=torch.Generator().manual_seed(0))
    flat = functional.cross_entropy
    for loss in (
        nn.CrossEntropyLoss(reduction="none"),
        lambda outputs, targets: flat(outputs.flatten(0, 1), targets.flatten(), reduction="none"),
        lambda outputs, targets: unit_loss(outputs, targets)[..., None],
    ):
        found = entk.loss_gram(model, loss, (x, y), per_unit=per_unit)
        assert error(found, entk.loss_gram(model, unit_loss, (x, y), per_unit=per_unit)) < 1e-14


def test_the_loss_of_a_sample_is_the_mean_over_its_valid_tokens():
    model, x = case("language model")
    y = torch.randint(0, model(x).shape[-1], x.shape, generator=torch.Generator().manual_seed(0))
    y[0, 1:], y[1, 0], y[2] = -100, -100, -100
    rows = []
    for index in range(len(x)):
        loss = unit_loss(model(x[index : index + 1]), y[index : index + 1]).sum() / max(1, int((y[index] != -100).sum()))
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))]))
    jacobian = torch.stack(rows)
    assert error(entk.loss_gram(model, nn.CrossEntropyLoss(reduction="none"), (x, y)), jacobian @ jacobian.T) < 1e-14


def test_mean_of_the_loss_kernel_is_the_squared_gradient():
    model, x = case("mlp")
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    loss = unit_loss(model(x), y).mean()
    squared = sum(float(g.square().sum()) for g in torch.autograd.grad(loss, list(model.parameters())))
    assert float(entk.loss_gram(model, unit_loss, (x, y)).mean()) == pytest.approx(squared, rel=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_gradient_norms_are_those_of_the_slow_gradients(name):
    model, x = case(name)
    cotangents = torch.randn(2, *model(x).shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    jacobian = slow_jacobian(model, x).unflatten(0, (len(x), -1))
    slow = torch.einsum("rnd,ndp->rnp", cotangents.flatten(2), jacobian).square().sum(-1)
    assert error(squared_gradient_norms(model, x, cotangents), slow) < 1e-14
    assert error(squared_gradient_norms(model, x[:1], cotangents[:, :1]), slow[:, :1]) < 1e-14
    by_name = squared_gradient_norms(model, x, cotangents, by_parameter=True)
    assert set(by_name) == {weight for weight, _ in model.named_parameters()}
    assert error(sum(by_name.values()), slow) < 1e-14


def test_several_inputs_and_results_with_logits():
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 3).double()

        def forward(self, one: Tensor, other: Tensor) -> object:
            return type("Result", (), {"logits": self.layer(one * other)})()

    model, x = Pair(), vectors()
    jacobian = slow_jacobian(model, x, lambda sample: model.layer(sample * sample))
    assert error(entk.gram(model, (x, x)), jacobian @ jacobian.T) < 1e-14


def test_batch_statistics_are_those_of_the_probe_set_frozen():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 2)).double()
    x = images()
    kernel = entk.gram(model, x, statistics="batch")
    assert model[1].training
    features = model[0](x)
    frozen = copy.deepcopy(model)
    frozen[1].running_mean, frozen[1].running_var = features.mean((0, 2, 3)).detach(), features.var((0, 2, 3), correction=0).detach()
    jacobian = slow_jacobian(frozen.eval(), x)
    assert error(kernel, jacobian @ jacobian.T) < 1e-14
    assert error(entk.gram(model, x, statistics="running"), entk.gram(model.eval(), x)) < 1e-14


def test_a_repeated_token_counts_with_every_place_it_stands_at():
    model = nn.Sequential(nn.Embedding(3, 4), nn.Flatten(), nn.Linear(20, 2)).double()
    x = tokens() % 3
    jacobian = slow_jacobian(model, x)
    assert error(entk.gram(model, x), jacobian @ jacobian.T) < 1e-14


def test_progress_ends_with_everything_done():
    model, x = case("cnn")
    seen: list[tuple[int, int]] = []
    entk.gram(model, x, memory_gib=1e-3, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1]
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
