"""Convolutions whose channels reach a linear last layer one by one need one backward pass; others must not be taken for such."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.workers.entk.networks import Apply, images
from tests.workers.entk.test_gram import error, slow_kernel
from workers import entk


def network(after: Callable[[nn.Module, Tensor], Tensor], num_features: int = 4, **parts: nn.Module) -> nn.Module:
    """Two convolutions, `after` the second one, and a linear layer."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        return m.readout(after(m, m.last(functional.relu(m.first(x)))))

    torch.manual_seed(0)
    convolutions = {"first": nn.Conv2d(2, 4, 3, padding=1), "last": nn.Conv2d(4, 4, 3, padding=1)}
    return Apply(run, **convolutions, **parts, readout=nn.Linear(num_features, 3)).double().eval()


def form(model: nn.Module, name: str, x: Tensor, outputs: str = "full") -> str:
    return next(piece.form for piece in entk.plan(model, x, outputs=outputs).pieces if piece.name.startswith(name))


def batch_norm() -> nn.Module:
    norm = nn.BatchNorm2d(4)
    norm.running_mean += torch.randn(4)
    norm.running_var *= torch.rand(4) + 0.5
    return norm


def gated(m: nn.Module, h: Tensor) -> Tensor:
    return (h * h.mean((2, 3), keepdim=True).sigmoid()).sum((2, 3))


def by_neighbours(m: nn.Module, h: Tensor) -> Tensor:
    return (h + h.flip(1)).mean((2, 3))


def squeezed(m: nn.Module, h: Tensor) -> Tensor:
    """Squeeze and excitation: the gate of a channel depends on all of them."""
    return (h * m.gate(h.mean((2, 3))).sigmoid()[:, :, None, None]).mean((2, 3))


def dead_branch(m: nn.Module, h: Tensor) -> Tensor:
    """A branch that mixes channels and is silent for the samples that are looked at first."""
    pooled = h.mean((2, 3))
    return pooled + functional.relu(m.branch(pooled) - 1e3)


ALONE = {
    "mean": network(lambda m, h: functional.relu(h).mean((2, 3))),
    "sum over negative axes": network(lambda m, h: torch.tanh(h).sum((-1, -2))),
    "pools": network(lambda m, h: functional.adaptive_avg_pool2d(functional.max_pool2d(h, 2), 1).flatten(1)),
    "global maximum": network(lambda m, h: functional.max_pool2d(functional.avg_pool2d(h, 2), 4).squeeze(3).squeeze(2)),
    "frozen batch norm": network(lambda m, h: functional.relu(m.norm(h)).mean((2, 3)), norm=batch_norm()),
    "residual": network(lambda m, h: functional.relu(h + 0.3 * h * h - h / (2 + h.sigmoid())).mean((2, 3))),
    "flat positions": network(lambda m, h: h.flatten(2).mean(2)),
    "its own gate": network(gated),
}  # fmt: skip
MIXED = {
    "flipped": network(by_neighbours),
    "squeeze and excitation": network(squeezed, gate=nn.Linear(4, 4)),
    "a silent branch": network(dead_branch, branch=nn.Linear(4, 4)),
    "mean over channels": network(lambda m, h: h.mean((1, 3)), 8),
    "mean over channels, as many rows": network(lambda m, h: h[:, :, :4].mean((1, 3))),
    "flattened": network(lambda m, h: functional.avg_pool2d(h, 4).flatten(1), 16),
    "transposed": network(lambda m, h: h[..., :4, :4].transpose(1, 2).mean((2, 3))),
    "a layer between": network(lambda m, h: functional.relu(m.between(h.mean((2, 3)))), between=nn.Linear(4, 4)),
    "softmax": network(lambda m, h: h.softmax(1).mean((2, 3))),
}


@pytest.mark.parametrize("outputs", ["full", "traced", "sum_logits", "per_class"])
@pytest.mark.parametrize("memory_gib", [2.0, 2e-4])
@pytest.mark.parametrize("name", [*ALONE, *MIXED])
def test_kernels_are_exact(name, memory_gib, outputs):
    model, x = (ALONE | MIXED)[name], images()
    assert error(entk.gram(model, x, outputs=outputs, memory_gib=memory_gib), slow_kernel(model, x, outputs)) < 1e-14


@pytest.mark.parametrize("name", ALONE)
def test_channels_that_stay_alone_are_seen(name):
    assert form(ALONE[name], "last", images()) == "channels"


@pytest.mark.parametrize("name", MIXED)
def test_channels_that_meet_are_seen(name):
    for outputs in ("full", "traced"):
        assert form(MIXED[name], "last", images(), outputs) not in ("channels", "separable")


def test_a_linear_layer_behind_a_residual_is_separable():
    torch.manual_seed(0)
    model = Apply(lambda m, x: m.readout(torch.tanh(m.hidden(x)) + m.beside(x)), hidden=nn.Linear(6, 5), beside=nn.Linear(6, 5),
                  readout=nn.Linear(5, 3)).double()  # fmt: skip
    x = torch.randn(4, 6, dtype=torch.float64)
    assert form(model, "hidden", x, "traced") == form(model, "beside", x, "traced") == "separable"
    assert error(entk.gram(model, x, outputs="traced"), slow_kernel(model, x, "traced")) < 1e-14


def test_a_branch_that_wakes_up_later_is_in_the_kernel():
    model, x = MIXED["a silent branch"], torch.cat([images(), 1e4 * images()])
    assert error(entk.gram(model, x, outputs="traced"), slow_kernel(model, x, "traced")) < 1e-14


def test_cross_kernel_of_channels():
    model, x = ALONE["frozen batch norm"], images()
    z = x.flip(0)[:3] + 0.1
    for outputs in ("full", "traced"):
        assert error(entk.gram(model, x, z, outputs=outputs), slow_kernel(model, x, outputs, z)) < 1e-14


def test_scales_and_layers_of_channels():
    model, x = ALONE["pools"], images()
    plain = entk.gram(model, x, layers="weight")
    scaled = entk.gram(model, x, layers="weight", scales={"last.weight": 3.0})
    assert error(scaled["last.weight"], 3.0 * plain["last.weight"]) < 1e-14
    assert error(sum(plain.values()), slow_kernel(model, x, "full")) < 1e-14
