"""The largest eigenpairs by block Lanczos against LAPACK and ARPACK, on spectra that are hard for it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from scipy.sparse.linalg import eigsh

from workers.entk.lanczos import lanczos
from workers.errors import ConfigError, Diverged


def kernel_of(eigenvalues, seed=0):
    """A symmetric matrix with given eigenvalues and random eigenvectors."""
    generator = torch.Generator().manual_seed(seed)
    size = len(eigenvalues)
    vectors = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
    matrix = (vectors * eigenvalues.double()) @ vectors.T
    return (matrix + matrix.T) / 2


def power_law(size, exponent=1.2):
    return torch.arange(1, size + 1, dtype=torch.float64) ** -exponent


def assert_largest(kernel, found, tolerance=1e-10):
    """Values against LAPACK, residuals and orthonormality of the vectors by their definition."""
    num = len(found.eigenvalues_K)
    largest = float(torch.linalg.eigvalsh(kernel)[-1].abs()) or 1.0
    torch.testing.assert_close(found.eigenvalues_K, torch.linalg.eigvalsh(kernel)[-num:], rtol=0, atol=2 * tolerance * largest)
    vectors = found.eigenvectors_RK
    residuals = (kernel @ vectors - vectors * found.eigenvalues_K).norm(dim=0)
    assert float(residuals.max()) <= 1.01 * tolerance * largest
    torch.testing.assert_close(residuals, found.residual_norms_K, rtol=0, atol=1e-12 * largest)
    assert float((vectors.T @ vectors - torch.eye(num)).norm()) < 1e-10


@pytest.mark.parametrize("spectrum", ["power law", "wishart"])
def test_the_largest_eigenpairs_are_those_of_arpack(spectrum):
    size = 600
    noise = torch.randn(size, 2 * size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    kernel = kernel_of(power_law(size)) if spectrum == "power law" else noise @ noise.T / size
    found = lanczos(kernel, 20, tolerance=1e-12)
    values, vectors = eigsh(kernel.numpy(), 20, which="LA", tol=0)
    np.testing.assert_allclose(found.eigenvalues_K, values, rtol=1e-11)
    np.testing.assert_allclose(np.abs((found.eigenvectors_RK.numpy() * vectors).sum(0)), 1, rtol=1e-9)
    assert_largest(kernel, found, 1e-12)


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 90), data=st.data())
def test_any_size_rank_and_number_gives_the_largest(size, data):
    rank = data.draw(st.integers(0, size), label="rank")
    num = data.draw(st.integers(1, size), label="num_eigenpairs")
    block = data.draw(st.integers(1, 20), label="block_size")
    eigenvalues = torch.zeros(size, dtype=torch.float64)
    eigenvalues[:rank] = power_law(rank) if rank else 0
    kernel = kernel_of(eigenvalues, seed=size)
    assert_largest(kernel, lanczos(kernel, num, block_size=block))


@pytest.mark.parametrize(("copies", "num"), [(1, 1), (16, 30), (17, 30), (50, 55), (100, 110)])
def test_every_copy_of_an_eigenvalue_is_found(copies, num):
    """As of a kernel of the readout alone, which is the same for each output."""
    values = torch.cat([torch.full((copies,), 2.0), torch.linspace(0.1, 1, 60), torch.zeros(240)])
    kernel = kernel_of(values)
    assert_largest(kernel, lanczos(kernel, num))


@pytest.mark.parametrize(("size", "rank", "num", "block"), [(51, 43, 21, 1), (78, 65, 49, 1), (75, 57, 20, 2), (60, 40, 60, 3)])
def test_copies_are_found_by_blocks_far_smaller_than_their_number(size, rank, num, block):
    """Nearly every product leads nowhere new: orthogonality is lost unless each such direction is made orthogonal again."""
    kernel = kernel_of(torch.cat([torch.ones(rank), torch.zeros(size - rank)]), seed=size)
    assert_largest(kernel, lanczos(kernel, num, block_size=block))


def test_copies_in_several_eigenvalues_are_found():
    features = torch.randn(60, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kernel = torch.kron(features @ features.T, torch.eye(25, dtype=torch.float64))
    assert_largest(kernel, lanczos(kernel, 70))


@pytest.mark.parametrize("num", [5, 60, 100])
def test_the_zero_kernel_has_zero_eigenvalues(num):
    assert_largest(torch.zeros(100, 100, dtype=torch.float64), lanczos(torch.zeros(100, 100, dtype=torch.float64), num))


@pytest.mark.parametrize("num", [5, 60, 100])
def test_the_identity_has_every_eigenvalue_one(num):
    assert_largest(torch.eye(100, dtype=torch.float64), lanczos(torch.eye(100, dtype=torch.float64), num))


def test_a_kernel_of_a_few_coordinates_has_as_many_eigenvalues():
    kernel = torch.zeros(100, 100, dtype=torch.float64)
    kernel[:3, :3] = torch.ones(3, 3)
    assert_largest(kernel, lanczos(kernel, 60))


def test_an_indefinite_kernel_gives_the_largest_and_meets_the_smallest():
    kernel = kernel_of(torch.linspace(-3, 1, 200))
    found = lanczos(kernel, 4)
    torch.testing.assert_close(found.eigenvalues_K, torch.linalg.eigvalsh(kernel)[-4:])
    assert found.lowest < -2.9


def test_products_in_single_precision_give_orthonormal_vectors_and_small_errors():
    kernel = kernel_of(power_law(500))
    found = lanczos(kernel.float(), 20)
    vectors = found.eigenvectors_RK
    assert float((vectors.T @ vectors - torch.eye(20)).norm()) < 1e-12
    assert float((found.eigenvalues_K - power_law(500)[:20].flip(0)).abs().max()) < 1e-6


def test_a_run_goes_on_from_each_saved_state_to_the_same_eigenpairs():
    noise = torch.randn(300, 600, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    kernel, states = noise @ noise.T, []
    whole = lanczos(kernel, 8, basis_size=60, callback=lambda progress: states.append(save(progress.state())))
    assert len(states) > 6
    for state in states:
        resumed = lanczos(kernel, 8, basis_size=60, state=load(state))
        assert torch.equal(resumed.eigenvalues_K, whole.eigenvalues_K)
        assert torch.equal(resumed.eigenvectors_RK, whole.eigenvectors_RK)
        assert resumed.num_products == whole.num_products


def test_a_run_goes_on_from_each_block_with_what_is_left_of_the_products():
    noise = torch.randn(300, 600, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    kernel, states = noise @ noise.T, {}
    whole = lanczos(kernel, 20, basis_size=70, save=lambda count, state: states.update({count: state()}))
    assert list(states) == [*range(16, whole.num_products, 16), whole.num_products]
    for count, state in states.items():
        blocks: list[int] = []
        resumed = lanczos(kernel, 20, basis_size=70, state=state, save=lambda count, _, blocks=blocks: blocks.append(count))
        torch.testing.assert_close(resumed.eigenvalues_K, whole.eigenvalues_K, rtol=1e-10, atol=0)
        assert len(blocks) * 16 == resumed.num_products - count
        assert resumed.num_products <= whole.num_products
    assert not blocks, "the last state is that of the result"


def test_a_run_goes_on_after_its_block_was_widened():
    kernel, states = kernel_of(torch.cat([torch.full((40,), 2.0), torch.linspace(0, 1, 200)])), []
    whole = lanczos(kernel, 45, callback=lambda progress: states.append(progress.state()))
    for state in states:
        assert torch.equal(lanczos(kernel, 45, state=state).eigenvalues_K, whole.eigenvalues_K)


def test_a_result_goes_on_to_a_smaller_tolerance():
    kernel = kernel_of(power_law(400))
    coarse = lanczos(kernel, 10, tolerance=1e-4)
    fine = lanczos(kernel, 10, tolerance=1e-11, state=coarse.state)
    assert fine.num_products > coarse.num_products
    assert_largest(kernel, fine, 1e-11)


def test_progress_tells_how_many_have_converged():
    kernel, seen = kernel_of(power_law(400)), []
    found = lanczos(kernel, 10, callback=seen.append)
    assert seen[-1].num_converged == 10
    assert [progress.num_products for progress in seen] == sorted({progress.num_products for progress in seen})
    assert torch.equal(seen[-1].ritz_values_K, found.eigenvalues_K)


def test_seeds_give_the_same_values():
    kernel = kernel_of(power_law(300))
    first, second = lanczos(kernel, 10, seed=0), lanczos(kernel, 10, seed=1)
    torch.testing.assert_close(first.eigenvalues_K, second.eigenvalues_K, rtol=1e-9, atol=0)


def test_giving_up_says_how_far_it_came():
    noise = torch.randn(300, 600, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with pytest.raises(Diverged, match=r"\d of 8 eigenpairs converged in \d+ products: the largest residual norm is .*, allowed is"):
        lanczos(noise @ noise.T, 8, basis_size=60, max_products=60)


def test_products_that_are_not_finite_have_diverged():
    kernel = torch.eye(40, dtype=torch.float64)
    kernel[3, 3] = torch.inf
    with pytest.raises(Diverged, match="products with the kernel are not finite after .* the network behind it diverged"):
        lanczos(kernel, 2)


@pytest.mark.parametrize(
    ("shape", "num", "settings", "message"),
    [
        ((4, 5), 2, {}, r"a square kernel, got one of shape \(4, 5\); take K\(X, X\)"),
        ((4, 4), 0, {}, "the number of eigenvalues must be between 1 and 4, the rows of the kernel, got 0"),
        ((4, 4), 5, {}, "between 1 and 4, the rows of the kernel, got 5"),
        ((400, 400), 5, {"block_size": 0}, "block_size must be at least 1, got 0"),
        ((400, 400), 5, {"basis_size": 20}, "basis_size must be at least 53 for 5 eigenvalues with blocks of 16, got 20"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(shape, num, settings, message):
    with pytest.raises(ConfigError, match=message):
        lanczos(torch.zeros(shape, dtype=torch.float64), num, **settings)


def test_the_state_of_another_kernel_is_refused():
    state = lanczos(torch.eye(40, dtype=torch.float64), 2).state
    with pytest.raises(ConfigError, match="the state is of a kernel of 40 rows, got a kernel of 50"):
        lanczos(torch.eye(50, dtype=torch.float64), 2, state=state)
