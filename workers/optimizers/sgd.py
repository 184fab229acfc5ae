"""Stochastic gradient descent with momentum."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workers.schedule import ScheduledOptimizer
from workers.workload import setting

if TYPE_CHECKING:
    from torch.optim import Optimizer as TorchOptimizer


@dataclass(frozen=True, kw_only=True)
class Sgd(ScheduledOptimizer):
    """torch's SGD: weight decay is added to the gradient, the momentum buffer is not damped."""

    momentum: float = setting(0.0, low=0, high=1)
    nesterov: bool = False

    def build(self, parameters: Any) -> "TorchOptimizer":
        """A torch optimiser over parameters or groups of them."""
        from torch.optim import SGD

        return SGD(
            parameters, lr=self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay, nesterov=self.nesterov, fused=True
        )

    def check(self) -> None:
        """Nesterov's step needs momentum."""
        from workers.errors import ConfigError

        if self.nesterov and self.momentum == 0:
            raise ConfigError("nesterov needs momentum above 0, got momentum 0.0")
