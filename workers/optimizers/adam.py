"""Adam with decoupled weight decay (AdamW)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from workers.schedule import ScheduledOptimizer
from workers.workload import setting

if TYPE_CHECKING:
    from torch.optim import Optimizer as TorchOptimizer


@dataclass(frozen=True, kw_only=True)
class Adam(ScheduledOptimizer):
    """torch's AdamW; without weight decay it is Adam. The decay is multiplied by the rate of each parameter."""

    normalised: ClassVar[bool] = True
    elementwise: ClassVar[bool] = True

    learning_rate: float = setting(1e-3, above=0)
    beta_1: float = setting(0.9, low=0, high=1)
    beta_2: float = setting(0.999, low=0, high=1)
    epsilon: float = setting(1e-8, above=0)

    def build(self, parameters: Any) -> "TorchOptimizer":
        """A torch optimiser over parameters or groups of them."""
        from torch.optim import AdamW

        betas = (self.beta_1, self.beta_2)
        return AdamW(parameters, lr=self.learning_rate, betas=betas, eps=self.epsilon, weight_decay=self.weight_decay, fused=True)
