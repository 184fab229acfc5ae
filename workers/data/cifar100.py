"""CIFAR-100: 50,000 + 10,000 colour images, 32 x 32, 100 classes (Krizhevsky 2009), from its binary version."""

from dataclasses import dataclass
from pathlib import Path

from workers.reading.cifar_files import SHAPE, binary_files, read_binaries
from workers.samples import Samples
from workers.staging import local
from workers.workload import Data, setting

NUM_TRAIN, NUM_TEST = 50_000, 10_000


@dataclass(frozen=True, kw_only=True)
class Cifar100(Data):
    """CIFAR-100, each channel normalised over the training split."""

    path: str | None = setting(None, identity=False, help="the folder cifar-100-binary")
    labels: str = setting("fine", choices=("fine", "coarse"), help="100 classes, or the 20 groups of them")

    def files(self) -> list[Path]:
        """The training and the test file."""
        return binary_files(self.path, "cifar100", ("train.bin", "test.bin"), "cifar-100-binary.tar.gz")

    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(N, 3, 32, 32)."""
        return (NUM_TRAIN, *SHAPE), (NUM_TEST, *SHAPE)

    def held_bytes(self) -> int:
        """None."""
        return 0

    def load(self) -> Samples:
        """Images (50000, 3, 32, 32) and (10000, 3, 32, 32), read where they are taken."""
        return read_binaries(tuple(map(local, self.files())), 2, ("coarse", "fine").index(self.labels))
