"""Observables of two kernels against sums over their entries, and against closed forms."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.errors import ConfigError
from workers.kernel_data import observe_pair, unbiased_hsic
from workers.observables.cka import cka
from workers.observables.cka_unbiased import cka_unbiased
from workers.observables.eigenbasis_overlap import eigenbasis_overlap
from workers.observables.kernel_alignment import kernel_alignment
from workers.observables.kernel_distance import kernel_distance
from workers.observables.kernel_rotation import kernel_rotation
from workers.observables.kernel_velocity import kernel_velocity
from workers.observables.mind_drift_diagonal import mind_drift_diagonal
from workers.observables.mind_drift_off_diagonal import mind_drift_off_diagonal
from workers.observables.relative_kernel_change import relative_kernel_change
from workers.observables.stretch_share import stretch_share
from workers.observables.trace_ratio import trace_ratio

# R rows; P parameters


def kernel(size, seed=0, num_params=40):
    rows = np.random.default_rng(seed).standard_normal((size, num_params))
    return rows @ rows.T


def rotation(size, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))[0]


def turned(angle, eigenvalues):
    """A 2 x 2 kernel with its eigenvectors turned by an angle."""
    basis = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return basis @ np.diag(eigenvalues) @ basis.T


def hsic_over_quadruples(first, second) -> float:
    """The U-statistic of HSIC: the mean over all ordered quadruples of unlike rows (Song et al. 2012, section 2)."""
    quadruples = list(itertools.permutations(range(len(first)), 4))
    terms = [first[i, j] * (second[i, j] + second[q, r] - 2 * second[i, q]) for i, j, q, r in quadruples]
    return math.fsum(terms) / len(quadruples)


pairs = st.tuples(st.integers(2, 9), st.integers(0, 2**32 - 1), st.integers(1, 12))


@settings(max_examples=40, deadline=None)
@given(pairs)
def test_each_observable_of_two_kernels_is_its_plain_sum(size):
    num_rows, seed, num_params = size
    first, second = kernel(num_rows, seed, num_params), kernel(num_rows, seed + 1, num_params)
    entries = list(itertools.product(range(num_rows), repeat=2))

    def product(one, other) -> float:
        return math.fsum(one[i, j] * other[i, j] for i, j in entries)

    def centre(matrix):
        rows = [math.fsum(line) / num_rows for line in matrix]
        whole = math.fsum(rows) / num_rows
        return np.array([[matrix[i, j] - rows[i] - rows[j] + whole for j in range(num_rows)] for i in range(num_rows)])

    cosine = product(first, second) / math.sqrt(product(first, first) * product(second, second))
    traces = math.fsum(first.diagonal()) * math.fsum(second.diagonal())
    drift = [[math.fsum(first[i, k] * second[k, j] for k in range(num_rows)) / traces for j in range(num_rows)] for i in range(num_rows)]
    change = second - first
    expected = {
        "kernel_alignment": cosine,
        "kernel_distance": 1 - cosine,
        "kernel_velocity": (1 - cosine) / 7,
        "relative_kernel_change": math.sqrt(product(change, change) / product(first, first)),
        "trace_ratio": math.fsum(second.diagonal()) / math.fsum(first.diagonal()),
        "mind_drift_diagonal": math.sqrt(math.fsum(drift[i][i] ** 2 for i in range(num_rows))),
        "mind_drift_off_diagonal": math.sqrt(math.fsum(drift[i][j] ** 2 for i, j in entries if i != j)),
    }
    if num_rows > 2:  # two centred rows are always aligned
        one, other = centre(first), centre(second)
        expected["cka"] = product(one, other) / math.sqrt(product(one, one) * product(other, other))
    found = observe_pair(first, second, num_steps=7)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-7, abs=1e-9), name
    assert {"cka_unbiased", "eigenbasis_overlap", "stretch_share", "kernel_rotation"} <= set(found)


def test_a_pair_without_steps_has_no_velocity():
    found, timed = observe_pair(kernel(5), kernel(5, 1)), observe_pair(kernel(5), kernel(5, 1), num_steps=3)
    assert set(timed) - set(found) == {"kernel_velocity"}
    assert not {"self_entropy", "cosine_entropy"} & set(found), "those of one kernel are observed with it"


def test_equal_kernels_have_not_moved():
    same = observe_pair(kernel(6), kernel(6))
    for name in ("kernel_alignment", "cka", "cka_unbiased", "eigenbasis_overlap", "trace_ratio"):
        assert same[name] == pytest.approx(1.0), name
    for name in ("kernel_distance", "relative_kernel_change"):
        assert same[name] == 0.0, name
    assert same["kernel_rotation"] == pytest.approx(0.0, abs=1e-9)
    assert math.isnan(same["stretch_share"]), "there is no change to share"


@pytest.mark.parametrize("name", ["kernel_alignment", "kernel_distance", "cka", "cka_unbiased", "eigenbasis_overlap", "kernel_rotation"])
def test_scale_does_not_enter(name):
    one = observe_pair(kernel(6), kernel(6, 1))[name]
    for scale, other in ((100.0, 1e-9), (1e-9, 100.0)):
        assert observe_pair(scale * kernel(6), other * kernel(6, 1))[name] == pytest.approx(one)


def test_a_kernel_of_zeros_has_not_moved_anywhere():
    found = observe_pair(np.zeros((5, 5)), np.zeros((5, 5)))
    assert {name for name, value in found.items() if not math.isnan(value)} == {"eigenbasis_overlap"}


def test_a_small_distance_keeps_its_digits():
    """1 - cos would leave none of them."""
    first = np.diag([1.0, 1.0])
    second = np.diag([1.0, 1.0 + 1e-9])
    assert kernel_distance(first, second) == pytest.approx(1e-18 / 8, rel=1e-6, abs=0)
    assert 1 - kernel_alignment(first, second) != pytest.approx(1e-18 / 8, rel=0.5, abs=0)


def test_orthogonal_kernels_are_at_the_largest_distance():
    first, second = np.diag([1.0, 0.0]), np.diag([0.0, 3.0])
    assert kernel_alignment(first, second) == 0.0
    assert kernel_distance(first, second) == pytest.approx(1.0)
    assert kernel_velocity(first, second, 4) == pytest.approx(0.25)
    assert relative_kernel_change(first, second) == pytest.approx(math.sqrt(10))
    assert trace_ratio(first, second) == pytest.approx(3.0)


@settings(max_examples=20, deadline=None)
@given(st.integers(4, 7), st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_the_unbiased_hsic_is_the_mean_over_quadruples(size, seed, num_params):
    first, second = kernel(size, seed, num_params), kernel(size, seed + 1, num_params)
    expected = hsic_over_quadruples(first, second)
    assert unbiased_hsic(first, second) == pytest.approx(expected, rel=1e-9, abs=1e-9 * np.linalg.norm(first) * np.linalg.norm(second))


def test_unbiased_alignment_of_unrelated_kernels_is_zero_where_the_biased_one_is_not():
    found = [(cka(kernel(20, 2 * i), kernel(20, 2 * i + 1)), cka_unbiased(kernel(20, 2 * i), kernel(20, 2 * i + 1))) for i in range(60)]
    biased, unbiased = np.mean(found, axis=0)
    assert biased > 0.5
    assert abs(unbiased) < 4 * np.std([one for _, one in found]) / math.sqrt(60)


def test_centring_takes_off_what_all_rows_share():
    assert cka(kernel(6), kernel(6) + 50.0) == pytest.approx(1.0)
    assert kernel_alignment(kernel(6), kernel(6) + 50.0) < 0.9


def test_few_rows_or_negative_estimates_have_no_unbiased_alignment():
    assert math.isnan(cka_unbiased(kernel(3), kernel(3, 1)))
    assert not math.isnan(cka_unbiased(kernel(4), kernel(4, 1)))
    alike = np.ones((5, 5)) + np.diag(np.arange(5.0))
    assert unbiased_hsic(alike, alike) == pytest.approx(0.0, abs=1e-12)
    assert math.isnan(cka_unbiased(np.diag(np.arange(5.0)), kernel(5)))


@pytest.mark.parametrize("num", [1, 3, 9])
def test_overlap_of_eigenvectors_is_that_of_the_projections(num):
    first, second = kernel(9), kernel(9, 1)
    projections = []
    for matrix in (first, second):
        vectors = np.linalg.svd(matrix)[0][:, :num]
        projections.append(vectors @ vectors.T)
    assert eigenbasis_overlap(first, second, num_largest=num) == pytest.approx(np.trace(projections[0] @ projections[1]) / num)


def test_unrelated_eigenvectors_overlap_by_their_share_of_the_rows():
    found = [eigenbasis_overlap(kernel(30, 2 * i), kernel(30, 2 * i + 1), num_largest=6) for i in range(80)]
    assert np.mean(found) == pytest.approx(6 / 30, abs=4 * np.std(found) / math.sqrt(80))


def test_more_eigenvectors_than_rows_overlap_whole():
    assert eigenbasis_overlap(kernel(5), kernel(5, 1), num_largest=50) == pytest.approx(1.0)


def test_a_stretch_and_a_rotation_are_told_apart():
    basis, values = rotation(7), np.arange(1.0, 8.0)
    first, stretched = basis @ np.diag(values) @ basis.T, basis @ np.diag(2 * values + 1) @ basis.T
    turn = rotation(7, 1)
    assert stretch_share(first, stretched) == pytest.approx(1.0)
    assert stretch_share(first, turn @ first @ turn.T) == pytest.approx(0.0, abs=1e-12)
    assert 0 < stretch_share(first, turn @ stretched @ turn.T) < 1
    assert kernel_rotation(first, stretched) == pytest.approx(0.0, abs=1e-9)
    assert kernel_rotation(first, turn @ stretched @ turn.T) > 0.01


@given(st.floats(-1.4, 1.4), st.floats(0.05, 0.9))
def test_the_rotation_between_two_by_two_kernels(angle, small):
    """Of A = Theta_0 Theta_t^-1 the polar angle is atan2(A_21 - A_12, A_11 + A_22), which is exact in two dimensions."""
    first, second = turned(0.0, [1.0, small]), turned(angle, [1.0, small])
    product = first @ np.linalg.inv(second)
    expected = 1 - math.cos(math.atan2(product[1, 0] - product[0, 1], product[0, 0] + product[1, 1]))
    assert kernel_rotation(first, second) == pytest.approx(expected, abs=1e-9)


def test_the_rotation_of_a_singular_kernel_is_not_determined():
    assert math.isnan(kernel_rotation(kernel(6), kernel(6, 1, num_params=5)))
    assert math.isnan(kernel_rotation(kernel(6, 0, num_params=5), kernel(6, 1)))


def test_mind_drift_of_diagonal_kernels_has_no_part_off_the_diagonal():
    first, second = np.diag([1.0, 3.0]), np.diag([2.0, 2.0])
    assert mind_drift_diagonal(first, second) == pytest.approx(math.hypot(2, 6) / 16)
    assert mind_drift_off_diagonal(first, second) == 0.0


@pytest.mark.parametrize("num_steps", [0, -3, math.nan])
def test_a_velocity_needs_time(num_steps):
    with pytest.raises(ConfigError, match=f"kernel_velocity needs num_steps above 0, got {num_steps}"):
        kernel_velocity(kernel(4), kernel(4, 1), num_steps)


def test_kernels_of_unlike_units_are_refused():
    message = r"two kernels must be on the same units and outputs, got the shapes \(4, 4\) and \(5, 5\)"
    with pytest.raises(ConfigError, match=message):
        observe_pair(kernel(4), kernel(5))
