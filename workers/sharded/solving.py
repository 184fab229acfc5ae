"""Eigenvalues of a tiled kernel: which engine, why, and what it has found."""

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.context import Context
from workers.errors import ConfigError
from workers.sharded.panels import Pair
from workers.sharded.ranks import as_rank, run_ranks
from workers.sharded.tiles import TileSet

if TYPE_CHECKING:
    import numpy as np

    from workers.entk import Estimate, Operator, Spectrum

    Array = np.ndarray[Any, Any]

# K eigenvalues; R rows; N units; C outputs

# the kernel in double precision, its eigenvectors, and what the solver works with
COPIES_WHOLE = 4
ANSWER, VECTORS = "answer.npz", "eigenvectors.npy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of a kernel: its `num_eigenvalues` largest (None: all) with their eigenvectors, and the entropy of the whole."""

    num_eigenvalues: int | None
    num_probes: int = 32
    error: "tuple[float, float]" = (0.0, 0.0)  # of the kernel, with its standard error; 0: only rounding is known


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine, and why it and no other."""

    engine: str
    reason: str


def choose(question: Question, num_rows: int, memory_gib: float, engine: str = "auto") -> Choice:
    """The engine for a question, with `memory_gib` for one process; ConfigError where none can answer.

    "whole": LAPACK in one process, all eigenvalues and vectors. "lanczos": the largest by block Lanczos, products by all ranks, and the
    entropy by deflated quadrature.
    """
    needed = COPIES_WHOLE * 8 * num_rows**2 / 2**30
    few = question.num_eigenvalues is not None and 20 * question.num_eigenvalues <= num_rows
    if engine == "auto":
        engine = "lanczos" if question.num_eigenvalues is not None and (needed > memory_gib or (few and num_rows >= 1024)) else "whole"
    if engine == "whole" and needed > memory_gib:
        raise ConfigError(
            f"all {num_rows:,} eigenvalues in one process need {needed:.1f} GiB, and {memory_gib:.1f} are there; give more "
            "resources.memory_gib, or num_eigenvalues= for the largest, with the entropy and its standard error"
        )
    if engine == "lanczos" and question.num_eigenvalues is None:
        raise ConfigError("engine=lanczos finds the largest eigenvalues; give num_eigenvalues=, or engine=whole for all")
    if engine == "whole":
        return Choice(engine, f"{num_rows:,} rows take {needed:.2f} of {memory_gib:.2f} GiB in one process")
    return Choice(engine, f"{question.num_eigenvalues:,} of {num_rows:,} eigenvalues are asked for; the whole would take {needed:.1f} GiB")


def solve(
    context: Context,
    tiles: Path,
    moved: Mapping[Pair, Path],
    question: Question,
    choice: Choice,
    *,
    ranks_per_node: int,
) -> "dict[str, Array]":
    """Ask the ranks: `eigenvalues` (K,), and numbers by name; the eigenvectors (R, K) are published as a part."""
    import numpy as np

    order = {
        "tiles": str(tiles),
        "moved": [[list(pair), str(path)] for pair, path in moved.items()],
        "question": asdict(question),
        "engine": choice.engine,
    }
    if context.adopt(VECTORS) is None or context.adopt(ANSWER) is None:  # an earlier attempt may have come that far
        status = run_ranks(context, [sys.executable, "-P", "-m", "workers.sharded.solving"], order, ranks_per_node=ranks_per_node)
        if context.adopt(VECTORS) is None or context.adopt(ANSWER) is None:
            raise RuntimeError(f"the ranks of the eigensolve ended with status {status}; the log says why")
    with np.load(context.folder / ANSWER) as found:
        return dict(found)


def answer(context: Context, order: dict[str, Any], rank: int, num_ranks: int) -> None:
    """What one rank does: holds its share of the tiles; the first one asks."""
    from workers.sharded.products import sharded

    tiles = TileSet.load(Path(order["tiles"]), {(pair[0], pair[1]): Path(path) for pair, path in order["moved"]})
    question = Question(**order["question"])
    if order["engine"] == "whole":
        if rank == 0:
            _ask(context, tiles, tiles.whole(), question)
        return
    with sharded(tiles, rank, num_ranks, context.device) as kernel:
        if kernel is not None:
            _ask(context, tiles, kernel, question)


def _ask(context: Context, tiles: TileSet, kernel: "Operator | Array", question: Question) -> None:
    """Find it, and publish it."""
    import numpy as np

    from workers import entk

    value, standard_error = question.error
    error = entk.Estimate(value, standard_error) if value else None
    spectrum = entk.spectrum(kernel, question.num_eigenvalues, error=error)
    numbers = _certified(tiles, spectrum)
    if not spectrum.is_whole:
        density = entk.density(kernel, spectrum, num_probes=question.num_probes)
        for name in ("entropy", "effective_rank"):
            estimate: Estimate = getattr(density, name)
            numbers |= {f"{name}_estimate": estimate.value, f"{name}_standard_error": estimate.standard_error}
    assert spectrum.eigenvectors is not None
    with context.file(VECTORS) as path, path.open("wb") as file:
        np.save(file, spectrum.eigenvectors.cpu().numpy())
    with context.file(ANSWER) as path, path.open("wb") as file:
        np.savez(file, allow_pickle=False, eigenvalues=spectrum.eigenvalues.cpu().numpy(), **{k: np.array(v) for k, v in numbers.items()})


def _certified(tiles: TileSet, spectrum: "Spectrum") -> dict[str, float]:
    """The certificate; traces and norms are those that the tiles' makers have summed."""
    certificate = spectrum.certificate
    names = ("noise_floor", "residual_norm", "trace_error", "frobenius_error", "orthogonality", "asymmetry", "psd")
    numbers = {name: float(getattr(certificate, name)) for name in names}
    if spectrum.is_whole:
        values = spectrum.eigenvalues
        numbers["trace_error"] = abs(float(values.sum()) - tiles.trace) / tiles.trace
        numbers["frobenius_error"] = abs(float(values.square().sum()) - tiles.frobenius**2) / tiles.frobenius**2
    return numbers


if __name__ == "__main__":
    as_rank(answer, Path(sys.argv[1]))
