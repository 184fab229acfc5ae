"""What happens when: learning rates over the steps of a run, and log-spaced steps at which to look."""

import math
from dataclasses import dataclass
from typing import ClassVar

from workers.workload import Optimizer, setting

SHAPES = ("constant", "cosine", "linear")


@dataclass(frozen=True, kw_only=True)
class ScheduledOptimizer(Optimizer):
    """A learning rate with its warm-up and decay; abstract, for the optimisers in `workers/optimizers/`.

    The rate is the same at every width and for every parameter (D8), but with parameterisation "mup". With "ntk" the function then learns
    equally fast at every width; with "standard" the kernel grows in proportion to the width, and so does the speed. `normalised`: its
    steps do not grow with the gradient. `elementwise`: each weight's step depends on its own gradients alone.
    """

    normalised: ClassVar[bool] = False
    elementwise: ClassVar[bool] = False

    learning_rate: float = setting(0.1, above=0)
    weight_decay: float = setting(0.0, low=0)
    schedule: str = setting("constant", choices=SHAPES, help="decay to zero after the warm-up")
    warmup_steps: int = setting(0, low=0, help="steps of linear growth from zero")

    def rate(self, step: int, num_steps: int) -> float:
        """Learning rate of the update number `step`, counted from 0."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, num_steps - self.warmup_steps)
        return self.learning_rate * decay(self.schedule, done)


def decay(shape: str, done: float) -> float:
    """Factor of the learning rate when the fraction `done` of the steps after the warm-up is over."""
    if shape == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * done))
    return 1.0 - done if shape == "linear" else 1.0


def log_spaced_steps(num_steps: int, count: int) -> tuple[int, ...]:
    """At most `count` steps: 0, then 1 .. num_steps in equal ratios, the last always; fewer where two fall together."""
    inner = max(1, count - 2)
    return tuple(sorted({0, num_steps} | {round(num_steps ** (i / inner)) for i in range(inner if count > 2 else 0)}))
