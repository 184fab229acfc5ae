"""Going on from a shorter training's last state, so that the longer one is bitwise what it would be from the beginning."""

import dataclasses
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from workers.errors import ConfigError, Diverged
from workers.schedule import log_spaced_steps
from workers.workload import EARLIER, Row

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from workers.context import Context, Input
    from workers.schedule import ScheduledOptimizer
    from workers.workloads.train import Train

_OPTIMIZER = "optimizer."
# rows of a whole training, at its end
_OF_SIZE = ("num_params", "unique_", "flops_")


def steps(num_steps: int, continue_from: Sequence[int], count: int) -> tuple[int, ...]:
    """The steps at which a training is looked at: those of what it goes on from, then its own log-spaced ones that are later."""
    if not continue_from:
        return log_spaced_steps(num_steps, count)
    *before, last = continue_from
    return (*steps(last, before, count), *(step for step in log_spaced_steps(num_steps, count) if step > last))


def check(train: "Train") -> None:
    """ConfigError where a longer training would not be the shorter one with more steps."""
    lengths = (*train.continue_from, train.num_steps)
    if any(one >= other for one, other in zip(lengths, lengths[1:])):
        raise ConfigError(f"continue_from must rise and end below num_steps={train.num_steps}, got {list(train.continue_from)}")
    if train.continue_from and train.optimizer.schedule == "wsd":
        if (last := train.continue_from[-1]) > (stable := train.num_steps - train.optimizer.decay_steps):
            raise ConfigError(f"continue_from must end where the rate is still constant, at most at step {stable}, got {last}")
        return _check_needed(train, {})
    return _check_needed(train, {"optimizer.schedule": (train.optimizer.schedule, "constant")})


def _check_needed(train: "Train", needed: Mapping[str, tuple[Any, Any]]) -> None:
    needed = {
        **needed,
        "position_windows_per_decade": (train.position_windows_per_decade, 0),
        "frozen_at": (train.frozen_at, 0.0),
    }
    for name, (given, allowed) in needed.items():
        if train.continue_from and given != allowed:
            raise ConfigError(
                f"continue_from needs {name}={allowed}, got {given}: what depends on num_steps is another from the first step on, so that "
                "a longer training is a new one, from the beginning; leave continue_from out"
            )


def trunk(optimizer: "ScheduledOptimizer") -> "ScheduledOptimizer":
    """The optimiser of the training that is gone on from: with the rate as it is before the decay."""
    return dataclasses.replace(optimizer, schedule="constant", decay_steps=0) if optimizer.schedule == "wsd" else optimizer


def state_name(step: int) -> str:
    """File of the optimiser's state after `step` updates; the weights are in the snapshot beside it."""
    return f"state-{step}.safetensors"


def save_state(context: "Context", step: int, optimizer: "Optimizer", module: "nn.Module") -> None:
    """Keep what a training needs beside its weights to go on."""
    from safetensors.torch import save_file

    from workers import training

    tensors = {name: value for name, value in training.state(module, optimizer).items() if name.startswith(_OPTIMIZER)}
    with context.file(state_name(step)) as path:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, path)


def load_state(train: "Input", step: int) -> "Mapping[str, Tensor]":
    """Weights and optimiser's state after `step` updates, as `training.set_state` takes them."""
    from safetensors.torch import load_file

    from workers.workloads.train import snapshot_name

    weights = load_file(train.file(snapshot_name(step)))
    return {f"model.{name}": value for name, value in weights.items()} | load_file(train.file(state_name(step)))


def take_over(run: Any, context: "Context", settings: "Train") -> Iterator[Row]:
    """Rows and snapshots of the shorter training up to its end, whose state is put into `run`; `run.begun` is then its last step.

    Where it was committed without its state, or without one of the snapshots, the log says so, and nothing is taken over. Where it
    diverged, this one does so too: Diverged, after the rows.
    """
    from workers import training
    from workers.workloads.train import snapshot_name

    if EARLIER not in context.task.inputs:
        return
    earlier, last = context.input(EARLIER), settings.continue_from[-1]
    diverged = earlier.commit.status == "diverged"
    reached = int(max(earlier.rows()["step"])) if diverged else last
    kept = [snapshot_name(step) for step in settings.snapshot_steps() if step <= reached]
    needed = kept if diverged else [state_name(last), *kept]
    if missing := [name for name in needed if name not in earlier.file_names]:
        context.log(f"begins at step 0: the training of {last} steps kept no {', '.join(missing)} (num_snapshots, keep_state)")
        return
    if not diverged:
        training.set_state(run.module, run.optimizer, load_state(earlier, last))
    for name in kept:
        with context.file(name) as path:
            shutil.copyfile(earlier.file(name), path)
    if settings.keep_state:
        _copy_states(context, earlier)
    yield from _rows(earlier)
    if diverged:
        raise Diverged(earlier.commit.message)
    context.log(f"goes on from step {last} of a training that is committed")
    run.begun = last


def _copy_states(context: "Context", earlier: "Input") -> None:
    for name in earlier.file_names:
        if name.startswith("state-"):
            with context.file(name) as path:
                shutil.copyfile(earlier.file(name), path)


def _rows(earlier: "Input") -> Iterator[Row]:
    """The rows by step; those of size and compute are of the whole training."""
    columns = earlier.rows()
    for step, name, value in zip(columns["step"], columns["name"], columns["value"], strict=True):
        if not name.startswith(_OF_SIZE):
            yield Row(step=int(step), name=str(name), value=float(value))
