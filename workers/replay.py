"""The network at a step of a committed training of which no snapshot was kept: trained again from the nearest one, bit for bit."""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from workers.continuing import load_state, state_name
from workers.errors import EigensweepError
from workers.pauses import pause
from workers.workloads.train import Train, _Run, snapshot_name

if TYPE_CHECKING:
    from torch import nn

    from workers.context import Context, Input

# of a loss: more is another training, such as one on another kind of device
TOLERANCE = 1e-6


def replayed(context: "Context", train: Train, committed: "Input", step: int) -> "nn.Module":
    """The network after `step` updates, from the latest step before it whose weights and optimiser's state were kept, else from the start.

    Stopped on the way, it leaves a checkpoint as a training does. Losses on the way are compared with the rows of the training;
    EigensweepError where they differ by more than `TOLERANCE`.
    """
    from workers import training

    run = _Run(dataclasses.replace(train, position_windows_per_decade=0), context)
    start = run.restore(at_most=step) or 0
    if not start and (start := nearest_state(committed, step)):
        run.at(start)
        training.set_state(run.module, run.optimizer, load_state(committed, start))
    rows = _losses(committed)
    context.log(f"trains again from step {start} to step {step}, of which the training kept no {snapshot_name(step)}")
    for done in range(start + 1, step + 1):
        list(run.update(done - 1))
        if done in run.evaluated:
            _compare(context, done, run, rows)
        if done < step:
            pause(run, done, [context])
    return run.module.eval()


def nearest_state(committed: "Input", step: int) -> int:
    """The latest step up to `step` of which weights and optimiser's state were kept; 0: from the start."""
    found = [int(name.rpartition("-")[2].partition(".")[0]) for name in committed.file_names if name.startswith("state-")]
    names = set(committed.file_names)
    return max((one for one in found if one <= step and {snapshot_name(one), state_name(one)} <= names), default=0)


def _losses(committed: "Input") -> dict[tuple[int, str], float]:
    columns = committed.rows()
    return {
        (int(step), str(name)): float(value) for step, name, value in zip(columns["step"], columns["name"], columns["value"], strict=True)
    }


def _compare(context: "Context", step: int, run: Any, rows: dict[tuple[int, str], float]) -> None:
    for name, value in zip(("train_loss", "test_loss"), run._evaluate()):
        was = rows[step, name]
        if value != was:
            context.log(f"replay: {name} at step {step} is {value!r}, the training's was {was!r}: not the same to the last bit")
        if not math.isclose(value, was, rel_tol=TOLERANCE):
            raise EigensweepError(
                f"the replay of step {step} has {name}={value!r}, the training had {was!r}: it ran on another kind of device, number of "
                "threads or version. Replay it there, or submit the training again with a larger num_snapshots after `eigensweep retract`"
            )
