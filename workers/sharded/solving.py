"""Eigenvalues of a sharded kernel by the ranks of a task, which waits for them."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers import files
from workers.context import Context
from workers.errors import ProcessLost
from workers.sharded import answers, memory, scalapack
from workers.sharded.engines import Choice, Question
from workers.sharded.findings import ANSWER, VECTORS
from workers.sharded.panels import Pair
from workers.sharded.ranks import Work, run_ranks
from workers.sharded.resumable import RESUMED
from workers.sharded.tiles import TileSet
from workers.sharded.watching import looking
from workers.workload import Resources

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


def solve(
    context: Context,
    tiles: Path,
    moved: Mapping[Pair, Path],
    question: Question,
    choice: Choice,
    *,
    ranks_per_node: int,
    every_seconds: float,
) -> "dict[str, Array]":
    """Ask the ranks of a tiled kernel: `eigenvalues` (K,), and numbers by name; the eigenvectors (R, V) are published as a part."""
    order: dict[str, Any] = {
        "tiles": str(tiles),
        "moved": [[list(pair), str(path)] for pair, path in moved.items()],
        "question": asdict(question),
        "engine": choice.engine,
        "every_seconds": every_seconds,
    }
    if _is_answered(context):
        return answered(context, answers.answer, order, ranks_per_node=1)
    known, limits = TileSet.load(tiles, moved), _Limits()
    if context.task.resources and choice.engine != "whole":
        limits = _Limits.of(choice.engine, question, known, Resources(**context.task.resources))
    if choice.engine == "scalapack":
        context.progress(0, 0, "all eigenvalues by ScaLAPACK")
        order["solved"] = _by_scalapack(context, known, question, ranks_per_node, limits.mpi_gib)
    words = {"whole": "by one process", "scalapack": "are certified", "lanczos": "by block Lanczos"}[choice.engine]
    context.progress(0, 0, f"eigenvalues {words}")
    ranks = 1 if choice.engine == "whole" else ranks_per_node
    return answered(context, answers.answer, order, ranks_per_node=ranks, rank_gib=limits.rank_gib, first_gib=limits.first_gib)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limits:
    """Of the memory of an MPI rank, of the first rank, which asks, and of each other one; none: no limit."""

    mpi_gib: float | None = None
    first_gib: float | None = None
    rank_gib: float | None = None

    @classmethod
    def of(cls, engine: str, question: Question, tiles: TileSet, resources: Resources) -> "_Limits":
        """What each needs, and what a node has beside that in equal shares."""
        asked = (question, tiles.panels, tiles.dtype, resources)
        spare = max(0.0, resources.memory_gib - memory.engine_gib(engine, *asked)) / memory.ranks_of(resources)
        return cls(
            mpi_gib=memory.machine_of(resources).rank_gib,
            first_gib=memory.first_gib(engine, *asked) + spare,
            rank_gib=memory.other_gib(*asked[1:]) + spare,
        )


def answered(
    context: Context,
    work: Work,
    order: Mapping[str, Any],
    *,
    ranks_per_node: int,
    rank_gib: float | None = None,
    first_gib: float | None = None,
) -> "dict[str, Array]":
    """What `work` publishes when its ranks do it, or has by an earlier attempt: `eigenvalues` (K,), and numbers by name.

    `rank_gib`, `first_gib`: as of `run_ranks`. ProcessLost where the ranks end without it.
    """
    import numpy as np

    if not _is_answered(context):
        with _checkpoints_told(context):
            status = run_ranks(context, work, order, ranks_per_node=ranks_per_node, rank_gib=rank_gib, first_gib=first_gib)
        if not _is_answered(context):
            raise ProcessLost(f"the ranks of the eigensolve ended with status {status}; the log says why")
    with np.load(context.folder / ANSWER) as found:
        return dict(found)


def _is_answered(context: Context) -> bool:
    # the answer is published last: while it is not there, no eigenvectors are taken over that the ranks would replace
    return all(context.adopt(name) is not None for name in (ANSWER, VECTORS))


def _by_scalapack(context: Context, tiles: TileSet, question: Question, ranks_per_node: int, rank_gib: float | None) -> list[str]:
    """Files of all eigenvalues and of the eigenvectors, unless these are few; the ranks then certify them."""
    import numpy as np

    folder, nodes = context.folder / "scalapack", context.nodes
    solved = scalapack.solve(
        tiles,
        ranks=len(nodes) * ranks_per_node,
        folder=folder,
        vectors=0 if question.takes_few(tiles.num_rows) else question.num_vectors,
        nodes=nodes if len(nodes) > 1 else (),
        stopping=lambda: context.stopping,
        rank_gib=rank_gib,
    )
    context.log(f"{solved.library}: {solved.cpu_seconds:.1f} core-seconds, no rank held more than {solved.memory_bytes / 2**30:.2f} GiB")
    values = folder / "values.npy"
    np.save(values, solved.eigenvalues_R)
    return [str(values), *([str(solved.vectors)] if solved.vectors else [])]


# -- how far the ranks are ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _checkpoints_told(context: Context) -> Iterator[None]:
    """Report the checkpoints of the first rank as those of the task: one that is killed then counts as one that made progress."""
    try:
        with looking(lambda: _tell_checkpoints(context)):
            yield
    finally:
        _tell_checkpoints(context)


def _tell_checkpoints(context: Context) -> None:
    names = files.names(context.folder)
    context.resumed_at = _newest(RESUMED, names) if context.resumed_at is None else context.resumed_at
    newest = _newest("checkpoint-", names)
    if newest is not None and newest != context.checkpointed_at:
        context.checkpointed_at = newest
        context.report({"checkpoint": newest})


def _newest(prefix: str, names: Sequence[str]) -> int | None:
    steps = [int(name.removeprefix(prefix).removesuffix(".json")) for name in names if name.startswith(prefix) and name.endswith(".json")]
    return max(steps, default=None)
