"""One warm process of `bench_ensembles.py`: prepares runs, then times their updates each time it is told to go."""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from workers.context import Context
from workers.data.npz import Npz
from workers.ensembles.runs import _member, _Together
from workers.ensembles.shared import SharedSamples
from workers.ensembles.stacked import Ensemble
from workers.models.mlp import Mlp
from workers.optimizers.adam import Adam
from workers.taskdir import Task
from workers.workloads.train import Train, _Run

MOST_STEPS = 10**6


def settings(seed: int, args: argparse.Namespace) -> Train:
    """Of one run: seeds of their own, or of the initialisation alone."""
    paired = {"seed": 0, "seed_init": seed} if args.batches == "shared" else {"seed": seed}
    model = Mlp(width=args.width)
    return Train(data=Npz(path=args.npz), model=model, optimizer=Adam(), train_size=args.train_size, num_steps=MOST_STEPS, **paired)


def context() -> Context:
    """Of a run that leaves no files."""
    return Context(root=Path(), task=Task(key="", workload="train", version=1, settings={}, inputs={}), attempt="", device=DEVICE)


def one_by_one(args: argparse.Namespace) -> Callable[[], None]:
    """The loop of runs alone, one run after another."""
    runs = [_Run(settings(seed, args), context()) for seed in args.seeds]

    def go() -> None:
        for run in runs:
            for step in range(args.steps):
                for _ in run.update(step):
                    pass

    return go


def together(args: argparse.Namespace) -> Callable[[], None]:
    """The loop of an ensemble."""
    shared = SharedSamples(settings(0, args).data.load())
    runs = _Together(list(enumerate(_Run(settings(seed, args), context(), samples=shared) for seed in args.seeds)))
    if args.how == "vmap":
        runs.ensemble = Ensemble([_member(run) for run in runs.runs], runs.settings.optimizer.build, runs.settings.loss, fused=False)

    def go() -> None:
        for step in range(args.steps):
            runs.update(step)

    return go


def main() -> None:
    """Say the device when ready; at each line of input go, and answer with the seconds that it took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("how", choices=("alone", "vmap", "fused"))
    parser.add_argument("--batches", choices=("own", "shared"), required=True)
    parser.add_argument("--seeds", type=lambda text: list(map(int, text.split(","))), required=True)
    for name in ("threads", "steps", "width", "train-size"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--npz", required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    go = one_by_one(args) if args.how == "alone" else together(args)
    go()
    print(DEVICE, flush=True)
    for _ in sys.stdin:
        began = time.perf_counter(), time.process_time()
        go()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        print(json.dumps([time.perf_counter() - began[0], time.process_time() - began[1]]), flush=True)


DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

if __name__ == "__main__":
    main()
