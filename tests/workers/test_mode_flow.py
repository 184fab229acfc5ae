"""Closed forms of gradient flow with a power-law kernel: spectral position (D5) and reach (D10), and the reach that windows give."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from task_runs import committed, scalars

from workers.data.power_law import PowerLaw
from workers.errors import ConfigError
from workers.mode_flow import closed_form_position, mode_flow, power_law_modes
from workers.models.mlp import Mlp
from workers.observables.spectral_reach import find_reach, spectral_reach
from workers.optimizers.sgd import Sgd
from workers.workloads.mode_flow import ModeFlow
from workers.workloads.train import Train

A, B = 1.5, 1.8
TIMES = np.array([10.0, 100.0, 1000.0])
WINDOWS = np.geomspace(1.0, 1e8, 81)  # ten a decade
FEATURES = (16, 64, 256, 1024)
TRUTH = {16: 3.8, 64: 4.7, 256: 5.7, 1024: 6.6}  # at epsilon 0.05 (D10)


def test_the_flow_by_modes_is_that_of_the_whole_kernel():
    rng = np.random.default_rng(0)
    vectors = np.linalg.qr(rng.standard_normal((7, 7)))[0]
    values_K, target = rng.uniform(0.1, 2.0, 7), rng.standard_normal(7)
    kernel = vectors * values_K @ vectors.T
    flow = mode_flow(values_K, (vectors.T @ target) ** 2, np.array([0.0, 0.3, 2.0]))
    for at, time in enumerate((0.0, 0.3, 2.0)):
        residual = expm(-kernel * time) @ target
        assert flow.loss_T[at] == pytest.approx(0.5 * residual @ residual, rel=1e-12)
        assert flow.delta_loss_T[at] == pytest.approx(residual @ kernel @ residual, rel=1e-12)
        assert flow.chi_pos_T[at] == pytest.approx(residual @ kernel @ residual / (residual @ residual * kernel.trace()), rel=1e-12)


def test_spectral_position_falls_as_beta_over_twice_the_trace_times_t():
    """D5: half the sum of squares, 20,000 modes, t = 10, 100, 1000: within 3 %."""
    values_K, energies_K = power_law_modes(20_000, A, B, None)
    flow = mode_flow(values_K, energies_K, TIMES)
    np.testing.assert_allclose(flow.chi_pos_T, closed_form_position(TIMES, flow.chi_net, A, B), rtol=0.03)


def test_with_too_few_modes_the_closed_form_fails_as_the_definition_says():
    values_K, energies_K = power_law_modes(2_000, A, B, None)
    flow = mode_flow(values_K, energies_K, TIMES)
    errors = flow.chi_pos_T / closed_form_position(TIMES, flow.chi_net, A, B) - 1.0
    assert errors[-1] == pytest.approx(0.17, abs=0.005)


@pytest.mark.parametrize(("reduction", "slowness"), [("sum", 1.0), ("mean", 2_000.0), ("torch", 2_000.0 * 10 / 2)])
def test_the_closed_form_holds_for_each_reduction_of_a_loss_that_autograd_differentiates(reduction: str, slowness: float):
    """t in units of the loss's own gradient flow: N beta / (2 tr t) for the mean over N, N m beta / (4 tr t) for torch's."""
    num_units, num_outputs = 2_000, 10
    values_K, energies_K = (torch.from_numpy(array) for array in power_law_modes(num_units * num_outputs, A, B, None))
    target, weights = energies_K.sqrt(), torch.zeros(len(values_K), dtype=torch.float64, requires_grad=True)
    rate, num_steps = 0.5 * slowness, 200
    for _ in range(num_steps + 1):
        outputs_NC = (values_K.sqrt() * weights).reshape(num_units, num_outputs)
        target_NC = target.reshape(num_units, num_outputs)
        squares_N = 0.5 * (outputs_NC - target_NC).square().sum(-1)
        loss = {"sum": squares_N.sum(), "mean": squares_N.mean(), "torch": torch.nn.functional.mse_loss(outputs_NC, target_NC)}[reduction]
        (gradient,) = torch.autograd.grad(loss, weights)
        residual = (outputs_NC - target_NC).detach() / slowness
        position = float(gradient.square().sum() / (residual.square().sum() * values_K.sum()))
        with torch.no_grad():
            weights -= rate * gradient
    time = rate * num_steps
    expected = slowness * (B - 1.0) / A / (2.0 * float(values_K.sum()) * time)
    assert position == pytest.approx(expected, rel=0.03)


def test_more_features_reach_further_down_as_the_definition_says():
    reaches = []
    for features in FEATURES:
        flow = mode_flow(*power_law_modes(20_000, A, B, features), WINDOWS)
        reaches.append(spectral_reach(WINDOWS, flow.loss_T, flow.chi_pos_T))
        assert reaches[-1] == pytest.approx(TRUTH[features], rel=0.05)
    assert np.polyfit(np.log10(FEATURES), reaches, 1)[0] == pytest.approx(1.55, rel=0.05)


def test_the_reach_is_the_position_where_the_exact_rate_is_epsilon():
    """chi_pos = epsilon / (2 tr t) there, since -d ln L / d ln t = 2 tr t chi_pos."""
    values_K, energies_K = power_law_modes(20_000, A, B, 256)
    times = np.geomspace(10.0, 1e6, 1_001)
    flow = mode_flow(values_K, energies_K, times)
    last = np.flatnonzero(flow.rate_T(times) >= 0.05)[-1]
    exact = np.log10(2.0 * flow.chi_net * times[last] / 0.05)
    coarse = mode_flow(values_K, energies_K, WINDOWS)
    assert spectral_reach(times, flow.loss_T, flow.chi_pos_T) == pytest.approx(exact, abs=0.02)
    assert spectral_reach(WINDOWS, coarse.loss_T, coarse.chi_pos_T) == pytest.approx(exact, rel=0.05)


def test_the_minimum_of_the_position_is_not_the_reach():
    """D10: a small model that has learned what it can falls to any position, while its loss stands still."""
    small, large = (mode_flow(*power_law_modes(20_000, A, B, features), WINDOWS) for features in (16, 256))
    late = np.searchsorted(WINDOWS, 1e4)
    assert small.chi_pos_T[late] < 1e-3 * large.chi_pos_T[late]
    assert spectral_reach(WINDOWS, small.loss_T, small.chi_pos_T) < spectral_reach(WINDOWS, large.loss_T, large.chi_pos_T)


def test_a_training_that_ends_while_it_learns_has_a_bound():
    flow = mode_flow(*power_law_modes(20_000, A, B, 256), WINDOWS)
    found = find_reach(WINDOWS[:30], flow.loss_T[:30], flow.chi_pos_T[:30])
    assert found.is_bound
    assert found.step == pytest.approx(WINDOWS[29])
    assert not find_reach(WINDOWS, flow.loss_T, flow.chi_pos_T).is_bound


def test_a_training_that_never_learns_and_a_gradient_lost_in_noise_have_no_reach():
    steps = np.geomspace(1, 100, 12)
    assert np.isnan(spectral_reach(steps, np.ones(12), np.full(12, 1e-3)))
    assert np.isnan(spectral_reach(steps, 1 / steps, np.full(12, -1e-3)))


def test_noise_of_single_windows_does_not_make_a_reach():
    """A plateau with 1 % of noise has rates above epsilon between neighbouring windows; lines through five have not."""
    windows, rng = WINDOWS[:61], np.random.default_rng(0)
    flow = mode_flow(*power_law_modes(20_000, A, B, 16), windows)
    exact = find_reach(windows, flow.loss_T, flow.chi_pos_T, 0.1)
    noisy = flow.loss_T * np.exp(0.01 * rng.standard_normal(len(windows)))
    between = -np.diff(np.log(noisy)) / np.diff(np.log(windows))
    assert windows[np.flatnonzero(between >= 0.1)[-1]] > 100 * exact.step
    steps_apart = np.log10(find_reach(windows, noisy, flow.chi_pos_T, 0.1).step / exact.step)
    assert abs(steps_apart) < 0.25, "two windows of a tenth of a decade"


@pytest.mark.parametrize("steps", [[1.0, 2.0], [1.0, 3.0, 2.0, 4.0], [0.0, 0.0, 1.0, 2.0]])
def test_too_few_windows_or_unordered_ones_are_refused(steps: list[float]):
    with pytest.raises(ConfigError, match="at least three windows at increasing steps above 0"):
        spectral_reach(steps, [1.0] * len(steps), [1.0] * len(steps))


def test_the_workload_gives_the_reach_of_its_own_windows(tmp_path: Path):
    workload = ModeFlow(num_features=64, num_modes=4096)
    found = scalars(committed(tmp_path, workload))
    steps = sorted({step for name, step in found if name == "test_loss"})
    reach = spectral_reach(steps, [found["test_loss", s] for s in steps], [found["chi_pos", s] for s in steps])
    assert reach == pytest.approx(found["reach_0.05", workload.num_steps], rel=0.05)


@pytest.mark.parametrize("features", [8, 24])
def test_trained_random_features_have_the_reach_of_the_closed_form(tmp_path: Path, features: int):
    """Gradient descent on whole batches; position by the unbiased estimate, in windows of a twentieth of a decade."""
    data = PowerLaw(num_modes=512, num_features=features, num_train=4096, num_test=64)
    train = Train(
        data=data,
        model=Mlp(depth=0, bias=False),
        optimizer=Sgd(learning_rate=1.0),
        loss="mse",
        dtype="float64",
        frozen="lazy",
        train_size=4096,
        batch_size=4096,
        num_steps=600,
        position_windows_per_decade=20,
    )
    found = scalars(committed(tmp_path, train))
    steps = sorted({step for name, step in found if name == "chi_pos" and step > 0})
    reach = spectral_reach(steps, [found["batch_loss", s] for s in steps], [found["chi_pos", s] for s in steps])
    times = np.geomspace(1.0, 1e4, 81)
    exact = mode_flow(*power_law_modes(512, A, B, features), times)
    assert reach == pytest.approx(spectral_reach(times, exact.loss_T, exact.chi_pos_T), rel=0.05)


def test_more_features_than_modes_are_refused():
    with pytest.raises(ConfigError, match="num_features must be at most num_modes=100, got 101"):
        ModeFlow(num_features=101, num_modes=100)
