"""Products with a kernel that is never formed, against the kernel of one backward pass per sample and output in float64."""

import numpy as np
import pytest
import torch
import torch.utils.checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from tests.workers.entk.networks import Apply
from workers.entk.operators import KernelOperator, apply, as_operator
from workers.errors import ConfigError, Diverged

GENEROUS, TIGHT = 2.0, 4e-6


def slow_jacobian(model, x):
    """(N, units of a sample, C, P), one backward pass per output."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    rows = []
    for sample in x:
        outputs = model(sample[None])[0]
        gradients = [torch.autograd.grad(value, weights, retain_graph=True, materialize_grads=True) for value in outputs.flatten()]
        rows.append(torch.stack([torch.cat([part.flatten() for part in gradient]) for gradient in gradients]))
    return torch.stack(rows).view(len(x), -1, outputs.shape[-1], rows[0].shape[-1])


def slow_kernel(model, x, outputs, z=None):
    left, right = (slow_jacobian(model, inputs).flatten(0, 1) for inputs in (x, x if z is None else z))
    if outputs == "full":
        return left.flatten(0, 1) @ right.flatten(0, 1).T
    if outputs == "traced":
        return torch.einsum("ncp,mcp->nm", left, right) / left.shape[1]
    return left.sum(1) @ right.sum(1).T


class Attention(nn.Module):
    """Tokens to logits of each token, with the fused attention, tied weights and a norm."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.mix, self.norm = nn.Linear(4, 12), nn.RMSNorm(4)
        self.readout = nn.Linear(4, 7, bias=False)
        self.readout.weight = self.embedding.weight

    def forward(self, tokens):
        hidden = self.embedding(tokens)
        query, key, value = self.mix(self.norm(hidden))[:, None].chunk(3, dim=-1)
        return self.readout(hidden + F.scaled_dot_product_attention(query, key, value, is_causal=True)[:, 0])


class Square(torch.autograd.Function):
    """A layer with no rule for forward mode and none for vmap."""

    @staticmethod
    def forward(values):
        return values**2

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        return 2 * ctx.saved_tensors[0] * gradient


class OldSquare(torch.autograd.Function):
    """A layer that torch.func refuses."""

    @staticmethod
    def forward(ctx, values):
        ctx.save_for_backward(values)
        return values**2

    backward = Square.backward


class Squared(nn.Module):
    """A layer of the user's own, of the first weights alone."""

    def __init__(self, square):
        super().__init__()
        self.square, self.linear, self.unused = square, nn.Linear(3, 2), nn.Linear(2, 2)

    def forward(self, x):
        return self.linear(self.square(self.linear.weight.sum() * x))


def checkpointed(values):
    return torch.utils.checkpoint.checkpoint(torch.sin, values, use_reentrant=False)


def a_case(name):
    torch.manual_seed(0)
    if name == "tokens":
        return Attention().double(), torch.randint(7, (5, 3))
    if name == "convolution":
        layers = nn.Conv2d(2, 3, 3), nn.GroupNorm(1, 3), nn.GELU(), nn.Flatten(), nn.Linear(12, 4)
        return nn.Sequential(*layers).double(), torch.randn(5, 2, 4, 4).double()
    return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 4)).double(), torch.randn(5, 3).double()


@pytest.mark.parametrize("outputs", ["full", "traced", "sum_logits"])
@pytest.mark.parametrize("name", ["perceptron", "convolution", "tokens"])
@pytest.mark.parametrize("memory_gib", [GENEROUS, TIGHT])
def test_a_product_is_that_with_the_slow_kernel_under_any_cap(name, outputs, memory_gib):
    model, x = a_case(name)
    if memory_gib == TIGHT:
        memory_gib = 2.01 * least_memory(model, x)
    kernel, operator = slow_kernel(model, x, outputs), KernelOperator(model, x, outputs, memory_gib=memory_gib)
    vectors = torch.randn(len(kernel), 7).double()
    assert operator.shape == kernel.shape
    torch.testing.assert_close(operator @ vectors, kernel @ vectors, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(operator @ vectors[:, 0], kernel @ vectors[:, 0], rtol=1e-10, atol=1e-10)


def least_memory(model, x):
    with pytest.raises(ConfigError) as raised:
        KernelOperator(model, x, memory_gib=1e-9)
    return float(str(raised.value).split("at least ")[1].split()[0])


def test_memory_below_one_sample_and_one_vector_is_refused():
    model, x = a_case("perceptron")
    with pytest.raises(ConfigError, match="memory_gib must be at least .* for one sample and one vector of this model, got 1e-09"):
        KernelOperator(model, x, memory_gib=1e-9)


@settings(max_examples=20, deadline=None)
@given(
    widths=st.lists(st.integers(1, 5), min_size=2, max_size=4),
    num=st.integers(1, 6),
    num_other=st.integers(1, 6),
    outputs=st.sampled_from(["full", "traced", "sum_logits"]),
    seed=st.integers(0, 99),
)
def test_cross_kernels_of_random_networks_are_the_slow_ones(widths, num, num_other, outputs, seed):
    torch.manual_seed(seed)
    layers = [layer for pair in zip(widths, widths[1:]) for layer in (nn.Linear(*pair), nn.SiLU())]
    model = nn.Sequential(*layers).double()
    x, z = torch.randn(num, widths[0]).double(), torch.randn(num_other, widths[0]).double()
    kernel, operator = slow_kernel(model, x, outputs, z), KernelOperator(model, x, outputs, z=z)
    torch.testing.assert_close(operator @ torch.eye(kernel.shape[1]).double(), kernel, rtol=1e-9, atol=1e-9)


def test_frozen_weights_are_no_part_of_the_kernel():
    model, x = a_case("perceptron")
    model[0].weight.requires_grad_(False)
    kernel, operator = slow_kernel(model, x, "full"), KernelOperator(model, x)
    torch.testing.assert_close(operator @ torch.eye(len(kernel)).double(), kernel)


@pytest.mark.parametrize("square", [Square.apply, OldSquare.apply, checkpointed])
def test_a_layer_without_forward_mode_or_torch_func_takes_a_slower_way(square):
    torch.manual_seed(0)
    model, x = Squared(square).double(), torch.randn(4, 3).double()
    kernel, operator = slow_kernel(model, x, "full"), KernelOperator(model, x)
    torch.testing.assert_close(operator @ torch.eye(len(kernel)).double(), kernel)


def compiled(model):
    def refuse(graph, inputs):
        raise AssertionError("compiled")

    return torch.compile(model, backend=refuse)


@pytest.mark.parametrize("wrap", [compiled, nn.DataParallel, nn.parallel.DistributedDataParallel])
def test_a_wrapped_model_is_taken_as_it_was_before(wrap, tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    model, x = a_case("perceptron")
    try:
        product = KernelOperator(wrap(model), x) @ torch.ones(20).double()
    finally:
        torch.distributed.destroy_process_group()
    torch.testing.assert_close(product, KernelOperator(model, x) @ torch.ones(20).double())


def test_the_model_is_left_as_found():
    model, x = a_case("convolution")
    model.train()
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    before, random = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    KernelOperator(model, x) @ torch.ones(20).double()
    assert model.training
    assert all(bool((weight.grad == 1).all()) and weight.requires_grad for weight in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def test_products_in_low_precision_come_in_float64_from_apply():
    model, x = a_case("perceptron")
    kernel, operator = slow_kernel(model, x, "full"), KernelOperator(model.float(), x.float())
    product = apply(operator, torch.eye(len(kernel)).double())
    assert operator.dtype == torch.float32
    assert product.dtype == torch.float64
    assert float((product - kernel).norm() / kernel.norm()) < 1e-6


@pytest.mark.parametrize("takes_blocks", [False, True])
@pytest.mark.parametrize("as_array", [None, np.asarray])
def test_two_callables_are_an_operator_in_any_array_library(as_array, takes_blocks):
    torch.manual_seed(0)
    jacobian = torch.randn(6, 4).double()
    ours = jacobian if as_array is None else jacobian.numpy()
    operator = KernelOperator.from_products(
        vjp=lambda v: {"w": v @ ours}, jvp=lambda u: u["w"] @ ours.T, shape=(6, 6), as_array=as_array, takes_blocks=takes_blocks
    )
    vectors = torch.randn(6, 3).double()
    torch.testing.assert_close(operator @ vectors, jacobian @ (jacobian.T @ vectors))
    torch.testing.assert_close(operator @ vectors[:, 0], jacobian @ (jacobian.T @ vectors[:, 0]))


def test_a_stored_kernel_of_numpy_is_an_operator():
    matrix = np.arange(4.0).reshape(2, 2)
    assert torch.equal(as_operator(matrix) @ torch.ones(2).double(), torch.tensor([1.0, 5.0]).double())


class Others:
    """Stands for a process that holds other samples: its sums are known, and it has room for one vector at once."""

    def __init__(self, model, x, vectors, outputs):
        jacobian = slow_jacobian(model, x).flatten(0, 1)  # (N, C, P)
        self.weights = dict(model.named_parameters())
        if outputs == "full":
            self.sums = [jacobian.flatten(0, 1).T @ vector for vector in vectors.T]
        else:
            self.sums = [jacobian[:, output].T @ vector for vector in vectors.T for output in range(jacobian.shape[1])]
        self.sizes = []

    def least(self, number):
        return min(number, 1)

    def total(self, gradients):
        others, found = self.sums[len(self.sizes)], {}
        self.sizes.append({len(value) for value in gradients.values()})
        parts = others.split([weight.numel() for weight in self.weights.values()])
        for (name, weight), part in zip(self.weights.items(), parts):
            found[name] = gradients[name] + part.view(1, *weight.shape)
        return found


@pytest.mark.parametrize("outputs", ["full", "traced"])
def test_with_other_processes_a_product_has_the_rows_of_the_own_samples(outputs):
    model, x = a_case("convolution")
    kernel = slow_kernel(model, x, outputs)
    rows = len(kernel) // 5 * 2
    vectors = torch.randn(len(kernel), 3).double()
    others = Others(model, x[2:], vectors[rows:], outputs)
    operator = KernelOperator(model, x[:2], outputs, together=others)
    assert operator.shape == (rows, rows)
    torch.testing.assert_close(operator @ vectors[:rows], (kernel @ vectors)[:rows], rtol=1e-10, atol=1e-10)
    assert others.sizes == [{1}] * len(others.sums), "one vector at once, as the others have room for"


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        ("text", "a kernel is a matrix or has shape, dtype, device and @, got str"),
        (torch.ones(3), r"a kernel is a matrix of real numbers, got shape \(3,\) of torch.float32"),
        (torch.ones(0, 0), r"got shape \(0, 0\)"),
        (np.eye(2, dtype=int), "of torch.int64"),
    ],
)
def test_what_is_no_kernel_is_refused(kernel, message):
    with pytest.raises(ConfigError, match=message):
        as_operator(kernel)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (torch.ones(5).double(), r"a kernel of shape \(20, 20\) multiplies \(20,\) or \(20, B\), got \(5,\)"),
        (torch.ones(20), "a kernel in torch.float64 on cpu multiplies vectors of its kind, got torch.float32 on cpu; give vectors.to"),
        (torch.ones(20, device="meta").double(), "got torch.float64 on meta"),
        (np.ones(20), "a kernel multiplies tensors of torch, got ndarray; give torch.as_tensor"),
    ],
)
def test_vectors_of_another_kind_are_refused(vectors, message):
    model, x = a_case("perceptron")
    with pytest.raises(ConfigError, match=message):
        KernelOperator(model, x).__matmul__(vectors)


def test_a_block_of_no_vectors_has_no_products():
    model, x = a_case("perceptron")
    assert (KernelOperator(model, x) @ torch.ones(20, 0).double()).shape == (20, 0)


def test_a_weight_without_axes_is_one_of_them():
    torch.manual_seed(0)
    model = Apply(lambda m, x: m.linear(x) * m.scale.exp(), linear=nn.Linear(3, 2), scale=nn.Parameter(torch.tensor(0.5))).double()
    x = torch.randn(4, 3).double()
    kernel, operator = slow_kernel(model, x, "full"), KernelOperator(model, x)
    torch.testing.assert_close(operator @ torch.eye(8).double(), kernel)


@torch.inference_mode()
def test_products_are_those_of_inference_mode_too():
    model, x = a_case("perceptron")
    with torch.inference_mode(False):
        model, _ = a_case("perceptron")
        outside = KernelOperator(model, x.clone()) @ torch.ones(20).double()
    assert torch.equal(KernelOperator(model, x) @ torch.ones(20).double(), outside)


def test_an_operator_of_a_kernel_with_a_graph_has_none():
    assert not as_operator(torch.eye(2, requires_grad=True)).requires_grad


def test_no_samples_and_no_weights_are_refused():
    model, x = a_case("perceptron")
    with pytest.raises(ConfigError, match="x is empty"):
        KernelOperator(model, x[:0])
    with pytest.raises(ConfigError, match="outputs must be one of full, traced, sum_logits, got 'all'"):
        KernelOperator(model, x, "all")
    with pytest.raises(ConfigError, match="the model has no trainable weights; set requires_grad"):
        KernelOperator(model.requires_grad_(False), x)


def test_a_network_that_is_not_finite_has_diverged():
    model, x = a_case("perceptron")
    with torch.no_grad():
        model[0].bias.fill_(torch.nan)
    with pytest.raises(Diverged, match="the weight 0.bias has 6 entries that are not finite"):
        KernelOperator(model, x)


class Random(nn.Module):
    """Noise that no layer announces."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x):
        return self.linear(x) * torch.rand(1, dtype=x.dtype)


def test_a_random_model_and_one_that_mixes_its_samples_are_refused():
    x = torch.randn(4, 3).double()
    with pytest.raises(ConfigError, match="two passes over the same samples differ by .*: the model draws random numbers"):
        KernelOperator(Random().double(), x)
    centred = Apply(lambda m, x: m.linear(x) - m.linear(x).mean(0), linear=nn.Linear(3, 2)).double()
    with pytest.raises(ConfigError, match="the outputs of a sample change by .* with the samples beside it"):
        KernelOperator(centred, x)


class Sign(torch.autograd.Function):
    """A layer whose backward pass is not linear, as that of no function is."""

    @staticmethod
    def forward(ctx, values):
        return values.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient.sign()


def test_a_backward_pass_that_is_that_of_no_function_is_refused():
    model = Apply(lambda m, x: Sign.apply(m.linear(x)), linear=nn.Linear(3, 2)).double()
    with pytest.raises(ConfigError, match="products with the Jacobian of this model fail; .*J and J\\^T disagree: a backward pass of this"):
        KernelOperator(model, torch.randn(4, 3).double())
