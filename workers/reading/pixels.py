"""Images that stay 8-bit numbers, in memory or in mapped files, and are normalised where they are taken."""

from typing import TYPE_CHECKING, Any

from workers.reading.lazy import Computed
from workers.samples import Samples, num_classes

if TYPE_CHECKING:
    import numpy as np

    from workers.reading.lazy import Lazy

    Pixels = np.ndarray[Any, np.dtype[np.uint8]]

# N images

NUM_MEASURED = 50_000
_BLOCK = 1024


def pixel_samples(
    train_images: "Pixels | Lazy", train_labels: "Pixels | Lazy", test_images: "Pixels | Lazy", test_labels: "Pixels | Lazy"
) -> Samples:
    """Images (N, channels, H, W) of 8 bits with labels (N,).

    Each channel has zero mean and unit variance over the first 50,000 training images.
    """
    import numpy as np

    table = _normalising_table(train_images)

    def normalised(images: "Pixels") -> "np.ndarray[Any, Any]":
        return np.stack([values[images[:, channel]] for channel, values in enumerate(table)], axis=1)

    shape, float32 = train_images.shape[1:], np.dtype(np.float32)
    return Samples(
        train_inputs=Computed(train_images, normalised, shape, float32),
        train_targets=train_labels[:].astype(np.int64),
        test_inputs=Computed(test_images, normalised, shape, float32),
        test_targets=test_labels[:].astype(np.int64),
        num_outputs=num_classes(train_labels[:]),
    )


def _normalising_table(images: "Pixels | Lazy") -> "np.ndarray[Any, Any]":
    """The normalised value (channels, 256) of each 8-bit one."""
    import numpy as np

    num_channels, values = images.shape[1], np.arange(256)
    counts = np.zeros((num_channels, 256))
    for start in range(0, min(len(images), NUM_MEASURED), _BLOCK):
        some = images[start : min(start + _BLOCK, NUM_MEASURED)]
        for channel in range(num_channels):
            counts[channel] += np.bincount(some[:, channel].ravel(), minlength=256)
    shares = counts / counts.sum(1, keepdims=True)
    mean = (shares @ values)[:, None]
    deviation = np.sqrt((shares * (values - mean) ** 2).sum(1, keepdims=True))
    deviation[deviation == 0.0] = 1.0
    return np.asarray((values - mean) / deviation, np.float32)
