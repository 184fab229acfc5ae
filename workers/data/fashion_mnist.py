"""Fashion-MNIST: 60,000 + 10,000 images of clothing, 28 x 28, 10 classes (Xiao et al. 2017, arXiv 1708.07747)."""

from dataclasses import dataclass
from pathlib import Path

from workers.reading.images import image_files, read_images
from workers.samples import Samples
from workers.staging import local
from workers.workload import Data, setting

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
MEAN, STD = 0.28604, 0.35302  # of pixel / 255 over the training split
CURE = (
    "install it with `sudo apt-get install dataset-fashion-mnist`, or give data.path= a folder with the four idx files or a .npz with "
    "x_train, y_train, x_test, y_test; without it, data=digits needs only scikit-learn"
)


@dataclass(frozen=True, kw_only=True)
class FashionMnist(Data):
    """Fashion-MNIST from its Debian package, or with a `path` other images of the same layout (so MNIST too).

    The package's images are normalised by the published mean and deviation, others by those of their training split.
    """

    path: str | None = setting(None, identity=False, help="folder of idx files or .npz; null: the Debian package dataset-fashion-mnist")

    def key_version(self) -> int:
        """With a path 2: before, Fashion-MNIST's mean and deviation were taken for any images."""
        return 2 if self.path else self.version

    def files(self) -> list[Path]:
        """The four idx files, or the archive."""
        return image_files(Path(self.path).expanduser() if self.path else DEBIAN_FOLDER, CURE)

    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """Those of the package; other files may hold others."""
        return None if self.path else ((60000, 1, 28, 28), (10000, 1, 28, 28))

    def load(self) -> Samples:
        """Images (60000, 1, 28, 28) and (10000, 1, 28, 28); kept in memory by the process."""
        constants = () if self.path else (MEAN, STD)
        return read_images(tuple(map(local, self.files())), *constants)
