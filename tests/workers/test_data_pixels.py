"""Images that stay bytes on the disk, and images as sequences of grey levels, against slow versions."""

import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from workers.data.cifar5m import Cifar5m, _head
from workers.data.cifar10 import NAMES, Cifar10
from workers.data.cifar100 import Cifar100
from workers.data.digits import Digits
from workers.data.next_pixel import NextPixel
from workers.data.npz import Npz
from workers.errors import ConfigError
from workers.reading.lazy import Computed, Joined, Part, Stored
from workers.workloads.matrix_free_spectrum import MatrixFreeSpectrum
from workers.workloads.tiled_gram import TiledGram
from workers.workloads.train import Train


def images_of(num: int, seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num, *shape), dtype=np.uint8)


def slow_normalised(images: np.ndarray, train: np.ndarray) -> np.ndarray:
    """(N, channels, H, W) by the mean and deviation of each channel, in float64."""
    axes = (0, 2, 3)
    return (images - train.mean(axes, keepdims=True)) / train.std(axes, keepdims=True)


# -- arrays that are computed when they are taken ---------------------------------------------------------------------


def test_joined_parts_are_one_array():
    parts = [np.arange(start, start + num).reshape(-1, 1) for start, num in ((0, 3), (3, 1), (4, 6))]
    whole, joined, index = np.concatenate(parts), Joined(parts), np.array([9, 0, 3, 3, 4])
    np.testing.assert_array_equal(joined[index], whole[index])
    np.testing.assert_array_equal(joined[2:8:2], whole[2:8:2])
    assert (len(joined), joined.shape, joined.dtype) == (10, whole.shape, whole.dtype)


def test_computed_entries_are_the_function_of_the_entries(monkeypatch):
    monkeypatch.setattr("workers.reading.lazy._BLOCK", 3)
    source = np.arange(20.0).reshape(10, 2)
    squares = Computed(source, lambda some: (some**2).sum(1), (), np.dtype(np.float64))
    np.testing.assert_array_equal(squares[np.array([7, 1, 1, 9])], (source**2).sum(1)[[7, 1, 1, 9]])
    np.testing.assert_array_equal(squares[:], (source**2).sum(1))


def test_stored_records_are_the_file_and_parts_are_slices(tmp_path):
    records = images_of(9, 0, 7)
    (tmp_path / "records").write_bytes(b"head" + records.tobytes())
    stored = Stored(tmp_path / "records", np.dtype(np.uint8), (9, 2, 3), offset=5, stride=7)
    whole, index = records[:, 1:].reshape(9, 2, 3), np.array([8, 0, 0, 4])
    np.testing.assert_array_equal(stored[index], whole[index])
    np.testing.assert_array_equal(stored[1:8:3], whole[1:8:3])
    part = Part(stored, 2, 7)
    np.testing.assert_array_equal(part[np.array([4, 0])], whole[2:7][[4, 0]])
    np.testing.assert_array_equal(part[1:], whole[2:7][1:])
    assert (len(part), part.shape, stored[0:0].shape) == (5, (5, 2, 3), (0, 2, 3))


# -- CIFAR ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def cifar10(tmp_path: Path) -> dict[str, np.ndarray]:
    """Records of the binary version, 4 in each file."""
    records = {name: images_of(4, number, 3073) for number, name in enumerate(NAMES)}
    for name, record in records.items():
        record[:, 0] = [0, 1, 9, 5]
        record.tofile(tmp_path / name)
    return records


def test_cifar_10_is_read_from_its_binary_files(cifar10, tmp_path):
    samples = Cifar10(path=str(tmp_path)).load()
    train = np.concatenate([cifar10[name][:, 1:].reshape(-1, 3, 32, 32) for name in NAMES[:-1]])
    test = cifar10[NAMES[-1]][:, 1:].reshape(-1, 3, 32, 32)
    np.testing.assert_allclose(samples.train_inputs[:], slow_normalised(train, train), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(samples.test_inputs[np.array([3, 0])], slow_normalised(test, train)[[3, 0]], rtol=1e-5, atol=1e-6)
    assert (samples.train_targets.tolist(), samples.num_outputs) == ([0, 1, 9, 5] * 5, 10)
    assert (samples.input_shape, samples.has_tokens, samples.units_per_sample) == ((3, 32, 32), False, 1)


def test_cifar_100_has_two_labels(tmp_path):
    for name in ("train", "test"):
        records = images_of(5, 0, 3074)
        records[:, 0], records[:, 1] = [0, 1, 2, 3, 19], [0, 5, 99, 7, 7]
        records.tofile(tmp_path / f"{name}.bin")
    fine, coarse = (Cifar100(path=str(tmp_path), labels=labels).load() for labels in ("fine", "coarse"))
    assert (fine.test_targets.tolist(), fine.num_outputs) == ([0, 5, 99, 7, 7], 100)
    assert (coarse.test_targets.tolist(), coarse.num_outputs) == ([0, 1, 2, 3, 19], 20)


def test_absent_cut_and_pickled_cifar_is_named(cifar10, tmp_path):
    with pytest.raises(ConfigError, match="data=cifar10 needs a path; .* of cifar-10-binary.tar.gz, the binary version"):
        Cifar10().files()
    (tmp_path / "data_batch_3.bin").write_bytes(b"\0" * 3072)
    with pytest.raises(ConfigError, match="data_batch_3.bin has 3072 bytes, no whole number of records of 3073 bytes; fetch it again"):
        Cifar10(path=str(tmp_path)).load()
    (tmp_path / "data_batch_3.bin").rename(tmp_path / "data_batch_1")
    with pytest.raises(ConfigError, match="no data_batch_3.bin at .*made of pickles, which may run any code and are not read"):
        Cifar10(path=str(tmp_path)).files()


@pytest.fixture
def parts(tmp_path: Path) -> list[dict[str, np.ndarray]]:
    found = [{"X": images_of(6, number, 32, 32, 3), "Y": np.arange(6) + number} for number in range(3)]
    for number, part in enumerate(found):
        (np.savez_compressed if number == 1 else np.savez)(tmp_path / f"cifar5m_part{number}.npz", **part)
    return found


def test_cifar_5m_is_its_parts_and_the_last_is_the_test_split(parts, tmp_path):
    samples = Cifar5m(path=str(tmp_path)).load()
    train = np.moveaxis(np.concatenate([parts[0]["X"], parts[1]["X"]]), -1, 1)
    np.testing.assert_allclose(samples.train_inputs[:], slow_normalised(train, train), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(samples.test_inputs[:], slow_normalised(np.moveaxis(parts[2]["X"], -1, 1), train), rtol=1e-5, atol=1e-6)
    assert samples.train_targets.tolist() == [*range(6), *range(1, 7)]
    assert samples.test_targets.tolist() == [*range(2, 8)]


def test_the_shapes_of_cifar_5m_and_what_is_held_are_known_from_its_heads(parts, tmp_path):
    data = Cifar5m(path=str(tmp_path))
    assert data.shapes() == ((12, 3, 32, 32), (6, 3, 32, 32))
    assert data.held_bytes() == parts[1]["X"].nbytes  # the compressed one
    (tmp_path / "cifar5m_part1.npz").write_bytes(b"no zip")
    _head.cache_clear()
    assert (data.shapes(), Cifar5m().shapes()) == (None, None)


@pytest.mark.parametrize("workload", [TiledGram, MatrixFreeSpectrum])
def test_memory_for_a_kernel_does_not_grow_with_images_that_are_read_when_taken(tmp_path, workload):
    with zipfile.ZipFile(tmp_path / "part0.npz", "w") as archive, archive.open("X.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (6_000_000, 32, 32, 3)})
    few, many = (workload(train=Train(data=data)).resources().memory_gib for data in (Cifar10(), Cifar5m(path=str(tmp_path))))
    assert few == many
    assert NextPixel(images=Cifar10()).held_bytes() == 0 < NextPixel().held_bytes()


def test_of_one_part_the_last_tenth_is_the_test_split(tmp_path):
    part = {"X": images_of(30, 0, 32, 32, 3), "Y": np.arange(30) % 10}
    np.savez(tmp_path / "part0.npz", **part)
    samples = Cifar5m(path=str(tmp_path)).load()
    assert (len(samples.train_inputs), len(samples.test_inputs)) == (27, 3)
    assert Cifar5m(path=str(tmp_path)).shapes() == (samples.train_inputs.shape, samples.test_inputs.shape)
    assert samples.test_targets.tolist() == [7, 8, 9]


def test_large_parts_stay_on_the_disk(tmp_path):
    """75 MB of pixels as bytes, 300 MB as float32: reading takes a small part of either."""
    images = np.zeros((24_576, 32, 32, 3), np.uint8)
    images[::2] = 200
    np.savez(tmp_path / "cifar5m_part0.npz", X=images, Y=np.arange(24_576) % 10)
    del images
    tracemalloc.start()
    samples = Cifar5m(path=str(tmp_path)).load()
    taken = samples.train_inputs[np.arange(0, 20_000, 200)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken.shape == (100, 3, 32, 32)
    assert np.all(taken == taken[0, 0, 0, 0])
    assert peak < 60e6


def test_absent_and_wrong_parts_are_named(tmp_path):
    with pytest.raises(ConfigError, match="data=cifar5m needs a path; data.path= takes a folder with the parts cifar5m_part0.npz"):
        Cifar5m().files()
    with pytest.raises(ConfigError, match=f"no part of CIFAR-5M at {tmp_path}; data.path="):
        Cifar5m(path=str(tmp_path)).files()
    np.savez(tmp_path / "part0.npz", X=np.zeros((3, 4)), Y=np.zeros(3))
    with pytest.raises(ConfigError, match=r"part0.npz holds X of shape \(3, 4\), float64, and Y of \(3,\)"):
        Cifar5m(path=str(tmp_path)).load()
    np.savez(tmp_path / "part0.npz", images=np.zeros(3))
    with pytest.raises(ConfigError, match="part0.npz has no array X, Y; it has images"):
        Cifar5m(path=str(tmp_path)).load()
    (tmp_path / "part0.npz").write_bytes(b"no zip")
    with pytest.raises(ConfigError, match="part0.npz is no readable .npz archive .* fetch it again"):
        Cifar5m(path=str(tmp_path)).load()


# -- next pixel -------------------------------------------------------------------------------------------------------


@pytest.fixture
def colour(tmp_path: Path) -> Path:
    """Ten images of 3 channels, 4 x 6, with the values 0 and 255 among them."""
    train, test = images_of(10, 0, 3, 4, 6), images_of(5, 1, 3, 4, 6)
    train.flat[:2] = 0, 255
    np.savez(tmp_path / "colour.npz", x_train=train, y_train=np.arange(10) % 2, x_test=test, y_test=np.arange(5) % 2)
    return tmp_path / "colour.npz"


def test_pixels_follow_each_other_channel_by_channel_after_a_token_of_their_own(colour):
    data = NextPixel(images=Npz(path=str(colour)), levels=16, pooling=1)
    samples, pixels = data.load(), np.load(colour)["x_test"]
    slow = [[round(int(image[c, y, x]) * 15 / 255) for y in range(4) for x in range(6) for c in range(3)] for image in pixels]
    assert samples.test_targets[:].tolist() == slow
    assert samples.test_inputs[:].tolist() == [[16, *levels[:-1]] for levels in slow]
    assert (samples.num_outputs, samples.has_tokens, samples.counted()) == (17, True, {"images": 1, "pixels": 72})


def test_pooled_pixels_are_means_of_squares(colour):
    data = NextPixel(images=Npz(path=str(colour)), levels=8, pooling=2)
    pixels, train = np.load(colour)["x_train"].astype(float), data.load().train_targets
    means = pixels.reshape(10, 3, 2, 2, 3, 2).mean((3, 5))
    slow = (means - means.min()) / (means.max() - means.min()) * 7
    halfway = np.abs(slow % 1 - 0.5) < 1e-2
    assert np.mean(train[:] == np.moveaxis(np.rint(slow), 1, -1).reshape(10, -1)) >= 1 - halfway.mean()


def test_no_level_of_the_digits_is_lost():
    samples = NextPixel(images=Digits(), levels=17).load()
    assert (
        NextPixel(images=Digits(), levels=17).shapes() == (samples.train_inputs.shape, samples.test_inputs.shape) == ((1438, 64), (359, 64))
    )
    table = np.loadtxt(Digits().files()[0], delimiter=",")
    np.testing.assert_array_equal(samples.test_targets[:], table[4::5, :-1])


def test_pooling_that_does_not_divide_the_image_is_refused(colour):
    with pytest.raises(ConfigError, match=r"whose sides data.pooling=4 divides, got \(3, 4, 6\) from data.images=npz"):
        NextPixel(images=Npz(path=str(colour)), pooling=4).load()


def test_taken_pixels_are_tokens_on_the_device():
    import torch

    inputs, targets = NextPixel().load().train(np.array([5, 2, 5]), "cpu", torch.float32)
    assert (inputs.dtype, inputs.shape, targets.shape) == (torch.int32, (3, 64), (3, 64))
    torch.testing.assert_close(inputs[:, 1:], targets[:, :-1])
