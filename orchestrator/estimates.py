"""How long tasks of a shape may take: as the slowest of it did, else as their workload guesses."""

from collections.abc import Mapping

from orchestrator.sweep import Block, Sweep
from workers.taskdir import shape_name


def expected_seconds(sweep: Sweep, slowest: Mapping[str, float]) -> dict[str, float]:
    """Seconds by `taskdir.shape_name`, for the shapes of which something is known; `slowest`: of what has run, the same way."""
    found: dict[str, float] = {}
    for block in sweep.blocks:
        for number, resources in enumerate(block.resources):
            guesses = _guesses(block, number)
            if guesses and None not in guesses:
                shape = shape_name(block.workload, resources)
                found[shape] = max(found.get(shape, 0.0), *(guess for guess in guesses if guess is not None))
    return found | dict(slowest)


def _guesses(block: Block, number: int) -> set[float | None]:
    """The workload's, for the tasks of a block with these resources; a list of length one stands for all tasks."""
    if len(block.resource_index) == 1:
        return set(block.seconds) if block.resource_index[0] == number else set()
    seconds = block.seconds * block.size if len(block.seconds) == 1 else block.seconds
    return {one for one, which in zip(seconds, block.resource_index, strict=True) if which == number}
