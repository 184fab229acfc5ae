"""Data sets: what is read, what is refused and how the refusal helps."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from orchestrator.identity import value_text
from workers.data import fashion_mnist
from workers.data.digits import Digits
from workers.data.fashion_mnist import FashionMnist
from workers.data.npz import Npz
from workers.errors import ConfigError

NUM_TRAIN, NUM_TEST = 12, 6


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "x_train": random.integers(0, 256, (NUM_TRAIN, 4, 5), dtype=np.uint8),
        "y_train": (np.arange(NUM_TRAIN) % 3).astype(np.uint8),
        "x_test": random.integers(0, 256, (NUM_TEST, 4, 5), dtype=np.uint8),
        "y_test": (np.arange(NUM_TEST) % 3).astype(np.uint8),
    }


def write_idx(path: Path, array: np.ndarray) -> None:
    data = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.fixture
def idx_folder(tmp_path: Path, arrays: dict[str, np.ndarray]) -> Path:
    folder = tmp_path / "idx"
    folder.mkdir()
    write_idx(folder / "train-images-idx3-ubyte.gz", arrays["x_train"])
    write_idx(folder / "train-labels-idx1-ubyte", arrays["y_train"])
    write_idx(folder / "t10k-images.idx3-ubyte", arrays["x_test"])
    write_idx(folder / "t10k-labels-idx1-ubyte.gz", arrays["y_test"])
    return folder


@pytest.fixture
def archive(tmp_path: Path, arrays: dict[str, np.ndarray]) -> Path:
    np.savez(tmp_path / "data.npz", **arrays)
    return tmp_path / "data.npz"


def test_a_folder_and_an_archive_of_the_same_images_are_equal(idx_folder, archive, arrays):
    one, other = FashionMnist(path=str(idx_folder)).load(), FashionMnist(path=str(archive)).load()
    for name in ("train_inputs", "train_targets", "test_inputs", "test_targets"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.train_inputs.shape == (NUM_TRAIN, 1, 4, 5)
    assert (one.train_inputs.dtype, one.train_targets.dtype) == (np.float32, np.int64)
    assert (one.input_shape, one.num_outputs) == ((1, 4, 5), 3)
    slow = (arrays["x_test"][2, 3, 1] - arrays["x_train"].mean()) / arrays["x_train"].std()
    assert one.test_inputs[2, 0, 3, 1] == pytest.approx(slow, rel=1e-6)


def test_fashion_mnist_keeps_its_constants_and_its_key_and_images_at_a_path_have_another(idx_folder, arrays, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", idx_folder)
    slow = (arrays["x_test"][2, 3, 1] / 255 - fashion_mnist.MEAN) / fashion_mnist.STD
    assert FashionMnist().load().test_inputs[2, 0, 3, 1] == pytest.approx(slow, rel=1e-6)
    package, own = (value_text(FashionMnist(path=path), {"data": "c"}, "data") for path in (None, str(idx_folder)))
    assert (package, own) == ("fashion_mnist@1#c()", "fashion_mnist@2#c()")


def test_own_images_are_normalised_by_their_training_split(archive, tmp_path, arrays):
    images = Npz(path=str(archive)).load()
    assert images.train_inputs.mean() == pytest.approx(0.0, abs=1e-6)
    assert images.train_inputs.std() == pytest.approx(1.0, rel=1e-6)
    colour = {**arrays, "x_train": np.random.rand(NUM_TRAIN, 3, 4, 5), "x_test": np.random.rand(NUM_TEST, 3, 4, 5)}
    np.savez(tmp_path / "colour.npz", **colour)
    assert Npz(path=str(tmp_path / "colour.npz")).load().input_shape == (3, 4, 5)


def test_one_process_reads_a_data_set_once(archive):
    assert Npz(path=str(archive)).load() is Npz(path=str(archive)).load()
    assert Digits().load() is Digits().load()


def test_digits_have_their_fixed_split():
    images = Digits().load()
    assert images.train_inputs.shape == (1438, 1, 8, 8)
    assert images.test_targets.tolist()[:5] == [4, 9, 4, 9, 4]
    assert (images.num_outputs, len(images.test_targets)) == (10, 359)


@pytest.mark.skipif(not fashion_mnist.DEBIAN_FOLDER.is_dir(), reason="the package dataset-fashion-mnist is not installed")
def test_fashion_mnist_of_the_debian_package():
    images = FashionMnist().load()
    assert (images.train_inputs.shape, images.test_inputs.shape) == ((60000, 1, 28, 28), (10000, 1, 28, 28))
    assert np.bincount(images.train_targets).tolist() == [6000] * 10
    assert images.train_inputs.mean(dtype=np.float64) == pytest.approx(0.0, abs=1e-4)
    assert images.train_inputs.std(dtype=np.float64) == pytest.approx(1.0, rel=1e-4)


def test_without_the_package_the_error_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "none")
    with pytest.raises(ConfigError, match="apt-get install dataset-fashion-mnist.*data.path=.*data=digits"):
        FashionMnist().files()


def test_a_folder_without_a_file_names_it(idx_folder):
    (idx_folder / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(ConfigError, match=r"no train-labels-idx1-ubyte\.gz .* in .*idx"):
        FashionMnist(path=str(idx_folder)).files()


def test_a_path_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no images at .*nowhere\.npz: it must be a folder of idx files or a \.npz"):
        FashionMnist(path=str(tmp_path / "nowhere.npz")).files()
    with pytest.raises(ConfigError, match="data=npz needs a path"):
        Npz().files()


@pytest.mark.parametrize("cut", [2, 9, -1])
def test_a_truncated_idx_file_is_named(idx_folder, cut):
    path = idx_folder / "train-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ConfigError, match="train-labels-idx1-ubyte is no whole idx file"):
        FashionMnist(path=str(idx_folder)).load()


def test_a_truncated_gzip_file_is_named(idx_folder):
    path = idx_folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ConfigError, match=r"train-images-idx3-ubyte\.gz cannot be read .* fetch it again"):
        FashionMnist(path=str(idx_folder)).load()


def test_an_archive_that_is_none_is_named(tmp_path):
    (tmp_path / "bad.npz").write_bytes(b"no zip")
    with pytest.raises(ConfigError, match=r"bad\.npz is no readable \.npz archive"):
        Npz(path=str(tmp_path / "bad.npz")).load()


def test_an_archive_with_other_names_says_which_are_needed(tmp_path):
    np.savez(tmp_path / "other.npz", images=np.zeros(3))
    with pytest.raises(ConfigError, match="no array x_train, y_train, x_test, y_test; it has images"):
        Npz(path=str(tmp_path / "other.npz")).load()


def test_splits_of_unequal_lengths_are_refused(tmp_path, arrays):
    np.savez(tmp_path / "short.npz", **{**arrays, "y_test": arrays["y_test"][:-1]})
    with pytest.raises(ConfigError, match=r"the test split has images of shape \(6, 4, 5\) and labels of shape \(5,\)"):
        Npz(path=str(tmp_path / "short.npz")).load()
