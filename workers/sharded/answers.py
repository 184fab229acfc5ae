"""What a rank does for the eigenvalues of a tiled kernel: the first one asks, the others multiply, and the answer is certified."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.context import Context
from workers.sharded.engines import Question
from workers.sharded.ranks import as_rank
from workers.sharded.tiles import TileSet

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from workers.entk import Density, Estimate, Operator, Spectrum

    Array = np.ndarray[Any, Any]

# R rows; K eigenvalues; V eigenvectors, of the largest

ANSWER, VECTORS = "answer.npz", "eigenvectors.npy"


def answer(context: Context, order: dict[str, Any], rank: int, num_ranks: int) -> None:
    """What one rank does: holds its share of the tiles; the first one asks, and publishes what it finds."""
    from workers.sharded.products import sharded

    tiles = TileSet.load(Path(order["tiles"]), {(pair[0], pair[1]): Path(path) for pair, path in order["moved"]})
    question = Question(**order["question"])
    if order["engine"] == "whole":
        if rank == 0:
            _ask_whole(context, tiles, question)
        return
    with sharded(tiles, rank, num_ranks, context.device) as kernel:
        if kernel is not None and "solved" in order:
            _certify(context, tiles, kernel, question, tiles.dtype, *map(_loaded, order["solved"]))
        elif kernel is not None:
            _ask(context, tiles, kernel, question)
        if kernel is not None:
            context.log(f"took {kernel.num_products:,} products of the kernel with a vector")


def known_error(question: Question) -> "Estimate | None":
    """Of the kernel; None: only rounding is known."""
    from workers.entk import Estimate

    value, standard_error = question.error
    return Estimate(value, standard_error) if value else None


def _ask(context: Context, tiles: TileSet, kernel: "Operator | Array", question: Question) -> None:
    """Find the spectrum of a whole matrix, or by Lanczos that of an operator, with the entropy of what is left."""
    from workers import entk

    spectrum = entk.spectrum(kernel, question.num_eigenvalues, error=known_error(question))
    numbers: dict[str, float] = {}
    if not spectrum.is_whole:
        numbers = estimates(entk.density(kernel, spectrum, num_probes=question.num_probes))
    assert spectrum.eigenvectors is not None
    vectors_RV = spectrum.eigenvectors[:, -question.num_vectors :]
    publish(context, spectrum.eigenvalues.cpu().numpy(), vectors_RV.cpu().numpy(), _certificate(tiles, spectrum) | numbers)


def _ask_whole(context: Context, tiles: TileSet, question: Question) -> None:
    """As `_ask`; all eigenvalues with few eigenvectors by LAPACK and Lanczos, for a fifth of what all eigenvectors take."""
    import torch

    if question.num_eigenvalues is not None or not question.takes_few(tiles.num_rows):
        _ask(context, tiles, tiles.whole(), question)
        return
    kernel_RR = torch.from_numpy(tiles.whole())
    _certify(context, tiles, kernel_RR, question, "float64", torch.linalg.eigvalsh(kernel_RR.double()))


def _loaded(path: str) -> "Tensor":
    import numpy as np
    import torch

    return torch.from_numpy(np.load(path))


def _certify(
    context: Context,
    tiles: TileSet,
    kernel: "Operator",
    question: Question,
    precision: str,
    values_R: "Tensor",
    vectors_RV: "Tensor | None" = None,
) -> None:
    """What all eigenvalues of another solver are worth, with its vectors or Lanczos's: residuals and orthogonality, by products."""
    from workers import entk
    from workers.entk import Spectrum, certificates

    if vectors_RV is None:
        vectors_RV = entk.spectrum(kernel, question.num_vectors, error=known_error(question)).eigenvectors
        assert vectors_RV is not None
    largest = float(values_R[-1])
    error = _with_rounding(known_error(question), precision, len(values_R), largest)
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
    publish(context, values_R.numpy(), vectors_RV.numpy(), _certificate(tiles, spectrum))


def _with_rounding(error: "Estimate | None", precision: str, num_rows: int, largest: float) -> "Estimate | None":
    """A kernel's error, but not less than what a solver in this precision rounds: sqrt(R) x eps x the largest eigenvalue.

    Rounding errors are random rather than all of one sign (Higham and Mary, SIAM J. Sci. Comput. 41, 2019).
    """
    import numpy as np

    from workers.entk import Estimate

    rounding = num_rows**0.5 * float(np.finfo(precision).eps) * largest
    return None if error is None else Estimate(max(error.value, rounding), error.standard_error)


def estimates(density: "Density") -> dict[str, float]:
    """Entropy and effective rank with their standard errors, by name."""
    found = {"entropy": density.entropy, "effective_rank": density.effective_rank}
    values = {f"{name}_estimate": estimate.value for name, estimate in found.items()}
    return values | {f"{name}_standard_error": estimate.standard_error for name, estimate in found.items()}


def certificate(spectrum: "Spectrum") -> dict[str, float]:
    """The certificate by name."""
    names = ("noise_floor", "residual_norm", "trace_error", "frobenius_error", "orthogonality", "asymmetry", "psd")
    return {name: float(getattr(spectrum.certificate, name)) for name in names}


def _certificate(tiles: TileSet, spectrum: "Spectrum") -> dict[str, float]:
    """The certificate by name; trace and norm of a whole spectrum against those that the tiles' makers have summed."""
    numbers = certificate(spectrum)
    if spectrum.is_whole:
        values = spectrum.eigenvalues.double()
        numbers["trace_error"] = abs(float(values.sum()) - tiles.trace) / tiles.trace
        numbers["frobenius_error"] = abs(float(values.square().sum()) - tiles.frobenius**2) / tiles.frobenius**2
    return numbers


def publish(context: Context, values_K: "Array", vectors_RV: "Array", numbers: Mapping[str, float]) -> None:
    """Give eigenvalues (K,), eigenvectors (R, V) and numbers by name to the task."""
    import numpy as np

    with context.file(VECTORS) as path, path.open("wb") as file:
        np.save(file, vectors_RV)
    with context.file(ANSWER) as path, path.open("wb") as file:
        np.savez(file, allow_pickle=False, eigenvalues=values_K, **{name: np.array(value) for name, value in numbers.items()})


if __name__ == "__main__":
    as_rank(answer)
