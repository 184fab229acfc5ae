"""Observables of a spectrum against their closed forms."""

import math
from dataclasses import replace

import numpy as np
import pytest

from workers.observables.effective_rank import effective_rank
from workers.observables.entropy import entropy
from workers.observables.entropy_normalised import entropy_normalised
from workers.observables.num_above_noise import num_above_noise
from workers.observables.participation_ratio import participation_ratio
from workers.observables.spectral_position import spectral_position
from workers.observables.stable_rank import stable_rank
from workers.observables.trace import trace
from workers.spectrum_data import SpectrumData, observables, observe


def spectrum(eigenvalues, weights=None, noise_floor=0.0, **fields) -> SpectrumData:
    values = np.sort(np.asarray(eigenvalues, dtype=np.float64))
    uniform = np.full(len(values), 1 / len(values))
    sizes = {"num_units": len(values), "num_outputs": 1, "num_rows": len(values), **fields}
    return SpectrumData(
        eigenvalues_K=values, weights_K=uniform if weights is None else np.asarray(weights), noise_floor=noise_floor, **sizes
    )


@pytest.mark.parametrize("num", [1, 2, 17])
def test_equal_eigenvalues_have_every_rank_equal_to_their_number(num):
    flat = spectrum([3.0] * num)
    assert entropy(flat) == pytest.approx(math.log(num))
    for rank in (effective_rank, participation_ratio, stable_rank, num_above_noise):
        assert rank(flat) == pytest.approx(num)
    assert trace(flat) == pytest.approx(3.0)


def test_one_eigenvalue_has_no_entropy():
    single = spectrum([0.0, 0.0, 5.0])
    assert entropy(single) == 0.0
    assert effective_rank(single) == participation_ratio(single) == stable_rank(single) == 1.0


def test_entropy_of_a_geometric_spectrum():
    ratio, num = 0.5, 60
    closed = -math.log(1 - ratio) - ratio / (1 - ratio) * math.log(ratio)
    assert entropy(spectrum(ratio ** np.arange(num))) == pytest.approx(closed, rel=1e-12)


def test_ranks_of_two_eigenvalues():
    two = spectrum([1.0, 3.0])
    assert entropy(two) == pytest.approx(-0.25 * math.log(0.25) - 0.75 * math.log(0.75))
    assert entropy_normalised(two) == pytest.approx(entropy(two) / math.log(2))
    assert participation_ratio(two) == pytest.approx(16 / 10)
    assert stable_rank(two) == pytest.approx(10 / 9)


def test_eigenvalues_under_the_noise_floor_count_as_zero():
    noisy, clean = spectrum([-1e-9, 1e-9, 1.0, 3.0], noise_floor=1e-8), spectrum([0.0, 0.0, 1.0, 3.0])
    assert observe(noisy) == observe(clean)
    assert num_above_noise(noisy) == 2


def test_scale_leaves_all_but_the_trace():
    one, other = observe(spectrum([1.0, 2.0, 4.0])), observe(spectrum([8.0, 16.0, 32.0]))
    assert other.pop("trace") == 8 * one.pop("trace")
    assert other == pytest.approx(one)


def test_spectral_position_levels():
    values = np.array([1.0, 2.0, 5.0])
    assert spectral_position(spectrum(values)) == pytest.approx(1 / 3), "isotropic residual: 1 / n"
    assert spectral_position(spectrum(values, weights=values / 8)) == pytest.approx(30 / 64), "like the spectrum: 1 / participation ratio"
    assert spectral_position(spectrum(values, weights=[0.0, 0.0, 1.0])) == pytest.approx(5 / 8), "along the largest"


def test_nothing_but_noise_gives_nan():
    observed = observe(spectrum([1e-12, 1e-12], noise_floor=1e-8))
    assert math.isnan(observed["entropy"])
    assert math.isnan(observed["effective_rank"])
    assert observed["trace"] == 0.0


def test_observables_of_the_traced_kernel_say_so():
    assert set(observe(replace(spectrum([1.0, 2.0]), num_outputs=10))) == {f"{name}_traced" for name in observables()}


def test_every_file_is_an_observable():
    assert {"trace", "entropy", "effective_rank", "participation_ratio", "stable_rank", "spectral_position"} <= set(observables())
