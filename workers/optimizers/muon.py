"""Muon (Jordan et al. 2024): steps along the orthogonalised momentum of hidden matrices, AdamW for all other weights."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from workers.errors import ConfigError
from workers.schedule import ScheduledOptimizer
from workers.workload import setting

if TYPE_CHECKING:
    from torch.optim import Optimizer as TorchOptimizer


@dataclass(frozen=True, kw_only=True)
class Muon(ScheduledOptimizer):
    """torch's Muon on the weight matrices between hidden layers, and AdamW on embeddings, readout, convolutions, biases and norms.

    A step of a matrix has the spectral norm `learning_rate` sqrt(max(1, fan_out / fan_in)), at every width, so that muP needs no factor
    for it. Queries, keys and values that stand in one matrix are orthogonalised together.
    """

    normalised: ClassVar[bool] = True
    splits_hidden: ClassVar[bool] = True

    learning_rate: float = setting(0.02, above=0, help="of hidden matrices")
    adam_learning_rate: float = setting(1e-3, above=0, help="of all other weights; it has the same schedule")
    momentum: float = setting(0.95, low=0, high=1)
    nesterov: bool = True
    num_iterations: int = setting(5, low=1, help="of Newton and Schulz")
    beta_1: float = setting(0.9, low=0, high=1)
    beta_2: float = setting(0.999, low=0, high=1)
    epsilon: float = setting(1e-8, above=0)

    def build(self, parameters: Any) -> "TorchOptimizer":
        """A torch optimiser over groups of parameters, of which those with `hidden` are matrices."""
        from torch import optim

        from workers.optimizer_pair import OptimizerPair

        if not hasattr(optim, "Muon"):
            raise ConfigError("optimizer=muon needs torch 2.9 or newer, which brings Muon; install it, or take optimizer=adam")
        groups = list(parameters)
        hidden = [{**group, "rate_factor": 1.0} for group in groups if group["hidden"]]
        share = self.adam_learning_rate / self.learning_rate
        others = [{**group, "rate_factor": group["rate_factor"] * share} for group in groups if not group["hidden"]]
        betas = (self.beta_1, self.beta_2)
        adam = optim.AdamW(others, lr=self.adam_learning_rate, betas=betas, eps=self.epsilon, weight_decay=self.weight_decay, fused=True)
        if not hidden:
            return adam
        muon = optim.Muon(
            hidden,
            lr=self.learning_rate,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            nesterov=self.nesterov,
            ns_steps=self.num_iterations,
        )
        return OptimizerPair(muon, adam)  # type: ignore[return-value]
