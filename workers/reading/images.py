"""Labelled images of a training and a test split, read from idx files or a NumPy archive and normalised once a process."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.errors import ConfigError
from workers.samples import Samples, num_classes

if TYPE_CHECKING:
    import numpy as np

ARCHIVE_NAMES = ("x_train", "y_train", "x_test", "y_test")
IDX_STEMS = ("train-images", "train-labels", "t10k-images", "t10k-labels")


def image_files(path: Path, cure: str) -> list[Path]:
    """The files at `path`: a `.npz` archive, or a folder with the four idx files; ConfigError with `cure` where they are absent."""
    if path.suffix == ".npz" and path.is_file():
        return [path]
    if not path.is_dir():
        raise ConfigError(f"no images at {path}: it must be a folder of idx files or a .npz archive that exists; {cure}")
    return [_idx_file(path, stem, cure) for stem in IDX_STEMS]


@functools.lru_cache(maxsize=2)
def read_images(paths: tuple[Path, ...], mean: float | None = None, std: float | None = None) -> Samples:
    """Images from what `image_files` found. `mean`, `std`: of pixel / 255 for 8-bit images; None: those of the training split."""
    splits = image_arrays(paths[0]) if len(paths) == 1 else tuple(read_idx(path) for path in paths)
    return normalised(*splits, mean=mean, std=std)


def normalised(
    train_images: "np.ndarray[Any, Any]",
    train_labels: "np.ndarray[Any, Any]",
    test_images: "np.ndarray[Any, Any]",
    test_labels: "np.ndarray[Any, Any]",
    *,
    mean: float | None = None,
    std: float | None = None,
) -> Samples:
    """Images with zero mean and unit variance over the training split (or the given constants), and a channel axis.

    Input images are (N, H, W), or (N, channels, H, W).
    """
    _check_lengths(train_images, train_labels, test_images, test_labels)
    eight_bit = train_images.dtype == "uint8" and test_images.dtype == "uint8"
    scale = 255.0 if eight_bit else 1.0
    mean = float(train_images.mean(dtype="float64")) / scale if mean is None else mean
    std = (float(train_images.std(dtype="float64")) / scale if std is None else std) or 1.0
    return Samples(
        train_inputs=_scaled(train_images, scale, mean, std),
        train_targets=train_labels.astype("int64"),
        test_inputs=_scaled(test_images, scale, mean, std),
        test_targets=test_labels.astype("int64"),
        num_outputs=num_classes(train_labels),
    )


def _scaled(images: "np.ndarray[Any, Any]", scale: float, mean: float, std: float) -> "np.ndarray[Any, Any]":
    import numpy as np

    if images.ndim == 3:
        images = images[:, None]
    if scale == 255.0:
        table = ((np.arange(256) / scale - mean) / std).astype(np.float32)
        scaled = np.empty(images.shape, np.float32)
        # in blocks, because indexing widens the indices to 8 bytes
        for start in range(0, len(images), 4096):
            scaled[start : start + 4096] = table[images[start : start + 4096]]
        return scaled
    return ((images.astype(np.float64) / scale - mean) / std).astype(np.float32)


def _check_lengths(*splits: "np.ndarray[Any, Any]") -> None:
    for name, images, labels in (("training", splits[0], splits[1]), ("test", splits[2], splits[3])):
        if images.ndim not in (3, 4) or labels.ndim != 1 or len(images) != len(labels) or len(images) == 0:
            raise ConfigError(
                f"the {name} split has images of shape {images.shape} and labels of shape {labels.shape}; "
                "it must have (N, H, W) or (N, channels, H, W) and (N,), with the same N > 0"
            )


def _idx_file(folder: Path, stem: str, cure: str) -> Path:
    kind = "idx3" if "images" in stem else "idx1"
    names = [f"{stem}{dot}{kind}-ubyte{gz}" for dot in "-." for gz in (".gz", "")]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise ConfigError(f"no {names[0]} (nor {', '.join(names[1:])}) in {folder}; {cure}")


def read_idx(path: Path) -> "np.ndarray[Any, Any]":
    """The 8-bit array of an idx file, gzipped or not; ConfigError where it is none or is truncated."""
    import gzip
    import zlib

    import numpy as np

    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{path} cannot be read ({error}); fetch it again") from error
    num_axes = data[3] if len(data) >= 4 else 0
    shape = tuple(int.from_bytes(data[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(num_axes))
    start = 4 + 4 * num_axes
    if data[:3] != b"\0\0\x08" or not num_axes or len(data) - start != np.prod(shape, dtype=np.int64):
        raise ConfigError(f"{path} is no whole idx file of bytes ({len(data)} bytes, shape {shape}); fetch it again")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def image_arrays(path: Path) -> "tuple[np.ndarray[Any, Any], ...]":
    """x_train, y_train, x_test, y_test of a `.npz` archive; ConfigError where it is none or lacks one of them."""
    import zipfile

    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as arrays:
            missing = [name for name in ARCHIVE_NAMES if name not in arrays.files]
            if not missing:
                return tuple(arrays[name] for name in ARCHIVE_NAMES)
            present = arrays.files
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path} is no readable .npz archive ({error})") from error
    raise ConfigError(f"{path} has no array {', '.join(missing)}; it has {', '.join(present)} and must have {', '.join(ARCHIVE_NAMES)}")
