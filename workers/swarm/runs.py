"""A task that goes on with others as one batch, and what its newest checkpoint holds."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from workers.context import Checkpoint, Context


class Run:
    """One task by its number in the batch; `started_at`: its step, -1 where it begins anew."""

    def __init__(self, number: int, settings: Any, context: "Context") -> None:
        self.number, self.settings, self.context = number, settings, context
        self.started_at = -1
        self.kept: Checkpoint | None = None

    def restore(self, at_most: int | None = None) -> int | None:
        """The checkpoint waits in `kept`."""
        found = self.context.restore(at_most)
        self.kept = found or self.kept
        return None if found is None else found.step

    def tensors(self, prefix: str) -> "dict[str, Tensor]":
        """Of the checkpoint, those whose names begin so, without that."""
        assert self.kept is not None
        return {name.removeprefix(prefix): value for name, value in self.kept.tensors.items() if name.startswith(prefix)}


def numbered(members: "Sequence[tuple[Any, Context]]") -> list[Run]:
    """Of tasks and their contexts."""
    return [Run(number, settings, context) for number, (settings, context) in enumerate(members)]


def joined(runs: Sequence[Run], prefix: str, name: str = "") -> "Tensor":
    """A tensor of all checkpoints, stacked along a new first axis, on the tasks' device."""
    import torch

    return torch.stack([run.tensors(prefix)[name] for run in runs]).to(runs[0].context.device)
