"""MNIST-1D: ten one-dimensional digits, moved, stretched, tilted and in noise (Greydanus and Kobak 2020, arXiv 2011.14439)."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.errors import ConfigError
from workers.reading.images import image_arrays
from workers.reading.random_numbers import Stream
from workers.samples import Samples
from workers.staging import local
from workers.workload import Data, setting

if TYPE_CHECKING:
    import numpy as np

    from workers.reading.random_numbers import Floats

# N signals; L = 40 values of a signal

LENGTH = 40
CURE = (
    "data.path= takes a .npz with the arrays x_train (N, 40), y_train (N,), x_test, y_test, such as one made of the published file; "
    "without it, signals are generated"
)
# the right-hand outline of a digit from top to bottom, in twelve steps; drawn by us, as the paper has them in a figure only
TEMPLATES = (
    (1.0, 2.6, 3.6, 4.2, 4.5, 4.6, 4.6, 4.5, 4.2, 3.6, 2.6, 1.0),
    (3.6, 1.6, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 3.6),
    (1.4, 3.2, 4.2, 4.4, 4.0, 3.2, 2.4, 1.6, 0.9, 0.4, 4.2, 4.6),
    (1.4, 3.4, 4.2, 3.6, 1.8, 0.8, 1.8, 3.6, 4.4, 4.0, 3.0, 1.2),
    (2.6, 2.6, 2.6, 2.6, 2.6, 2.6, 4.8, 2.6, 2.6, 2.6, 2.6, 2.6),
    (4.6, 4.2, 0.4, 0.3, 0.4, 2.6, 3.8, 4.4, 4.4, 3.8, 2.8, 1.2),
    (2.6, 1.2, 0.6, 0.2, 0.2, 0.4, 3.0, 4.2, 4.6, 4.4, 3.4, 1.6),
    (4.8, 4.8, 4.2, 3.8, 3.4, 3.0, 2.6, 2.2, 1.8, 1.4, 1.0, 0.6),
    (2.2, 3.0, 3.4, 3.0, 2.4, 2.2, 3.0, 4.2, 4.8, 4.8, 4.2, 2.4),
    (1.6, 3.4, 4.4, 4.6, 3.8, 2.2, 2.2, 2.2, 2.2, 2.2, 2.2, 2.0),
)
# with half the height, an MLP and a CNN are right as often as on the published signals (0.60 and 0.88, there 0.61 and 0.90)
_HEIGHT = 0.5
# the constants of the paper's procedure
_PADDING, _SCALE, _MAX_SHIFT = (36, 60), 0.4, 48
_CORRELATED_NOISE, _CORRELATION_LENGTH, _NOISE, _SHEAR = 0.25, 2.0, 0.02, 0.75


@dataclass(frozen=True, kw_only=True)
class Mnist1d(Data):
    """Signals (N, 40) of ten classes, generated, or read from a `.npz` of the published ones.

    They are vectors, which an MLP reads; a CNN of two-dimensional filters does not. The procedure is the paper's: a template of 12 values
    is padded with zeros, scaled, moved round, given correlated and white noise and a slope, and sampled at 40 points. The templates are
    not (the paper gives no numbers), so losses of generated signals are no figures to compare with published ones.
    """

    path: str | None = setting(None, identity=False, help=".npz of published signals; null: generated from the settings")
    num_train: int = setting(4000, low=10, help="generated signals; each class has as many, but for what is left over")
    num_test: int = setting(1000, low=10)
    seed: int = setting(0, low=0, help="of the generated signals")

    def files(self) -> list[Path]:
        """The archive; none where the signals are generated."""
        if self.path is None:
            return []
        if not Path(self.path).is_file():
            raise ConfigError(f"no MNIST-1D at {self.path}; {CURE}")
        return [Path(self.path)]

    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """(N, 40) of generated signals."""
        return None if self.path else ((self.num_train, LENGTH), (self.num_test, LENGTH))

    def load(self) -> Samples:
        """Signals (N, 40) in float32 with labels (N,), of zero mean and unit variance over the training split; kept by the process."""
        return _read(local(self.files()[0])) if self.path else _made(self)


@functools.lru_cache(maxsize=2)
def _read(path: Path) -> Samples:
    arrays = image_arrays(path)
    if any(signals.ndim != 2 or len(signals) != len(labels) or not len(signals) for signals, labels in (arrays[:2], arrays[2:])):
        raise ConfigError(f"{path} holds arrays of the shapes {', '.join(str(array.shape) for array in arrays)}; {CURE}")
    return _normalised(*arrays)


@functools.lru_cache(maxsize=2)
def _made(data: Mnist1d) -> Samples:
    import numpy as np

    splits: list[Any] = []
    for role, num in (("train", data.num_train), ("test", data.num_test)):
        labels_N = np.arange(num) % len(TEMPLATES)
        splits += [signals(labels_N, Stream(data.seed, f"mnist1d {role}")), labels_N]
    return _normalised(*splits)


def _normalised(train_NL: "Floats", train_N: "np.ndarray[Any, Any]", test_NL: "Floats", test_N: "np.ndarray[Any, Any]") -> Samples:
    import numpy as np

    mean, deviation = train_NL.mean(dtype=np.float64), train_NL.std(dtype=np.float64) or 1.0
    return Samples(
        train_inputs=((train_NL - mean) / deviation).astype(np.float32),
        train_targets=train_N.astype(np.int64),
        test_inputs=((test_NL - mean) / deviation).astype(np.float32),
        test_targets=test_N.astype(np.int64),
        num_outputs=len(TEMPLATES),
        sample_name="samples",
        unit_name="samples",
    )


def signals(labels_N: "np.ndarray[Any, Any]", stream: Stream) -> "Floats":
    """Signals (N, 40) of digits (N,): one after the other from the stream, so that fewer are the beginning of more."""
    import numpy as np

    return np.stack([_signal(np.array(TEMPLATES[label]), stream) for label in labels_N])


def _signal(template: "Floats", stream: Stream) -> "Floats":
    import numpy as np

    (num_zeros,) = stream.whole(*_PADDING, 1)
    signal = np.concatenate([_HEIGHT * template, np.zeros(num_zeros)])
    signal *= 1.0 + _SCALE * (2.0 * stream.uniform(1) - 1.0)
    (shift,) = stream.whole(0, _MAX_SHIFT - 1, 1)
    signal = np.roll(signal, -shift)
    size = len(signal)
    signal += _CORRELATED_NOISE * _smoothed(stream.normal(size)) + _NOISE * stream.normal(size)
    signal += _SHEAR * (2.0 * stream.uniform(1) - 1.0) * np.linspace(-0.5, 0.5, size)
    sampled: Floats = np.interp(np.linspace(0, size - 1, LENGTH), np.arange(size), signal)
    return sampled


def _smoothed(noise_L: "Floats") -> "Floats":
    """Noise averaged over a Gaussian neighbourhood on a circle, of unit variance again."""
    import numpy as np

    reach = int(4 * _CORRELATION_LENGTH)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / _CORRELATION_LENGTH) ** 2)
    weights /= np.sqrt((weights**2).sum())
    return np.asarray(np.convolve(np.pad(noise_L, reach, mode="wrap"), weights, mode="valid"))
