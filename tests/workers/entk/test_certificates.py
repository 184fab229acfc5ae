"""Certificates of eigenpairs: what they certify, the noise floor from exact tiles, and kernels that have no spectrum."""

import math
import statistics

import numpy as np
import pytest
import torch
from torch import nn

from workers.entk.certificates import asymmetry, certify, kernel_error, noise_floor
from workers.entk.exact_tiles import double_tiles
from workers.entk.kernels import gram
from workers.entk.operators import KernelOperator
from workers.entk.quadrature import Estimate
from workers.entk.spectra import spectrum
from workers.errors import ConfigError, Diverged


def a_kernel(size=200, seed=0):
    factor = torch.randn(size, 2 * size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return factor @ factor.T / size


class Products:
    """A matrix that only multiplies."""

    def __init__(self, matrix):
        self.matrix, self.shape, self.dtype, self.device = matrix, matrix.shape, matrix.dtype, matrix.device

    def __matmul__(self, vectors):
        return self.matrix @ vectors


def tiles_of(exact):
    return lambda rows, columns: exact[rows][:, columns]


def test_a_good_solve_has_small_errors():
    found = spectrum(a_kernel()).certificate
    for name in ("residual_norm", "trace_error", "frobenius_error", "orthogonality"):
        assert getattr(found, name) < 1e-12, name
    assert found.psd
    assert found.kernel_error is None


def test_each_error_of_a_bad_solve_is_seen():
    kernel = a_kernel()
    values, vectors = torch.linalg.eigh(kernel)
    worse_values, worse_vectors = values.clone(), vectors.clone()
    worse_values[-1] *= 1.01
    worse_vectors[:, 0] *= 1.01
    certified = dict(smallest=float(values[0]), asymmetry=0.0, error=None)
    found = certify(kernel, worse_values, worse_vectors, **certified)
    step = 0.01 * float(values[-1])
    assert found.trace_error == pytest.approx(step / float(kernel.trace()), rel=1e-6)
    assert found.frobenius_error == pytest.approx(2.01 * step * float(values[-1]) / float(kernel.norm()) ** 2, rel=1e-6)
    assert found.residual_norm == pytest.approx(step / float(kernel.norm()), rel=1e-6)
    assert found.orthogonality == pytest.approx(1.01**2 - 1, rel=1e-6)


def test_a_part_of_a_spectrum_has_no_trace_identity_and_values_alone_no_residual():
    kernel = a_kernel()
    values, vectors = torch.linalg.eigh(kernel)
    part = certify(kernel, values[-5:], vectors[:, -5:], smallest=0.0, asymmetry=0.0, error=None)
    alone = certify(kernel, values, None, smallest=0.0, asymmetry=0.0, error=None)
    assert math.isnan(part.trace_error)
    assert math.isnan(part.frobenius_error)
    assert part.residual_norm < 1e-12
    assert math.isnan(alone.residual_norm)
    assert math.isnan(alone.orthogonality)
    assert alone.trace_error < 1e-12


def test_the_noise_floor_is_that_of_the_kernels_own_precision():
    matrix = np.diag(np.arange(1.0, 9.0))
    assert spectrum(matrix.astype(np.float32)).noise_floor == pytest.approx(8 * 8 * np.finfo(np.float32).eps)
    assert spectrum(matrix).noise_floor == pytest.approx(8 * 8 * np.finfo(np.float64).eps)


def test_the_kernels_error_from_tiles_is_its_norm_within_its_standard_error():
    kernel = a_kernel()
    error = 1e-3 * a_kernel(seed=1)
    scores = []
    for seed in range(60):
        found = kernel_error(kernel + error, tiles_of(kernel), seed=seed)
        scores.append((found.value - float(error.norm())) / found.standard_error)
    assert abs(statistics.mean(scores)) < 0.5
    assert 0.7 < statistics.pstdev(scores) < 1.5


@pytest.mark.parametrize("size", [1, 2, 33, 40])
def test_an_even_error_is_known_without_doubt(size):
    found = kernel_error(a_kernel(size) + 0.01, tiles_of(a_kernel(size)))
    assert found.value == pytest.approx(0.01 * size)
    assert found.standard_error == pytest.approx(0, abs=1e-9)


def test_the_kernels_error_of_an_operator_is_that_of_its_matrix():
    kernel, noisy = a_kernel(), a_kernel() + 1e-3 * a_kernel(seed=1)
    stored, products = (kernel_error(operator, tiles_of(kernel)) for operator in (noisy, Products(noisy)))
    assert stored.value == pytest.approx(products.value)


@pytest.mark.parametrize("size", [1, 7, 33, 200])
def test_no_eigenvalue_is_off_by_more_than_the_noise_floor(size):
    """Weyl's bound, for the error of a kernel in half precision."""
    exact = a_kernel(size)
    rounded = exact.to(torch.bfloat16).double()
    found = spectrum(rounded, exact_tile=tiles_of(exact))
    assert float((found.eigenvalues - torch.linalg.eigvalsh(exact)).abs().max()) <= found.noise_floor
    assert found.noise_floor < 1.5 * float((rounded - exact).norm())


def test_an_exact_kernels_floor_is_the_rounding_of_the_eigensolver():
    kernel = a_kernel(50)
    found = spectrum(kernel, exact_tile=tiles_of(kernel))
    assert found.certificate.kernel_error.value == 0.0
    assert found.noise_floor == pytest.approx(50 * 2.0**-52 * float(found.eigenvalues[-1]))


def test_a_tile_of_another_kind_is_refused():
    kernel = a_kernel(50)
    with pytest.raises(ConfigError, match=r"exact_tile must give a float64 tensor of shape \(32, 32\), got torch.float32 \(32, 32\)"):
        kernel_error(kernel, tiles_of(kernel.float()))
    with pytest.raises(ConfigError, match="got ndarray"):
        kernel_error(kernel, lambda rows, columns: kernel.numpy()[np.ix_(rows, columns)])


def test_tiles_of_another_kernel_are_refused():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4)).double(), torch.randn(20, 3).double()
    message = r"the kernel differs from its exact tiles by .*, and their norm is .*: they are of different kernels. Give tiles of the same"
    for kernel in (gram(model, x, outputs="traced"), 4 * gram(model, x), gram(model, x).view(20, 4, 20, 4).transpose(0, 1).reshape(80, 80)):
        with pytest.raises(ConfigError, match=message):
            kernel_error(kernel, double_tiles(model, x))
    with pytest.raises(ConfigError, match="row 7[0-9] of a kernel of 20 rows; a kernel of more has other samples than x, or other outputs"):
        kernel_error(gram(model, x), double_tiles(model, x, "traced"))


def test_tiles_that_are_no_numbers_are_those_of_a_network_that_diverged():
    with pytest.raises(Diverged, match="the exact tiles have numbers that are not finite"):
        kernel_error(a_kernel(50), tiles_of(a_kernel(50) * torch.nan))


@pytest.mark.parametrize("outputs", ["full", "traced"])
def test_double_tiles_of_a_model_are_those_of_its_double_kernel(outputs):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4)), torch.randn(20, 3)
    exact = gram(nn.Sequential(*model).double(), x.double(), outputs=outputs)
    model = model.float()
    tile = double_tiles(model, x, outputs)
    rows, columns = torch.tensor([3, 4, 5, 6, 7, 19]), torch.tensor([18, 19, 0, 1])
    torch.testing.assert_close(tile(rows, columns), exact[rows][:, columns])
    assert model[0].weight.dtype == torch.float32


def test_the_floor_of_a_model_in_single_precision_is_its_error():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(3, 30), nn.Tanh(), nn.Linear(30, 4)), torch.randn(20, 3)
    single = gram(model, x)
    exact = gram(nn.Sequential(*model).double(), x.double())
    model.float()
    found = spectrum(single, exact_tile=double_tiles(model, x))
    error = float((single.double() - exact).norm())
    assert 0.5 * error < found.noise_floor < 3 * error
    assert float((found.eigenvalues - torch.linalg.eigvalsh(exact)).abs().max()) < found.noise_floor
    operator = spectrum(KernelOperator(model, x), 5, exact_tile=double_tiles(model, x))
    assert float((operator.eigenvalues - torch.linalg.eigvalsh(exact)[-5:]).abs().max()) < 1e-5 * float(operator.eigenvalues[-1])


@pytest.mark.parametrize("wrap", [lambda kernel: kernel, Products])
def test_a_kernel_that_is_not_symmetric_is_refused(wrap):
    kernel = a_kernel(60)
    skewed = kernel + 1e-6 * torch.randn(60, 60, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with pytest.raises(
        ConfigError, match=r"not symmetric: \|\|K - K\^T\|\| / \|\|K\|\| is .*e-0[67], and at most 2.22e-14 is rounding; .* cross kernel"
    ):
        spectrum(wrap(skewed), 3)
    assert spectrum(wrap(kernel), 3).certificate.asymmetry < 1e-14


def test_the_asymmetry_of_an_operator_is_estimated_without_bias():
    skewed = a_kernel(60) + torch.randn(60, 60, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = [asymmetry(Products(skewed), seed=seed) ** 2 for seed in range(400)]
    assert statistics.mean(found) == pytest.approx(asymmetry(skewed) ** 2, rel=0.02)


@pytest.mark.parametrize("wrap", [lambda kernel: kernel, Products])
def test_a_kernel_with_negative_eigenvalues_is_refused(wrap):
    kernel = torch.tensor([-1.0, 2.0, 3.0]).double().diag()
    message = r"not positive semidefinite: it has an eigenvalue -1, below minus its noise floor 6.66e-14; .* J J\^T"
    with pytest.raises(ConfigError, match=message):
        spectrum(wrap(kernel), 2)


def test_negative_eigenvalues_within_the_noise_are_none():
    factor = torch.randn(50, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = spectrum((factor @ factor.T).float())
    assert float(found.eigenvalues[0]) < 0
    assert found.certificate.psd
    assert int(found.above_noise.sum()) == 10


def test_the_floor_is_two_standard_errors_above_the_kernels_error():
    kernel = a_kernel(50).float()
    assert noise_floor(kernel, 2.0, None) == pytest.approx(50 * 2 * 2.0**-23)
    # two standard errors above the squared norm, 1 + 4 x 0.25
    assert noise_floor(kernel, 2.0, Estimate(1.0, 0.25)) == pytest.approx(2**0.5)
