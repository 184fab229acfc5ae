"""Spectral position along a training: what it costs beside the training, and against the authors' estimators at equal standard error.

Processor seconds on one thread, medians of interleaved repetitions. The variances are exact: those of the samples and of random signs
follow from the full kernel of a batch. All get a forward pass that is there already, as along a training, and none makes gradients of
weights where only norms are wanted. The per-class method takes C backward passes B and ours one, so it costs at most C times ours, less
the probes' error; with a forward pass F for each at most (F + C B) / (F + B), which is (C + 1) / 2 where both are as long.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.measure import Bars, heading, interleave, parser, say, short, table
from benchmarks.peers import position_estimators as peers
from workers import entk, training
from workers.data.digits import Digits
from workers.data.fashion_mnist import FashionMnist
from workers.entk.network import Network
from workers.entk.norms import network as network_of
from workers.entk.norms import norms_by_parameter
from workers.entk.position_log import PositionLog
from workers.entk.position_trace import balanced_probes
from workers.errors import ConfigError
from workers.losses import loss_per_unit
from workers.samples import Samples

# N samples; C outputs; R probes

NUM_STEPS = 10_000
PER_DECADE = 5
LOSS = nn.CrossEntropyLoss(reduction="none")
CASES = {
    "digits 64-256-256-10, batch 64": ("digits", 256, 64),
    "digits 64-256-256-10, batch 256": ("digits", 256, 256),
    "Fashion-MNIST 784-512-512-10, batch 64": ("fashion_mnist", 512, 64),
    "Fashion-MNIST 784-512-512-10, batch 256": ("fashion_mnist", 512, 256),
}

Batches = Callable[[], tuple[Tensor, Tensor]]


def data(name: str) -> Samples:
    """The images; digits where the others are not here."""
    try:
        return (FashionMnist() if name == "fashion_mnist" else Digits()).load()
    except ConfigError as error:
        say(f"  digits instead: {error}")
        return Digits().load()


def network(images: Samples, width: int) -> nn.Module:
    """Two hidden layers, ReLU."""
    torch.manual_seed(0)
    size = int(np.prod(images.input_shape))
    return nn.Sequential(nn.Flatten(), nn.Linear(size, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))


def batches_of(images: Samples, size: int) -> Batches:
    """Random training batches."""
    inputs_N, labels_N, draw = torch.from_numpy(images.train_inputs), torch.from_numpy(images.train_targets), np.random.default_rng(0)

    def batch() -> tuple[Tensor, Tensor]:
        rows = torch.from_numpy(draw.integers(0, len(labels_N), size))
        return inputs_N[rows], labels_N[rows]

    return batch


def cpu_seconds(work: Callable[[], object]) -> float:
    """Processor seconds of a call."""
    began = time.process_time()
    work()
    return time.process_time() - began


def overhead(model: nn.Module, images: Samples, batches: Batches, bars: Bars, name: str) -> list[str]:
    """All windows of a run of NUM_STEPS steps, with ten plain updates beside each measured step instead of all between."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, fused=True)
    probe = torch.from_numpy(images.test_inputs[:64]), torch.from_numpy(images.test_targets[:64])
    loss, pool = partial(loss_per_unit, "cross_entropy"), len(images.train_targets)
    log = PositionLog(num_steps=NUM_STEPS, per_decade=PER_DECADE, unit_loss=loss, probe=probe, pool_size=pool)
    updates, measured = [], []
    for step in filter(log.measures, range(NUM_STEPS)):
        batch = batches()

        def look(outputs: Tensor, step: int = step, batch: tuple[Tensor, Tensor] = batch) -> None:
            measured.append(cpu_seconds(lambda: log.measure(step, model, batch, outputs)))

        training.update(model, optimizer, 0.05, "cross_entropy", *batch, look=look)
        for _ in range(10):
            batch = batches()
            updates.append(cpu_seconds(lambda b=batch: training.update(model, optimizer, 0.05, "cross_entropy", *b)))
    update, total = statistics.median(updates), sum(measured)
    share = 100 * total / (NUM_STEPS * update)
    bars.below(f"{name}: chi_pos along {NUM_STEPS:,} steps", share, 5.0, "%")
    step_time = statistics.median(measured)
    return [name, f"{1000 * update:.2f} ms", f"{len(measured)}", f"{1000 * step_time:.2f} ms", f"{1000 * total:.0f} ms", f"{share:.2f} %"]


def ours(known: Network, inputs_N: Tensor, outputs_NC: Tensor, generator: torch.Generator, num_probes: int) -> Tensor:
    """chi_net by one vector of a balanced basis for each sample."""
    probes = balanced_probes(num_probes, outputs_NC.detach(), len(outputs_NC), generator)
    squares = norms_by_parameter(known, inputs_N, probes, outputs_NC)
    return torch.stack(list(squares.values())).sum() / num_probes / len(outputs_NC)


def variances(model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, float]:
    """Relative: of the mean trace of N samples, and of one probe of each kind on this batch."""
    size = len(batch[0])
    kernel = entk.gram(model, batch[0]).double()
    blocks_NCC = kernel.view(size, 10, size, 10).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    trace_N = blocks_NCC.diagonal(dim1=1, dim2=2).sum(1)
    scale, generator = float(trace_N.mean()) ** 2, torch.Generator().manual_seed(0)
    return {
        "samples": float(trace_N.var()) / size / scale,
        "balanced": statistics.mean(_balanced(blocks_NCC, generator) for _ in range(50)) / scale,
        "shared": float(_spread(blocks_NCC.mean(0))) / scale,
        "batch": float(_spread(kernel)) / size**2 / scale,
    }


def _balanced(blocks_NCC: Tensor, generator: torch.Generator) -> float:
    """Variance of the mean over samples of v^T K v for v in a random permutation of a basis, for as many turns of each vector.

    Hoeffding 1951, theorem 2.
    """
    size, basis_BC = len(blocks_NCC), balanced_probes(1, blocks_NCC[0, :1].expand(10, 10), 10, generator)[0]
    values_NB = torch.einsum("bc,ncd,bd->nb", basis_BC, blocks_NCC, basis_BC)
    centred_NB = values_NB - values_NB.mean(0) - values_NB.mean(1, keepdim=True) + values_NB.mean()
    return float(centred_NB.square().sum()) / 10 / (size - 1) / size


def _spread(kernel: Tensor) -> Tensor:
    """Variance of v^T K v over random signs."""
    return 2 * (kernel.square().sum((-2, -1)) - kernel.diagonal(dim1=-2, dim2=-1).square().sum(-1))


def compare(model: nn.Module, batches: Batches, repetitions: int, bars: Bars, name: str) -> list[list[str]]:
    """Cost of one standard error of chi_net for each estimator: seconds times variance, at its best number of probes."""
    batch, generator = batches(), torch.Generator().manual_seed(0)
    known, weights = network_of(model, batch[0]), list(model.parameters())
    found, made = variances(model, batch), peers.passed(model, batch[0])
    methods: dict[str, tuple[Callable[[int], object], str | None]] = {
        "ours: a balanced basis": (lambda r: ours(known, batch[0], made.outputs_NC, generator, r), "balanced"),
        "per-class ghost norms": (lambda r: peers.per_class_ghost_norms(made), None),
        "shared signs, ghost norms": (lambda r: peers.shared_probe_ghost_norms(made, r), "shared"),
        "signs of the whole batch": (lambda r: peers.batch_hutchinson(made, weights, r), "batch"),
    }
    cases = {(key, number): partial(cpu_seconds, partial(run, number)) for key, (run, _) in methods.items() for number in (1, 9)}
    for work in cases.values():
        work()
    seconds = {case: statistics.median(values) for case, values in interleave(cases, repetitions).items()}  # type: ignore[type-var]
    rows, costs = [], []
    for key, (_, kind) in methods.items():
        one, more = seconds[key, 1], max((seconds[key, 9] - seconds[key, 1]) / 8, 0.0)
        noise, numbers = (found[kind], np.arange(1, 2000)) if kind else (0.0, np.array([1]))
        cost = (one + more * (numbers - 1)) * (found["samples"] + noise / numbers)
        best = int(cost.argmin())
        costs.append(float(cost[best]))
        errors = f"{100 * found['samples'] ** 0.5:.2f} %", f"{100 * noise**0.5:.2f} %"
        rows.append([name, key, f"{1000 * one:.2f} ms", *errors, f"{numbers[best]}", short(costs[-1] / costs[0])])
        if costs[1:]:
            bars.at_least(f"{name}: {key}", costs[-1] / costs[0], 5.0, "x")
    return rows


def main() -> int:
    asked = _asked()
    torch.set_num_threads(1)
    heading(__doc__.splitlines()[0], asked.folder, ["torch"])
    bars, costs, estimators = Bars(), [], []
    for name, (source, width, size) in CASES.items():
        say(name)
        images = data(source)
        model, batches = network(images, width), batches_of(images, size)
        costs.append(overhead(model, images, batches, bars, name))
        estimators += compare(model, batches, asked.repetitions, bars, name)
    table(["training", "an update", "steps measured", "a measured step", "all windows", f"of {NUM_STEPS:,} updates"], costs)
    print("\nchi_net: seconds for equal standard error, that of samples and probes together, at each one's best number of probes:\n")
    header = ["network", "estimator", "one measurement", "error of samples", "of one probe", "best number", "cost beside ours"]
    table(header, estimators)
    return bars.show(check=not asked.no_check)


def _asked() -> argparse.Namespace:
    return parser(__doc__, repetitions=15).parse_args()


if __name__ == "__main__":
    sys.exit(main())
