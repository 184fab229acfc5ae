"""CIFAR's binary files: records of one or two labels and an image of 3 x 32 x 32 bytes (Krizhevsky 2009)."""

import functools
from pathlib import Path

from workers.errors import ConfigError
from workers.reading.lazy import Joined, Stored
from workers.reading.pixels import pixel_samples
from workers.samples import Samples

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

    Images are read where they are taken; ConfigError where a file is cut.
    """
    images, labels = zip(*(_records(path, num_labels, label) for path in paths))
    return pixel_samples(Joined(images[:-1]), Joined(labels[:-1]), images[-1], labels[-1])


def _records(path: Path, num_labels: int, label: int) -> tuple[Stored, Stored]:
    """Images (N, 3, 32, 32) and labels (N,) of a file."""
    import numpy as np

    size, record, byte = path.stat().st_size, NUM_PIXELS + num_labels, np.dtype(np.uint8)
    if size % record or not size:
        raise ConfigError(f"{path} has {size} bytes, no whole number of records of {record} bytes; fetch it again")
    num = size // record
    return Stored(path, byte, (num, *SHAPE), offset=num_labels, stride=record), Stored(path, byte, (num,), offset=label, stride=record)
