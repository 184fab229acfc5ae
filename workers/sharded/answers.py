"""What a rank does for the eigenvalues of a tiled kernel: the first one asks, the others multiply, and the answer is certified."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.context import Context
from workers.sharded.engines import Question
from workers.sharded.findings import certificate, estimates, known_error, publish
from workers.sharded.ranks import as_rank
from workers.sharded.resumable import find_largest
from workers.sharded.tiles import TileSet

if TYPE_CHECKING:
    from torch import Tensor

    from workers.entk import Density, Estimate, Operator, Spectrum

# R rows; K eigenvalues; V eigenvectors, of the largest


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
            spectrum, density = find_largest(context, kernel, question, every_seconds=order["every_seconds"])
            _publish(context, tiles, spectrum, density, question)
        if kernel is not None:
            context.log(f"took {kernel.num_products:,} products of the kernel with a vector")


def _publish(context: Context, tiles: TileSet, spectrum: "Spectrum", density: "Density | None", question: Question) -> None:
    """The eigenvalues, with the entropy where some are left out."""
    assert spectrum.eigenvectors is not None
    vectors_RV = spectrum.eigenvectors[:, -question.num_vectors :]
    numbers = _certificate(tiles, spectrum) | ({} if density is None else estimates(density))
    publish(context, spectrum.eigenvalues.cpu().numpy(), vectors_RV.cpu().numpy(), numbers)


def _ask_whole(context: Context, tiles: TileSet, question: Question) -> None:
    """All that is asked by one process; few eigenvectors of all come from Lanczos, for a fifth of what all of them take."""
    import torch

    from workers import entk

    if question.num_eigenvalues is not None or not question.takes_few(tiles.num_rows):
        kernel = tiles.whole()
        spectrum = entk.spectrum(kernel, question.num_eigenvalues, error=known_error(question))
        density = None if spectrum.is_whole else entk.density(kernel, spectrum, num_probes=question.num_probes)
        _publish(context, tiles, spectrum, density, question)
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


def _certificate(tiles: TileSet, spectrum: "Spectrum") -> dict[str, float]:
    """The certificate by name; trace and norm of a whole spectrum against those that the tiles' makers have summed."""
    numbers = certificate(spectrum)
    if spectrum.is_whole:
        values = spectrum.eigenvalues.double()
        numbers["trace_error"] = abs(float(values.sum()) - tiles.trace) / tiles.trace
        numbers["frobenius_error"] = abs(float(values.square().sum()) - tiles.frobenius**2) / tiles.frobenius**2
    return numbers


if __name__ == "__main__":
    as_rank(answer)
