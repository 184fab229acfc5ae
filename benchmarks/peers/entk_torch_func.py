"""The kernel by torch.func as a careful user writes it: the whole Jacobian by vmap, then a product for each tensor of weights."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.entk_models import load, token_losses
from benchmarks.entk_worker import Case, Contender, serve

LIMIT_GIB = 12


def prepare(case: Case) -> Contender:
    """The kernel of the case: outputs full or traced; loss, a row a sequence, or tokens, a row a token."""
    model, x = load(case)
    weights = {name: value.detach() for name, value in model.named_parameters()}
    one_by_one = case.get("one_by_one", False)
    rows = outputs_of(model, case["outputs"])
    num_rows = 1 if case["outputs"] == "loss" or one_by_one else {"tokens": x.shape[-1] - 1}.get(case["outputs"], 10)
    needed = 4 * len(x) * num_rows * sum(value.numel() for value in weights.values()) / 2**30
    if needed > LIMIT_GIB:
        raise MemoryError(f"J alone is {needed:.1f} GiB")
    if one_by_one:
        return Contender(kernel=lambda: traced_one_by_one(rows, weights, x), matrix=Tensor.numpy)
    derivative = grad if case["outputs"] == "loss" else jacrev
    whole = vmap(derivative(rows), in_dims=(None, 0))
    return Contender(kernel=lambda: gram(whole, weights, x, traced=case["outputs"] == "traced"), matrix=Tensor.numpy)


def outputs_of(model: nn.Module, outputs: str):
    """A function of weights and one sample."""

    def logits(weights: dict[str, Tensor], sample: Tensor) -> Tensor:
        return functional_call(model, weights, (sample[None],))[0]

    def losses(weights: dict[str, Tensor], sample: Tensor) -> Tensor:
        # the fused kernel has no batching rule; the plain one has
        with sdpa_kernel(SDPBackend.MATH):
            return token_losses(functional_call(model, weights, (sample[None, :-1],)), sample[None, 1:])[0]

    if outputs == "loss":
        return lambda weights, sample: losses(weights, sample).mean()
    return losses if outputs == "tokens" else logits


def gram(whole, weights: dict[str, Tensor], x: Tensor, *, traced: bool) -> Tensor:
    """J J^T, (rows, rows), or its mean over outputs: a product for each tensor, so that J is in memory once."""
    with torch.no_grad():
        jacobian = whole(weights, x)
        kept = len(x) if traced else next(iter(jacobian.values())).numel() // next(iter(weights.values())).numel()
        found = torch.zeros(kept, kept)
        for name in list(jacobian):
            rows = jacobian.pop(name).reshape(kept, -1)
            found.addmm_(rows, rows.T)
        return found / 10 if traced else found


def traced_one_by_one(rows, weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """(1 / C) sum_c J_c J_c^T with only one J_c in memory."""
    found = torch.zeros(len(x), len(x))
    for output in range(10):
        one = vmap(grad(lambda weights, sample, output=output: rows(weights, sample)[output]), in_dims=(None, 0))
        jacobian = one(weights, x)
        for name in list(jacobian):
            rows_NP = jacobian.pop(name).flatten(1)
            found.addmm_(rows_NP, rows_NP.T)
    return found / 10


if __name__ == "__main__":
    serve(prepare)
