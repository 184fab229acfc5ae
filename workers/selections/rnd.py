"""Random network distillation as a choice of training samples (arXiv 2305.00995)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workers.selection import Method, Pool, Selection, one_order
from workers.workload import setting

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Rnd(Method):
    """Points where a predictor differs most from a random target; both have the production model's settings and `num_outputs` outputs.

    Both are in evaluation mode, as the production network is, so that batch normalisation mixes no samples.
    """

    version: ClassVar[int] = 2

    num_outputs: int = setting(64, low=1, help="of target and predictor")
    threshold: float = setting(0.01, above=0, help="largest error of a learned point, as a share of the pool's mean error at first")
    stop_below: float = setting(0.0, low=0, help="no more points where no candidate's error is above this share; 0: all that are asked for")
    max_steps: int = setting(500, low=1, help="updates of the predictor after each point, at most")
    learning_rate: float = setting(1e-3, above=0, help="Adam's, of the predictor")

    def select(self, pool: Pool, size: int) -> Selection:
        """Scored by the error before a point is learned.

        Rows `predictor_steps`, `num_not_learned` (points after which the threshold was not reached) and `initial_error`.
        """
        from torch.optim import Adam

        from workers.selection_rnd import random_network_distillation

        target, predictor = (self._network(pool, role) for role in ("target", "predictor"))
        found = random_network_distillation(
            target,
            predictor,
            Adam(predictor.parameters(), lr=self.learning_rate),
            pool.inputs_N,
            size,
            threshold=self.threshold,
            stop_below=self.stop_below,
            max_steps=self.max_steps,
            labels_N=self.classes(pool),
            look=lambda done: pool.progress(done, size),
        )
        facts = {
            "predictor_steps": float(found.num_steps_S.sum()),
            "num_not_learned": float((~found.reached_S).sum()),
            "initial_error": found.initial_error,
        }
        return one_order(found.order_S, found.errors_S, facts)

    def _network(self, pool: Pool, role: str) -> "nn.Module":
        """One of the two, of its own seed."""
        import hashlib

        digest = hashlib.blake2b(f"eigensweep:rnd:{role}:{pool.seed}".encode(), digest_size=8).digest()
        module = pool.model.build(tuple(pool.inputs_N.shape[1:]), self.num_outputs, int.from_bytes(digest, "big") >> 1)
        found: nn.Module = module.to(pool.inputs_N.device, pool.inputs_N.dtype).eval()
        return found
