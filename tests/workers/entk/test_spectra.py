"""Spectra of stored kernels and of operators: one interface, one answer, whichever solver it comes from."""

import copy
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from workers.entk.certificates import kernel_error
from workers.entk.kernels import gram
from workers.entk.operators import KernelOperator
from workers.entk.quadrature import Estimate
from workers.entk.spectra import density, is_whole_cheaper, residual_density, spectrum
from workers.errors import ConfigError, Diverged


def a_model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 12), nn.Tanh(), nn.Linear(12, 4)).double()
    return model, torch.randn(15, 3).double(), torch.randn(15, 4).double()


def power_law_kernel(size, exponent=1.2):
    vectors = torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    kernel = (vectors * torch.arange(1, size + 1, dtype=torch.float64) ** -exponent) @ vectors.T
    return (kernel + kernel.T) / 2


@pytest.mark.parametrize("outputs", ["full", "traced"])
def test_the_spectrum_of_an_operator_is_that_of_the_stored_kernel(outputs):
    model, x, residual = a_model()
    stored = spectrum(gram(model, x, outputs=outputs), 6)
    operator = spectrum(KernelOperator(model, x, outputs), 6)
    torch.testing.assert_close(operator.eigenvalues, stored.eigenvalues)
    torch.testing.assert_close(operator.weights(residual), stored.weights(residual), rtol=1e-6, atol=1e-9)
    assert operator.num_rows == stored.num_rows
    assert operator.certificate.residual_norm < 1e-9


@settings(max_examples=30, deadline=None)
@given(size=st.integers(1, 40), rank=st.integers(1, 40), data=st.data())
def test_all_or_some_with_or_without_vectors_are_the_same_eigenvalues(size, rank, data):
    num = data.draw(st.none() | st.integers(1, size), label="num_eigenvalues")
    factor = torch.randn(size, min(rank, size), generator=torch.Generator().manual_seed(rank), dtype=torch.float64)
    kernel = factor @ factor.T
    exact = torch.linalg.eigvalsh(kernel)[-(num or size) :]
    for eigenvectors in (True, False):
        found = spectrum(kernel, num, eigenvectors=eigenvectors)
        torch.testing.assert_close(found.eigenvalues, exact, rtol=0, atol=1e-12 * float(exact[-1]))
        assert (found.eigenvectors is None) != eigenvectors
        assert found.is_whole == (num in (None, size))


@pytest.mark.parametrize("eigenvectors", [True, False])
def test_a_large_kernel_goes_to_lanczos_and_gives_what_the_dense_solver_gives(eigenvectors):
    kernel, looks = power_law_kernel(1024), []
    found = spectrum(kernel, 10, eigenvectors=eigenvectors, callback=looks.append)
    assert looks
    torch.testing.assert_close(found.eigenvalues, torch.linalg.eigvalsh(kernel)[-10:], rtol=0, atol=1e-10)
    resumed = spectrum(kernel, 10, eigenvectors=eigenvectors, state=looks[0].state())
    assert torch.equal(resumed.eigenvalues, found.eigenvalues)


def test_the_dense_solver_is_for_small_kernels_and_large_parts():
    assert is_whole_cheaper(1023, 5, eigenvectors=True)
    assert not is_whole_cheaper(1024, 51, eigenvectors=True)
    assert is_whole_cheaper(1024, 52, eigenvectors=True)
    assert is_whole_cheaper(1024, 11, eigenvectors=False)
    assert is_whole_cheaper(10**6, None, eigenvectors=False)


def test_numpy_and_torch_kernels_have_one_spectrum():
    kernel = power_law_kernel(30)
    assert torch.equal(spectrum(kernel).eigenvalues, spectrum(kernel.numpy()).eigenvalues)


def test_weights_are_the_squared_projections_of_the_residual():
    model, x, residual = a_model()
    full, traced = gram(model, x), gram(model, x, outputs="traced")
    _, vectors = np.linalg.eigh(full.numpy())
    slow = [float(np.dot(vectors[:, k], residual.flatten().numpy())) ** 2 / float(residual.square().sum()) for k in range(60)]
    np.testing.assert_allclose(spectrum(full).weights(residual)[-12:], slow[-12:], rtol=1e-6, atol=1e-12)
    _, vectors = np.linalg.eigh(traced.numpy())
    slow = [sum(float(np.dot(vectors[:, k], u)) ** 2 for u in residual.T.numpy()) / float(residual.square().sum()) for k in range(15)]
    np.testing.assert_allclose(spectrum(traced).weights(residual.numpy())[-6:], slow[-6:], rtol=1e-6)
    assert float(spectrum(full).weights(residual).sum()) == pytest.approx(1.0)


def test_no_residual_gives_nan_weights():
    assert spectrum(torch.eye(4)).weights(torch.zeros(2, 2)).isnan().all()


def test_eigenvalues_under_the_floor_are_marked():
    found = spectrum(torch.tensor([1e-20, 1e-3, 1.0]).double().diag())
    assert found.above_noise.tolist() == [False, True, True]


def test_an_error_that_was_measured_before_is_the_floor_of_one_that_is_measured_now():
    exact = power_law_kernel(60)
    rounded, tile = exact.float(), lambda rows, columns: exact[rows][:, columns]
    before, now = spectrum(rounded, error=kernel_error(rounded, tile)), spectrum(rounded, exact_tile=tile)
    assert before.certificate == now.certificate
    assert before.certificate.kernel_error.value > 0
    assert before.noise_floor < spectrum(rounded).noise_floor


@pytest.mark.parametrize("error", [Estimate(math.nan, 0.0), Estimate(-1.0, 0.0), Estimate(1.0, math.inf), 0.1])
def test_an_error_that_is_no_norm_is_refused(error):
    with pytest.raises(ConfigError, match=f"error must be an Estimate of a norm, .*, got {re.escape(repr(error))}; kernel_error"):
        spectrum(power_law_kernel(5), error=error)


def test_an_error_is_measured_or_given():
    with pytest.raises(ConfigError, match="exact_tile measures the kernel's error and error gives it: give one of the two"):
        spectrum(power_law_kernel(5), exact_tile=lambda rows, columns: torch.zeros(5, 5), error=Estimate(0.0, 0.0))


def test_a_density_knows_the_largest_eigenvalues_and_the_entropy():
    kernel = power_law_kernel(200)
    values = torch.linalg.eigvalsh(kernel)
    exact = float(torch.special.entr(values / values.sum()).sum())
    for largest in (20, spectrum(kernel, 20), 0):
        found = density(kernel, largest)
        assert abs(found.entropy.value - exact) < 4 * found.entropy.standard_error
        assert found.entropy.standard_error < 0.02 * exact
        assert found.trace.value == pytest.approx(float(values.sum()))


def test_the_residuals_density_has_the_spectral_position_of_the_spectrum():
    model, x, residual = a_model()
    kernel = gram(model, x)
    found = residual_density(KernelOperator(model, x), residual)
    whole = spectrum(kernel)
    position = float((whole.weights(residual) * whole.eigenvalues).sum() / kernel.trace())
    assert found.rayleigh_quotient / float(kernel.trace()) == pytest.approx(position, rel=1e-10)


def test_a_jacobian_of_another_library_has_a_spectrum_and_a_density():
    jacobian = np.random.default_rng(0).normal(size=(60, 20))
    operator = KernelOperator.from_products(
        vjp=lambda v: jacobian.T @ v, jvp=lambda u: jacobian @ u, shape=(60, 60), dtype=torch.float64, as_array=np.asarray
    )
    exact = np.linalg.svd(jacobian)[1] ** 2
    np.testing.assert_allclose(spectrum(operator, 20).eigenvalues, exact[::-1], rtol=1e-9)
    entropy = -sum(p * np.log(p) for p in exact / exact.sum())
    assert density(operator, 20).entropy.value == pytest.approx(entropy, rel=1e-9)


@pytest.mark.parametrize(
    ("kernel", "num", "error", "message"),
    [
        (torch.zeros(3, 4), None, ConfigError, r"of a square kernel, got one of shape \(3, 4\); take K\(X, X\)"),
        (torch.eye(3), 4, ConfigError, "must be between 1 and 3, the rows of the kernel, got 4"),
        (torch.eye(3), 0, ConfigError, "must be between 1 and 3, the rows of the kernel, got 0"),
        (torch.eye(3), True, ConfigError, "must be between 1 and 3, the rows of the kernel, got True"),
        (torch.eye(3), 2.0, ConfigError, "must be between 1 and 3, the rows of the kernel, got 2.0"),
        (torch.eye(3), "3", ConfigError, "must be between 1 and 3, the rows of the kernel, got '3'"),
        (torch.tensor([[1.0, torch.nan], [0.0, 1.0]]), None, Diverged, "the kernel has 1 entries that are no numbers"),
        (torch.tensor([[1.0, torch.nan], [0.0, 1.0]]), 1, Diverged, "the kernel has 1 entries that are no numbers"),
    ],
)
def test_what_has_no_spectrum_is_refused(kernel, num, error, message):
    with pytest.raises(error, match=message):
        spectrum(kernel, num)


def test_all_eigenvalues_of_an_operator_are_refused():
    model, x, _ = a_model()
    with pytest.raises(ConfigError, match=r"all 60 eigenvalues of an operator would need its matrix; give .* or take density\(operator\)"):
        spectrum(KernelOperator(model, x))


def test_weights_and_densities_need_eigenvectors():
    kernel = torch.eye(4)
    with pytest.raises(ConfigError, match=r"weights need eigenvectors: spectrum\(K, eigenvectors=True\), or take residual_density"):
        spectrum(kernel, eigenvectors=False).weights(torch.ones(4))
    with pytest.raises(ConfigError, match="density needs a spectrum of the same kernel with its eigenvectors"):
        density(kernel, spectrum(kernel, 2, eigenvectors=False))
    with pytest.raises(ConfigError, match="density needs a spectrum of the same kernel"):
        density(kernel, spectrum(torch.eye(5)))
    for largest in ("a", 2.0, True, -1, None):
        with pytest.raises(ConfigError, match=f"largest must be a number of eigenvalues, at least 0, or a Spectrum .*, got {largest!r}"):
            density(kernel, largest)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_what_the_cpu_gives():
    model, x, residual = a_model()
    kernel = power_law_kernel(1024)
    on_gpu, on_cpu = spectrum(kernel.cuda(), 10), spectrum(kernel, 10)
    torch.testing.assert_close(on_gpu.eigenvalues.cpu(), on_cpu.eigenvalues, rtol=0, atol=1e-10)
    assert on_gpu.eigenvectors.is_cuda
    assert density(kernel.cuda(), on_gpu).entropy.value == pytest.approx(density(kernel, on_cpu).entropy.value, rel=0.02)
    operators = KernelOperator(copy.deepcopy(model).cuda(), x.cuda()), KernelOperator(model, x)
    quotients = [residual_density(operator, residual).rayleigh_quotient for operator in operators]
    assert quotients[0] == pytest.approx(quotients[1], rel=1e-9)
    weights = [spectrum(operator, 6).weights(residual) for operator in operators]
    torch.testing.assert_close(weights[0].cpu(), weights[1], rtol=1e-6, atol=1e-9)
