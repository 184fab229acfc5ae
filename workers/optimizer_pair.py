"""Two torch optimisers that step together over different parameters, as one."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.optim import Optimizer


class OptimizerPair:
    """What a training asks of an optimiser: groups, steps and a state; the second one's parameters count on from the first one's."""

    def __init__(self, first: "Optimizer", second: "Optimizer") -> None:
        self._both = (first, second)
        self._counts = [sum(len(group["params"]) for group in one.param_groups) for one in self._both]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Those of both; what is set in one counts."""
        return [group for one in self._both for group in one.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients."""
        for one in self._both:
            one.zero_grad(set_to_none=set_to_none)

    def step(self) -> None:
        """One step of each."""
        for one in self._both:
            one.step()

    def state_dict(self) -> dict[str, Any]:
        """`state` by the number of a parameter, and the two states from which `load_state_dict` takes all else."""
        states = [one.state_dict() for one in self._both]
        return {"state": states[0]["state"] | {self._counts[0] + index: value for index, value in states[1]["state"].items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        for one, first, count in zip(self._both, (0, self._counts[0]), self._counts):
            own = {index - first: value for index, value in state["state"].items() if first <= index < first + count}
            one.load_state_dict({**one.state_dict(), "state": own})
