"""The plain module under the wrappers of a training script, and sums over its ranks."""

from typing import Any

import torch
from torch import Tensor, distributed, nn


def unwrap(model: nn.Module) -> tuple[nn.Module, Any]:
    """The module that torch.compile or (Distributed)DataParallel wraps, and the process group over which its gradients are summed."""
    group: Any = None
    while True:
        if hasattr(model, "_orig_mod"):
            model = model._orig_mod  # type: ignore[assignment]
        elif isinstance(model, nn.parallel.DistributedDataParallel):
            model, group = model.module, model.process_group
        elif isinstance(model, nn.DataParallel):
            model = model.module
        else:
            return model, group


def rank(group: Any) -> int:
    """Of this process in a group; 0 without one."""
    return 0 if group is None else distributed.get_rank(group)


def sum_over_ranks(tensors: list[Tensor], group: Any) -> list[Tensor]:
    """Sums over the group, in place; without one the tensors as they are."""
    if group is not None:
        for tensor in tensors:
            distributed.all_reduce(tensor, group=group)
    return tensors


def join_ranks(tensors: dict[str, Tensor], group: Any) -> dict[str, Tensor]:
    """Small tensors on the CPU of all ranks, one after another along their last axis."""
    here = {name: tensor.cpu() for name, tensor in tensors.items()}
    if group is None:
        return here
    parts: list[dict[str, Tensor]] = [{} for _ in range(distributed.get_world_size(group))]
    distributed.all_gather_object(parts, here, group=group)
    return {name: torch.cat([part[name] for part in parts], dim=-1) for name in here}


def agreed(method: str, otherwise: str, group: Any) -> str:
    """The method that all ranks take: `otherwise` where they would not all take one."""
    if group is None:
        return method
    methods: list[str] = [""] * distributed.get_world_size(group)
    distributed.all_gather_object(methods, method, group=group)
    return method if len(set(methods)) == 1 else otherwise
