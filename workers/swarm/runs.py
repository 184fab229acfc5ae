"""A task that goes on with others as one batch, and what its newest checkpoint holds."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from workers.ensembles.starts import common_starts

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


def batches(members: "Sequence[tuple[Any, Context]]", kind: "Callable[[Any], Any]") -> Iterator[list[Run]]:
    """Of tasks and their contexts, those whose settings are of one `kind` and that begin at one step, restored to it."""
    alike: dict[Any, list[Run]] = defaultdict(list)
    for number, (settings, context) in enumerate(members):
        alike[kind(settings)].append(Run(number, settings, context))
    for _, group in sorted(alike.items()):
        for start in common_starts(group):
            yield [run for run in group if run.started_at == start]


def joined(runs: Sequence[Run], prefix: str, name: str = "") -> "Tensor":
    """A tensor of all checkpoints, stacked along a new first axis, on the tasks' device."""
    import torch

    return torch.stack([run.tensors(prefix)[name] for run in runs]).to(runs[0].context.device)
