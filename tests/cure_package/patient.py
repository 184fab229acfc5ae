"""A network that takes its time, however fast the machine is."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.models.mlp import Mlp
from workers.workload import Model, setting

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Patient(Model):
    """A small perceptron that waits before each pass."""

    width: int = setting(8, low=1)
    pause_seconds: float = setting(0.01, low=0, unit="s")

    def build(self, input_shape: tuple[int, ...], num_outputs: int, seed: int) -> "nn.Module":
        """Maps (N, *input_shape) to (N, num_outputs)."""
        from torch import Tensor, nn

        class Pause(nn.Module):
            def forward(_, inputs: Tensor) -> Tensor:
                time.sleep(self.pause_seconds)
                return inputs

        return nn.Sequential(Pause(), *Mlp(width=self.width).build(input_shape, num_outputs, seed))
