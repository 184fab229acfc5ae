"""Stochastic gradient descent with momentum."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from workers.schedule import ScheduledOptimizer
from workers.workload import setting

if TYPE_CHECKING:
    from torch.optim import Optimizer as TorchOptimizer


@dataclass(frozen=True, kw_only=True)
class Sgd(ScheduledOptimizer):
    """torch's SGD: weight decay is added to the gradient, the momentum buffer is not damped.

    With a Langevin temperature each step adds normal draws times sqrt(2 rate temperature) to the weights (D14).
    """

    elementwise: ClassVar[bool] = True

    momentum: float = setting(0.0, low=0, high=1)
    nesterov: bool = False
    langevin_temperature: float = setting(0.0, low=0, added=True, help="of the noise of each step, in units of the loss; 0: none")

    def build(self, parameters: Any) -> "TorchOptimizer":
        """A torch optimiser over parameters or groups of them."""
        from torch.optim import SGD

        return SGD(
            parameters, lr=self.learning_rate, momentum=self.momentum, weight_decay=self.weight_decay, nesterov=self.nesterov, fused=True
        )

    def check(self) -> None:
        """Nesterov's step needs momentum; the noise is that of a walk without it."""
        from workers.errors import ConfigError

        if self.nesterov and self.momentum == 0:
            raise ConfigError("nesterov needs momentum above 0, got momentum 0.0")
        if self.langevin_temperature and self.momentum:
            raise ConfigError(
                f"langevin_temperature must be 0 with momentum, whose noise would be another, got {self.langevin_temperature}; "
                "set momentum=0"
            )
