"""What happens when: learning rates over the steps of a run, and log-spaced steps at which to look."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workers.errors import ConfigError
from workers.workload import Optimizer, setting

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer as TorchOptimizer

SHAPES = ("constant", "cosine", "linear", "wsd")


@dataclass(frozen=True, kw_only=True)
class ScheduledOptimizer(Optimizer):
    """A learning rate with its warm-up and decay; abstract, for the optimisers in `workers/optimizers/`.

    The rate is the same at every width and for every parameter (D8), but with parameterisation "mup". With "ntk" the function then learns
    equally fast at every width; with "standard" the kernel grows in proportion to the width, and so does the speed. `normalised`: its
    steps do not grow with the gradient. `elementwise`: each weight's step depends on its own gradients alone. `splits_hidden`: it treats
    hidden matrices in a way of their own (see `parameter_groups`).
    """

    normalised: ClassVar[bool] = False
    elementwise: ClassVar[bool] = False
    splits_hidden: ClassVar[bool] = False

    learning_rate: float = setting(0.1, above=0)
    weight_decay: float = setting(0.0, low=0)
    schedule: str = setting("constant", choices=SHAPES, help="decay to zero after the warm-up; wsd: in the last decay_steps")
    warmup_steps: int = setting(0, low=0, help="steps of linear growth from zero")
    decay_steps: int = setting(0, low=0, added=True, help="wsd: steps of linear decay at the end, after a constant rate")

    def over(self, module: "nn.Module") -> "TorchOptimizer":
        """A torch optimiser over a network's parameters, in the groups that it needs."""
        from workers.layers import parameter_groups

        groups = parameter_groups(module, normalised=self.normalised, split_hidden=self.splits_hidden)
        return self.build(groups)  # type: ignore[no-any-return]

    def rate(self, step: int, num_steps: int) -> float:
        """Learning rate of the update number `step`, counted from 0."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        if self.schedule == "wsd":  # warm-up, stable, decay (arXiv 2404.06395); the trunk is that of "constant" (arXiv 2405.18392)
            return self.learning_rate * min(1.0, (num_steps - step) / max(1, self.decay_steps))
        done = (step - self.warmup_steps) / max(1, num_steps - self.warmup_steps)
        return self.learning_rate * decay(self.schedule, done)


def check_schedule(optimizer: ScheduledOptimizer, num_steps: int) -> None:
    """ConfigError where the decay at the end is of another schedule, or does not fit after the warm-up."""
    if optimizer.decay_steps and optimizer.schedule != "wsd":
        raise ConfigError(
            f"optimizer.decay_steps is for optimizer.schedule=wsd, got {optimizer.decay_steps} with schedule={optimizer.schedule}"
        )
    stable = num_steps - optimizer.warmup_steps
    if optimizer.decay_steps and optimizer.decay_steps > stable:
        raise ConfigError(f"optimizer.decay_steps must be at most {stable}, the steps after the warm-up, got {optimizer.decay_steps}")


def decay(shape: str, done: float) -> float:
    """Factor of the learning rate when the fraction `done` of the steps after the warm-up is over."""
    if shape == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * done))
    return 1.0 - done if shape == "linear" else 1.0


def log_spaced_steps(num_steps: int, count: int) -> tuple[int, ...]:
    """At most `count` steps: 0, then 1 .. num_steps in equal ratios, the last always; fewer where two fall together."""
    inner = max(1, count - 2)
    return tuple(sorted({0, num_steps} | {round(num_steps ** (i / inner)) for i in range(inner if count > 2 else 0)}))
