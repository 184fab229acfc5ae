"""The arithmetic of a training run: one update, an evaluation, and the state that a checkpoint holds."""

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from workers.losses import loss_per_unit

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

# N samples, of one unit or of several; C outputs

NUM_EVALUATED_AT_ONCE = 512
TOKENS_EVALUATED_AT_ONCE = 8192


def update(
    module: "nn.Module",
    optimizer: "Optimizer",
    rate: float,
    loss: str,
    inputs_N: "Tensor",
    targets_N: "Tensor",
    *,
    num_at_once: int | None = None,
    logit_temperature: float = 1.0,
    look: "Callable[[Tensor], None] | None" = None,
) -> None:
    """One step along the gradient of the mean loss; nothing is read back from the device. `rate` is times a group's `rate_factor`.

    `num_at_once`: samples that are computed together, whose gradients add up to the same but for rounding; None: all.
    `logit_temperature` divides the outputs (D14). `look` gets the outputs when the gradients are there and the weights are still as they
    were; with their graph, where all samples are one pass.
    """
    import torch

    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("rate_factor", 1.0)
    optimizer.zero_grad(set_to_none=True)
    at_once = num_at_once or len(inputs_N)
    whole, kept = at_once >= len(inputs_N), []
    for start in range(0, len(inputs_N), at_once):
        outputs_NC, targets = module(inputs_N[start : start + at_once]), targets_N[start : start + at_once]
        loss_N = loss_per_unit(loss, outputs_NC, targets, logit_temperature)
        (loss_N.mean() if whole else loss_N.sum() / (len(inputs_N) * loss_N[0].numel())).backward(retain_graph=whole and look is not None)
        kept.append(outputs_NC if whole else outputs_NC.detach())
    if look is not None:
        look(kept[0] if whole else torch.cat(kept))
    optimizer.step()


def add_noise(optimizer: "Optimizer", rate: float, temperature: float, seed: int, step: int) -> None:
    """Langevin's noise after the update number `step`: normal draws times sqrt(2 rate temperature), of a counter and a seed alone (D14).

    Weights that are not trained are drawn for and stay.
    """
    import torch

    digest = hashlib.blake2b(f"eigensweep:noise:{seed}:{step}".encode(), digest_size=8).digest()
    device = optimizer.param_groups[0]["params"][0].device
    generator = torch.Generator(device).manual_seed(int.from_bytes(digest, "big") >> 1)
    with torch.no_grad():
        for group in optimizer.param_groups:
            scale = math.sqrt(2.0 * rate * group.get("rate_factor", 1.0) * temperature)
            for weights in group["params"]:
                noise = torch.randn(weights.shape, generator=generator, dtype=weights.dtype, device=device)
                if weights.requires_grad:
                    weights.add_(noise, alpha=scale)


@contextlib.contextmanager
def evaluating(module: "nn.Module") -> Iterator[None]:
    """In the module's evaluation mode; afterwards it is in the mode that it was in."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)


def num_evaluated_at_once(units_per_sample: int) -> int:
    """Samples of an evaluation that are one forward pass."""
    return NUM_EVALUATED_AT_ONCE if units_per_sample == 1 else max(1, TOKENS_EVALUATED_AT_ONCE // units_per_sample)


def evaluate(
    module: "nn.Module",
    loss: str,
    inputs_N: "Tensor",
    targets_N: "Tensor",
    *,
    num_at_once: int = NUM_EVALUATED_AT_ONCE,
    logit_temperature: float = 1.0,
) -> tuple[float, float]:
    """Mean loss per unit and the fraction of largest outputs that are the label, summed in float64; in the module's evaluation mode.

    NaN for the fraction where targets are values.
    """
    import torch

    total = torch.zeros(3, dtype=torch.float64, device=inputs_N.device)
    with evaluating(module), torch.no_grad():
        for start in range(0, len(inputs_N), num_at_once):
            stop = start + num_at_once
            outputs_NC, targets = module(inputs_N[start:stop]), targets_N[start:stop]
            loss_N = loss_per_unit(loss, outputs_NC, targets, logit_temperature)
            total[0] += loss_N.sum(dtype=torch.float64)
            total[1] += torch.nan if targets.is_floating_point() else (outputs_NC.argmax(-1) == targets).sum()
            total[2] += loss_N.numel()
    mean_loss, accuracy = (total[:2] / total[2]).tolist()
    return mean_loss, accuracy


def state(module: "nn.Module", optimizer: "Optimizer") -> dict[str, "Tensor"]:
    """Every tensor of a run, by name."""
    tensors = {f"model.{name}": value for name, value in module.state_dict().items()}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items() if value is not None}
    return tensors


def set_state(module: "nn.Module", optimizer: "Optimizer", tensors: Mapping[str, "Tensor"]) -> None:
    """Put back what `state` gave, bit for bit."""
    module.load_state_dict({name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")})
    states: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, field = name.split(".", 2)
            states.setdefault(int(index), {})[field] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": states})


def count_flops(module: "nn.Module", loss: str, inputs_N: "Tensor", targets_N: "Tensor") -> int:
    """Floating point operations of the products in one forward and backward pass (a multiplication and an addition are two)."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    # attention as products of whole matrices: the counter does not know the kernels of every device
    with evaluating(module), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss_per_unit(loss, module(inputs_N), targets_N).mean().backward()
    module.zero_grad(set_to_none=True)
    return int(counter.get_total_flops())
