"""CIFAR-5M: six million synthetic images in the manner of CIFAR-10 (Nakkiran et al. 2020, arXiv 2010.08127), from its `.npz` parts."""

import contextlib
import functools
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.errors import ConfigError
from workers.reading.lazy import Computed, Joined, Lazy, Part
from workers.reading.npz_files import stored_arrays, stored_head
from workers.reading.pixels import pixel_samples
from workers.samples import Samples
from workers.staging import local
from workers.workload import Data, setting

if TYPE_CHECKING:
    import numpy as np

CURE = (
    "data.path= takes a folder with the parts cifar5m_part0.npz, cifar5m_part1.npz, ... (arrays X, of bytes (N, 32, 32, 3), and Y), from "
    "https://github.com/preetum/cifar5m"
)
_PART = re.compile(r"(?:cifar5m_)?part(\d+)\.npz")


@dataclass(frozen=True, kw_only=True)
class Cifar5m(Data):
    """CIFAR-5M, or as many of its parts as there are: the last part is the test split, or the last tenth of a single one.

    Of parts that are not compressed, images are read where they are taken; each channel is normalised over the first 50,000 images.
    """

    path: str | None = setting(None, identity=False, help="the folder with the parts")

    def files(self) -> list[Path]:
        """The parts, in the order of their numbers."""
        if self.path is None:
            raise ConfigError(f"data=cifar5m needs a path; {CURE}")
        found = {int(match[1]): path for path in Path(self.path).glob("*.npz") if (match := _PART.fullmatch(path.name))}
        if not found:
            raise ConfigError(f"no part of CIFAR-5M at {self.path}; {CURE}")
        return [found[number] for number in sorted(found)]

    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """(N, 3, 32, 32), from the heads of the files; None where they are absent."""
        sizes = [shape for shape, _ in self._heads()]
        if not sizes:
            return None
        _, height, width, channels = sizes[0]
        *train, test = [shape[0] for shape in sizes] if len(sizes) > 1 else _cut(sizes[0][0])
        return (sum(train), channels, height, width), (test, channels, height, width)

    def held_bytes(self) -> int:
        """Those of the parts that are compressed, a byte a pixel."""
        return sum(math.prod(shape) for shape, is_compressed in self._heads() if is_compressed)

    def _heads(self) -> list[tuple[tuple[int, ...], bool]]:
        """Shape of the images of each part, and whether they are compressed; empty where no parts are there, or others than these."""
        with contextlib.suppress(ConfigError):
            heads = [_head(path) for path in self.files()]
            return heads if all(len(shape) == 4 for shape, _ in heads) else []
        return []

    def load(self) -> Samples:
        """Images (N, 3, 32, 32) with labels, of which a run holds only those that it takes."""
        return _read(tuple(map(local, self.files())))


_head = functools.lru_cache(maxsize=64)(functools.partial(stored_head, name="X"))


def _cut(num: int) -> tuple[int, int]:
    """Training and test images of a single part."""
    num_test = max(1, num // 10)
    return num - num_test, num_test


@functools.lru_cache(maxsize=1)
def _read(paths: tuple[Path, ...]) -> Samples:
    import numpy as np

    images, labels = (list(arrays) for arrays in zip(*(_part(path) for path in paths)))
    if len(paths) == 1:
        (labels_N,), (images_N,) = labels, images
        cut, _ = _cut(len(labels_N))
        images, labels = [Part(images_N, 0, cut), Part(images_N, cut, len(labels_N))], [labels_N[:cut], labels_N[cut:]]
    return pixel_samples(Joined(images[:-1]), np.concatenate(labels[:-1]), images[-1], labels[-1])


def _part(path: Path) -> "tuple[Lazy, np.ndarray[Any, Any]]":
    """Images (N, 3, 32, 32) and labels (N,) of one file."""
    arrays = stored_arrays(path, ("X", "Y"))
    images, labels_N = arrays["X"], arrays["Y"][:]
    if len(images.shape) != 4 or images.dtype != "uint8" or len(images) != len(labels_N):
        raise ConfigError(f"{path} holds X of shape {images.shape}, {images.dtype}, and Y of {labels_N.shape}; {CURE}")
    _, height, width, channels = images.shape
    return Computed(images, lambda some: some.transpose(0, 3, 1, 2), (channels, height, width), images.dtype), labels_N
