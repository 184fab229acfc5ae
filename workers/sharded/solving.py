"""Eigenvalues of a tiled kernel by the ranks of a task."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.context import Context
from workers.sharded import answers, scalapack
from workers.sharded.answers import ANSWER, VECTORS
from workers.sharded.engines import Choice, Question
from workers.sharded.panels import Pair
from workers.sharded.ranks import run_ranks
from workers.sharded.tiles import TileSet

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


def solve(
    context: Context, tiles: Path, moved: Mapping[Pair, Path], question: Question, choice: Choice, *, ranks_per_node: int
) -> "dict[str, Array]":
    """Ask the ranks: `eigenvalues` (K,), and numbers by name; the eigenvectors (R, V) are published as a part."""
    import numpy as np

    order: dict[str, Any] = {
        "tiles": str(tiles),
        "moved": [[list(pair), str(path)] for pair, path in moved.items()],
        "question": asdict(question),
        "engine": choice.engine,
    }
    if context.adopt(VECTORS) is None or context.adopt(ANSWER) is None:  # an earlier attempt may have come that far
        if choice.engine == "scalapack":
            order["solved"] = _by_scalapack(context, TileSet.load(tiles, moved), question, ranks_per_node)
        ranks = 1 if choice.engine == "whole" else ranks_per_node
        status = run_ranks(context, answers.answer, order, ranks_per_node=ranks)
        if context.adopt(VECTORS) is None or context.adopt(ANSWER) is None:
            raise RuntimeError(f"the ranks of the eigensolve ended with status {status}; the log says why")
    with np.load(context.folder / ANSWER) as found:
        return dict(found)


def _by_scalapack(context: Context, tiles: TileSet, question: Question, ranks_per_node: int) -> list[str]:
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
    )
    context.log(f"{solved.library}: {solved.cpu_seconds:.1f} core-seconds, no rank held more than {solved.memory_bytes / 2**30:.2f} GiB")
    values = folder / "values.npy"
    np.save(values, solved.eigenvalues_R)
    return [str(values), *([str(solved.vectors)] if solved.vectors else [])]
