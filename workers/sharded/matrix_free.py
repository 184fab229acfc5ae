"""Products with the kernel of a model that is never formed, each rank with its share of the samples, and the eigenvalues they give."""

import copy
import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workers.context import Context
from workers.sharded.engines import Question
from workers.sharded.findings import certificate, estimates, publish
from workers.sharded.products import joined, served
from workers.sharded.ranks import as_rank
from workers.sharded.resumable import find_largest

if TYPE_CHECKING:
    from torch import Tensor, nn

    from workers.entk import Density, Estimate
    from workers.entk.operators import Weights
    from workers.sharded.products import ShardedKernel

# R rows of the kernel; B vectors of a block; N samples of all ranks

NUM_SIGNS = 16
# a part that a later attempt takes over; no file of the result
ERROR = "products-error.npy"


class Ranks:
    """The ranks that have joined, for sums of gradients over their samples."""

    def __init__(self, num_ranks: int) -> None:
        self.num_ranks = num_ranks

    def total(self, gradients: "Weights") -> "Weights":
        """The sum over the ranks of what each has, by weight's name."""
        from torch import distributed

        if self.num_ranks == 1:
            return gradients
        # in the order of the model's weights, the same in all ranks
        found = {name: value.contiguous() for name, value in gradients.items()}
        for value in found.values():
            distributed.all_reduce(value)
        return found

    def least(self, number: int) -> int:
        """The smallest number that a rank gives."""
        import torch
        from torch import distributed

        if self.num_ranks == 1:
            return number
        found = torch.tensor(number)
        distributed.all_reduce(found, distributed.ReduceOp.MIN)
        return int(found)


@dataclass(frozen=True, slots=True)
class Share:
    """The samples of one rank of several: ranges in their order, of sizes that differ by one at most."""

    rank: int
    num_ranks: int
    num_samples: int

    @property
    def own(self) -> slice:
        """Of all samples."""
        return slice(self.rank * self.num_samples // self.num_ranks, (self.rank + 1) * self.num_samples // self.num_ranks)


class JacobianShare:
    """The rows of J J^T that belong to the samples of one rank; what J^T v is of the other samples comes from the other ranks.

    `inputs_N`: of this rank. `memory_gib`: of this rank, for activations and gradients (see `entk.KernelOperator`).
    """

    def __init__(self, module: "nn.Module", inputs_N: "Tensor", outputs: str, share: Share, memory_gib: float) -> None:
        from workers.entk import KernelOperator

        self._kernel = KernelOperator(module, inputs_N, outputs, memory_gib=memory_gib, together=Ranks(share.num_ranks))
        rows, own = self._kernel.shape[0] // len(inputs_N), share.own
        self.num_rows, self._own = share.num_samples * rows, slice(own.start * rows, own.stop * rows)
        self.dtype, self.device = self._kernel.dtype, self._kernel.device

    def __matmul__(self, vectors_RB: "Tensor") -> "Tensor":
        """The rank's own rows of the product (R, B), zeros elsewhere, in float64."""
        import torch

        found_RB = torch.zeros(vectors_RB.shape, dtype=torch.float64, device=self.device)
        found_RB[self._own] = (self._kernel @ vectors_RB[self._own]).double()
        return found_RB


def answer(context: Context, order: dict[str, Any], rank: int, num_ranks: int) -> None:
    """What one rank does: holds its share of the samples; the first one asks, and publishes what it finds."""
    from workers.execute import rebuild
    from workers.snapshots import network_and_probe

    workload: Any = rebuild(context.task)
    question = Question(**order["question"])
    module, inputs_N, *_ = network_and_probe(context, workload.train, workload.step(), workload.probe_size, workload.dtype)
    share = Share(rank, min(num_ranks, len(inputs_N)), len(inputs_N))
    if rank >= share.num_ranks:  # no sample is left for it
        return
    inputs_N = inputs_N[share.own].clone()  # those of others go
    with joined(rank, share.num_ranks, context.device):
        if workload.dtype == "float32":
            error = _known_or_measured(context, module, inputs_N, workload.outputs, share, order["memory_gib"])
            question = dataclasses.replace(question, error=error)
        multiplied = JacobianShare(module, inputs_N, workload.outputs, share, order["memory_gib"])
        with served(multiplied, rank, share.num_ranks) as kernel:
            if kernel is not None:
                _ask(context, kernel, question, order["every_seconds"])


def _ask(context: Context, kernel: "ShardedKernel", question: Question, every_seconds: float) -> None:
    spectrum, density = find_largest(context, kernel, question, every_seconds=every_seconds)
    assert spectrum.eigenvectors is not None
    numbers = certificate(spectrum) | ({} if density is None else estimates(density) | _trace(density))
    numbers |= {"kernel_error": question.error[0], "kernel_error_standard_error": question.error[1]}
    vectors_RV = spectrum.eigenvectors[:, -question.num_vectors :]
    publish(context, spectrum.eigenvalues.cpu().numpy(), vectors_RV.cpu().numpy(), numbers)
    context.log(f"took {kernel.num_products:,} products of the kernel with a vector")


def _trace(density: "Density") -> dict[str, float]:
    """tr / R, as the row `trace` of a kernel in tiles."""
    value, error = density.trace.value, density.trace.standard_error
    return {"trace_estimate": value / density.num_rows, "trace_standard_error": error / density.num_rows}


# -- single precision ---------------------------------------------------------------------------------------------------------


def products_error(module: "nn.Module", inputs_N: "Tensor", outputs: str, share: Share, memory_gib: float) -> "Estimate | None":
    """||E||_F of the error E of products in single precision against those in double, in the first rank; None in the others.

    From 16 vectors v of random signs: E ||E v||^2 is ||E||_F^2. `inputs_N`: of this rank.
    """
    import torch

    from workers.entk import Estimate

    images = []
    double = copy.deepcopy(module).double()
    for network, inputs in ((module, inputs_N), (double, inputs_N.double())):
        multiplied = JacobianShare(network, inputs, outputs, share, memory_gib)
        bits = torch.randint(2, (multiplied.num_rows, NUM_SIGNS), generator=torch.Generator().manual_seed(1))
        with served(multiplied, share.rank, share.num_ranks) as kernel:
            if kernel is not None:
                images.append(kernel @ (2.0 * bits.double() - 1.0))
    if not images:
        return None
    squares_B = (images[0] - images[1]).square().sum(0)
    found = math.sqrt(float(squares_B.mean()))
    return Estimate(found, float(squares_B.std()) / math.sqrt(NUM_SIGNS) / (2 * found) if found else 0.0)


def _known_or_measured(
    context: Context, module: "nn.Module", inputs_N: "Tensor", outputs: str, share: Share, memory_gib: float
) -> tuple[float, float]:
    """The error of products and its standard error, an earlier attempt's where there is one; right in the first rank alone."""
    import numpy as np

    path = None if share.rank else context.adopt(ERROR)
    known = None if path is None else np.load(path).tolist()
    if not Ranks(share.num_ranks).least(1 if share.rank or known is None else 0):
        return tuple(known) if known else (0.0, 0.0)
    found = products_error(module, inputs_N, outputs, share, memory_gib)
    if found is None:
        return (0.0, 0.0)
    with context.file(ERROR) as target, target.open("wb") as file:
        np.save(file, np.array([found.value, found.standard_error]))
    context.log(
        f"products in single precision are off by {found.value:.3g} +- {found.standard_error:.2g}, in the Frobenius norm of the kernel"
    )
    return found.value, found.standard_error


if __name__ == "__main__":
    as_rank(answer)
