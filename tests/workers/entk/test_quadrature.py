"""Lanczos quadrature: its sums, their standard errors over many seeds, and the density of a residual, against full spectra."""

import math
import statistics

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.entk.quadrature import density, diagonal, residual_density, trace
from workers.errors import ConfigError, Diverged


class Products:
    """A matrix that only multiplies."""

    def __init__(self, matrix):
        self.matrix, self.shape, self.dtype, self.device = matrix, matrix.shape, matrix.dtype, matrix.device

    def __matmul__(self, vectors):
        return self.matrix @ vectors


def a_kernel(size=300, exponent=1.2):
    generator = torch.Generator().manual_seed(0)
    values = torch.arange(1, size + 1, dtype=torch.float64).flip(0) ** -exponent
    vectors = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
    return (vectors * values) @ vectors.T, values, vectors


def entropy(values):
    shares = (values / values.sum()).tolist()
    return -math.fsum(share * math.log(share) for share in shares if share > 0)


KERNEL, VALUES, VECTORS = a_kernel()
QUANTITIES = {
    "entropy": (lambda found: found.entropy, entropy(VALUES)),
    "effective_rank": (lambda found: found.effective_rank, math.exp(entropy(VALUES))),
    "trace": (lambda found: found.trace, float(VALUES.sum())),
    "frobenius": (lambda found: found.frobenius, float(VALUES.square().sum().sqrt())),
    "sum of roots": (lambda found: found.sum_of(torch.sqrt), float(VALUES.sqrt().sum())),
    "count": (lambda found: found.sum_of(torch.ones_like), 300.0),
}


def seeds_of(kernel, num_known, num=48):
    known = slice(300 - num_known, 300)
    settings = dict(noise_floor=0.0, num_steps=20)
    return [density(kernel, VALUES[known], VECTORS[:, known], **settings, seed=seed) for seed in range(num)]


@pytest.mark.parametrize("num_known", [0, 20])
@pytest.mark.parametrize("is_stored", [True, False])
def test_standard_errors_are_those_seen_over_seeds(is_stored, num_known):
    found = seeds_of(KERNEL if is_stored else Products(KERNEL), num_known)
    for name, (take, exact) in QUANTITIES.items():
        errors = [(take(one).value - exact, take(one).standard_error) for one in found]
        if all(spread == 0 for _, spread in errors):
            assert is_stored and name in ("trace", "frobenius"), name
            assert all(abs(error) < 1e-10 for error, _ in errors), name
        elif name != "count" or num_known:
            scores = [error / spread for error, spread in errors]
            assert 0.7 < statistics.pstdev(scores) < 1.3, name
            assert abs(statistics.mean(scores)) < 0.5, name


def test_known_eigenvalues_make_the_entropy_many_times_more_certain():
    errors = [statistics.mean(one.entropy.standard_error for one in seeds_of(Products(KERNEL), known, num=5)) for known in (0, 20)]
    assert errors[1] < errors[0] / 4


def test_no_probe_meets_a_known_eigenvalue_again():
    found = density(Products(KERNEL), VALUES[-20:], VECTORS[:, -20:], noise_floor=0.0, num_steps=60)
    assert float(found.nodes_VS.max()) <= float(VALUES[-21]) * (1 + 1e-12)


def test_a_density_goes_on_from_the_probes_there_are():
    states, again = [], []
    settings = dict(noise_floor=0.0, num_probes=10, num_steps=8, block_size=4)
    whole = density(Products(KERNEL), VALUES[-5:], VECTORS[:, -5:], **settings, save=states.append)
    resumed = density(Products(KERNEL), VALUES[-5:], VECTORS[:, -5:], **settings, state=states[0], save=again.append)
    assert [len(state["nodes"]) for state in states] == [4, 8, 10] and [len(state["nodes"]) for state in again] == [8, 10]
    torch.testing.assert_close(resumed.nodes_VS, whole.nodes_VS, rtol=0, atol=0)
    torch.testing.assert_close(resumed.weights_VS, whole.weights_VS, rtol=0, atol=0)


def test_a_known_trace_makes_other_sums_more_certain():
    kernels = (Products(KERNEL), KERNEL)
    errors = [statistics.mean(one.sum_of(torch.sqrt).standard_error for one in seeds_of(kernel, 20, num=5)) for kernel in kernels]
    assert errors[1] < errors[0] / 2


@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 12), rank=st.integers(0, 12), seed=st.integers(0, 99))
def test_with_every_eigenpair_known_the_sums_are_exact(size, rank, seed):
    factor = torch.randn(size, min(rank, size), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    kernel = factor @ factor.T
    values, vectors = torch.linalg.eigh(kernel)
    found = density(Products(kernel), values, vectors, noise_floor=0.0)
    assert found.trace.value == pytest.approx(float(kernel.trace()), abs=1e-12)
    assert found.frobenius.value == pytest.approx(float(kernel.norm()), abs=1e-6)
    if rank:
        assert found.entropy.value == pytest.approx(entropy(values.clamp(min=0)), abs=1e-6)


def test_eigenvalues_up_to_the_noise_floor_count_as_nothing():
    values = torch.cat([torch.full((60,), 1e-9), torch.tensor([1.0, 1.0])]).double()
    found = density(values.diag(), values[-1:], torch.eye(62).double()[:, -1:], noise_floor=1e-8)
    assert found.sum_of(torch.sqrt).value == pytest.approx(2.0)
    assert found.effective_rank.value == pytest.approx(2.0, rel=1e-6)


@pytest.mark.parametrize("is_stored", [True, False])
def test_the_entropy_is_that_of_what_is_above_the_noise_floor(is_stored):
    """Also where a tenth of the known trace lies under it."""
    values = torch.where(torch.arange(300) < 200, 1e-3, VALUES)
    kernel = (VECTORS * values) @ VECTORS.T
    assert 0.05 < float(values[:200].sum() / values.sum()) < 0.2
    found = density(kernel if is_stored else Products(kernel), values[-20:], VECTORS[:, -20:], noise_floor=1.1e-3)
    assert abs(found.entropy.value - entropy(values[200:])) < 4 * found.entropy.standard_error
    assert found.entropy.standard_error < 0.03


def test_a_zero_kernel_has_no_entropy():
    found = density(Products(torch.zeros(8, 8).double()), torch.zeros(0).double(), torch.zeros(8, 0).double(), noise_floor=0.0)
    assert math.isnan(found.entropy.value)
    assert found.trace.value == 0.0


def test_the_smoothed_density_is_that_of_the_eigenvalues():
    points = torch.logspace(-2.5, -0.5, 9).double()
    exact = [
        float((-0.5 * ((VALUES.log() - math.log(point)) / 0.3).square()).exp().sum()) / (0.3 * math.sqrt(2 * math.pi)) for point in points
    ]
    values, errors = density(KERNEL, VALUES[-20:], VECTORS[:, -20:], noise_floor=0.0, num_probes=64).smoothed(points, width=0.3)
    assert float(((values - torch.tensor(exact)).abs() / (errors + 1e-3)).max()) < 4
    assert float((values - torch.tensor(exact)).abs().max()) < 0.1 * max(exact)


@pytest.mark.parametrize("num_outputs", [1, 3])
def test_a_residuals_density_has_the_moments_of_its_projections(num_outputs):
    """One column on a full kernel, the mean over outputs on a traced one."""
    residual = torch.randn(300, num_outputs, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    weights = (VECTORS.T @ residual).square().sum(1) / residual.square().sum()
    found = residual_density(Products(KERNEL), residual, num_steps=16)
    assert float(found.weights_S.sum()) == pytest.approx(1.0)
    assert found.rayleigh_quotient == pytest.approx(float((residual.T @ KERNEL @ residual).trace() / residual.square().sum()), rel=1e-12)
    for power in range(1, 20):
        assert found.mean_of(lambda values, power=power: values**power) == pytest.approx(float((weights * VALUES**power).sum()), rel=1e-9)
    assert found.mean_of(torch.sqrt) == pytest.approx(float((weights * VALUES.sqrt()).sum()), rel=1e-3)


def test_a_residuals_density_has_its_quantiles():
    residual = VECTORS @ (VALUES**-0.5)
    weights = (VALUES**-1) / (VALUES**-1).sum()
    found = residual_density(KERNEL, residual, num_steps=300)
    for share in (0.1, 0.5, 0.9):
        exact = float(VALUES[int((weights.cumsum(0) < share).sum())])
        assert found.quantile(share) == pytest.approx(exact, rel=1e-6)
    assert found.quantile(1.0) == pytest.approx(float(found.nodes_S[-1]))


def test_a_residuals_smoothed_density_integrates_to_one():
    residual = np.random.default_rng(0).normal(size=(300, 1))
    points = torch.linspace(-12, 3, 2000).double()
    smooth = residual_density(KERNEL, residual).smoothed(points.exp(), width=0.2)
    assert float(torch.trapezoid(smooth, points)) == pytest.approx(1.0, rel=1e-3)


def test_a_residual_in_an_invariant_subspace_stays_there():
    residual = VECTORS[:, [7, 40]].sum(1)
    found = residual_density(Products(KERNEL), residual, num_steps=30)
    lit = found.weights_S > 1e-12
    torch.testing.assert_close(found.nodes_S[lit], VALUES[[7, 40]])
    torch.testing.assert_close(found.weights_S[lit], torch.tensor([0.5, 0.5]).double())


def test_no_residual_has_nan_weights():
    assert residual_density(KERNEL, torch.zeros(300)).weights_S.isnan().all()


def test_trace_and_diagonal_are_exact_if_stored_else_estimated_with_their_errors():
    assert trace(KERNEL).value == pytest.approx(float(VALUES.sum()))
    assert torch.equal(diagonal(KERNEL)[0], KERNEL.diagonal())
    assert not diagonal(KERNEL)[1].any()
    scores = [(one.value - float(VALUES.sum())) / one.standard_error for one in (trace(Products(KERNEL), seed=seed) for seed in range(60))]
    assert 0.7 < statistics.pstdev(scores) < 1.3
    values, errors = diagonal(Products(KERNEL), num_probes=64)
    assert 0.8 < float(((values - KERNEL.diagonal()) / errors).std()) < 1.2


def test_what_cannot_be_estimated_is_refused():
    nothing = torch.zeros(300, 0).double()
    with pytest.raises(ConfigError, match="num_probes must be at least 4 for a standard error, got 3"):
        density(KERNEL, VALUES[:0], nothing, noise_floor=0.0, num_probes=3)
    for setting in ({"num_probes": 8.5}, {"num_steps": "8"}, {"block_size": 0}):
        ((name, value),) = setting.items()
        with pytest.raises(ConfigError, match=f"{name} must be a whole number, at least 1, got {value!r}"):
            density(KERNEL, VALUES[:0], nothing, noise_floor=0.0, **setting)
    with pytest.raises(
        ConfigError, match=r"a residual of shape \(7,\) does not fit a kernel of 300 rows; give \(N, C\), with 300 = N C or N"
    ):
        residual_density(KERNEL, torch.ones(7))
    with pytest.raises(Diverged, match="products with the kernel are not finite; the network behind it diverged"):
        residual_density(Products(KERNEL * torch.nan), torch.ones(300))
