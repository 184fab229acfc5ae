"""Which tasks train together as one ensemble: those whose settings are equal but for the axes that their workload names."""

import dataclasses
import functools
import json
from collections.abc import Iterable
from typing import Any

from workers import plugins
from workers.errors import ConfigError
from workers.settings import Settings
from workers.taskdir import Task

# what an ensemble of training runs can do; a setting added to Train is refused with ensemble=true until it stands here
_OF_TRAIN = frozenset(
    "data model optimizer train_size test_size num_steps batch_size loss seed seed_init seed_subset seed_order seed_noise dtype "
    "num_evaluations num_snapshots position_probe_size logit_temperature ensemble checkpoint_every_seconds".split()
)


def group_of(task: Task) -> str:
    """Tasks of one name may go together; "": it goes alone, as one does that failed before, or whose micro-batch was halved."""
    if not task.settings.get("ensemble") or task.alone or task.halvings or task.num_failed:
        return ""
    axes = _axes(task.workload)
    if not axes:
        return ""
    shared = without(task.settings, axes)
    # a content hash is of the data, the inputs are commits
    inputs = {name: commit for name, commit in task.inputs.items() if name not in axes}
    return json.dumps([task.workload, task.version, shared, task.content, inputs, task.resources, task.gpu_type], sort_keys=True)


def ensemble_size(task: Task) -> int:
    """How many tasks its workload would have together."""
    return _declared(task.workload)[1]


def _axes(workload: str) -> frozenset[str]:
    """Settings in which members may differ."""
    return _declared(workload)[0]


@functools.cache
def _declared(workload: str) -> tuple[frozenset[str], int]:
    """The axes and the size; none and 1 of a workload that cannot be loaded here, of which its child says why."""
    try:
        cls = plugins.load("workloads", workload)
        return cls.ensemble_axes, cls.ensemble_size
    except (Exception, SystemExit):  # whatever a user's module does must not end the job
        return frozenset(), 1


def without(settings: dict[str, Any], axes: Iterable[str], path: str = "") -> dict[str, Any]:
    """Plain settings less those at the dotted paths `axes`."""
    return {
        name: without(value, axes, f"{path}{name}.") if isinstance(value, dict) else value
        for name, value in settings.items()
        if f"{path}{name}" not in axes
    }


def check_ensemble(train: Any) -> None:
    """ConfigError for a `Train` that cannot be a member of an ensemble."""
    if train.model.mixes_samples:
        raise ConfigError(
            "ensemble must be false for a model with batch normalisation, whose running means are no weights, got true; "
            "take model.normalisation=none"
        )
    if not train.optimizer.elementwise:
        raise ConfigError(
            f"ensemble must be false with optimizer={train.optimizer.plugin_name()}, which does not treat each weight by itself, got true; "
            "take optimizer=sgd or adam"
        )
    for field in dataclasses.fields(train):
        value = getattr(train, field.name)
        if field.name not in _OF_TRAIN and value != field.default:
            shown = value.to_plain() if isinstance(value, Settings) else value
            raise ConfigError(f"{field.name} must be {field.default} with ensemble=true, got {shown}; set ensemble=false")
