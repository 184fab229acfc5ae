"""The snapshots of a training run by name, and the probe set on which a network is looked at."""

from pathlib import Path
from typing import TYPE_CHECKING

from workers.errors import ConfigError
from workers.subsets import probe
from workers.workloads.train import Train, snapshot_name

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from workers.context import Context, Input


def check_snapshot(train: Train, snapshot: str, *, replays: bool = False) -> None:
    """The snapshot must be one that the training keeps, under one name: init, final or the number of a step between.

    `replays`: any step between will do, for what was not kept is trained again.
    """
    check_loss(train)
    # the members of an ensemble are computed otherwise, by rounding, which a replay alone would not repeat
    replays = replays and not train.ensemble
    if replays and snapshot.isdecimal() and snapshot == str(int(snapshot)) and 0 < int(snapshot) < train.num_steps:
        return
    allowed = ["init", "final", *map(str, train.snapshot_steps()[1:-1])]
    if snapshot not in allowed:
        raise ConfigError(
            f"snapshot must be one of {', '.join(allowed)}, got {snapshot!r}; "
            "train.num_snapshots keeps more, and the first and last are called init and final"
            + (f"; any other step up to {train.num_steps - 1} is trained again" if replays else "")
        )


def check_loss(train: Train) -> None:
    """The loss must have no logit temperature, which residuals and loss gradients of kernels do not know of."""
    if train.logit_temperature != 1.0:
        raise ConfigError(f"train.logit_temperature must be 1 where kernels or positions are computed, got {train.logit_temperature}")


def num_units(train: Train, probe_size: int) -> int:
    """Units of the loss on a probe set (D2), as far as that is known without reading the data."""
    shapes = train.data.shapes() if train.model.reads_tokens else None
    return probe_size * (shapes[1][1] if shapes else 1)


def check_probe(train: Train, size: int) -> None:
    """The test set must have `size` samples, where it is known how many it has without reading them."""
    if shapes := train.data.shapes():
        _refuse_more(size, shapes[1][0])


def _refuse_more(size: int, num_samples: int) -> None:
    if size > num_samples:
        raise ConfigError(f"probe_size must be at most {num_samples}, the test samples of this data set, got {size}")


def snapshot_step(train: Train, snapshot: str) -> int:
    """The step of a snapshot."""
    named = {"init": 0, "final": train.num_steps}
    return named[snapshot] if snapshot in named else int(snapshot)


def snapshot_file(train: "Input", step: int) -> Path:
    """The file of a committed training run; ConfigError where that run kept it not."""
    name = snapshot_name(step)
    if name not in train.file_names:
        raise ConfigError(
            f"the train task {train.commit.key} kept no {name}; it has {', '.join(train.file_names)}. Which snapshots are kept "
            "is not part of a task's key: retract that task and submit again with the larger train.num_snapshots"
        )
    return train.file(name)


def probe_batch(train: Train, size: int, device: str, dtype: "torch.dtype") -> "tuple[Tensor, Tensor, Tensor]":
    """Inputs, targets and indices (N,) of the test set, which depend on the data alone (see `workers.samples`)."""
    import torch

    samples = train.data.load()
    _refuse_more(size, len(samples.test_targets))
    index_N = probe(len(samples.test_targets), size)
    return *samples.test(index_N, device, dtype), torch.from_numpy(index_N)


def network_at(context: "Context", train: Train, step: int) -> "nn.Module":
    """The network after `step` updates of the input `train`: its snapshot, or trained again where it kept none of that step."""
    committed = context.input("train")
    if snapshot_name(step) in committed.file_names:
        return train.load_snapshot(committed.file(snapshot_name(step)))
    from workers.replay import replayed

    return replayed(context, train, committed, step)


def seconds_to_replay(train: Train, step: int) -> float:
    """A guess of what `network_at` takes."""
    return 0.0 if step in train.snapshot_steps() else train.estimated_seconds() * step / train.num_steps


def minutes_to_replay(train: Train, step: int) -> float:
    """What a task that replays asks for, ten times the guess."""
    return max(60.0, seconds_to_replay(train, step) / 60 * 10)


def network_and_probe(
    context: "Context", train: Train, step: int, size: int, dtype: str, *, replays: bool = False
) -> "tuple[nn.Module, Tensor, Tensor, Tensor]":
    """The network of a snapshot of the input `train`, and a `probe_batch`, on the task's device. `replays`: see `network_at`."""
    import torch

    precision = getattr(torch, dtype)
    found = network_at(context, train, step) if replays else train.load_snapshot(snapshot_file(context.input("train"), step))
    module = found.to(context.device, precision)
    return module, *probe_batch(train, size, context.device, precision)
