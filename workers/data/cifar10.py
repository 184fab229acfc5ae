"""CIFAR-10: 50,000 + 10,000 colour images, 32 x 32, 10 classes (Krizhevsky 2009), from its binary version."""

from dataclasses import dataclass
from pathlib import Path

from workers.reading.cifar_files import SHAPE, binary_files, read_binaries
from workers.samples import Samples
from workers.staging import local
from workers.workload import Data, setting

NAMES = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")
NUM_TRAIN, NUM_TEST = 50_000, 10_000


@dataclass(frozen=True, kw_only=True)
class Cifar10(Data):
    """CIFAR-10, each channel normalised over the training split."""

    path: str | None = setting(None, identity=False, help="the folder cifar-10-batches-bin")

    def files(self) -> list[Path]:
        """The five training files and the test file."""
        return binary_files(self.path, "cifar10", NAMES, "cifar-10-binary.tar.gz")

    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(N, 3, 32, 32)."""
        return (NUM_TRAIN, *SHAPE), (NUM_TEST, *SHAPE)

    def held_bytes(self) -> int:
        """None."""
        return 0

    def load(self) -> Samples:
        """Images (50000, 3, 32, 32) and (10000, 3, 32, 32), read where they are taken."""
        return read_binaries(tuple(map(local, self.files())), 1, 0)
