"""The kernel by torch.func as a careful user writes it: the whole Jacobian by vmap, some samples at a time, then a product a weight.

Some samples at a time are as fast as all at once or faster, and spare the memory of activations (measured for 8 to 64 and all).
"""

import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.entk_models import load, token_losses
from benchmarks.entk_worker import Case, Contender, serve

LIMIT_GIB = 12
NUM_OUTPUTS = 10
AT_A_TIME = {
    ("mlp", "full"): 32,
    ("mlp", "traced"): 32,
    ("cnn", "full"): 8,
    ("cnn", "traced"): 8,
    ("llama", "loss"): 16,
    ("llama", "tokens"): 1,
}

Weights = dict[str, Tensor]
Rows = Callable[[Weights, Tensor], Tensor]


def prepare(case: Case) -> Contender:
    """The kernel of the case: outputs full or traced; loss, a row a sequence, or tokens, a row a token."""
    model, x = load(case)
    weights = {name: value.detach() for name, value in model.named_parameters()}
    outputs, samples = case["outputs"], AT_A_TIME[case["network"], case["outputs"]]
    one_by_one = case.get("one_by_one", False)
    rows = outputs_of(model, outputs)
    num_rows = 1 if outputs == "loss" or one_by_one else {"tokens": x.shape[-1] - 1}.get(outputs, NUM_OUTPUTS)
    needed = 4 * len(x) * num_rows * sum(value.numel() for value in weights.values()) / 2**30
    if needed > LIMIT_GIB:
        raise MemoryError(f"J alone is {needed:.1f} GiB")
    if one_by_one:
        return Contender(kernel=lambda: traced_one_by_one(rows, weights, x, samples), matrix=Tensor.numpy)
    derivative = (grad if outputs == "loss" else jacrev)(rows)
    size = len(x) * (1 if outputs == "traced" else num_rows)
    scale = 1 / NUM_OUTPUTS if outputs == "traced" else 1.0
    return Contender(kernel=lambda: gram(derivative, weights, x, samples, torch.zeros(size, size)) * scale, matrix=Tensor.numpy)


def outputs_of(model: nn.Module, outputs: str) -> Rows:
    """A function of weights and one sample."""

    def logits(weights: Weights, sample: Tensor) -> Tensor:
        return functional_call(model, weights, (sample[None],))[0]

    def losses(weights: Weights, sample: Tensor) -> Tensor:
        # the fused kernel has no batching rule; the plain one has
        with sdpa_kernel(SDPBackend.MATH):
            return token_losses(functional_call(model, weights, (sample[None, :-1],)), sample[None, 1:])[0]

    if outputs == "loss":
        return lambda weights, sample: losses(weights, sample).mean()
    return losses if outputs == "tokens" else logits


def gram(derivative: Rows, weights: Weights, x: Tensor, samples: int, kernel: Tensor) -> Tensor:
    """J J^T added to `kernel`, whose size says what is a row and what is summed over."""
    jacobian: dict[str, Tensor] = {}
    for first in range(0, len(x), samples):
        part = vmap(derivative, in_dims=(None, 0))(weights, x[first : first + samples])
        for name in list(part):
            rows = part.pop(name)
            jacobian.setdefault(name, rows.new_empty(len(x), *rows.shape[1:]))[first : first + samples] = rows
    for name in list(jacobian):
        rows = jacobian.pop(name).reshape(len(kernel), -1)
        kernel.addmm_(rows, rows.T)
    return kernel


def traced_one_by_one(rows: Rows, weights: Weights, x: Tensor, samples: int) -> Tensor:
    """(1 / C) sum_c J_c J_c^T with only one J_c in memory."""
    kernel = torch.zeros(len(x), len(x))
    for output in range(NUM_OUTPUTS):
        gram(grad(lambda weights, sample, output=output: rows(weights, sample)[output]), weights, x, samples, kernel)
    return kernel / NUM_OUTPUTS


if __name__ == "__main__":
    serve(prepare)
