"""A user's own labelled images from a NumPy archive or a folder of idx files."""

from dataclasses import dataclass
from pathlib import Path

from workers.errors import ConfigError
from workers.reading.images import image_files, read_images
from workers.samples import Samples
from workers.staging import local
from workers.workload import Data, setting

CURE = "data.path= takes a .npz with the arrays x_train, y_train, x_test, y_test, or a folder with the four idx files of MNIST's layout"


@dataclass(frozen=True, kw_only=True)
class Npz(Data):
    """Images (N, H, W) or (N, channels, H, W) with whole labels, normalised by mean and deviation of the training split."""

    path: str | None = setting(None, identity=False, help="the .npz archive or the folder")

    def files(self) -> list[Path]:
        """The archive, or the four idx files."""
        if self.path is None:
            raise ConfigError(f"data=npz needs a path; {CURE}")
        return image_files(Path(self.path).expanduser(), CURE)

    def load(self) -> Samples:
        """The images; kept in memory by the process."""
        return read_images(tuple(map(local, self.files())))
