"""The kernel against one backward pass per sample and output, in float64."""

import pytest
import torch
from torch.testing import assert_close

from workers import entk
from workers.models.cnn import Cnn
from workers.models.mlp import Mlp
from workers.workload import Model

NUM_OUTPUTS = 3
MODELS = {
    "mlp": Mlp(width=5, depth=2, activation="tanh"),
    "mlp without hidden layers": Mlp(width=5, depth=0),
    "ntk mlp": Mlp(width=5, depth=2, activation="erf", parameterisation="ntk"),
    "cnn": Cnn(width=2, depth=2, activation="gelu"),
    "cnn with pooled input": Cnn(width=2, depth=1, input_pooling=2, readout="mean", bias=False, pooling="max"),
    "ntk cnn": Cnn(width=3, depth=1, activation="relu", parameterisation="ntk"),
}


def one_backward_pass_per_sample_and_output(module: torch.nn.Module, inputs_N: torch.Tensor) -> torch.Tensor:
    """J (N C, P), row n C + c, without torch.func and without batches."""
    rows = []
    for sample in inputs_N:
        for output in range(NUM_OUTPUTS):
            module.zero_grad()
            module(sample[None])[0, output].backward()
            rows.append(torch.cat([weights.grad.flatten() for weights in module.parameters()]))
    return torch.stack(rows)


@pytest.fixture(params=MODELS.values(), ids=MODELS.keys())
def module(request: pytest.FixtureRequest) -> torch.nn.Module:
    model: Model = request.param
    return model.build((1, 8, 8), NUM_OUTPUTS, seed=1).double()


@pytest.fixture
def inputs_N() -> torch.Tensor:
    return torch.randn(5, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_jacobian_is_that_of_single_backward_passes(module, inputs_N):
    found = torch.cat(list(entk.jacobian(module, inputs_N).values()), dim=2).flatten(0, 1)
    assert_close(found, one_backward_pass_per_sample_and_output(module, inputs_N), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("num_at_once", [None, 1, 2, 5, 99])
def test_full_gram_is_the_jacobian_times_its_transpose(module, inputs_N, num_at_once):
    jacobian = one_backward_pass_per_sample_and_output(module, inputs_N)
    assert_close(entk.gram_full(module, inputs_N, num_at_once=num_at_once), jacobian @ jacobian.T, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("num_at_once", [None, 2])
def test_traced_gram_is_the_mean_over_outputs(module, inputs_N, num_at_once):
    jacobian_NCP = one_backward_pass_per_sample_and_output(module, inputs_N).unflatten(0, (-1, NUM_OUTPUTS))
    slow = sum(jacobian_NCP[:, c] @ jacobian_NCP[:, c].T for c in range(NUM_OUTPUTS)) / NUM_OUTPUTS
    assert_close(entk.gram_traced(module, inputs_N, num_at_once=num_at_once), slow, rtol=1e-12, atol=1e-11)
    assert_close(entk.trace_over_outputs(entk.gram_full(module, inputs_N), NUM_OUTPUTS), slow, rtol=1e-12, atol=1e-11)


def test_c_times_the_trace_of_the_traced_kernel_is_that_of_the_full_one(module, inputs_N):
    full, traced = entk.gram_full(module, inputs_N), entk.gram_traced(module, inputs_N)
    assert_close(NUM_OUTPUTS * traced.trace(), full.trace())


def test_gram_is_exactly_symmetric(module, inputs_N):
    gram = entk.gram_full(module, inputs_N, num_at_once=2)
    assert torch.equal(gram, gram.T)


def test_frozen_weights_leave_the_kernel(inputs_N):
    module = Mlp(width=5, depth=1).build((1, 8, 8), NUM_OUTPUTS, seed=1).double()
    readout = list(module.parameters())[2:]
    for weights in list(module.parameters())[:2]:
        weights.requires_grad_(False)
    whole = sum(weights.numel() for weights in readout)
    assert sum(one.shape[2] for one in entk.jacobian(module, inputs_N).values()) == whole


def kernel_size(width: int, parameterisation: str) -> float:
    inputs_N = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    model = Mlp(width=width, depth=2, parameterisation=parameterisation)
    grams = [entk.gram_traced(model.build((1, 8, 8), 2, seed).double(), inputs_N) for seed in range(4)]
    return float(torch.stack(grams).mean(0).trace())


def test_ntk_parameterisation_keeps_the_kernel_at_every_width_and_standard_grows_with_it():
    assert kernel_size(1024, "ntk") / kernel_size(128, "ntk") == pytest.approx(1.0, rel=0.1)
    assert kernel_size(1024, "standard") / kernel_size(128, "standard") > 5.0
