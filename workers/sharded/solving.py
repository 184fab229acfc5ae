"""Eigenvalues of a tiled kernel: which engine, why, and what it has found."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.context import Context
from workers.errors import ConfigError
from workers.sharded import scalapack
from workers.sharded.panels import Pair
from workers.sharded.ranks import as_rank, run_ranks
from workers.sharded.tiles import TileSet

if TYPE_CHECKING:
    import numpy as np

    from workers.entk import Estimate, Operator, Spectrum

    Array = np.ndarray[Any, Any]

# R rows; K eigenvalues; V eigenvectors, of the largest

ENGINES = ("whole", "scalapack", "lanczos")
# the kernel in double precision, its eigenvectors, and what the solver works with
COPIES_WHOLE = 4
# one process is not slower than several up to so many rows
MOST_ROWS_WHOLE = 16384
ANSWER, VECTORS = "answer.npz", "eigenvectors.npy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of a kernel: its `num_eigenvalues` largest (None: all), `num_vectors` of their eigenvectors, and the entropy."""

    num_eigenvalues: int | None
    num_vectors: int
    num_probes: int = 32
    error: "tuple[float, float]" = (0.0, 0.0)  # of the kernel, with its standard error; 0: only rounding is known


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is: ranks in all, memory in GiB of one of them and of one process alone, and why ScaLAPACK cannot run ("": it can)."""

    num_ranks: int
    rank_gib: float
    alone_gib: float
    no_scalapack: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine, and why it and no other."""

    engine: str
    reason: str


def choose(question: Question, num_rows: int, dtype: str, machine: Machine, engine: str = "auto") -> Choice:
    """The engine for a question; ConfigError where none can answer, with what would do.

    "whole": LAPACK in one process, all eigenvalues and vectors. "scalapack": all eigenvalues and some vectors, by MPI ranks. "lanczos":
    the largest by block Lanczos, with products by all ranks, and the entropy by deflated quadrature.
    """
    against = {
        "whole": _against_whole(num_rows, machine),
        "scalapack": _against_scalapack(question, num_rows, dtype, machine),
        "lanczos": "" if question.num_eigenvalues is not None else "it finds the largest eigenvalues, and all are asked for",
    }
    few = question.num_eigenvalues is not None and num_rows >= 1024 and 20 * question.num_eigenvalues <= num_rows
    order = ["lanczos", "whole", "scalapack"] if few else ["whole", "scalapack", "lanczos"]
    if not few and num_rows > MOST_ROWS_WHOLE and machine.num_ranks > 1:
        order = ["scalapack", "whole", "lanczos"]
    for name in order if engine == "auto" else [engine]:
        if not against[name]:
            passed = [f"not {other}: {against[other]}" for other in order[: order.index(name)] if engine == "auto"]
            asked = "all" if question.num_eigenvalues is None else f"the {question.num_eigenvalues:,} largest"
            return Choice(name, "; ".join([f"{asked} of {num_rows:,} eigenvalues", *passed]))
    reasons = "; ".join(f"{name}: {against[name]}" for name in (order if engine == "auto" else [engine]))
    raise ConfigError(f"no engine can find these eigenvalues of {num_rows:,} rows. {reasons}. num_eigenvalues= asks for the largest alone")


def _against_whole(num_rows: int, machine: Machine) -> str:
    needed = COPIES_WHOLE * 8 * num_rows**2 / 2**30
    return "" if needed <= machine.alone_gib else f"one process needs {needed:.1f} GiB, resources.memory_gib leaves {machine.alone_gib:.1f}"


def _against_scalapack(question: Question, num_rows: int, dtype: str, machine: Machine) -> str:
    if machine.no_scalapack:
        return machine.no_scalapack
    needed = scalapack.memory_bytes_needed(num_rows, machine.num_ranks, dtype, question.num_vectors) / 2**30
    if needed <= machine.rank_gib:
        return ""
    return f"each of {machine.num_ranks} ranks needs {needed:.1f} GiB, and {machine.rank_gib:.1f} are there; more nodes need less each"


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
        status = run_ranks(context, answer, order, ranks_per_node=ranks)
        if context.adopt(VECTORS) is None or context.adopt(ANSWER) is None:
            raise RuntimeError(f"the ranks of the eigensolve ended with status {status}; the log says why")
    with np.load(context.folder / ANSWER) as found:
        return dict(found)


def _by_scalapack(context: Context, tiles: TileSet, question: Question, ranks_per_node: int) -> list[str]:
    """Files of all eigenvalues and of the eigenvectors, which the ranks then certify."""
    import numpy as np

    folder, nodes = context.folder / "scalapack", context.nodes
    solved = scalapack.solve(
        tiles,
        ranks=len(nodes) * ranks_per_node,
        folder=folder,
        vectors=question.num_vectors,
        nodes=nodes if len(nodes) > 1 else (),
        stopping=lambda: context.stopping,
    )
    context.log(f"{solved.library}: {solved.cpu_seconds:.1f} core-seconds, no rank held more than {solved.memory_bytes / 2**30:.2f} GiB")
    values = folder / "values.npy"
    np.save(values, solved.eigenvalues_R)
    return [str(values), str(solved.vectors)]


def answer(context: Context, order: dict[str, Any], rank: int, num_ranks: int) -> None:
    """What one rank does: holds its share of the tiles; the first one asks, and publishes what it finds."""
    from workers.sharded.products import sharded

    tiles = TileSet.load(Path(order["tiles"]), {(pair[0], pair[1]): Path(path) for pair, path in order["moved"]})
    question = Question(**order["question"])
    if order["engine"] == "whole":
        if rank == 0:
            _ask(context, tiles, tiles.whole(), question)
        return
    with sharded(tiles, rank, num_ranks, context.device) as kernel:
        if kernel is not None and "solved" in order:
            _certify(context, tiles, kernel, question, *map(Path, order["solved"]))
        elif kernel is not None:
            _ask(context, tiles, kernel, question)


def _error(question: Question) -> "Estimate | None":
    from workers.entk import Estimate

    value, standard_error = question.error
    return Estimate(value, standard_error) if value else None


def _ask(context: Context, tiles: TileSet, kernel: "Operator | Array", question: Question) -> None:
    """Find the spectrum of a whole matrix, or by Lanczos that of an operator, with the entropy of what is left."""
    from workers import entk

    spectrum = entk.spectrum(kernel, question.num_eigenvalues, error=_error(question))
    numbers: dict[str, float] = {}
    if not spectrum.is_whole:
        density = entk.density(kernel, spectrum, num_probes=question.num_probes)
        for name in ("entropy", "effective_rank"):
            estimate: Estimate = getattr(density, name)
            numbers |= {f"{name}_estimate": estimate.value, f"{name}_standard_error": estimate.standard_error}
    assert spectrum.eigenvectors is not None
    vectors_RV = spectrum.eigenvectors[:, -question.num_vectors :]
    _publish(context, spectrum.eigenvalues.cpu().numpy(), vectors_RV.cpu().numpy(), _certificate(tiles, spectrum) | numbers)


def _certify(context: Context, tiles: TileSet, kernel: "Operator", question: Question, values: Path, vectors: Path) -> None:
    """What eigenvalues and vectors of another solver are worth: residuals and orthogonality, by products with the tiles."""
    import numpy as np
    import torch

    from workers.entk import Spectrum, certificates

    values_R, vectors_RV = torch.from_numpy(np.load(values)), torch.from_numpy(np.load(vectors))
    largest, error = float(values_R[-1]), _error(question)
    certificates.refuse_negative(kernel, float(values_R[0]), largest, error)
    pairs = certificates.certify(
        kernel,
        values_R[-vectors_RV.shape[1] :],
        vectors_RV.double(),
        smallest=float(values_R[0]),
        asymmetry=certificates.asymmetry(kernel),
        error=error,
    )
    spectrum = Spectrum(eigenvalues=values_R, eigenvectors=vectors_RV, certificate=pairs, num_rows=len(values_R))
    _publish(context, values_R.numpy(), vectors_RV.numpy(), _certificate(tiles, spectrum))


def _certificate(tiles: TileSet, spectrum: "Spectrum") -> dict[str, float]:
    """The certificate by name; trace and norm of a whole spectrum against those that the tiles' makers have summed."""
    names = ("noise_floor", "residual_norm", "trace_error", "frobenius_error", "orthogonality", "asymmetry", "psd")
    numbers = {name: float(getattr(spectrum.certificate, name)) for name in names}
    if spectrum.is_whole:
        values = spectrum.eigenvalues.double()
        numbers["trace_error"] = abs(float(values.sum()) - tiles.trace) / tiles.trace
        numbers["frobenius_error"] = abs(float(values.square().sum()) - tiles.frobenius**2) / tiles.frobenius**2
    return numbers


def _publish(context: Context, values_K: "Array", vectors_RV: "Array", numbers: Mapping[str, float]) -> None:
    import numpy as np

    with context.file(VECTORS) as path, path.open("wb") as file:
        np.save(file, vectors_RV)
    with context.file(ANSWER) as path, path.open("wb") as file:
        np.savez(file, allow_pickle=False, eigenvalues=values_K, **{name: np.array(value) for name, value in numbers.items()})


if __name__ == "__main__":
    as_rank(answer)
