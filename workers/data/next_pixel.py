"""Images of another data set as sequences of grey levels, for the prediction of the next pixel."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.data.digits import Digits
from workers.errors import ConfigError
from workers.reading.lazy import Computed
from workers.samples import Samples
from workers.workload import Data, setting

if TYPE_CHECKING:
    import numpy as np

    Pixels = np.ndarray[Any, Any]

# N images; T pixels of an image, of all its channels

NUM_MEASURED = 50_000
_BLOCK = 4096


@dataclass(frozen=True, kw_only=True)
class NextPixel(Data):
    """Images row by row, the channels of a pixel one after the other, each value rounded to one of `levels` grey levels.

    The levels are equally spaced between the darkest and the brightest value of the first 50,000 training images. A sequence begins with a
    token of its own, the number `levels`, so that all T pixels are targets; the vocabulary is levels + 1.
    """

    images: Data = Digits()
    levels: int = setting(16, low=2, high=256, help="grey levels")
    pooling: int = setting(1, low=1, help="the image is first averaged over squares of that side")

    def files(self) -> list[Path]:
        """Those of the images."""
        return self.images.files()

    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """(N, T)."""
        known = self.images.shapes()
        return known and tuple((shape[0], math.prod(self._pooled(shape[1:]))) for shape in known)  # type: ignore[return-value]

    def held_bytes(self) -> int:
        """Those of the images."""
        return self.images.held_bytes()

    def load(self) -> Samples:
        """Tokens (N, T), the begin token and all pixels but the last, and as targets all pixels (N, T); made where they are taken."""
        return _made(self)

    def _pooled(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """(channels, H, W) after pooling; ConfigError where the side does not divide the image."""
        if len(shape) != 3 or shape[1] % self.pooling or shape[2] % self.pooling:
            raise ConfigError(
                f"data=next_pixel needs images (channels, H, W) whose sides data.pooling={self.pooling} divides, got {shape} from "
                f"data.images={self.images.plugin_name()}"
            )
        return shape[0], shape[1] // self.pooling, shape[2] // self.pooling


@functools.lru_cache(maxsize=2)
def _made(data: NextPixel) -> Samples:
    import numpy as np

    images: Samples = data.images.load()
    channels, height, width = data._pooled(images.input_shape)
    side, size = data.pooling, channels * height * width

    def pooled(values: "Pixels") -> "Pixels":
        """(N, T)."""
        means: Pixels = values.reshape(-1, channels, height, side, width, side).mean((3, 5))
        return means.transpose(0, 2, 3, 1).reshape(-1, size)

    darkest, brightest = _range(images, pooled)
    per_level = (brightest - darkest) / (data.levels - 1) or 1.0
    dtype = np.dtype(np.uint8 if data.levels < 256 else np.uint16)

    def levels(values: "Pixels") -> "Pixels":
        # a little more than a half, so that rounding errors do not decide where a value is halfway
        return np.clip((pooled(values) - darkest) / per_level + 0.501, 0, data.levels - 1).astype(dtype)

    def inputs(values: "Pixels") -> "Pixels":
        moved = np.roll(levels(values), 1, axis=1)
        moved[:, 0] = data.levels
        return moved

    train, test = images.train_inputs, images.test_inputs
    return Samples(
        train_inputs=Computed(train, inputs, (size,), dtype),
        train_targets=Computed(train, levels, (size,), dtype),
        test_inputs=Computed(test, inputs, (size,), dtype),
        test_targets=Computed(test, levels, (size,), dtype),
        num_outputs=data.levels + 1,
        sample_name="images",
        unit_name="pixels",
    )


def _range(images: Samples, pooled: "Callable[[Pixels], Pixels]") -> tuple[float, float]:
    """The least and the greatest value of the training images."""
    num = min(len(images.train_targets), NUM_MEASURED)
    ranges = []
    for start in range(0, num, _BLOCK):
        some = pooled(images.train_inputs[start : min(start + _BLOCK, num)])
        ranges.append((float(some.min()), float(some.max())))
    return min(low for low, _ in ranges), max(high for _, high in ranges)
