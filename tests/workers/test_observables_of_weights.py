"""Measures of lazy training against models whose derivatives are known."""

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call, hessian, jacrev

from workers.errors import ConfigError
from workers.observables.lazy_kappa import lazy_kappa
from workers.observables.linearisation_gap import linearisation_gap
from workers.observables.relative_weight_change import relative_weight_change
from workers.observables.sign_changes import sign_changes

# N samples; P parameters


def network(width=5, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 2)).double()


def outputs_of(module, inputs_N):
    return lambda weights: functional_call(module, dict(weights), (inputs_N,))


def inputs(num=4):
    return torch.randn(num, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def test_the_change_of_weights_is_that_of_one_long_vector():
    start, end = dict(network().named_parameters()), dict(network(seed=1).named_parameters())
    one, other = (torch.cat([value.detach().flatten() for value in weights.values()]) for weights in (start, end))
    assert relative_weight_change(start, end) == pytest.approx(float((other - one).norm() / one.norm()))
    assert relative_weight_change(start, start) == 0.0
    assert relative_weight_change({"a": one.numpy()}, {"a": (2 * one).numpy()}) == pytest.approx(1.0)
    assert math.isnan(relative_weight_change({"a": 0 * one}, {"a": one}))


def test_weights_of_another_architecture_are_refused():
    with pytest.raises(ConfigError, match="must have equal names; only one has b: take both from one architecture"):
        relative_weight_change({"a": torch.ones(1)}, {"a": torch.ones(1), "b": torch.ones(1)})


def test_sign_changes_are_counted():
    before, after = torch.tensor([[0.1, -1.0, 0.0], [2.0, 2.0, -2.0]]), torch.tensor([[3.0, 0.1, -5.0], [-2.0, 2.0, 0.0]])
    assert sign_changes(before, after) == pytest.approx(2 / 6)
    assert sign_changes(before, before) == 0.0


def test_activations_of_unlike_shapes_are_refused():
    with pytest.raises(ConfigError, match=r"activations must have equal shapes, got \(2,\) and \(3,\); take both on the same inputs"):
        sign_changes(torch.ones(2), torch.ones(3))


def test_a_model_linear_in_its_weights_has_no_gap_and_is_lazy():
    module, x_N = nn.Linear(3, 2).double(), inputs()
    start = dict(module.named_parameters())
    end = {name: value.detach() + 1.0 for name, value in start.items()}
    assert linearisation_gap(outputs_of(module, x_N), start, end) == pytest.approx(0.0, abs=1e-12)
    assert lazy_kappa(outputs_of(module, x_N), start, torch.zeros(4, 2, dtype=torch.float64)) == 0.0
    assert math.isnan(linearisation_gap(outputs_of(module, x_N), start, start))


def test_the_linearisation_gap_is_that_of_the_whole_jacobian():
    module, x_N = network(), inputs()
    start, end = dict(network().named_parameters()), dict(network(seed=1).named_parameters())
    function = outputs_of(module, x_N)
    jacobian = jacrev(function)({name: value.detach() for name, value in start.items()})
    moved = sum((jacobian[name].flatten(2) @ (end[name] - start[name]).detach().flatten()) for name in start)
    initial, final = function(start).detach(), function(end).detach()
    expected = float((final - initial - moved).norm() / (final - initial).norm())
    assert linearisation_gap(function, start, end) == pytest.approx(expected)
    assert expected > 0.05


def test_the_gap_falls_in_proportion_to_the_change():
    module, x_N = network(), inputs()
    start = dict(module.named_parameters())
    step = {name: torch.randn_like(value) for name, value in start.items()}
    gaps = [linearisation_gap(outputs_of(module, x_N), start, {n: start[n] + size * step[n] for n in start}) for size in (1e-3, 1e-4)]
    assert gaps[0] / gaps[1] == pytest.approx(10.0, rel=0.05)


def test_kappa_of_a_product_of_two_weights():
    """h = a b: ||D h||^2 = a^2 + b^2, and D^2 h has the eigenvalues 1 and -1."""
    weights = {"a": torch.tensor([3.0], dtype=torch.float64), "b": torch.tensor([4.0], dtype=torch.float64)}
    kappa = lazy_kappa(lambda w: w["a"] * w["b"], weights, torch.tensor([2.0], dtype=torch.float64))
    assert kappa == pytest.approx(10 * 1 / 25)


def test_kappa_of_a_network_is_that_of_its_whole_derivatives():
    """||D^2 h|| of two outputs is the largest |eigenvalue| of cos t D^2 h_1 + sin t D^2 h_2 over t."""
    module, x_N = network(width=3), inputs(1)
    start = {name: value.detach() for name, value in module.named_parameters()}
    sizes, shapes = [v.numel() for v in start.values()], [v.shape for v in start.values()]
    flat_P = torch.cat([value.flatten() for value in start.values()])
    targets = torch.ones(1, 2, dtype=torch.float64)

    def outputs(vector_P):
        return outputs_of(module, x_N)({n: p.view(s) for n, p, s in zip(start, vector_P.split(sizes), shapes)}).flatten()

    jacobian_RP, hessian_RPP = jacrev(outputs)(flat_P), hessian(outputs)(flat_P)
    t = torch.linspace(0, math.pi, 4001, dtype=torch.float64)
    along = t.cos()[:, None, None] * hessian_RPP[0] + t.sin()[:, None, None] * hessian_RPP[1]
    second = float(torch.linalg.eigvalsh(along).abs().max())
    first = float(torch.linalg.matrix_norm(jacobian_RP, ord=2))
    residual = float((outputs(flat_P) - targets.flatten()).norm())
    assert lazy_kappa(outputs_of(module, x_N), start, targets) == pytest.approx(residual * second / first**2, rel=1e-6)


def test_scaling_a_model_from_zero_by_alpha_divides_kappa_by_alpha():
    """D^2 h grows with alpha and ||D h||^2 with its square, while the residual at h = 0 stays."""
    module, x_N = network(), inputs()
    start = {name: value.detach() for name, value in module.named_parameters()}
    initial, targets = outputs_of(module, x_N)(start), torch.ones(4, 2, dtype=torch.float64)
    kappas = [lazy_kappa(lambda w, a=a: a * (outputs_of(module, x_N)(w) - initial), start, targets) for a in (1.0, 100.0)]
    assert kappas[0] / kappas[1] == pytest.approx(100.0, rel=1e-6)
