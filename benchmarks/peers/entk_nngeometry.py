"""The kernel by nngeometry: GramMatrix of the whole set in one batch; the traced one output by output, which spares pairs of outputs."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from nngeometry import GramMatrix
from nngeometry.object import FMatDense
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.entk_models import load, token_losses
from benchmarks.entk_worker import Case, Contender, serve


def prepare(case: Case) -> Contender:
    """GramMatrix gives (C, N, C, N)."""
    model, x = load(case)
    loader = DataLoader(TensorDataset(x), batch_size=len(x))

    def kernel(function) -> Tensor:
        return GramMatrix(model, loader, function=function, representation=FMatDense).to_torch()

    if case["outputs"] == "full":
        return Contender(kernel=lambda: kernel(lambda images: model(images)), matrix=full_matrix)
    if case["outputs"] == "traced":
        return Contender(
            kernel=lambda: sum(kernel(lambda images, c=c: model(images)[:, c : c + 1])[0, :, 0] for c in range(10)) / 10,
            matrix=Tensor.numpy,
        )
    return Contender(kernel=lambda: kernel(lambda tokens: token_losses(model(tokens[:, :-1]), tokens[:, 1:])), matrix=full_matrix)


def full_matrix(kernel_CNCN: Tensor) -> np.ndarray:
    """Rows n C + c."""
    size = kernel_CNCN.shape[0] * kernel_CNCN.shape[1]
    return kernel_CNCN.permute(1, 0, 3, 2).reshape(size, size).detach().numpy()


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve(prepare)
