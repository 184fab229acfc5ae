"""Policies that are kept before their training ends, by the rules of `keeping`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from workers.swarm.keeping import Keeping
    from workers.swarm.policies import Policies
    from workers.swarm.runs import Run

PREFIX = "shelf."


class Shelf:
    """Of one run: the rules' state, and the weights that they would have kept by now, by episode."""

    def __init__(self, keeping: "Keeping") -> None:
        self.keeping = keeping
        self.state: dict[str, Any] = keeping.begin()
        self.weights: dict[int, dict[str, Tensor]] = {}

    def restore(self, run: "Run") -> None:
        """As it was at the run's checkpoint."""
        assert run.kept is not None
        self.state = run.kept.meta["shelf"]
        for name, values in run.tensors(PREFIX).items():
            episode, _, of_network = name.partition(".")
            self.weights.setdefault(int(episode), {})[of_network] = values

    def look(self, episode: int, mean_return: float, policies: "Policies", policy: int) -> bool:
        """After an episode, from 1; whether the training ends here."""
        self.state, reason = self.keeping.decide(self.state, episode - 1, mean_return)
        if reason:
            self.weights[episode] = {name: value.detach().cpu().clone() for name, value in policies.weights(policy).items()}
            wanted = {kept + 1 for kept, _ in self.state["kept"]}
            self.weights = {number: values for number, values in self.weights.items() if number in wanted}
        return self.keeping.stops(self.state)

    def tensors(self) -> "dict[str, Tensor]":
        """For a checkpoint."""
        return {f"{PREFIX}{episode}.{name}": value for episode, values in self.weights.items() for name, value in values.items()}

    def reasons(self) -> dict[int, str]:
        """Why the policy of an episode is kept."""
        return {episode + 1: reason for episode, reason in self.state["kept"]}
