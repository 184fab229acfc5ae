"""Rewards for what is new: how badly a network that learns foretells a random one that does not (Burda et al. 2018)."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from workers.settings import Settings, setting
from workers.swarm import learning, noise
from workers.swarm.networks import Architecture, Networks, networks

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from workers.swarm.policies import Policies

# P networks; T slices; K agents of a network; I observed numbers; B samples of a network

PREDICTOR, TARGET = "curiosity.predictor", "curiosity.target"
SEEN, GOT = "curiosity.seen", "curiosity.got"
# of seeds, beside those of policies.py
OFFSET = 2**34
FARTHEST = 5.0


@dataclass(frozen=True, kw_only=True)
class Curiosity(Settings):
    """Random network distillation: reward for the error of a predictor of a fixed random network, in what an action led to.

    What is seen is taken less its running mean, over its running deviation, and within 5 (section 2.4 of 1810.12894).
    """

    weight: float = setting(0.0, low=0.0, help="of this reward beside the task's; 0: none")
    architecture: Architecture = Architecture(hidden=(64, 64))
    num_features: int = setting(16, low=1, help="outputs of the random network")
    learning_rate: float = setting(1e-3, above=0, help="of the predictor, by Adam, one step an episode")
    discount: float = setting(0.99, low=0.0, high=1.0, help="of the returns over whose running deviation rewards are taken; 0: of rewards")

    def begin(self, policies: "Policies", seeds_P: "Tensor", num_inputs: int, dtype: "torch.dtype") -> None:
        """Add the two networks of each network of `policies`, and moments of nothing yet."""
        sizes = [num_inputs, *self.architecture.hidden, self.num_features]
        for number, name in enumerate((TARGET, PREDICTOR)):
            seeds = seeds_P + (number + 1) * OFFSET
            policies.extra[name] = _uneven(networks(sizes, seeds, noise.WEIGHTS, dtype, self.architecture.activation), seeds)
        for name, size in ((SEEN, num_inputs), (GOT, 1)):
            policies.memory |= moments(name, len(seeds_P), size, seeds_P.device)

    def errors(self, policies: "Policies", seen_PB: "Tensor") -> "Tensor":
        """Mean squared errors (P, B) in what is seen (P, B, I); differentiable in the predictor alone."""
        import torch

        mean, deviation = mean_and_deviation(policies.memory, SEEN)
        inputs = ((seen_PB - mean[:, None]) / deviation[:, None]).clamp(-FARTHEST, FARTHEST).to(seen_PB.dtype)
        with torch.no_grad():
            target = policies.extra[TARGET](inputs)
        return (policies.extra[PREDICTOR](inputs) - target).square().mean(-1)

    def rewarded(self, policies: "Policies", episode: learning.Episode) -> "tuple[learning.Episode, Tensor]":
        """The episode with rewards for what is new, and their mean (P,); the predictor and the moments learn from it."""
        import torch

        after = torch.cat([episode.observations[1:], episode.last[None]])
        samples = episode.by_sample(after)
        update(policies.memory, SEEN, samples)
        errors = self.errors(policies, samples)
        weights = policies.extra[PREDICTOR].parameters()
        policies.optimizer.step(weights, torch.autograd.grad(errors.mean(-1).sum(), weights), self.learning_rate)
        own_T = episode.by_time(errors.detach())
        update(policies.memory, GOT, episode.by_sample(learning.returns(own_T, self.discount))[..., None])
        own_T = own_T * (self.weight / mean_and_deviation(policies.memory, GOT)[1]).to(own_T.dtype)
        return replace(episode, rewards=episode.rewards + own_T), episode.by_sample(own_T).contiguous().mean(-1)


def moments(name: str, num_networks: int, size: int, device: "torch.device | str") -> "dict[str, Tensor]":
    """Of nothing yet: the number (P, 1), the mean (P, size) and the sum of squares about it (P, size), by name."""
    import torch

    zeros = torch.zeros(num_networks, size, dtype=torch.float64, device=device)
    return {f"{name}.number": zeros[:, :1].clone(), f"{name}.mean": zeros, f"{name}.squares": zeros.clone()}


def update(memory: "dict[str, Tensor]", name: str, values_PB: "Tensor") -> None:
    """Add samples (P, B, size) to running moments (Chan, Golub and LeVeque 1979, equation 2.1)."""
    number, mean, squares = (memory[f"{name}.{kind}"] for kind in ("number", "mean", "squares"))
    # along the last axis of contiguous memory, where a sum does not depend on its place in the batch
    columns = values_PB.transpose(1, 2).double().contiguous()
    own = columns.mean(-1)
    added = (columns - own[..., None]).square().sum(-1)
    change, both = own - mean, number + columns.shape[-1]
    share = columns.shape[-1] / both
    squares += added
    squares += change.square() * number * share
    mean += change * share
    number.copy_(both)


def mean_and_deviation(memory: "dict[str, Tensor]", name: str) -> "tuple[Tensor, Tensor]":
    """(P, size) each, in double precision; a deviation of 0, where all are equal, is as good as 1."""
    deviation = (memory[f"{name}.squares"] / memory[f"{name}.number"].clamp(min=1.0)).sqrt()
    return memory[f"{name}.mean"], deviation.masked_fill(deviation == 0.0, 1.0)


def _uneven(found: Networks, seeds_P: "Tensor") -> Networks:
    """With normal biases: of one observed number, networks without any bend at 0 alone, and what is new looks like what is old."""
    import torch

    for layer, bias in enumerate(found.biases):
        keys = noise.particle_keys(seeds_P, 1, bias.shape[-1], noise.STARTS)[:, 0]
        with torch.no_grad():
            bias.copy_(noise.normals(keys, layer, 1, bias.dtype)[0][:, None])
    return found
