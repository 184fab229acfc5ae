"""A symmetric eigendecomposition with its certificate, and the residual's part along each eigenvector."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workers.errors import Diverged

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

# R rows of the kernel; K eigenvalues; N units; C outputs


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Eigen:
    """Eigenvalues (R,) ascending and eigenvectors (R, R) in columns, with what certifies them (all in float64).

    `noise_floor`: eigenvalues up to it are rounding errors. `residual_norm`: ||Theta Q - Q Lambda|| / ||Theta||. `trace_error`,
    `frobenius_error`: of sum lambda against the trace and sum lambda^2 against the squared norm, relative. `orthogonality`:
    ||Q^T Q - 1||. `asymmetry`: ||Theta - Theta^T|| / ||Theta||. `psd`: no eigenvalue is below minus the noise floor. Norms are Frobenius'.
    """

    eigenvalues: "Array"
    eigenvectors: "Array"
    noise_floor: float
    residual_norm: float
    trace_error: float
    frobenius_error: float
    orthogonality: float
    asymmetry: float
    psd: bool


def eigen(gram_RR: "Array") -> Eigen:
    """All eigenpairs of a kernel matrix in float64; Diverged where it is not finite or the solver fails."""
    import numpy as np

    matrix = gram_RR.astype(np.float64)
    if not np.isfinite(matrix).all():
        raise Diverged(f"the kernel has {int((~np.isfinite(matrix)).sum())} entries that are no numbers; the network behind it diverged")
    try:
        values, vectors = np.linalg.eigh(matrix)
    except np.linalg.LinAlgError as error:
        raise Diverged(f"the eigensolver did not converge: {error}") from error
    # rounding of a kernel in its own dtype, as numpy.linalg.matrix_rank has it
    noise_floor = float(len(matrix) * np.finfo(gram_RR.dtype).eps * np.abs(values).max())
    norm = float(np.linalg.norm(matrix)) or 1.0
    return Eigen(
        eigenvalues=values,
        eigenvectors=vectors,
        noise_floor=noise_floor,
        residual_norm=float(np.linalg.norm(matrix @ vectors - vectors * values)) / norm,
        trace_error=abs(float(values.sum() - np.trace(matrix))) / (float(np.trace(matrix)) or 1.0),
        frobenius_error=abs(float((values**2).sum()) - norm**2) / norm**2,
        orthogonality=float(np.linalg.norm(vectors.T @ vectors - np.eye(len(matrix)))),
        asymmetry=float(np.linalg.norm(matrix - matrix.T)) / norm,
        psd=bool(values.min() >= -noise_floor),
    )


def residual_weights(eigenvectors_RK: "Array", residual_NC: "Array") -> "Array":
    """gamma_k^2 (K,): the fraction of the squared residual along each eigenvector (D1, D3); NaN where there is no residual.

    For a full kernel R = N C; for a traced one R = N, and the squares are summed over outputs.
    """
    import numpy as np

    residual_RS = residual_NC.astype(np.float64).reshape(len(eigenvectors_RK), -1)
    total = float((residual_RS**2).sum())
    if total == 0.0:
        return np.full(eigenvectors_RK.shape[1], np.nan)
    return np.asarray(((eigenvectors_RK.T @ residual_RS) ** 2).sum(1) / total)
