"""Generated data: what their formulas promise, that they are made again alike, and that a smaller set begins a larger one."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from task_runs import attempt, committed, rows

from workers import plugins
from workers.data import mnist1d
from workers.data.mnist1d import Mnist1d
from workers.data.power_law import PowerLaw
from workers.data.teacher import Teacher
from workers.errors import ConfigError
from workers.models.mlp import Mlp
from workers.optimizers.sgd import Sgd
from workers.reading.random_numbers import Stream
from workers.workloads.train import Train

SMALL = {
    "mnist1d": Mnist1d(num_train=200, num_test=50),
    "power_law": PowerLaw(num_modes=20, num_train=200, num_test=50),
    "teacher": Teacher(num_inputs=6, num_outputs=2, num_train=200, num_test=50),
}


def clear() -> None:
    for name in SMALL:
        plugins.load("data", name)
        __import__(f"workers.data.{name}", fromlist=["_made"])._made.cache_clear()


def equal(one: object, other: object) -> bool:
    names = ("train_inputs", "train_targets", "test_inputs", "test_targets")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)


@pytest.mark.parametrize("name", SMALL)
def test_generated_data_are_made_again_bit_for_bit_and_follow_their_seed(name):
    first = SMALL[name].load()
    clear()
    assert equal(SMALL[name].load(), first)
    assert not equal(replace(SMALL[name], seed=1).load(), first)


@pytest.mark.parametrize("name", SMALL)
def test_shapes_are_known_beforehand_and_no_file_is_needed(name):
    data = SMALL[name]
    samples = data.load()
    assert data.shapes() == (samples.train_inputs.shape, samples.test_inputs.shape)
    assert data.files() == []
    assert (samples.train_inputs.dtype, samples.sample_name) == (np.float32, "samples")


@pytest.mark.parametrize("name", ["power_law", "teacher"])
def test_a_smaller_set_is_the_beginning_of_a_larger_one(name):
    small, large = SMALL[name].load(), replace(SMALL[name], num_train=301, num_test=77).load()
    np.testing.assert_array_equal(small.train_inputs, large.train_inputs[:200])
    np.testing.assert_allclose(small.train_targets, large.train_targets[:200], rtol=1e-6)
    np.testing.assert_array_equal(small.test_inputs, large.test_inputs[:50])


@pytest.mark.parametrize("name", SMALL)
def test_no_test_sample_is_a_training_sample(name):
    samples = SMALL[name].load()
    assert not {row.tobytes() for row in samples.train_inputs} & {row.tobytes() for row in samples.test_inputs}


def test_a_stream_is_the_same_in_pieces_and_normal():
    whole, pieces = Stream(3, "x").normal(10_000), Stream(3, "x")
    np.testing.assert_array_equal(np.concatenate([pieces.normal(40), pieces.normal(9960)]), whole)
    assert not np.array_equal(Stream(3, "y").normal(10_000), whole)
    assert [np.mean(whole**power) for power in (1, 2, 3, 4)] == pytest.approx([0, 1, 0, 3], abs=0.2)
    assert abs(np.corrcoef(whole[:-1], whole[1:])[0, 1]) < 0.04
    assert (np.bincount(Stream(0, "n").whole(2, 4, 3000), minlength=6) > 900).tolist() == [False, False, True, True, True, False]


def philox(key: tuple[int, int], counter: int) -> list[int]:
    """One block of Philox 4x64 with 10 rounds (Salmon et al. 2011)."""
    block, word = [counter, 0, 0, 0], 2**64
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * block[0], 0xCA5A826395121157 * block[2]
        block = [second // word ^ block[1] ^ key[0], second % word, first // word ^ block[3] ^ key[1], first % word]
        key = ((key[0] + 0x9E3779B97F4A7C15) % word, (key[1] + 0xBB67AE8584CAA73B) % word)
    return block


def test_a_stream_is_philox_under_a_hash_of_its_seed_and_role():
    """Results are stored under keys that hold the seed, so the numbers may never change."""
    digest = hashlib.blake2b(b"eigensweep:data:x:7", digest_size=16).digest()
    key = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
    raw = [number for counter in (1, 2) for number in philox(key, counter)]
    assert Stream(7, "x").uniform(8).tolist() == [(number >> 11) / 2**53 for number in raw]


# -- power laws -------------------------------------------------------------------------------------------------------


def test_covariance_and_energy_of_the_modes_fall_as_powers():
    data = PowerLaw(num_modes=30, feature_exponent=1.2, target_exponent=2.2, num_train=60_000, num_test=1)
    samples = data.load()
    features, targets = samples.train_inputs.astype(np.float64), samples.train_targets.astype(np.float64)
    mode = np.arange(1, 31)
    covariance = features.T @ features / len(features)
    scale = np.sqrt(covariance.diagonal())
    np.testing.assert_allclose(covariance.diagonal(), mode**-1.2, rtol=0.03)
    assert np.abs(covariance / scale / scale[:, None] - np.eye(30)).max() < 0.02
    weights = np.linalg.lstsq(features, targets, rcond=None)[0][:, 0]
    np.testing.assert_allclose(weights**2 * mode**-1.2, mode**-2.2, rtol=1e-4)
    assert targets.var() == pytest.approx((mode**-2.2).sum(), rel=0.03)


def test_a_linear_model_learns_along_the_closed_form(tmp_path: Path):
    """Test loss of gradient descent from nearly zero against half the sum of k^-b exp(-2 t k^-a)."""
    data = PowerLaw(num_modes=100, num_train=8000, num_test=4000)
    samples, rate = data.load(), 0.05
    features, targets = samples.train_inputs.astype(np.float64), samples.train_targets.astype(np.float64)
    test, answers = samples.test_inputs.astype(np.float64), samples.test_targets.astype(np.float64)
    weights, mode = np.zeros((100, 1)), np.arange(1, 101)
    covariance, moment = features.T @ features / 8000, features.T @ targets / 8000
    for step in range(1, 1001):
        weights -= rate * (covariance @ weights - moment)
        if step in (10, 100, 1000):
            closed = 0.5 * (mode**-1.8 * np.exp(-2 * step * rate * mode**-1.5)).sum()
            assert 0.5 * np.mean((test @ weights - answers) ** 2) == pytest.approx(closed, rel=0.1)


def test_noise_is_on_training_targets_only():
    plain, noisy = (PowerLaw(num_modes=20, num_train=5000, num_test=50, noise=noise).load() for noise in (0.0, 0.3))
    assert (noisy.train_targets - plain.train_targets).std() == pytest.approx(0.3, rel=0.05)
    np.testing.assert_array_equal(noisy.test_targets, plain.test_targets)


# -- a teacher --------------------------------------------------------------------------------------------------------


def test_outputs_of_a_teacher_have_mean_0_and_variance_1():
    for depth in (0, 1, 3):
        targets = Teacher(num_outputs=3, depth=depth, num_train=20_000, num_test=1).load().train_targets
        assert targets.mean(0) == pytest.approx([0.0] * 3, abs=0.06)
        assert targets.std(0) == pytest.approx([1.0] * 3, rel=0.06)


def test_a_linear_teacher_is_linear_and_a_deep_one_is_not():
    errors = []
    for depth in (0, 2):
        samples = Teacher(depth=depth).load()
        inputs = np.c_[samples.train_inputs, np.ones(4096)]
        errors.append(np.linalg.lstsq(inputs, samples.train_targets, rcond=None)[1][0] / 4096)
    assert errors[0] < 1e-10
    assert errors[1] > 0.05


# -- MNIST-1D ---------------------------------------------------------------------------------------------------------


def test_a_signal_without_noise_or_slope_is_its_template_moved_and_stretched(monkeypatch):
    for name in ("_CORRELATED_NOISE", "_NOISE", "_SHEAR"):
        monkeypatch.setattr(mnist1d, name, 0.0)
    monkeypatch.setattr(mnist1d, "LENGTH", 600)
    signals = mnist1d.signals(np.arange(10), Stream(0, "x"))
    for template, signal in zip(mnist1d.TEMPLATES, signals):
        tallest = mnist1d._HEIGHT * max(template)
        scale = signal.max() / tallest
        assert 0.55 < scale < 1.45
        assert (signal == 0).mean() > 0.6
        assert signal.sum() / 600 == pytest.approx(scale * mnist1d._HEIGHT * sum(template) / 60, rel=0.25)


def test_classes_are_equally_frequent_and_a_model_tells_them_apart():
    samples = Mnist1d().load()
    assert np.bincount(samples.train_targets).tolist() == [400] * 10
    assert (samples.train_inputs.shape, samples.test_inputs.shape) == ((4000, 40), (1000, 40))
    assert (samples.train_inputs.mean(), samples.train_inputs.std()) == pytest.approx((0.0, 1.0), abs=1e-5)
    # the spectrum of a signal does not see its shift
    train, test = (np.abs(np.fft.rfft(split)) for split in (samples.train_inputs, samples.test_inputs))
    nearest = ((test[:200, None] - train[None]) ** 2).sum(-1).argmin(1)
    assert (samples.train_targets[nearest] == samples.test_targets[:200]).mean() > 0.4


def test_published_signals_are_read_from_an_archive(tmp_path):
    draw = np.random.default_rng(0)
    arrays = {
        "x_train": draw.normal(size=(20, 40)),
        "y_train": np.arange(20) % 10,
        "x_test": draw.normal(size=(10, 40)),
        "y_test": np.arange(10),
    }
    np.savez(tmp_path / "published.npz", **arrays)
    data = Mnist1d(path=str(tmp_path / "published.npz"))
    samples = data.load()
    slow = (arrays["x_test"] - arrays["x_train"].mean()) / arrays["x_train"].std()
    np.testing.assert_allclose(samples.test_inputs, slow, rtol=1e-5, atol=1e-6)
    assert (data.shapes(), data.files()) == (None, [tmp_path / "published.npz"])
    with pytest.raises(ConfigError, match="no MNIST-1D at .*none.npz; data.path= takes a .npz with the arrays x_train .N, 40."):
        Mnist1d(path=str(tmp_path / "none.npz")).files()
    np.savez(tmp_path / "square.npz", **{**arrays, "x_train": draw.normal(size=(20, 4, 10))})
    with pytest.raises(ConfigError, match=r"square.npz holds arrays of the shapes \(20, 4, 10\), \(20,\)"):
        Mnist1d(path=str(tmp_path / "square.npz")).load()


# -- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
def test_three_steps_of_training_on_generated_data(name, tmp_path):
    loss = "cross_entropy" if name == "mnist1d" else "mse"
    workload = Train(data=SMALL[name], model=Mlp(width=8), optimizer=Sgd(), loss=loss, train_size=64, num_steps=3, batch_size=16)
    scalars = rows(tmp_path, committed(tmp_path, workload))["scalars"]
    found = dict(zip(zip(scalars["name"], scalars["step"]), scalars["value"]))
    assert found["test_loss", 3] < 1.1 * found["test_loss", 0]
    assert np.isfinite(found["test_loss", 3])
    assert found["samples_seen", 3] == 48


def test_cross_entropy_of_values_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="loss=cross_entropy needs labels, and this data set has values as targets; take loss=mse"):
        attempt(tmp_path, Train(data=SMALL["teacher"], train_size=64, num_steps=3), reraise=True)


def test_hidden_features_leave_targets_as_they_are():
    whole, seen = (PowerLaw(num_modes=20, num_features=features, num_train=50, num_test=10) for features in (None, 6))
    np.testing.assert_array_equal(seen.load().train_inputs, whole.load().train_inputs[:, :6])
    np.testing.assert_array_equal(seen.load().train_targets, whole.load().train_targets)
    assert seen.shapes() == ((50, 6), (10, 6))
    with pytest.raises(ConfigError, match="num_features must be at most num_modes=20, got 21"):
        PowerLaw(num_modes=20, num_features=21)
