"""Gaussian inputs whose targets are the outputs of a random network, the teacher."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.reading.random_numbers import Stream
from workers.samples import Samples
from workers.workload import Data, setting

if TYPE_CHECKING:
    from workers.reading.random_numbers import Floats

# N samples; D inputs; C outputs

CALIBRATION_SIZE = 8192  # inputs of the teacher's own, which set the scale of its outputs


@dataclass(frozen=True, kw_only=True)
class Teacher(Data):
    """Inputs from N(0, 1) and values of a ReLU network of `depth` hidden layers without biases, for loss=mse.

    The teacher's weights are normal, of variance 2 / fan-in (He et al. 2015). Each output has mean 0 and variance 1 over inputs of the
    teacher's own, whatever the size of the splits.
    """

    num_inputs: int = setting(16, low=1, help="D")
    num_outputs: int = setting(1, low=1, help="C")
    width: int = setting(32, low=1, help="units of the teacher's hidden layers")
    depth: int = setting(1, low=0, help="the teacher's hidden layers; 0: linear")
    noise: float = setting(0.0, low=0.0, help="standard deviation of the noise on training targets; test targets have none")
    num_train: int = setting(4096, low=1)
    num_test: int = setting(1024, low=1)
    seed: int = setting(0, low=0, help="of teacher, inputs and noise; fewer samples are the beginning of more")

    def files(self) -> list[Path]:
        """None: it is made from its settings."""
        return []

    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(N, D)."""
        return (self.num_train, self.num_inputs), (self.num_test, self.num_inputs)

    def load(self) -> Samples:
        """Inputs (N, D) and values (N, C) in float32; kept in memory by the process."""
        return _made(self)


@functools.lru_cache(maxsize=2)
def _made(data: Teacher) -> Samples:
    import numpy as np

    weights = _weights(data)
    calibration_NC = _outputs(weights, Stream(data.seed, "calibration").normal(CALIBRATION_SIZE, data.num_inputs))
    mean_C, deviation_C = calibration_NC.mean(0), calibration_NC.std(0)
    deviation_C[deviation_C == 0.0] = 1.0  # a narrow teacher may be dead
    arrays: dict[str, Any] = {}
    for role, num in (("train", data.num_train), ("test", data.num_test)):
        inputs_ND = Stream(data.seed, role).normal(num, data.num_inputs)
        values_NC = (_outputs(weights, inputs_ND) - mean_C) / deviation_C
        if role == "train":
            values_NC += data.noise * Stream(data.seed, "noise").normal(num, data.num_outputs)
        arrays |= {f"{role}_inputs": inputs_ND.astype(np.float32), f"{role}_targets": values_NC.astype(np.float32)}
    return Samples(**arrays, num_outputs=data.num_outputs, sample_name="samples", unit_name="samples")


def _weights(data: Teacher) -> "list[Floats]":
    """Matrices (fan-in, fan-out), first to last."""
    stream = Stream(data.seed, "teacher")
    sizes = [data.num_inputs, *[data.width] * data.depth, data.num_outputs]
    return [stream.normal(fan_in, fan_out) * (2.0 / fan_in) ** 0.5 for fan_in, fan_out in zip(sizes, sizes[1:])]


def _outputs(weights: "list[Floats]", inputs_ND: "Floats") -> "Floats":
    """Values (N, C) of the network for inputs (N, D), not yet scaled."""
    hidden = inputs_ND
    for weight in weights[:-1]:
        hidden = (hidden @ weight).clip(min=0.0)
    return hidden @ weights[-1]
