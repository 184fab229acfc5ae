"""Two ranks with a batch each under DistributedDataParallel, which write what they measured; run by torch.multiprocessing."""

from pathlib import Path

import torch
from position_cases import CROSS_ENTROPY, batch_of, mlp
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from workers.entk.position import lnp
from workers.entk.position_windows import PositionAccumulator, PositionWindow, step_sums

SIZES = (10, 6)


def batch_of_rank(rank: int):
    """Ranks have unequal batches."""
    inputs, labels = batch_of(mlp(), sum(SIZES))
    rows = slice(0, SIZES[0]) if rank == 0 else slice(SIZES[0], None)
    return inputs[rows], labels[rows]


def measure(rank: int, folder: str) -> None:
    """Write what `rank` gets."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    model, batch = DistributedDataParallel(mlp()), batch_of_rank(rank)
    accumulator = PositionAccumulator()
    for inputs, labels in zip(batch[0].split(2), batch[1].split(2)):
        gradient = torch.autograd.grad(CROSS_ENTROPY(model.module(inputs), labels).mean(), list(model.parameters()))
        accumulator.add(gradient, num_units=2)
    window = PositionWindow([step_sums(model, CROSS_ENTROPY, batch, seed=rank)])
    everywhere = accumulator.sum_over_ranks()
    found = {
        "position": lnp(model, CROSS_ENTROPY, batch, num_micro_batches=SIZES[rank] // 2),
        "window": window.result(),
        "accumulated": (everywhere.unbiased, everywhere.biased, everywhere.num_units, everywhere.num_micro_batches),
    }
    torch.save(found, Path(folder) / f"rank-{rank}")
    distributed.destroy_process_group()
