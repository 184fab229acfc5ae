"""Observables of a spectrum against plain sums and closed forms."""

import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.errors import ConfigError
from workers.observables.condition_number import condition_number
from workers.observables.cumulative_power import cumulative_power
from workers.observables.decay_exponent import decay_exponent
from workers.observables.effective_rank import effective_rank
from workers.observables.entropy import entropy
from workers.observables.entropy_normalised import entropy_normalised
from workers.observables.epsilon_rank import epsilon_rank
from workers.observables.hill_exponent import hill_exponent
from workers.observables.largest_eigenvalue_share import largest_eigenvalue_share
from workers.observables.learning_entropy import learning_entropy
from workers.observables.num_above_noise import num_above_noise
from workers.observables.participation_ratio import participation_ratio
from workers.observables.position_quantile import position_quantile
from workers.observables.power_rank import power_rank
from workers.observables.reach_rank import reach_rank
from workers.observables.renyi_entropy import renyi_entropy
from workers.observables.residual_entropy import residual_entropy
from workers.observables.spectral_gap import spectral_gap
from workers.observables.spectral_position import spectral_position
from workers.observables.spectral_position_times_participation_ratio import spectral_position_times_participation_ratio
from workers.observables.spectral_position_times_rows import spectral_position_times_rows
from workers.observables.stable_rank import stable_rank
from workers.observables.trace import trace
from workers.observables.weight_exponent import weight_exponent as weight_exponent_of
from workers.spectrum_data import SpectrumData, observables, observe, required


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
    assert math.copysign(1.0, entropy(single)) == 1.0 and entropy(single) == 0.0, "not -0.0"
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
    assert observe(noisy) == pytest.approx(observe(clean), rel=0, nan_ok=True)
    assert num_above_noise(noisy) == 2
    assert num_above_noise(spectrum([1.0, 3.0], noise_floor=1.0)) == 1, "at the floor is noise too"


def test_scale_leaves_all_but_the_trace():
    values = np.arange(1.0, 31.0)
    one, other = observe(spectrum(values)), observe(spectrum(8 * values))
    assert other.pop("trace") == 8 * one.pop("trace")
    assert other == pytest.approx(one)


def test_spectral_position_levels():
    values = np.array([1.0, 2.0, 5.0])
    assert spectral_position(spectrum(values)) == pytest.approx(1 / 3), "isotropic residual: 1 / n"
    assert spectral_position(spectrum(values, weights=values / 8)) == pytest.approx(30 / 64), "like the spectrum: 1 / participation ratio"
    assert spectral_position(spectrum(values, weights=[0.0, 0.0, 1.0])) == pytest.approx(5 / 8), "along the largest"


def test_nothing_but_noise_gives_nan():
    observed = observe(spectrum([1e-12, 1e-12], noise_floor=1e-8))
    assert observed.pop("trace") == observed.pop("num_above_noise") == 0.0
    assert observed.pop("residual_entropy") == pytest.approx(math.log(2)), "which no eigenvalue enters"
    assert all(math.isnan(value) for value in observed.values())


def test_a_cut_spectrum_gives_nan_where_all_of_it_is_needed():
    cut = spectrum([2.0, 3.0, 4.0], num_rows=40, num_units=40)
    assert all(math.isnan(value) for value in observe(cut).values())


def test_observables_of_the_traced_kernel_say_so():
    assert set(observe(replace(spectrum([1.0, 2.0]), num_outputs=10))) == {f"{name}_traced" for name in observables()}


# -- against plain sums ------------------------------------------------------------------------------------------------------


def plain(eigenvalues, weights, noise_floor) -> dict[str, float]:
    """Each observable by the sum that defines it, in Python's own numbers, one eigenvalue after another."""
    pairs = sorted(((float(v) if v > noise_floor else 0.0, float(w)) for v, w in zip(eigenvalues, weights)), reverse=True)
    values, weights = [v for v, _ in pairs], [w for _, w in pairs]
    total, size = math.fsum(values), len(values)
    p = [v / total for v in values]
    position = math.fsum(w * q for w, q in zip(weights, p))
    shares = [w * q / position for w, q in zip(weights, p)]
    ranks = range(max(1, size // 20), max(max(1, size // 20) + 1, size // 2) + 1)
    above = [k for k in ranks if values[k - 1] > 0.0]
    held, quantile = 0.0, None
    for q, w in sorted(zip(p, weights)):
        held += w
        if quantile is None and held >= 0.5 - 1e-12:
            quantile = q
    enough = len(above) >= 5
    return {
        "trace": total / size,
        "entropy": -math.fsum(q * math.log(q) for q in p if q > 0),
        "entropy_normalised": -math.fsum(q * math.log(q) for q in p if q > 0) / math.log(size),
        "effective_rank": math.prod(q**-q for q in p if q > 0),
        "stable_rank": math.fsum(v * v for v in values) / max(values) ** 2,
        "renyi_entropy": -math.log(math.fsum(q * q for q in p)),
        "participation_ratio": total**2 / math.fsum(v * v for v in values),
        "largest_eigenvalue_share": max(values) / total,
        "spectral_gap": (values[0] - values[1]) / total,
        "condition_number": values[0] / values[-1] if values[-1] > 0 else math.inf,
        "epsilon_rank": sum(v > 0.01 * values[0] for v in values),
        "cumulative_power": math.fsum(values[:10]) / total,
        "power_rank": next(k for k in range(1, size + 1) if math.fsum(values[:k]) >= 0.9 * total),
        "num_above_noise": sum(v > 0 for v in values),
        "spectral_position": position,
        "spectral_position_times_rows": position * size,
        "spectral_position_times_participation_ratio": position / math.fsum(q * q for q in p),
        "position_quantile": quantile,
        "residual_entropy": -math.fsum(w * math.log(w) for w in weights if w > 0),
        "learning_entropy": -math.fsum(s * math.log(s) for s in shares if s > 0),
        "reach_rank": sum(v >= position * total * (1 - 1e-12) for v in values),
        "decay_exponent": -two_point_slope(above, values) if enough else math.nan,
        "weight_exponent": -two_point_slope(above, weights) if enough and min(weights) > 0 else math.nan,
        "hill_exponent": math.fsum(k * math.log(values[k - 1] / values[k]) for k in above[:-1]) / (len(above) - 1) if enough else math.nan,
    }


def two_point_slope(ranks, values) -> float:
    """The least-squares slope as the mean of the slopes of all pairs of points, weighted by their squared distance."""
    points = [(math.log(k), math.log(values[k - 1])) for k in ranks]
    pairs = [(a, b) for i, a in enumerate(points) for b in points[:i]]
    return math.fsum((a[1] - b[1]) * (a[0] - b[0]) for a, b in pairs) / math.fsum((a[0] - b[0]) ** 2 for a, b in pairs)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 60), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.02]))
def test_every_observable_is_its_plain_sum(size, seed, noise_floor):
    random = np.random.default_rng(seed)
    values = np.sort(random.exponential(size=size) ** 3 + 1e-6)
    values[-1] += 0.1  # above the floor
    weights = random.dirichlet(np.ones(size))
    observed = observe(spectrum(values, weights, noise_floor))
    expected = plain(values, weights, noise_floor)
    assert set(observed) == set(expected)
    for name, value in expected.items():
        assert observed[name] == pytest.approx(value, rel=1e-9, nan_ok=True), name


# -- closed forms ------------------------------------------------------------------------------------------------------------


def power_law(exponent, num, weight_exponent=0.0, **fields) -> SpectrumData:
    ranks = np.arange(num, 0, -1.0)
    weights = ranks**-weight_exponent
    return spectrum(ranks**-exponent, weights / weights.sum(), **fields)


@given(st.floats(0.1, 4.0), st.floats(0.1, 4.0), st.integers(20, 300))
def test_a_power_law_has_its_exponents_on_any_window(exponent, weight_exponent, num):
    law = power_law(exponent, num, weight_exponent)
    for window in ({}, {"first_rank": 1, "last_rank": num}, {"first_rank": 3, "last_rank": 12}):
        assert decay_exponent(law, **window) == pytest.approx(exponent)
        assert weight_exponent == pytest.approx(weight_exponent_of(law, **window))
    ranks = np.arange(3, 12)
    expected = exponent * (ranks * np.log1p(1 / ranks)).mean()
    assert hill_exponent(law, first_rank=3, last_rank=12) == pytest.approx(expected)


def test_the_hill_estimator_is_unbiased_for_samples_of_a_pareto_law():
    """Its mean over samples is 1 / tail index, whole or trimmed, and its variance that over the number of spacings."""
    random, num_samples = np.random.default_rng(0), 400
    samples = [spectrum(random.pareto(2.0, 200) + 1.0) for _ in range(num_samples)]
    for first, last in ((1, 50), (10, 100)):
        found = [hill_exponent(one, first_rank=first, last_rank=last) for one in samples]
        error = 0.5 / math.sqrt((last - first) * num_samples)
        assert np.mean(found) == pytest.approx(0.5, abs=4 * error)
        assert np.std(found) == pytest.approx(0.5 / math.sqrt(last - first), rel=0.2)


def test_a_window_ends_at_the_noise_floor():
    law = power_law(2.0, 100)
    values = law.eigenvalues_K.copy()
    values[:70] = 2e-4 * np.linspace(0.1, 1.0, 70)  # what rounding makes of the tail
    noisy = spectrum(values, noise_floor=2.5e-4)
    assert decay_exponent(noisy, first_rank=1, last_rank=90) == pytest.approx(2.0)
    assert abs(decay_exponent(replace(noisy, noise_floor=0.0), first_rank=1, last_rank=90) - 2.0) > 0.2


def test_the_eigenvalues_of_a_cut_spectrum_are_enough_for_a_window_among_them():
    law = power_law(1.5, 100)
    cut = replace(law, eigenvalues_K=law.eigenvalues_K[-20:], weights_K=law.weights_K[-20:])
    assert decay_exponent(cut, first_rank=2, last_rank=20) == pytest.approx(1.5)
    assert math.isnan(decay_exponent(cut, first_rank=2, last_rank=21))


@pytest.mark.parametrize("window", [(0, 5), (5, 5), (3, 31)])
def test_a_window_that_is_none_is_refused(window):
    first, last = window
    message = f"a window needs 1 <= first_rank < last_rank <= 30, the rows of the kernel, got {first} and {last}"
    with pytest.raises(ConfigError, match=message):
        decay_exponent(power_law(1.0, 30), first_rank=first, last_rank=last)


def test_few_ranks_have_no_exponent():
    assert math.isnan(decay_exponent(power_law(1.0, 30), first_rank=2, last_rank=5))
    assert decay_exponent(power_law(1.0, 30), first_rank=2, last_rank=6) == pytest.approx(1.0)


def test_a_weight_of_zero_has_no_exponent():
    law = power_law(1.0, 30, 2.0)
    law.weights_K[20] = 0.0
    assert math.isnan(weight_exponent_of(law))


def test_renyi_entropies_of_named_orders_are_the_other_observables():
    one = spectrum([0.0, 1.0, 2.0, 5.0])
    assert renyi_entropy(one, order=0.0) == pytest.approx(math.log(3))
    assert renyi_entropy(one, order=1.0) == entropy(one)
    assert renyi_entropy(one, order=1.0 + 1e-7) == pytest.approx(entropy(one), rel=1e-6)
    assert renyi_entropy(one, order=2.0) == pytest.approx(math.log(participation_ratio(one)))
    assert renyi_entropy(one, order=math.inf) == pytest.approx(-math.log(largest_eigenvalue_share(one)))
    assert renyi_entropy(one, order=200.0) == pytest.approx(-math.log(5 / 8), rel=0.01)


def test_reference_levels_of_the_spectral_position():
    values = np.array([1.0, 2.0, 5.0])
    assert spectral_position_times_rows(spectrum(values)) == pytest.approx(1.0), "isotropic residual"
    assert spectral_position_times_participation_ratio(spectrum(values, values / 8)) == pytest.approx(1.0), "like the spectrum"
    traced = replace(spectrum(values), num_outputs=10)
    assert spectral_position_times_rows(traced) == pytest.approx(1.0), "isotropic over the three rows of a traced kernel"


def test_ranks_and_powers_of_a_known_spectrum():
    one = spectrum([1e-3, 0.999, 2.0, 7.0])
    assert (epsilon_rank(one), epsilon_rank(one, epsilon=1e-5), epsilon_rank(one, epsilon=0.2)) == (3, 4, 2)
    assert epsilon_rank(spectrum([1.0, 2.0]), epsilon=0.5) == 1, "above, not at"
    assert cumulative_power(one, num_largest=2) == pytest.approx(0.9)
    assert (power_rank(one, share=0.7), power_rank(one, share=0.71), power_rank(one, share=1.0)) == (1, 2, 4)
    assert condition_number(one) == pytest.approx(7e3)
    assert condition_number(replace(one, noise_floor=1e-2)) == math.inf
    assert spectral_gap(one) == pytest.approx(0.5)
    assert math.isnan(spectral_gap(spectrum([1.0])))


def test_where_learning_happens():
    """Half of the residual along the smallest eigenvalue, the other half along the largest: all of the gradient is in the largest."""
    split = spectrum([0.0, 1.0, 3.0], weights=[0.5, 0.0, 0.5])
    assert residual_entropy(split) == pytest.approx(math.log(2))
    assert learning_entropy(split) == 0.0
    assert position_quantile(split) == 0.0
    assert position_quantile(split, quantile=0.51) == 0.75
    assert reach_rank(split) == 1, "chi_pos = 3 / 8, and only 3 / 4 reaches that"
    assert reach_rank(spectrum([1.0, 1.0, 1.0])) == 3


def test_no_residual_leaves_the_spectrum_alone():
    bare = observe(spectrum(np.arange(1.0, 31.0), weights=np.full(30, np.nan)))
    of_residual = {name for name, value in bare.items() if math.isnan(value)}
    assert of_residual == {
        "learning_entropy",
        "position_quantile",
        "reach_rank",
        "residual_entropy",
        "spectral_position",
        "spectral_position_times_participation_ratio",
        "spectral_position_times_rows",
        "weight_exponent",
    }


# -- the files ---------------------------------------------------------------------------------------------------------------


def test_a_spectrum_is_observed_by_the_files_that_need_nothing_else():
    assert {"trace", "entropy", "effective_rank", "participation_ratio", "stable_rank", "spectral_position"} <= set(observables())
    assert not {"cka", "self_entropy", "fisher_trace", "lazy_kappa"} & set(observables())
    assert {name for name, (_, needed) in required().items() if needed == ("spectrum",)} == set(observables())


@pytest.mark.parametrize("name", required())
def test_every_file_holds_one_documented_function_of_its_name(name):
    function, needed = required()[name]
    assert function.__module__ == f"workers.observables.{name}"
    assert len(function.__doc__) > 20
    assert needed


def test_the_page_names_every_file_and_its_example_runs():
    page = (Path(__file__).parents[2] / "docs" / "observables.md").read_text()
    tables = {name for line in page.splitlines() if line.startswith("| `") for name in re.findall(r"`(\w+)`", line.split("|")[1])}
    assert tables >= set(required())
    exec("\n".join(line[4:] for line in page.splitlines() if line.startswith("    ")), {})


def test_observables_load_no_torch():
    """They are loaded on the login node, and computed there from a stored spectrum."""
    code = (
        "import sys, numpy as np; from workers import kernel_data, spectrum_data; spectrum_data.required();"
        "spectrum_data.observe(kernel_data.spectrum_of(np.diag(np.arange(1.0, 31.0)), np.ones((30, 1))));"
        "assert not {'torch', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
