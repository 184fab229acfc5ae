"""Random network distillation: points at which a network, fitted to a random one so far, errs most (arXiv 1810.12894, 2305.00995)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workers.errors import Diverged
from workers.selection import Candidates

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn
    from torch.optim import Optimizer

    Array = np.ndarray[Any, Any]

# N candidates; S chosen ones; F outputs

NUM_AT_ONCE = 4096
# updates between two looks at the error, of which each waits for the device
STEPS_PER_LOOK = 8


@dataclass(frozen=True, slots=True, eq=False)
class Distilled:
    """Chosen points (S,), the predictor's error at each before it was learned, and what it took.

    Errors are mean squared differences over outputs, as shares of `initial_error`, their mean over the pool before anything was learned.
    `num_steps_S`: updates after each point. `reached_S`: whether then every chosen point's error was at most the threshold.
    """

    order_S: "Array"
    errors_S: "Array"
    num_steps_S: "Array"
    reached_S: "Array"
    initial_error: float


def random_network_distillation(
    target: "nn.Module",
    predictor: "nn.Module",
    optimizer: "Optimizer",
    inputs_N: "Tensor",
    size: int,
    *,
    threshold: float = 0.01,
    stop_below: float = 0.0,
    max_steps: int = 500,
    labels_N: "Array | None" = None,
    look: Callable[[int], None] = lambda done: None,
) -> Distilled:
    """At most `size` points, each the one where `predictor` differs most from `target`, which both map (N, ...) to (N, F).

    After each, the predictor goes on from where it was, by `optimizer` on all chosen points at once, until its error is at most
    `threshold` at every one of them, or for `max_steps` updates. It is trained in place, the target never; no point is taken twice. Ends
    early where no candidate's error is above `stop_below`. With `labels_N`, each class in turn. `look` hears how many are chosen.

    A mean over the chosen points would be no working threshold: the share of a new point falls with their number, and soon nothing is
    learned of it. Raises Diverged for errors that are no numbers.
    """
    import numpy as np
    import torch

    goals_NF = _outputs(target, inputs_N)
    errors_N = _errors(predictor, inputs_N, goals_NF)
    initial, candidates = float(errors_N.mean()), Candidates(len(inputs_N), labels_N)
    if not initial > 0.0:
        raise Diverged(f"the predictor's mean error before training is {initial}; target and predictor must be different networks")
    order: list[int] = []
    errors, steps, reached = [], [], []
    while len(order) < size:
        index = candidates.best(errors_N)
        if errors_N[index] <= stop_below * initial:
            break
        errors.append(errors_N[index] / initial)
        order.append(index)
        candidates.take(index)
        chosen = inputs_N.new_tensor(order, dtype=torch.int64)
        count, good = _learned(predictor, optimizer, inputs_N[chosen], goals_NF[chosen], threshold * initial, max_steps)
        steps.append(count)
        reached.append(good)
        errors_N = _errors(predictor, inputs_N, goals_NF)
        look(len(order))
    return Distilled(np.array(order, dtype=np.int64), np.array(errors), np.array(steps), np.array(reached, dtype=bool), initial)


def _learned(
    predictor: "nn.Module", optimizer: "Optimizer", inputs_S: "Tensor", goals_SF: "Tensor", threshold: float, max_steps: int
) -> tuple[int, bool]:
    """Updates until the largest error is at most the threshold, and whether it is."""
    for step in range(max_steps + 1):
        errors_S = (predictor(inputs_S) - goals_SF).square().mean(1)
        if (step % STEPS_PER_LOOK == 0 or step == max_steps) and errors_S.detach().max().item() <= threshold:
            return step, True
        if step < max_steps:
            optimizer.zero_grad(set_to_none=True)
            errors_S.mean().backward()
            optimizer.step()
    return max_steps, False


def _errors(predictor: "nn.Module", inputs_N: "Tensor", goals_NF: "Tensor") -> "Array":
    """Mean squared differences (N,) over outputs, in float64 on the CPU."""
    import numpy as np

    found = (_outputs(predictor, inputs_N) - goals_NF).square().mean(1)
    return np.asarray(found.cpu().numpy(), dtype=np.float64)


def _outputs(network: "nn.Module", inputs_N: "Tensor") -> "Tensor":
    """(N, F) without gradients."""
    import torch

    with torch.no_grad():
        return torch.cat([network(some) for some in inputs_N.split(NUM_AT_ONCE)])
