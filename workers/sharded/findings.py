"""What the first rank finds: eigenvalues, eigenvectors and numbers by name, published for the task."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from workers.context import Context
from workers.sharded.engines import Question

if TYPE_CHECKING:
    import numpy as np

    from workers.entk import Certificate, Density, Estimate, Spectrum

    Array = np.ndarray[Any, Any]

# R rows; K eigenvalues; V eigenvectors, of the largest

ANSWER, VECTORS = "answer.npz", "eigenvectors.npy"
CERTIFICATE = ("noise_floor", "residual_norm", "trace_error", "frobenius_error", "orthogonality", "asymmetry", "psd")


def known_error(question: Question) -> "Estimate | None":
    """Of the kernel; None: only rounding is known."""
    from workers.entk import Estimate

    value, standard_error = question.error
    return Estimate(value, standard_error) if value else None


def estimates(density: "Density") -> dict[str, float]:
    """Entropy and effective rank with their standard errors, by name."""
    found = {"entropy": density.entropy, "effective_rank": density.effective_rank}
    values = {f"{name}_estimate": estimate.value for name, estimate in found.items()}
    return values | {f"{name}_standard_error": estimate.standard_error for name, estimate in found.items()}


def certificate(spectrum: "Spectrum") -> dict[str, float]:
    """The certificate by name."""
    return {name: float(getattr(spectrum.certificate, name)) for name in CERTIFICATE}


def certificate_of(numbers: Sequence[float], question: Question) -> "Certificate":
    """The certificate whose numbers these are, in the order that `certificate` gives them."""
    from workers.entk import Certificate

    named: dict[str, Any] = dict(zip(CERTIFICATE, numbers, strict=True))
    return Certificate(**{**named, "psd": bool(named["psd"])}, kernel_error=known_error(question))


def publish(context: Context, values_K: "Array", vectors_RV: "Array", numbers: Mapping[str, float]) -> None:
    """Give eigenvalues (K,), eigenvectors (R, V) and numbers by name to the task; the eigenvalues last."""
    import numpy as np

    with context.file(VECTORS) as path, path.open("wb") as file:
        np.save(file, vectors_RV)
    with context.file(ANSWER) as path, path.open("wb") as file:
        np.savez(file, allow_pickle=False, eigenvalues=values_K, **{name: np.array(value) for name, value in numbers.items()})
