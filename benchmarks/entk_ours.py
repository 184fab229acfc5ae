"""The kernel by `workers.entk`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from torch import Tensor

from benchmarks.entk_models import load, token_losses
from benchmarks.entk_worker import Case, Contender, serve
from workers import entk


def prepare(case: Case) -> Contender:
    """Outputs full or traced; loss, a row a sequence, or tokens, a row a token."""
    model, x = load(case)
    outputs, memory_gib = case["outputs"], case["memory_gib"]
    if outputs in ("loss", "tokens"):
        batch = (x[:, :-1], x[:, 1:])
        return Contender(
            kernel=lambda: entk.loss_gram(model, token_losses, batch, per_unit=outputs == "tokens", memory_gib=memory_gib),
            matrix=Tensor.numpy,
        )
    return Contender(
        kernel=lambda: entk.gram(model, x, outputs=outputs, memory_gib=memory_gib),
        matrix=Tensor.numpy,
        flops=lambda: entk.plan(model, x, outputs=outputs, memory_gib=memory_gib).flops,
    )


if __name__ == "__main__":
    serve(prepare)
