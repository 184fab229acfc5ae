"""Architectures, shapes and memory orders that users bring: the kernel is that of each sample's own Jacobian, or it is refused."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tests.workers.entk.networks import Apply, slow_jacobian
from workers import entk
from workers.entk.norms import squared_gradient_norms


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
