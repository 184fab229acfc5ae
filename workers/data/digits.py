"""scikit-learn's handwritten digits: 1,797 images, 8 x 8, 10 classes; a data set that needs no download."""

import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from workers.errors import ConfigError
from workers.reading.images import normalised
from workers.samples import Samples
from workers.staging import local
from workers.workload import Data

NUM_TRAIN, NUM_TEST = 1438, 359


@dataclass(frozen=True, kw_only=True)
class Digits(Data):
    """The digits in a fixed split: every fifth image is a test image."""

    def files(self) -> list[Path]:
        """The table that scikit-learn brings."""
        package = importlib.util.find_spec("sklearn")
        path = Path(package.origin or "").parent / "datasets/data/digits.csv.gz" if package else None
        if path is None or not path.is_file():
            raise ConfigError("the digits come with scikit-learn, which is not installed: `pip install 'eigensweep[demo]'`")
        return [path]

    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(N, 1, 8, 8)."""
        return (NUM_TRAIN, 1, 8, 8), (NUM_TEST, 1, 8, 8)

    def load(self) -> Samples:
        """Images (1438, 1, 8, 8) and (359, 1, 8, 8); kept in memory by the process."""
        return _read(local(self.files()[0]))


@functools.cache
def _read(path: Path) -> Samples:
    import numpy as np

    # read directly: importing scikit-learn takes a second
    table = np.loadtxt(path, delimiter=",")
    images, labels = table[:, :-1].reshape(-1, 8, 8), table[:, -1]
    test = np.arange(len(table)) % 5 == 4
    if (int((~test).sum()), int(test.sum())) != (NUM_TRAIN, NUM_TEST):
        raise ConfigError(f"{path} holds {len(table)} digits, not {NUM_TRAIN + NUM_TEST}; install scikit-learn again")
    return normalised(images[~test], labels[~test], images[test], labels[test])
