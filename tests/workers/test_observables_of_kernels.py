"""Observables of one kernel against gradients written out one by one, and against closed forms."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workers import entk, kernel_data
from workers.errors import ConfigError, Diverged
from workers.kernel_data import class_averaged, loss_kernel, observe_kernel, of_spectrum, spectrum_of, traced
from workers.observables.class_divergence import class_divergence
from workers.observables.class_entropy import class_entropy
from workers.observables.cosine_entropy import cosine_entropy
from workers.observables.fisher_trace import fisher_trace
from workers.observables.gradient_noise_scale import gradient_noise_scale
from workers.observables.loss_derivative_norm import loss_derivative_norm
from workers.observables.magnitude_variance import magnitude_variance
from workers.observables.neural_mutual_information import neural_mutual_information
from workers.observables.residual_alignment import residual_alignment
from workers.observables.self_entropy import self_entropy
from workers.observables.spectral_position import spectral_position
from workers.observables.target_alignment import target_alignment
from workers.observables.target_alignment_centred import target_alignment_centred
from workers.observables.target_position import target_position
from workers.spectrum_data import observe

# N units; C outputs; P parameters


def gradients(num_units, num_outputs, num_params, seed=0):
    """J (N, C, P) and residuals (N, C)."""
    random = np.random.default_rng(seed)
    scale_N = random.uniform(0.3, 3.0, (num_units, 1, 1))
    return random.standard_normal((num_units, num_outputs, num_params)) * scale_N, random.standard_normal((num_units, num_outputs))


def full(jacobian_NCP):
    rows = jacobian_NCP.reshape(-1, jacobian_NCP.shape[-1])
    return rows @ rows.T


def mean_over_outputs(jacobian_NCP):
    return sum(jacobian_NCP[:, c] @ jacobian_NCP[:, c].T for c in range(jacobian_NCP.shape[1])) / jacobian_NCP.shape[1]


def entropy_of_rows(rows) -> float:
    """Von Neumann entropy by the singular values of the gradients, without a kernel."""
    squares = np.linalg.svd(rows, compute_uv=False) ** 2
    return -math.fsum(q * math.log(q) for q in squares / squares.sum() if q > 1e-14)


sizes = st.tuples(st.integers(2, 7), st.integers(1, 4), st.integers(1, 30), st.integers(0, 2**32 - 1))


@settings(max_examples=40, deadline=None)
@given(sizes)
def test_each_observable_of_a_full_kernel_is_its_plain_sum_over_gradients(size):
    jacobian_NCP, residuals_NC = gradients(*size)
    num_units, num_outputs, _, _ = size
    rows, u = jacobian_NCP.reshape(num_units * num_outputs, -1), residuals_NC.reshape(-1)
    norms = [math.sqrt(math.fsum(g * g for g in row)) for row in rows]
    own = [jacobian_NCP[n].T @ residuals_NC[n] for n in range(num_units)]
    products = [[math.fsum(a * b for a, b in zip(one, other)) for other in rows] for one in rows]
    frobenius = math.sqrt(math.fsum(value**2 for line in products for value in line))
    form = math.fsum(u[i] * products[i][j] * u[j] for i in range(len(u)) for j in range(len(u)))
    signal = sum(own[i] @ own[j] for i in range(num_units) for j in range(num_units) if i != j) / (num_units * (num_units - 1))
    noise = sum(one @ one for one in own) / num_units - signal
    expected = {
        "cosine_entropy": entropy_of_rows(rows / np.array(norms)[:, None]),
        "self_entropy": -math.fsum(m / sum(norms) * math.log(m / sum(norms)) for m in norms),
        "magnitude_variance": np.var(norms) / np.mean(norms) ** 2,
        "residual_alignment": form / (frobenius * (u @ u)),
        "loss_derivative_norm": math.sqrt(math.fsum(value**2 for value in u)),
        "fisher_trace": sum(one @ one for one in own) / num_units,
        "gradient_noise_scale": noise / signal,
    }
    found = observe_kernel(full(jacobian_NCP), residuals_NC)
    assert set(found) == set(expected)
    assert found == pytest.approx(expected, rel=1e-7, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(sizes)
def test_each_observable_of_a_traced_kernel_is_its_plain_sum_over_gradients(size):
    jacobian_NCP, residuals_NC = gradients(*size)
    num_units, num_outputs, _, seed = size
    labels_N = np.random.default_rng(seed).integers(0, 3, num_units)
    targets_NC = np.random.default_rng(seed).standard_normal((num_units, num_outputs))
    # the traced kernel is that of the outputs' gradients side by side
    rows = jacobian_NCP.reshape(num_units, -1) / math.sqrt(num_outputs)
    kernel = rows @ rows.T
    means = [np.mean([rows[n] for n in range(num_units) if labels_N[n] == label], axis=0) for label in sorted(set(labels_N.tolist()))]
    outer, residual_outer = targets_NC @ targets_NC.T, residuals_NC @ residuals_NC.T
    centre = np.eye(num_units) - 1 / num_units
    expected = {
        "cosine_entropy_traced": entropy_of_rows(rows / np.linalg.norm(rows, axis=1, keepdims=True)),
        "class_entropy_traced": entropy_of_rows(np.array(means)),
        "residual_alignment_traced": (kernel * residual_outer).sum() / np.linalg.norm(kernel) / np.linalg.norm(residual_outer),
        "target_alignment_traced": (kernel * outer).sum() / np.linalg.norm(kernel) / np.linalg.norm(outer),
        "target_alignment_centred_traced": (centre @ kernel @ centre * (centre @ outer @ centre)).sum()
        / np.linalg.norm(centre @ kernel @ centre)
        / np.linalg.norm(centre @ outer @ centre),
        "target_position_traced": sum(targets_NC[:, c] @ kernel @ targets_NC[:, c] for c in range(num_outputs))
        / (targets_NC**2).sum()
        / np.trace(kernel),
    }
    found = observe_kernel(mean_over_outputs(jacobian_NCP), residuals_NC, targets_NC, labels_N)
    if num_outputs == 1:
        assert not any(name.endswith("_traced") for name in found)
        found = {f"{name}_traced": value for name, value in found.items()}
    else:
        assert {"loss_derivative_norm"} == {name for name in found if not name.endswith("_traced")}, "no kernel enters it"
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-7, abs=1e-9), name


def test_what_is_left_out_is_not_computed():
    jacobian_NCP, residuals_NC = gradients(4, 2, 9)
    whole, part = (observe_kernel(full(jacobian_NCP), residuals_NC, without=without) for without in ((), ("cosine_entropy",)))
    assert set(whole) - set(part) == {"cosine_entropy"}


def test_torch_tensors_give_the_same_numbers():
    jacobian_NCP, residuals_NC = gradients(5, 3, 20)
    arrays = full(jacobian_NCP), residuals_NC, np.eye(3)[[0, 1, 2, 0, 1]], np.array([0, 1, 2, 0, 1])
    tensors = [torch.from_numpy(one).clone() for one in arrays]
    tensors[1].requires_grad_()
    assert observe_kernel(*tensors) == observe_kernel(*arrays)


# -- closed forms ------------------------------------------------------------------------------------------------------------


def test_equal_gradients_have_the_largest_self_entropy_and_no_angles():
    ones = np.ones((6, 6))
    assert self_entropy(ones) == pytest.approx(math.log(6))
    assert self_entropy(ones, normalised=True) == pytest.approx(1.0)
    assert magnitude_variance(ones) == 0.0
    assert cosine_entropy(ones) == pytest.approx(0.0, abs=1e-12)


def test_orthogonal_gradients_have_the_largest_cosine_entropy_whatever_their_lengths():
    kernel = np.diag([1.0, 4.0, 25.0])
    assert cosine_entropy(kernel) == pytest.approx(math.log(3))
    assert cosine_entropy(kernel, normalised=True) == pytest.approx(1.0)
    assert magnitude_variance(kernel) == pytest.approx(np.var([1, 2, 5]) / (8 / 3) ** 2)


@pytest.mark.parametrize("function", [cosine_entropy, self_entropy, magnitude_variance])
def test_the_scale_of_a_kernel_does_not_enter(function):
    kernel = full(gradients(5, 2, 30)[0])
    assert function(1e-12 * kernel) == pytest.approx(function(kernel))


def test_a_row_without_gradient_counts_as_zero():
    kernel = np.diag([0.0, 1.0, 4.0])
    assert cosine_entropy(kernel) == pytest.approx(math.log(2))
    assert self_entropy(kernel) == pytest.approx(-(1 / 3) * math.log(1 / 3) - (2 / 3) * math.log(2 / 3))


def test_rounding_of_a_kernel_in_single_precision_is_no_entropy():
    rows = np.random.default_rng(0).standard_normal((200, 1)) @ np.ones((1, 3))
    kernel = (rows @ rows.T).astype(np.float32)
    assert cosine_entropy(kernel) == 0.0
    assert cosine_entropy(kernel.astype(np.float64)) > 1e-7


@pytest.mark.parametrize("function", [cosine_entropy, self_entropy])
def test_one_row_has_no_normalised_entropy(function):
    assert math.isnan(function(np.ones((1, 1)), normalised=True))


def test_a_kernel_of_zeros_has_no_observables():
    found = observe_kernel(np.zeros((4, 4)), np.ones((2, 2)), np.ones((2, 2)))
    assert {name for name, value in found.items() if not math.isnan(value)} == {"loss_derivative_norm", "fisher_trace"}


def test_a_kernel_made_of_the_targets_is_aligned_with_them():
    targets_NC = np.eye(3)[[0, 1, 2, 0, 1, 0]]
    assert target_alignment(targets_NC @ targets_NC.T, targets_NC) == pytest.approx(1.0)
    assert target_alignment_centred(targets_NC @ targets_NC.T + 7.0, targets_NC) == pytest.approx(1.0), "a constant is taken off"
    y = targets_NC.reshape(-1, 1)
    assert target_alignment(y @ y.T, targets_NC) == pytest.approx(1.0)
    assert target_position(y @ y.T, targets_NC) == pytest.approx(1.0)
    assert target_alignment(np.eye(6), targets_NC) == pytest.approx(np.sqrt(6 / 14)), "||Y||^2 = 6, ||Y Y^T||^2 = 9 + 4 + 1"


@pytest.mark.parametrize("kind", ["full", "traced"])
def test_the_position_of_targets_is_the_spectral_position_of_squared_error_at_zero_outputs(kind):
    jacobian_NCP, targets_NC = gradients(5, 3, 40)
    kernel = full(jacobian_NCP) if kind == "full" else mean_over_outputs(jacobian_NCP)
    assert target_position(kernel, targets_NC) == pytest.approx(spectral_position(spectrum_of(kernel, -targets_NC)))


def test_residual_alignment_is_the_spectral_position_with_the_trace_in_place_of_the_norm():
    jacobian_NCP, residuals_NC = gradients(5, 3, 40)
    kernel = full(jacobian_NCP)
    position = spectral_position(spectrum_of(kernel, residuals_NC))
    assert residual_alignment(kernel, residuals_NC) == pytest.approx(position * np.trace(kernel) / np.linalg.norm(kernel))


def test_norms_of_the_loss_derivative():
    residuals_NC = np.array([[3.0, -4.0], [0.0, 5.0]])
    assert loss_derivative_norm(residuals_NC) == pytest.approx(math.sqrt(50))
    assert loss_derivative_norm(residuals_NC, inner=2, outer=1) == pytest.approx(10.0)
    assert loss_derivative_norm(residuals_NC, inner=1, outer=2) == pytest.approx(math.sqrt(49 + 25))
    assert loss_derivative_norm(residuals_NC, inner=3, outer=3) == pytest.approx((27 + 64 + 125) ** (1 / 3))


def test_the_loss_kernel_adds_up_to_the_squared_gradient():
    jacobian_NCP, residuals_NC = gradients(6, 3, 11)
    kernel = loss_kernel(full(jacobian_NCP), residuals_NC)
    gradient_P = np.einsum("ncp,nc->p", jacobian_NCP, residuals_NC) / 6
    assert kernel.sum() / 36 == pytest.approx(gradient_P @ gradient_P)
    assert fisher_trace(full(jacobian_NCP), residuals_NC) == pytest.approx(np.trace(kernel) / 6)


def test_the_parts_of_the_noise_scale_are_unbiased():
    """Averaged over all pairs out of a population of units, ||g||^2 and tr Sigma are those of the population."""
    jacobian_NCP, residuals_NC = gradients(7, 1, 5)
    own = jacobian_NCP[:, 0] * residuals_NC
    signals, totals = [], []
    for i in range(7):
        for j in range(i):
            kernel, residuals = full(jacobian_NCP[[i, j]]), residuals_NC[[i, j]]
            total = fisher_trace(kernel, residuals)
            signals.append(total / (gradient_noise_scale(kernel, residuals) + 1))
            totals.append(total)
    pairs = [own[i] @ own[j] for i in range(7) for j in range(7) if i != j]
    assert np.mean(signals) == pytest.approx(np.mean(pairs))
    assert np.mean(totals) == pytest.approx((own**2).sum() / 7)


def test_the_noise_scale_of_equal_and_of_single_units():
    assert gradient_noise_scale(np.ones((3, 3)), np.ones((3, 1))) == pytest.approx(0.0, abs=1e-12)
    assert math.isnan(gradient_noise_scale(np.ones((1, 1)), np.ones((1, 1))))
    assert math.isnan(gradient_noise_scale(np.eye(3), np.ones((3, 1)))), "no signal at all"


def test_the_traced_kernel_of_a_full_one():
    jacobian_NCP, _ = gradients(4, 3, 10)
    np.testing.assert_allclose(traced(full(jacobian_NCP), 3), mean_over_outputs(jacobian_NCP))


def test_the_spectrum_of_a_kernel_has_its_observables():
    jacobian_NCP, residuals_NC = gradients(6, 3, 40)
    found = observe(spectrum_of(full(jacobian_NCP), residuals_NC))
    gradient_P = np.einsum("ncp,nc->p", jacobian_NCP, residuals_NC)
    assert found["trace"] == pytest.approx((jacobian_NCP**2).sum() / 18)
    assert found["spectral_position"] == pytest.approx(gradient_P @ gradient_P / (residuals_NC**2).sum() / (jacobian_NCP**2).sum())
    of_traced = observe(spectrum_of(mean_over_outputs(jacobian_NCP), residuals_NC))
    assert of_traced["trace_traced"] == pytest.approx(found["trace"])
    assert math.isnan(observe(spectrum_of(full(jacobian_NCP)))["spectral_position"])
    assert math.isnan(observe(spectrum_of(full(jacobian_NCP), 0 * residuals_NC))["spectral_position"])


@pytest.mark.parametrize("kernel", [full, mean_over_outputs])
def test_what_the_engine_found_has_the_observables_of_its_kernel(kernel):
    jacobian_NCP, residuals_NC = gradients(12, 3, 60)
    theta = kernel(jacobian_NCP)
    found, reference = observe(of_spectrum(entk.spectrum(theta), residuals_NC)), observe(spectrum_of(theta, residuals_NC))
    assert found == pytest.approx(reference, rel=1e-9, nan_ok=True)
    assert math.isnan(observe(of_spectrum(entk.spectrum(theta)))["spectral_position"])
    assert all(math.isnan(value) for value in observe(of_spectrum(entk.spectrum(theta, 5), residuals_NC)).values())


def test_residuals_with_several_axes_of_units_are_refused():
    theta = entk.spectrum(full(gradients(12, 3, 60)[0]))
    with pytest.raises(ConfigError, match=r"got the shape \(4, 3, 3\); take both from the same units, all of them along one axis"):
        of_spectrum(theta, np.ones((4, 3, 3)))


def test_the_observables_of_a_spectrum_have_its_own_noise_floor():
    theta = full(gradients(12, 3, 60)[0])
    tenth = float(np.linalg.eigvalsh(theta)[-10])
    found = entk.spectrum(theta, error=entk.Estimate(1.001 * tenth, 0.0), eigenvectors=False)
    assert observe(of_spectrum(found))["num_above_noise"] == 9


# -- classes -----------------------------------------------------------------------------------------------------------------


def test_the_class_averaged_kernel_is_that_of_the_mean_gradients():
    rows = np.random.default_rng(1).standard_normal((5, 8))
    means = np.array([rows[[1, 4]].mean(0), rows[0], rows[[2, 3]].mean(0)])
    np.testing.assert_allclose(class_averaged(rows @ rows.T, np.array([7, 2, 9, 9, 2])), means @ means.T)


def test_orthogonal_classes_of_one_size_have_all_class_entropy():
    labels = np.array([0, 0, 1, 1, 2, 2])
    assert class_entropy((labels[:, None] == labels).astype(float), labels) == pytest.approx(math.log(3))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_entropies_of_classes_are_those_of_their_gradients(num_first, num_second, num_params, seed):
    rows = np.random.default_rng(seed).standard_normal((num_first + num_second + 2, num_params))
    labels = np.array([3] * num_first + [5] * num_second + [8] * 2)
    first, second, both = (entropy_of_rows(rows[np.isin(labels, group)]) for group in ([3], [5], [3, 5]))
    share = (rows[labels == 3] ** 2).sum() / (rows[labels != 8] ** 2).sum()
    kernel = rows @ rows.T
    information = first + second - both
    assert neural_mutual_information(kernel, labels, [3], [5], normalised=False) == pytest.approx(information, abs=1e-9)
    if first + second > 1e-6:
        assert neural_mutual_information(kernel, labels, [3], [5]) == pytest.approx(2 * information / (first + second), abs=1e-6)
    most = -share * math.log(share) - (1 - share) * math.log(1 - share)
    divergence = class_divergence(kernel, labels, [3], [5])
    assert divergence == pytest.approx((both - share * first - (1 - share) * second) / most, abs=1e-9)
    assert -1e-9 < divergence < 1 + 1e-9


@pytest.mark.parametrize("size", [2, 3, 8])
def test_ends_of_mutual_information_and_divergence(size):
    """Equal classes share all; classes of orthogonal gradients still have the mutual information ln n - ln 2."""
    labels = np.repeat([0, 1], size)
    same, apart = np.tile(np.eye(size), (2, 2)), np.eye(2 * size)
    assert neural_mutual_information(same, labels, [0], [1]) == pytest.approx(1.0)
    assert neural_mutual_information(apart, labels, [0], [1], normalised=False) == pytest.approx(math.log(size) - math.log(2))
    assert class_divergence(same, labels, [0], [1]) == pytest.approx(0.0, abs=1e-12)
    assert class_divergence(apart, labels, [0], [1]) == pytest.approx(1.0)


def test_classes_of_one_unit_have_a_divergence_but_no_normalised_information():
    labels = np.array([0, 1])
    assert math.isnan(neural_mutual_information(np.eye(2), labels, [0], [1]))
    assert class_divergence(np.eye(2), labels, [0], [1]) == pytest.approx(1.0)
    for one in (0.0, 1.0):
        assert math.isnan(class_divergence(np.diag([one, 1.0 - one]), labels, [0], [1])), "a class without gradient"


# -- what is refused ---------------------------------------------------------------------------------------------------------


def test_a_label_that_no_unit_has_is_refused():
    with pytest.raises(ConfigError, match=r"no unit has a label in \[4\]; there are 0, 1"):
        neural_mutual_information(np.eye(3), np.array([0, 1, 1]), [0], [4])


def test_labels_beside_a_full_kernel_are_refused():
    with pytest.raises(ConfigError, match=r"one label for each of its 6 rows, got labels of shape \(3,\)"):
        class_entropy(np.eye(6), np.array([0, 1, 1]))


@pytest.mark.parametrize("shape", [(3, 4), (2, 2, 3, 3), (0, 0), (4,)])
def test_what_is_no_square_matrix_is_refused(shape):
    with pytest.raises(ConfigError, match=r"a kernel must be a square matrix, got the shape \("):
        self_entropy(np.zeros(shape))


def test_a_kernel_with_nan_diverges():
    with pytest.raises(Diverged, match="the kernel has 1 entries that are no numbers"):
        self_entropy(np.array([[1.0, np.nan], [0.0, 1.0]]))


@pytest.mark.parametrize("shape", [(4, 2), (6,), (3, 3)])
def test_values_of_other_units_are_refused(shape):
    with pytest.raises(ConfigError, match=r"values beside a kernel of 6 rows must be \(N, C\) with N or N C equal to that, got the shape"):
        observe_kernel(np.eye(6), np.zeros(shape))


def test_the_loss_kernel_of_a_traced_kernel_is_refused():
    with pytest.raises(ConfigError, match=r"needs the full kernel, of N C rows .* got 3 rows and the shape \(3, 2\)"):
        fisher_trace(np.eye(3), np.ones((3, 2)))


def test_a_traced_kernel_has_no_observables_that_need_the_full_one():
    jacobian_NCP, residuals_NC = gradients(4, 3, 9)
    of_full = set(observe_kernel(full(jacobian_NCP), residuals_NC))
    of_traced = {name.removesuffix("_traced") for name in observe_kernel(mean_over_outputs(jacobian_NCP), residuals_NC)}
    assert of_full - of_traced == {"fisher_trace", "gradient_noise_scale"}


def test_magnitudes_and_angles_are_those_of_the_gradients():
    rows = np.random.default_rng(2).standard_normal((4, 6)) * 0.1
    norms = np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(kernel_data.magnitudes(rows @ rows.T), norms)
    np.testing.assert_allclose(kernel_data.cosine_kernel(rows @ rows.T), (rows / norms[:, None]) @ (rows / norms[:, None]).T)
