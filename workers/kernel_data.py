"""A kernel matrix as the observables see it, in NumPy and float64 (torch tensors are taken too): their parts, and all of them at once."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from workers.errors import ConfigError, Diverged
from workers.spectrum_data import SpectrumData, call, observables, ratio

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from workers.entk import Spectrum

    Array = np.ndarray[Any, Any]
    Kernel = Array | Tensor

# R rows of a kernel: N C of the full one, N of the traced one (D1); N units; C outputs; S columns: 1 beside the full kernel, C beside
# the traced one; A classes


# -- what observables take ----------------------------------------------------------------------------------------------------


def float64(array: "Kernel") -> "Array":
    """An array or a tensor on any device as a NumPy array in float64."""
    import numpy as np

    return np.asarray(_host(array), dtype=np.float64)


def rounding(array: "Kernel") -> float:
    """The relative rounding error of an array's own dtype."""
    import numpy as np

    dtype = np.asarray(_host(array)).dtype
    return float(np.finfo(dtype if dtype.kind == "f" else np.float64).eps)


def square(kernel_RR: "Kernel") -> "Array":
    """A kernel matrix (R, R) in float64; ConfigError where it is not square, Diverged where it is not finite."""
    import numpy as np

    matrix = float64(kernel_RR)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not len(matrix):
        raise ConfigError(f"a kernel must be a square matrix, got the shape {matrix.shape}; a full kernel (N, N, C, C) becomes (N C, N C)")
    if not np.isfinite(matrix).all():
        raise Diverged(f"the kernel has {int((~np.isfinite(matrix)).sum())} entries that are no numbers; the network behind it diverged")
    return matrix


def pair(reference_RR: "Kernel", kernel_RR: "Kernel") -> "tuple[Array, Array]":
    """Two kernels of equal shape; ConfigError where they have not."""
    first_RR, second_RR = square(reference_RR), square(kernel_RR)
    if first_RR.shape != second_RR.shape:
        raise ConfigError(f"two kernels must be on the same units and outputs, got the shapes {first_RR.shape} and {second_RR.shape}")
    return first_RR, second_RR


def columns(kernel_RR: "Kernel", values_NC: "Kernel") -> "Array":
    """Values (N, C) as columns (R, S) beside the rows of a kernel: one of all N C for the full kernel, C of N for the traced one."""
    values, size = float64(values_NC), len(kernel_RR)
    if values.ndim != 2 or size not in (len(values), values.size):
        raise ConfigError(
            f"values beside a kernel of {size} rows must be (N, C) with N or N C equal to that, got the shape {values.shape}; "
            "take both from the same units, all of them along one axis"
        )
    return values.reshape(size, -1)


def _host(array: "Kernel") -> Any:
    return array.detach().cpu() if hasattr(array, "detach") else array


# -- what they are made of ----------------------------------------------------------------------------------------------------


def spectrum_of(kernel_RR: "Kernel", residuals_NC: "Kernel | None" = None, *, precision: float | None = None) -> SpectrumData:
    """The spectrum of a kernel matrix, with weights of the residual (NaN without one), for the observables of a spectrum.

    The noise floor is the rounding error of the kernel in its own dtype, or in one of the relative `precision`. Without a residual,
    each row counts as a unit of one output.
    """
    import numpy as np

    matrix = square(kernel_RR)
    num_units, num_outputs, weights_R = len(matrix), 1, np.full(len(matrix), np.nan)
    if residuals_NC is None:
        values_R = np.linalg.eigvalsh(matrix)
    else:
        residual_RS, (num_units, num_outputs) = columns(matrix, residuals_NC), residuals_NC.shape
        values_R, vectors_RR = np.linalg.eigh(matrix)
        weights_R = ((vectors_RR.T @ residual_RS) ** 2).sum(1) * ratio(1.0, (residual_RS**2).sum())
    return SpectrumData(
        eigenvalues_K=values_R,
        weights_K=weights_R,
        noise_floor=len(matrix) * (rounding(kernel_RR) if precision is None else precision) * float(np.abs(values_R).max()),
        num_units=num_units,
        num_outputs=num_outputs,
        num_rows=len(matrix),
    )


def of_spectrum(found: "Spectrum", residuals_NC: "Kernel | None" = None) -> SpectrumData:
    """What `entk.spectrum` found, with its own noise floor, for the observables of a spectrum; the rest as of `spectrum_of`.

    With a residual it needs its eigenvectors, else ConfigError.
    """
    import numpy as np

    num_units, num_outputs, weights_K = found.num_rows, 1, np.full(len(found.eigenvalues), np.nan)
    if residuals_NC is not None:
        columns(np.empty(found.num_rows), residuals_NC)
        (num_units, num_outputs), weights_K = residuals_NC.shape, float64(found.weights(residuals_NC))
    return SpectrumData(
        eigenvalues_K=float64(found.eigenvalues),
        weights_K=weights_K,
        noise_floor=found.noise_floor,
        num_units=num_units,
        num_outputs=num_outputs,
        num_rows=found.num_rows,
    )


def magnitudes(kernel_RR: "Kernel") -> "Array":
    """sqrt(Theta_ii) (R,), the norms of the outputs' gradients; divided by their sum, papyrus' NTKMagnitudeDistribution."""
    import numpy as np

    # a diagonal that rounding has made negative is one of no gradient
    return np.asarray(np.sqrt(np.maximum(square(kernel_RR).diagonal(), 0.0)))


def cosine_kernel(kernel_RR: "Kernel") -> "Array":
    """Theta_ij / sqrt(Theta_ii Theta_jj) (R, R), 0 in the rows without gradient (ZnNL's covariance kernel)."""
    import numpy as np

    norms_R = magnitudes(kernel_RR)
    inverse_R = np.divide(1.0, norms_R, out=np.zeros_like(norms_R), where=norms_R > 0.0)
    return np.asarray(square(kernel_RR) * inverse_R[:, None] * inverse_R)


def centred(kernel_RR: "Kernel") -> "Array":
    """H Theta H (R, R), H = 1 - 11^T / R."""
    import numpy as np

    matrix = square(kernel_RR)
    means_R = matrix.mean(0)
    return np.asarray(matrix - means_R - matrix.mean(1)[:, None] + means_R.mean())


def traced(full_RR: "Kernel", num_outputs: int) -> "Array":
    """The mean over outputs (N, N) of a full kernel with rows n C + c (D1)."""
    import numpy as np

    num_units = len(full_RR) // num_outputs
    return np.asarray(np.einsum("ncmc->nm", square(full_RR).reshape(num_units, num_outputs, num_units, num_outputs)) / num_outputs)


def loss_kernel(full_RR: "Kernel", residuals_NC: "Kernel") -> "Array":
    """Lambda_nm = u_n^T Theta_nm u_m (N, N), the products of the units' loss gradients; ||grad L||^2 is its sum over N^2."""
    import numpy as np

    residuals = float64(residuals_NC)
    if residuals.ndim != 2 or residuals.size != len(full_RR):
        raise ConfigError(
            f"the loss kernel needs the full kernel, of N C rows for residuals of shape (N, C); got {len(full_RR)} rows and "
            f"the shape {residuals.shape}"
        )
    num_units, num_outputs = residuals.shape
    blocks = square(full_RR).reshape(num_units, num_outputs, num_units, num_outputs)
    return np.asarray(np.einsum("nmd,md->nm", np.einsum("nc,ncmd->nmd", residuals, blocks), residuals))


def class_averaged(traced_NN: "Kernel", labels_N: "Kernel") -> "Array":
    """The kernel (A, A) between the mean gradients of the classes that are there, in the order of their labels."""
    import numpy as np

    labels = _labels(traced_NN, labels_N)
    member_AN = (np.unique(labels)[:, None] == labels).astype(np.float64)
    member_AN /= member_AN.sum(1, keepdims=True)
    return np.asarray(member_AN @ square(traced_NN) @ member_AN.T)


def class_entropies(
    traced_NN: "Kernel", labels_N: "Kernel", first: Collection[int], second: Collection[int]
) -> tuple[float, float, float, float]:
    """Von Neumann entropies of the kernels of two groups of classes and of both together, and the first's share of the trace."""
    import numpy as np

    from workers.observables.entropy import entropy

    matrix, labels, precision = square(traced_NN), _labels(traced_NN, labels_N), rounding(traced_NN)
    groups = [np.flatnonzero(np.isin(labels, list(group))) for group in (first, second)]
    if not all(map(len, groups)):
        known = ", ".join(map(str, np.unique(labels).tolist()))
        raise ConfigError(f"no unit has a label in {list(first if not len(groups[0]) else second)}; there are {known}")
    parts = [matrix[np.ix_(index, index)] for index in (*groups, np.concatenate(groups))]
    of_first, of_second, of_both = (entropy(spectrum_of(part, precision=precision)) for part in parts)
    return of_first, of_second, of_both, ratio(parts[0].trace(), parts[2].trace())


def alignment_with(kernel_RR: "Kernel", values_NC: "Kernel", *, centre: bool = False) -> float:
    """<K, Z Z^T> / (||K|| ||Z Z^T||) with Z the columns (R, S) of values, their means over rows taken off with `centre`; NaN for no Z."""
    import numpy as np

    matrix, values_RS = square(kernel_RR), columns(kernel_RR, values_NC)
    if centre:
        values_RS = values_RS - values_RS.mean(0)
    norms = np.linalg.norm(matrix) * np.linalg.norm(values_RS.T @ values_RS)
    return ratio(np.vdot(values_RS, matrix @ values_RS), norms)


def position_of(kernel_RR: "Kernel", values_NC: "Kernel") -> float:
    """tr(Z^T K Z) / (||Z||^2 tr K) with Z the columns (R, S) of values; NaN for no Z."""
    import numpy as np

    matrix, values_RS = square(kernel_RR), columns(kernel_RR, values_NC)
    return ratio(np.vdot(values_RS, matrix @ values_RS), (values_RS**2).sum() * matrix.trace())


def unbiased_hsic(first_RR: "Array", second_RR: "Array") -> float:
    """HSIC_1 of two kernels of at least four rows (Song et al. 2012, equation 5): its mean over data sets is exactly HSIC."""
    import numpy as np

    size = len(first_RR)
    first, second = (matrix - np.diag(matrix.diagonal()) for matrix in (first_RR, second_RR))
    products = float(np.vdot(first, second))
    sums = float(first.sum() * second.sum()) / ((size - 1) * (size - 2))
    rows = 2.0 * float(first.sum(0) @ second.sum(0)) / (size - 2)
    return (products + sums - rows) / (size * (size - 3))


def largest_eigenvectors(kernel_RR: "Array", num: int) -> "Array":
    """Eigenvectors (R, num) of the largest eigenvalues of a symmetric matrix."""
    import numpy as np
    from scipy import linalg

    size = len(kernel_RR)
    return np.asarray(linalg.eigh(kernel_RR, subset_by_index=(size - num, size - 1))[1])


def drift(reference_RR: "Kernel", kernel_RR: "Kernel") -> "Array":
    """Theta_0 Theta_t / (tr Theta_0 tr Theta_t) (R, R)."""
    import numpy as np

    first_RR, second_RR = pair(reference_RR, kernel_RR)
    return np.asarray(first_RR @ second_RR * ratio(1.0, first_RR.trace() * second_RR.trace()))


def _labels(traced_NN: "Kernel", labels_N: "Kernel") -> "Array":
    import numpy as np

    labels = np.asarray(_host(labels_N))
    if labels.shape != (len(traced_NN),):
        raise ConfigError(
            f"classes need the traced kernel, with one label for each of its {len(traced_NN)} rows, got labels of shape {labels.shape}"
        )
    return labels


# -- all of them at once ------------------------------------------------------------------------------------------------------


def observe_kernel(
    kernel_RR: "Kernel",
    residuals_NC: "Kernel",
    targets_NC: "Kernel | None" = None,
    labels_N: "Kernel | None" = None,
    *,
    without: Collection[str] = (),
) -> dict[str, float]:
    """All observables of a full (N C rows) or a traced kernel (N rows) that need no more than what is given, but those in `without`.

    Those of the traced kernel are named `<observable>_traced` where C > 1 (D1). `cosine_entropy` alone costs the third power of the rows.
    """
    rows, num_units = columns(kernel_RR, residuals_NC), len(residuals_NC)
    kernels = {"kernel_RR": kernel_RR}
    kernels |= {"full_RR": kernel_RR} if rows.size == len(rows) else {}
    kernels |= {"traced_NN": kernel_RR} if num_units == len(rows) else {}
    values = {"residuals_NC": residuals_NC, "targets_NC": targets_NC, "labels_N": labels_N}
    inputs = kernels | {name: value for name, value in values.items() if value is not None}
    is_traced = "full_RR" not in kernels
    no_kernel = observables(*values)
    return {
        f"{name}_traced" if is_traced and name not in no_kernel else name: call(function, inputs)
        for name, function in observables(*inputs).items()
        if name not in without
    }


def observe_pair(reference_RR: "Kernel", kernel_RR: "Kernel", **others: Any) -> dict[str, float]:
    """All observables of two kernels that need nothing more than `others` (such as `num_steps`)."""
    inputs = {"reference_RR": reference_RR, "kernel_RR": kernel_RR, **others}
    of_one = observables("kernel_RR", *others)
    return {name: call(function, inputs) for name, function in observables(*inputs).items() if name not in of_one}
