"""Architectures, shapes and memory orders that users bring: the kernel is that of each sample's own Jacobian, or it is refused."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.workers.entk.networks import Apply, slow_jacobian
from workers import entk
from workers.entk import checks
from workers.entk.norms import squared_gradient_norms
from workers.errors import ConfigError, Diverged


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape) / 2)


def made(function: Callable[[nn.Module, Tensor], Tensor], **parts: nn.Module | nn.Parameter) -> nn.Module:
    return Apply(function, **parts).double()


def check(model: nn.Module, x: Tensor) -> None:
    """Full and traced kernels with much and little memory, a cross kernel, and gradient norms."""
    left = slow_jacobian(model, x)
    slow, num_outputs = left @ left.T, model(x).shape[-1]
    traced = slow.unflatten(1, (-1, num_outputs)).unflatten(0, (-1, num_outputs)).diagonal(dim1=1, dim2=3).mean(-1)
    for memory_gib in (2.0, 1e-3):
        assert_equal(entk.gram(model, x, memory_gib=memory_gib), slow)
        assert_equal(entk.gram(model, x, outputs="traced", memory_gib=memory_gib), traced)
    assert_equal(entk.gram(model, x, x[-1:]), slow[:, -(len(slow) // len(x)) :])
    cotangents = normal(2, *model(x).shape)
    rows = torch.einsum("rnd,ndp->rnp", cotangents.flatten(2), left.unflatten(0, (len(x), -1)))
    assert_equal(squared_gradient_norms(model, x, cotangents), rows.square().sum(-1))


def assert_equal(found: Tensor, slow: Tensor) -> None:
    assert found.shape == slow.shape
    assert float((found - slow).norm()) <= 1e-14 * float(slow.norm())


def attention() -> nn.Module:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        return m.readout(m.attention(x, m.keys(x), m.values(x), need_weights=False)[0].mean(1))

    parts = {"attention": nn.MultiheadAttention(8, 2, batch_first=True), "keys": nn.Linear(8, 8), "values": nn.Linear(8, 8)}
    return made(run, **parts, readout=nn.Linear(8, 3))


def test_views_of_a_larger_tensor_are_taken_as_their_copies_are():
    torch.manual_seed(0)
    check(attention(), normal(7, 6, 8)[:, :3])
    check(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.LayerNorm(5), nn.Linear(5, 3)).double(), normal(5, 6, 6)[:, :1])
    check(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2)).double(), normal(4, 5, 5, 3).movedim(3, 1))


def test_two_views_of_a_weight_in_two_orders():
    def run(m: nn.Module, x: Tensor) -> Tensor:
        one, other = x[:, :2, :3] * m.w.view(3, 2).T, x[:, :3, :2] * m.w.view(2, 3).T
        return m.readout(torch.cat([one.flatten(1), other.flatten(1)], 1).tanh())

    torch.manual_seed(0)
    check(made(run, w=weight(6), readout=nn.Linear(12, 3)), normal(5, 6, 6))


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)).double()


@pytest.mark.parametrize("value", ["2", None, True, float("nan"), float("inf"), -1.0])
def test_memory_that_is_no_number_is_refused(value):
    with pytest.raises(ConfigError, match="memory_gib must be a positive number of GiB, got"):
        entk.gram(mlp(), normal(4, 6), memory_gib=value)


def test_what_is_no_model_or_no_probe_set_is_refused():
    with pytest.raises(ConfigError, match="the model must be a torch.nn.Module, got function; .* KernelOperator.from_products"):
        entk.gram(lambda x: x, normal(4, 6))
    with pytest.raises(ConfigError, match="x is empty; give a tensor, or one for each of the model's arguments"):
        entk.gram(mlp(), ())
    with pytest.raises(ConfigError, match="on the device meta, where it has no numbers"):
        entk.gram(mlp().to("meta"), normal(4, 6).to("meta"))


def test_the_other_probe_set_is_looked_at_too():
    with pytest.raises(ConfigError, match="x and z must have as many tensors as the model has arguments, got 1 and 2"):
        entk.gram(mlp(), normal(4, 6), (normal(4, 6), normal(4, 6)))
    with pytest.raises(Diverged, match="z has 24 numbers that are not finite"):
        entk.gram(mlp(), normal(4, 6), normal(4, 6) / 0)


@pytest.mark.parametrize("shape", [(16, 3), (2, 24), (3, 16), (7,)])
def test_a_residual_of_another_number_of_units_is_refused(shape):
    """Its entries would be cut into columns that mean nothing."""
    kernel = torch.eye(24, dtype=torch.float64)
    with pytest.raises(ConfigError, match="does not fit a kernel of 24 rows"):
        entk.residual_density(kernel, normal(*shape))
    with pytest.raises(ConfigError, match="does not fit a kernel of 24 rows"):
        entk.spectrum(kernel).weights(normal(*shape))
    assert entk.residual_density(kernel, normal(8, 3)).rayleigh_quotient == pytest.approx(1.0)
    assert entk.residual_density(kernel, normal(24, 5)).rayleigh_quotient == pytest.approx(1.0)


def test_a_residual_that_is_not_finite_is_refused():
    with pytest.raises(Diverged, match="the residual has numbers that are not finite"):
        entk.residual_density(torch.eye(6), torch.full((2, 3), torch.nan))


def test_settings_of_solvers_that_cannot_be_are_refused():
    kernel = torch.eye(24, dtype=torch.float64)
    for wrong in (True, 2.0, "3"):
        with pytest.raises(ConfigError, match="the number of eigenvalues must be between 1 and 24, the rows of the kernel, got"):
            entk.lanczos(kernel, wrong)
    with pytest.raises(ConfigError, match="tolerance must be positive and max_products at least 1, got nan and None"):
        entk.lanczos(kernel, 3, tolerance=torch.nan)
    with pytest.raises(ConfigError, match="tolerance must be positive and max_products at least 1, got 1e-06 and 0"):
        entk.lanczos(kernel, 3, tolerance=1e-6, max_products=0)
    with pytest.raises(ConfigError, match="block_size must be at least 1, got 0"):
        entk.density(kernel, 3, block_size=0)


def test_inference_mode_changes_nothing():
    model, x = mlp(), normal(4, 6)
    expected = entk.gram(model, x)
    with torch.inference_mode():
        assert_equal(entk.gram(model, x.clone()), expected)
        unfit = mlp()
    with pytest.raises(ConfigError, match="made in torch.inference_mode, .* make or load it outside of it"):
        entk.gram(unfit, x)


def test_samples_that_come_from_the_weights_are_data():
    model = mlp()
    x = model[0].weight[:1] * normal(4, 6)
    assert_equal(entk.gram(model, x), entk.gram(model, x.detach()))


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda x: x - x.mean(0), "outputs of a sample change by .* with the samples beside it or its place among them"),
        (lambda x: x.flip(0), "outputs of a sample change by"),
        (lambda x: x + torch.arange(len(x))[:, None], "outputs of a sample change by"),
        (lambda x: x + torch.rand(len(x), 1), "two passes over the same samples differ by .*: the model draws random numbers"),
        (lambda x: x @ x.T, "outputs of a sample have 3 numbers in one batch and 2 in another"),
    ],
)
def test_outputs_that_are_not_their_samples_own_are_refused(forward, message):
    with pytest.raises(ConfigError, match=message):
        checks.independent(lambda found: forward(found[0]), (normal(7, 5),))
    checks.independent(lambda found: found[0].sin(), (normal(7, 5),))
