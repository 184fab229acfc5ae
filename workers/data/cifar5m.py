"""CIFAR-5M: six million synthetic images in the manner of CIFAR-10 (Nakkiran et al. 2020, arXiv 2010.08127), from its `.npz` parts."""

import functools
import re
from dataclasses import dataclass
from pathlib import Path

from workers.errors import ConfigError
from workers.lazy import Joined
from workers.pixels import pixel_samples
from workers.samples import Samples
from workers.staging import local
from workers.workload import Data, setting

CURE = (
    "data.path= takes a folder with the parts cifar5m_part0.npz, cifar5m_part1.npz, ... (arrays X, of bytes (N, 32, 32, 3), and Y), from "
    "https://github.com/preetum/cifar5m"
)
_PART = re.compile(r"(?:cifar5m_)?part(\d+)\.npz")


@dataclass(frozen=True, kw_only=True)
class Cifar5m(Data):
    """CIFAR-5M, or as many of its parts as there are: the last part is the test split, or the last tenth of a single one.

    Parts that are not compressed stay on the disk, mapped into memory; each channel is normalised over the first 50,000 images.
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

    def load(self) -> Samples:
        """Images (N, 3, 32, 32) with labels, of which a run holds only those that it takes."""
        return _read(tuple(map(local, self.files())))


@functools.lru_cache(maxsize=1)
def _read(paths: tuple[Path, ...]) -> Samples:
    from workers.npz_files import mapped

    images, labels = [], []
    for path in paths:
        arrays = mapped(path, ("X", "Y"))
        if arrays["X"].ndim != 4 or arrays["X"].dtype != "uint8" or len(arrays["X"]) != len(arrays["Y"]):
            raise ConfigError(f"{path} holds X of shape {arrays['X'].shape}, {arrays['X'].dtype}, and Y of {arrays['Y'].shape}; {CURE}")
        images.append(arrays["X"].transpose(0, 3, 1, 2))
        labels.append(arrays["Y"])
    if len(paths) == 1:
        cut = len(labels[0]) - max(1, len(labels[0]) // 10)
        images, labels = [images[0][:cut], images[0][cut:]], [labels[0][:cut], labels[0][cut:]]
    return pixel_samples(Joined(images[:-1]), Joined(labels[:-1]), images[-1], labels[-1])
