"""The kernel by BackPACK: BatchGrad of each output, and a product for each tensor of weights."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from backpack import backpack, extend
from backpack.extensions import BatchGrad
from torch import Tensor, nn

from benchmarks.entk_models import load, token_losses
from benchmarks.entk_worker import Case, Contender, serve

LIMIT_GIB = 12
NUM_OUTPUTS = 10


def prepare(case: Case) -> Contender:
    """Full: J whole, as products of all pairs of outputs need it; traced: one output's rows at a time."""
    model, x = load(case)
    model = extend(model)
    if case["network"] == "llama":
        return Contender(kernel=lambda: losses_gram(model, x), matrix=Tensor.numpy)
    held = len(x) * (NUM_OUTPUTS if case["outputs"] == "full" else 1)
    needed = 4 * held * sum(value.numel() for value in model.parameters()) / 2**30
    if needed > LIMIT_GIB:
        raise MemoryError(f"J alone is {needed:.1f} GiB")
    found = full if case["outputs"] == "full" else traced
    return Contender(kernel=lambda: found(model, x), matrix=Tensor.numpy)


def batch_gradients(model: nn.Module, output_N: Tensor, *, retain_graph: bool) -> list[Tensor]:
    """d output_n / d weights of each tensor, (N, P)."""
    with backpack(BatchGrad(), retain_graph=retain_graph):
        output_N.sum().backward(retain_graph=retain_graph)
    found = [weight.grad_batch.flatten(1) for weight in model.parameters()]
    for weight in model.parameters():
        del weight.grad_batch
        weight.grad = None
    return found


def full(model: nn.Module, x: Tensor) -> Tensor:
    """J J^T, rows n C + c."""
    outputs_NC = model(x)
    size = outputs_NC.numel()
    rows = [torch.empty(len(x), NUM_OUTPUTS, weight.numel()) for weight in model.parameters()]
    for output in range(NUM_OUTPUTS):
        for row, gradient in zip(rows, batch_gradients(model, outputs_NC[:, output], retain_graph=output + 1 < NUM_OUTPUTS), strict=True):
            row[:, output] = gradient
    found = torch.zeros(size, size)
    while rows:
        row = rows.pop().view(size, -1)
        found.addmm_(row, row.T)
    return found


def traced(model: nn.Module, x: Tensor) -> Tensor:
    """The mean over outputs, (N, N)."""
    outputs_NC = model(x)
    found = torch.zeros(len(x), len(x))
    for output in range(NUM_OUTPUTS):
        for gradient in batch_gradients(model, outputs_NC[:, output], retain_graph=output + 1 < NUM_OUTPUTS):
            found.addmm_(gradient, gradient.T)
    return found / NUM_OUTPUTS


def losses_gram(model: nn.Module, tokens: Tensor) -> Tensor:
    """Rows are the sequences' mean losses."""
    losses_N = token_losses(model(tokens[:, :-1]), tokens[:, 1:]).mean(1)
    found = torch.zeros(len(tokens), len(tokens))
    for gradient in batch_gradients(model, losses_N, retain_graph=False):
        found.addmm_(gradient, gradient.T)
    return found


if __name__ == "__main__":
    serve(prepare)
