"""CIFAR's binary files: records of one or two labels and an image of 3 x 32 x 32 bytes (Krizhevsky 2009)."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.errors import ConfigError
from workers.lazy import Joined
from workers.pixels import pixel_samples
from workers.samples import Samples

if TYPE_CHECKING:
    import numpy as np

SHAPE = (3, 32, 32)
NUM_PIXELS = 3 * 32 * 32


def binary_files(path: str | None, name: str, names: tuple[str, ...], archive: str) -> list[Path]:
    """The files of a folder; ConfigError where one is absent."""
    cure = f"data.path= takes the folder with {', '.join(names)} of {archive}, the binary version, from https://www.cs.toronto.edu/~kriz/cifar.html"
    if path is None:
        raise ConfigError(f"data={name} needs a path; {cure}")
    folder = Path(path)
    missing = [one for one in names if not (folder / one).is_file()]
    if missing:
        pickles = [one for one in ("data_batch_1", "train") if (folder / one).is_file()]
        why = "; the Python version there is made of pickles, which may run any code and are not read" if pickles else ""
        raise ConfigError(f"no {missing[0]} at {folder}{why}; {cure}")
    return [folder / one for one in names]


@functools.lru_cache(maxsize=2)
def read_binaries(paths: tuple[Path, ...], num_labels: int, label: int) -> Samples:
    """Images (N, 3, 32, 32), the last file's as the test split, with the label number `label` of the `num_labels` of a record.

    The files are mapped into memory; ConfigError where one is cut.
    """
    parts = [_records(path, num_labels) for path in paths]
    images, labels = [_images(part, num_labels) for part in parts], [part[:, label] for part in parts]
    return pixel_samples(Joined(images[:-1]), Joined(labels[:-1]), images[-1], labels[-1])


def _records(path: Path, num_labels: int) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    import numpy as np

    size, record = path.stat().st_size, NUM_PIXELS + num_labels
    if size % record or not size:
        raise ConfigError(f"{path} has {size} bytes, no whole number of records of {record} bytes; fetch it again")
    return np.memmap(path, np.uint8, mode="r", shape=(size // record, record))


def _images(records: "np.ndarray[Any, np.dtype[np.uint8]]", num_labels: int) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    # a view, because the record's end stays whole
    return records[:, num_labels:].reshape(len(records), *SHAPE)
